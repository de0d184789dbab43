//! `l1ra eval`.

use serde_json::Value;

use crate::{
    run::trained,
    support::{Ran, model},
};

/// Evaluates on the data of the shared run, as that did.
pub(crate) fn evaluate(model: &str, more: &[&str]) -> Value {
    let eval = ["--json", "eval", "--model", model, "--data", "eval.jsonl"];
    let same = ["--max-length", "48", "--batch-size", "2"];
    trained()
        .place
        .run(&[&eval[..], &same, more].concat())
        .well()
        .json()
}

/// The same with the run's adapter.
pub(crate) fn evaluate_adapter(adapter: &str) -> f64 {
    loss(&evaluate(&model(), &["--adapter", adapter]))
}

pub(crate) fn loss(result: &Value) -> f64 {
    result["loss"].as_f64().unwrap()
}

#[track_caller]
pub(crate) fn assert_near(seen: f64, expected: f64, relative: f64) {
    let difference = (seen - expected).abs();
    assert!(
        difference <= relative * expected.abs(),
        "{seen}, expected {expected}"
    );
}

#[test]
fn an_evaluation_is_what_the_run_saw() {
    let run: Value = serde_json::from_str(&trained().place.read("out/run.json")).unwrap();
    let before = evaluate(&model(), &[]);
    let after = evaluate(&model(), &["--adapter", "out/adapter"]);
    for (seen, when) in [(&before, "before"), (&after, "after")] {
        assert_near(loss(seen), loss(&run[when]), 1e-6);
        assert_eq!(seen["tokens"], run[when]["tokens"]);
    }
    assert!(loss(&after) < loss(&before));
}

#[test]
fn an_evaluation_is_three_numbers() {
    let result = evaluate(&model(), &[]);
    let keys: Vec<&String> = result.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["loss", "perplexity", "tokens"]);
    assert_near(
        result["perplexity"].as_f64().unwrap(),
        loss(&result).exp(),
        1e-9,
    );

    let args = [
        "eval",
        "--model",
        &model(),
        "--data",
        "eval.jsonl",
        "--rows",
        "2",
    ];
    let Ran { stdout, stderr, .. } = trained().place.run(&args).well();
    let names: Vec<&str> = stdout
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(names, ["loss", "perplexity", "tokens"]);
    assert!(
        stderr.contains("eval.jsonl: 6 records, form messages (recognised)"),
        "{stderr}"
    );
    assert!(stderr.contains("eval        2 samples"), "{stderr}");
}

/// Other options are other targets, and so another number.
#[test]
fn what_is_evaluated_can_be_chosen() {
    let tokens = |more: &[&str]| evaluate(&model(), more)["tokens"].as_u64().unwrap();
    let all = tokens(&["--train-on", "all"]);
    assert!(all > tokens(&["--train-on", "completions"]));
    assert!(tokens(&["--rows", "3", "--train-on", "all"]) < all);
    assert_near(
        loss(&evaluate(&model(), &["--dtype", "bf16"])),
        loss(&evaluate(&model(), &[])),
        0.02,
    );
}
