//! Chat templates: in `tokenizer_config.json`, and in a file of their own.

use std::{fs, path::Path};

use l1ra_models::{ChatTemplate, Message, Role};
use serde_json::{Value, json};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, repository, run, run_crafted},
};

const CONFIG: &str = "tokenizer_config.json";
const FILE: &str = "chat_template.jinja";

fn load(dir: &Path) -> Outcome {
    let Some(template) = ChatTemplate::from_dir(dir)? else {
        return Ok(());
    };
    let messages = [
        Message::new(Role::System, "Be brief."),
        Message::new(Role::User, "Who wrote <b>Emma</b>?"),
        Message::new(Role::Assistant, "Jane Austen.\n"),
    ];
    let _ = template.parts().count();
    template.render(&messages[..2], true)?;
    template.render(&messages, false)?;
    Ok(())
}

/// Templates that say what those of published models say.
fn templates() -> Vec<String> {
    let text = fs::read(repository("tests/fixtures/chat.json")).unwrap();
    let mut found = Vec::new();
    collect(&serde_json::from_slice(&text).unwrap(), &mut found);
    assert!(found.len() > 3, "{} templates", found.len());
    found
}

/// Every text that is a template, wherever it is.
fn collect(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::String(text) if text.contains("{%") => found.push(text.clone()),
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        Value::Object(entries) => entries.values().for_each(|value| collect(value, found)),
        _ => {}
    }
}

fn config(template: &str) -> String {
    json!({"bos_token": "<s>", "eos_token": {"content": "</s>"}, "chat_template": template})
        .to_string()
}

fn format() -> Format {
    let mut format = Format::new("template", load);
    // A parsed template is a tree and a list of instructions. Rendering has fuel for 32 MB of texts,
    // and the last of them may be there twice.
    format.factor = 400;
    format.allowance = 48 << 20;
    format.inputs = 1500;
    let seeds = templates().into_iter().flat_map(|template| {
        [
            Seed::new(Shell::Text, CONFIG, config(&template)),
            Seed::new(Shell::Text, FILE, template).beside(CONFIG, config("")),
        ]
    });
    format.seeds = seeds.collect();
    format.seeds.retain(|seed| {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(&seed.name), &seed.bytes).unwrap();
        load(dir.path()).is_ok()
    });
    assert!(
        format.seeds.len() > 3,
        "{} templates render",
        format.seeds.len()
    );
    format
}

#[test]
fn template() {
    run(format);
}

