//! `l1ra generate`.

use serde_json::Value;

use crate::{
    run::trained,
    support::{Ran, model},
};

const ASKED: &str = "Define the noun \"river\".";

fn generate(more: &[&str]) -> Ran {
    let model = model();
    let args = ["generate", "--model", &model, "--max-new-tokens", "12"];
    trained().place.run(&[&args[..], more].concat()).well()
}

fn text(more: &[&str]) -> String {
    let ran = generate(&[&["--prompt", ASKED], more].concat());
    assert_eq!(ran.stderr, "");
    ran.stdout
}

/// `--json` says the same text, why it ended, and how many tokens there were.
fn json(more: &[&str]) -> Value {
    generate(&[&["--json", "--prompt", ASKED], more].concat()).json()
}

#[test]
fn the_likeliest_text_is_the_same_every_time() {
    let first = text(&[]);
    assert!(first.ends_with('\n') && first.trim().len() > 3, "{first}");
    assert_eq!(text(&[]), first);
    assert_eq!(text(&["--seed", "7"]), first);
    assert_eq!(json(&[])["text"], first.trim_end_matches('\n'));
}

#[test]
fn a_draw_is_a_function_of_the_seed() {
    let drawn = |seed: &str| text(&["--temperature", "1.5", "--top-k", "50", "--seed", seed]);
    assert_eq!(drawn("1"), drawn("1"));
    let others: Vec<String> = ["2", "3", "4"].map(drawn).into();
    assert!(others.iter().any(|other| *other != drawn("1")));
    // One token to choose from leaves no choice.
    assert_eq!(text(&["--temperature", "1.5", "--top-k", "1"]), text(&[]));
    assert_eq!(
        text(&["--temperature", "1.5", "--top-p", "0.000001"]),
        text(&[])
    );
}

#[test]
fn a_number_of_tokens_ends_the_text() {
    let model = model();
    let args = ["--json", "generate", "--model", &model, "--prompt", ASKED];
    let few = [&args[..], &["--max-new-tokens", "3"]].concat();
    let result = trained().place.run(&few).well().json();
    assert_eq!(result["new_tokens"], 3);
    assert_eq!(result["finish"], "length");
}

#[test]
fn a_stop_ends_the_text_before_it() {
    let whole = json(&[])["text"].as_str().unwrap().to_string();
    let word = whole.split(' ').nth(2).unwrap();
    let result = json(&["--stop", word]);
    let (before, _) = whole.split_once(word).unwrap();
    assert_eq!(result["text"], before);
    assert_eq!(result["finish"], "stop");
}

#[test]
fn a_penalty_changes_the_text() {
    assert_ne!(text(&["--repetition-penalty", "5"]), text(&[]));
}

#[test]
fn instructions_and_plain_text_are_other_prompts() {
    let tokens = |more: &[&str]| json(more)["prompt_tokens"].as_u64().unwrap();
    let chat = tokens(&[]);
    assert!(tokens(&["--system", "Answer in one word."]) > chat);
    assert!(tokens(&["--raw"]) < chat);
}

#[test]
fn an_adapter_changes_the_text() {
    assert_ne!(text(&["--adapter", "out/adapter"]), text(&[]));
}

#[test]
fn a_prompt_may_come_from_standard_input() {
    let model = model();
    let args = [
        "generate",
        "--model",
        &model,
        "--max-new-tokens",
        "12",
        "--prompt",
        "-",
    ];
    let ran = trained().place.run_with(&args, ASKED).well();
    assert_eq!(ran.stdout, text(&[]));
}

#[test]
fn a_conversation_has_turns() {
    let model = model();
    let args = [
        "generate",
        "--model",
        &model,
        "--max-new-tokens",
        "12",
        "--chat",
    ];
    let place = &trained().place;
    let input = format!("{ASKED}\nDefine the verb \"run\".\n\nnot said\n");
    let said = place.run_with(&args, &input).well();
    assert_eq!(said.stdout.lines().next().unwrap(), text(&[]).trim_end());

    let json = place
        .run_with(&[&["--json"], &args[..]].concat(), &input)
        .well();
    let turns: Vec<Value> = json
        .stdout
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(turns.len(), 2, "{}", json.stdout);
    let texts = turns
        .iter()
        .map(|turn| format!("{}\n", turn["text"].as_str().unwrap()));
    assert_eq!(said.stdout, texts.collect::<String>());
    // The second turn sees the first one, and takes it from the cache.
    let number = |turn: usize, key: &str| turns[turn][key].as_u64().unwrap();
    assert_eq!(number(0, "cached_tokens"), 0);
    assert!(number(1, "prompt_tokens") > number(0, "prompt_tokens") + number(0, "new_tokens"));
    assert!(number(1, "cached_tokens") >= number(0, "prompt_tokens"));

    // `/clear` forgets it.
    let input = format!("{ASKED}\n/clear\n{ASKED}\n");
    let ran = place.run_with(&args, &input).well();
    assert_eq!(ran.stdout, text(&[]).repeat(2));
}
