//! Chat templates render as Jinja2 renders them in transformers, to the byte, and refuse what it
//! refuses, with the same words.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::Path;

use l1ra_models::{ChatTemplate, Message};
use serde_json::Value;

fn cases() -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/chat.json");
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
    format!("{before}{}{after}", today.render(&[], false).unwrap())
}

#[test]
fn conversations_are_rendered_as_in_transformers() {
    let (mut same, mut refused, mut wrong) = (0, 0, Vec::new());
    for case in cases() {
        let name = text(&case, "name");
        let (bos, eos) = (text(&case, "bos_token"), text(&case, "eos_token"));
        let template = ChatTemplate::new(text(&case, "template"), bos, eos).unwrap();
        for rendered in case["rendered"].as_array().unwrap() {
            let messages: Vec<Message> =
                serde_json::from_value(rendered["messages"].clone()).unwrap();
            let prompt = rendered["add_generation_prompt"].as_bool().unwrap();
            match (
                template.render(&messages, prompt),
                rendered["text"].as_str(),
            ) {
                (Ok(seen), Some(wanted)) => {
                    // Midnight may pass between the two.
                    if seen == dated(wanted)
                        || template.render(&messages, prompt).unwrap() == dated(wanted)
                    {
                        same += 1;
                    } else {
                        wrong.push(format!("{name}: {messages:?}\n{seen:?}\n{wanted:?}"));
                    }
                }
                (Err(error), None) if error.to_string().contains(text(rendered, "error")) => {
                    refused += 1;
                }
                (seen, _) => wrong.push(format!("{name}: {seen:?}, recorded {rendered}")),
            }
        }
    }
    println!("{same} equal, {refused} refused as there");
    assert!(
        wrong.is_empty(),
        "{} differ:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(same > 80 && refused > 5);
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