fn crafted() -> Crafted {
    let jinja = |text: &str| Seed::new(Shell::Text, FILE, text);
    let twice = |grow: &str| {
        jinja(&format!(
            "{{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}}{{% for i in range(60) %}}\
             {{% set ns.x = {grow} %}}{{% endfor %}}{{{{ ns.x|length }}}}"
        ))
    };
    let lists = |after: &str| {
        jinja(&format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(60) %}}\
             {{% set ns.x = [ns.x, ns.x] %}}{{% endfor %}}{after}"
        ))
    };
    let deep = |after: &str| {
        jinja(&format!(
            "{{% set ns = namespace(x=[1]) %}}{{% for i in range(90000) %}}\
             {{% set ns.x = [ns.x] %}}{{% endfor %}}{after}"
        ))
    };
    (
        format(),
        vec![
            ("a text that doubles", twice("ns.x ~ ns.x")),
            ("a text that is added to itself", twice("ns.x + ns.x")),
            ("a text that is joined", twice("[ns.x, ns.x]|join('')")),
            ("a text that is replaced", twice("ns.x.replace('a', 'aa')")),
            ("a text that is split", twice("ns.x.rsplit('a')|join('aa')")),
            (
                "a text that is formatted",
                twice("'%s%s'|format(ns.x, ns.x)"),
            ),
            ("a long text", jinja("{{ 'a' * 10000000000 }}")),
            ("a wide text", jinja("{{ '%1000000000d'|format(1) }}")),
            ("a wide indent", jinja("{{ 'a\\nb'|indent(1000000000) }}")),
            ("a centred text", jinja("{{ 'a'|center(1000000000) }}")),
            ("a long range", jinja("{{ range(1000000000)|list|length }}")),
            ("lists of themselves", lists("{{ ns.x|length }}")),
            ("lists of themselves, printed", lists("{{ ns.x }}")),
            ("lists of themselves, as JSON", lists("{{ ns.x|tojson }}")),
            (
                "lists of themselves, as sorted JSON",
                lists("{{ ns.x|tojson(sort_keys=true) }}"),
            ),
            ("lists of themselves, compared", lists("{{ ns.x == ns.x }}")),
            ("a deep list", deep("")),
            ("a deep list, printed", deep("{{ ns.x }}")),
            ("a deep list, as JSON", deep("{{ ns.x|tojson }}")),
            ("a deep list, compared", deep("{{ ns.x == ns.x }}")),
            (
                "a macro that calls itself",
                jinja("{% macro a() %}{{ a() }}{{ a() }}{% endmacro %}{{ a() }}"),
            ),
            (
                "a loop within loops",
                jinja(
                    "{% for a in range(99999) %}{% for b in range(99999) %}\
                     {% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
                ),
            ),
            (
                "a long sum",
                jinja(&format!("{{{{ {}1 }}}}", "1+".repeat(100_000))),
            ),
            (
                "a long concatenation",
                jinja(&format!("{{{{ {}1 }}}}", "1~".repeat(100_000))),
            ),
            (
                "many filters",
                jinja(&format!("{{{{ a{} }}}}", "|e".repeat(100_000))),
            ),
            (
                "many attributes",
                jinja(&format!("{{{{ a{} }}}}", ".b".repeat(100_000))),
            ),
            (
                "many subscripts",
                jinja(&format!("{{{{ a{} }}}}", "[0]".repeat(100_000))),
            ),
            (
                "many calls",
                jinja(&format!("{{{{ a{} }}}}", "()".repeat(100_000))),
            ),
            (
                "many conditions",
                jinja(&format!("{{{{ {}1 }}}}", "1 and ".repeat(100_000))),
            ),
            (
                "many elif",
                jinja(&format!(
                    "{{% if a %}}{}{{% endif %}}",
                    "{% elif a %}".repeat(20_000)
                )),
            ),
            (
                "many else",
                jinja(&format!("{{{{ {}1 }}}}", "1 if a else ".repeat(20_000))),
            ),
            ("nested conditions", jinja(&"{% if a %}".repeat(50_000))),
            (
                "nested brackets",
                jinja(&format!("{{{{ {}", "(".repeat(100_000))),
            ),
            (
                "nested lists",
                jinja(&format!("{{{{ {}", "[".repeat(100_000))),
            ),
            (
                "nested minus signs",
                jinja(&format!("{{{{ {}1 }}}}", "-".repeat(100_000))),
            ),
            (
                "nested not",
                jinja(&format!("{{{{ {}1 }}}}", "not ".repeat(100_000))),
            ),
            (
                "many tags with a generation",
                jinja(&format!("generation{}", "{{}}".repeat(60_000))),
            ),
            (
                "a negation that overflows",
                jinja("{{ -(-170141183460469231731687303715884105727 - 1) }}"),
            ),
            (
                "a template that includes itself",
                jinja("{% include '<string>' %}"),
            ),
            (
                "a template that extends itself",
                jinja("{% extends '<string>' %}"),
            ),
            ("a long text of blanks", jinja(&" ".repeat(1_000_000))),
            (
                "a list of templates",
                Seed::new(
                    Shell::Text,
                    CONFIG,
                    format!("{{\"a\": [{}0]}}", "0,".repeat(500_000)),
                ),
            ),
        ],
    )
}

#[test]
fn template_crafted() {
    run_crafted(crafted);
}

#[test]
fn template_lists_as_texts() {
    let lists = "{% set ns = namespace(x=[1]) %}{% for i in range(60) %}\
                 {% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    let crafted = ["{{ ns.x|string }}", "{{ ns.x ~ '' }}", "{{ ns.x|upper }}"].map(|after| {
        (
            "lists of themselves",
            Seed::new(Shell::Text, FILE, format!("{lists}{after}")),
        )
    });
    run_crafted(|| (format(), crafted.into()));
}
