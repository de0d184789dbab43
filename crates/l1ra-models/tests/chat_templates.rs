//! Chat templates render as Jinja2 renders them in transformers, to the byte, and refuse what it
//! refuses, with the same words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};

use l1ra_models::{ChatTemplate, Message, Role, TextTokenizer};
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn cases(path: &Path) -> Vec<Value> {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap()
}

/// Puts today's date where the recorded text says `(strftime_now …)`.
fn dated(recorded: &str) -> String {
    let Some((before, rest)) = recorded.split_once("(strftime_now ") else {
        return recorded.into();
    };
    let (format, after) = rest.split_once(')').unwrap();
    let today = ChatTemplate::new(format!("{{{{ strftime_now('{format}') }}}}"), "", "").unwrap();
    let today = today.render(&[], false).unwrap();
    format!("{before}{today}{}", dated(after))
}

/// How a template's conversations came out.
#[derive(Default)]
struct Outcome {
    same: usize,
    refused: usize,
    lenient: usize,
    wrong: Vec<String>,
}

impl Outcome {
    /// Renders every conversation of `case` with `source`; `words` says whether a refusal must have
    /// the recorded words.
    fn compare(&mut self, case: &Value, source: &str, words: bool) {
        let name = text(case, "name");
        let (bos, eos) = (text(case, "bos_token"), text(case, "eos_token"));
        let template = match ChatTemplate::new(source, bos, eos) {
            Ok(template) => template,
            Err(error) => return self.wrong.push(format!("{name}: {error}")),
        };
        for rendered in case["rendered"].as_array().unwrap() {
            let messages: Vec<Message> =
                serde_json::from_value(rendered["messages"].clone()).unwrap();
            let prompt = rendered["add_generation_prompt"].as_bool().unwrap();
            let seen = template.render(&messages, prompt);
            match (seen, rendered["text"].as_str()) {
                // Midnight may pass between the two.
                (Ok(seen), Some(wanted))
                    if seen == dated(wanted)
                        || template.render(&messages, prompt).unwrap() == dated(wanted) =>
                {
                    self.same += 1;
                }
                // Jinja2 refuses to go through none; minijinja finds nothing there.
                (Ok(_), None) if text(rendered, "error").contains("'NoneType'") => {
                    self.lenient += 1;
                }
                (Err(error), None)
                    if !words || error.to_string().contains(text(rendered, "error")) =>
                {
                    self.refused += 1;
                }
                (seen, _) => {
                    let seen = format!("{name}: {messages:?}\n{seen:?}\n");
                    self.wrong.push(seen + &rendered.to_string());
                }
            }
        }
    }

    fn all_right(&self) {
        let (same, refused, lenient) = (self.same, self.refused, self.lenient);
        println!("{same} equal, {refused} refused as there, {lenient} refused there alone");
        let (count, shown) = (self.wrong.len(), self.wrong.join("\n\n"));
        assert!(self.wrong.is_empty(), "{count} differ:\n{shown}");
    }
}

#[test]
fn conversations_are_rendered_as_in_transformers() {
    let mut outcome = Outcome::default();
    for case in cases(&fixture("chat.json")) {
        outcome.compare(&case, text(&case, "template"), true);
    }
    outcome.all_right();
    assert!(outcome.same > 100 && outcome.refused > 5);
}

/// The templates of `chat.json` say what the published ones of their families say, as long as no
/// tool is called.
#[test]
fn our_templates_say_what_the_published_ones_say() {
    let ours = cases(&fixture("chat.json"));
    let mut outcome = Outcome::default();
    for mut case in cases(&fixture("chat_published.json")) {
        let Some(own) = ours.iter().find(|own| own["name"] == case["name"]) else {
            continue;
        };
        let rendered = case["rendered"].as_array_mut().unwrap();
        rendered.retain(|rendered| !rendered["messages"].to_string().contains("\"tool\""));
        outcome.compare(&case, text(own, "template"), false);
    }
    outcome.all_right();
    assert!(outcome.same > 40);
}

/// Only with the published templates at hand, in the folder `L1RA_CHAT_PUBLISHED`, which may have a
/// `chat_published.json` of its own.
#[test]
fn published_templates_are_rendered_as_in_transformers() {
    let Some(dir) = std::env::var_os("L1RA_CHAT_PUBLISHED").map(PathBuf::from) else {
        return println!("skipped: L1RA_CHAT_PUBLISHED is not set");
    };
    let own = dir.join("chat_published.json");
    let list = if own.is_file() {
        own
    } else {
        fixture("chat_published.json")
    };
    let mut outcome = Outcome::default();
    for case in cases(&list) {
        let source = std::fs::read_to_string(dir.join(text(&case, "file"))).unwrap();
        outcome.compare(&case, &source, false);
    }
    outcome.all_right();
}

#[test]
fn what_a_template_uses_and_this_crate_lacks_is_an_error() {
    let render = |source: &str| {
        ChatTemplate::new(source, "", "").and_then(|template| template.render(&[], false))
    };
    for (source, message) in [
        (
            "{{ absent_function() }}",
            "chat template: unknown function: absent_function is unknown (line 1)",
        ),
        (
            "\n{{ 'a' | absent_filter }}",
            "chat template: unknown filter: filter absent_filter is unknown (line 2)",
        ),
        (
            "{{ strftime_now('%Q') }}",
            "chat template: invalid operation: strftime_now: `%Q` is not supported (line 1)",
        ),
        (
            "{{ raise_exception('no') }}",
            "chat template: invalid operation: no (line 1)",
        ),
    ] {
        assert_eq!(render(source).unwrap_err().to_string(), message);
    }
    for source in [
        "{% include '/etc/passwd' %}",
        "{% import 'a' as b %}",
        "{% extends 'a' %}",
    ] {
        render(source).unwrap_err();
    }
}

#[test]
fn endless_and_deep_templates_end() {
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    for source in [
        "{% for a in range(100000) %}{% for b in range(100000) %}x{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        &format!("{{{{ {deep} }}}}"),
        &"{% if true %}".repeat(20_000),
        "{{ 'a' * 1000000000000 }}",
        "{{ messages | tojson(indent=1000000000000) }}",
    ] {
        let ended = ChatTemplate::new(source, "", "").and_then(|t| t.render(&[], false));
        let shown: String = source.chars().take(40).collect();
        assert!(ended.is_err() || ended.unwrap().len() < 1 << 20, "{shown}");
    }
}

#[test]
fn a_template_of_its_own_gets_the_tokenizer_s_tokens() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/finetune/model");
    let tokenizer = TextTokenizer::from_dir(&model).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("own.jinja");
    std::fs::write(
        &path,
        "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
    )
    .unwrap();
    let template = ChatTemplate::from_file(&path, &tokenizer).unwrap();
    let said = template
        .render(&[Message::new(Role::User, "Hi")], true)
        .unwrap();
    assert_eq!(said, "<|endoftext|>Hi<|im_end|>");
    std::fs::write(&path, "{% for %}").unwrap();
    let error = ChatTemplate::from_file(&path, &tokenizer).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("own.jinja: chat template: syntax error"),
        "{error}"
    );
}
