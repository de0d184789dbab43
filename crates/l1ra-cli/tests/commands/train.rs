//! `l1ra train`.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    run::{trained, with_data},
    support::{Place, json_lines, model},
};

fn keys(value: &Value) -> String {
    let keys: Vec<&str> = value
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    keys.join(" ")
}

#[test]
fn a_run_leaves_its_files() {
    let place = &trained().place;
    assert_snapshot!(place.names("out").join("\n"), @"
    adapter
    checkpoints
    metrics.jsonl
    ranks.jsonl
    recipe.toml
    report
    report.html
    run.json
    run.lock
    tensorboard
    ");
    assert_snapshot!(place.names("out/adapter").join("\n"), @"
    adapter_config.json
    adapter_model.safetensors
    l1ra_adapter.safetensors
    ");
    assert_snapshot!(place.names("out/report").join("\n"), @"
    gates.svg
    loss.svg
    modules.svg
    parameters.svg
    ranks.svg
    ");
    let events = place.names("out/tensorboard");
    assert_eq!(events.len(), 1, "{events:?}");
    assert!(events[0].starts_with("events.out.tfevents."), "{events:?}");
    let empty = place
        .tree()
        .into_iter()
        .filter(|(name, size)| *size == Some(0) && !name.ends_with("run.lock"));
    assert_eq!(empty.collect::<Vec<_>>(), []);
}

#[test]
fn the_result_is_one_line_of_json() {
    let trained = trained();
    let line = trained.ran.json();
    assert_snapshot!(keys(&line), @"version model device dtype started finished steps before after parameters ranks moved updates tokens seconds peak_bytes train eval prediction");
    let saved = trained.place.portable(&trained.place.read("out/run.json"));
    let saved: Value = serde_json::from_str(&saved).unwrap();
    assert_eq!(line, saved);
    assert_eq!(line["steps"], 6);
    assert!(line["moved"].as_u64().unwrap() > 0, "{line}");
    let loss = |when: &str| line[when]["loss"].as_f64().unwrap();
    assert!(loss("after") < loss("before"), "{line}");
}

#[test]
fn the_run_is_said_on_standard_error() {
    let said = &trained().ran.stderr;
    let mut rest = said.as_str();
    let parts = [
        "model     ",
        "adapters  ",
        "ranks     ",
        "data      ",
        "train     ",
        "eval      ",
        "steps     ",
        "memory    ",
        "time      ",
        "step 0  eval loss ",
        "step 1/6  loss ",
        "step 6/6  loss ",
        "step 6  eval loss ",
        "eval loss   ",
        "parameters  ",
        "ranks after 2 updates",
        "layer     q_proj     k_proj",
        "asked       ",
        "answers     ",
        "adapter     out/adapter",
        "report      out/report.html",
    ];
    for part in parts {
        let found = rest
            .find(&format!("\n{part}"))
            .or_else(|| rest.starts_with(part).then_some(0));
        let place =
            found.unwrap_or_else(|| panic!("no `{part}` after what came before in\n{said}"));
        rest = &rest[place + part.len()..];
    }
    // One blank line at most.
    assert!(!said.contains("\n\n\n"), "{said}");
    // Nothing that redraws.
    assert!(!said.contains(['\u{1b}', '\r']), "{said}");
}

#[test]
fn metrics_and_ranks_are_those_of_the_run() {
    let place = &trained().place;
    let metrics = json_lines(&place.read("out/metrics.jsonl"));
    let (evaluations, steps): (Vec<_>, Vec<_>) = metrics
        .iter()
        .partition(|line| line.get("eval_loss").is_some());
    let numbers = |lines: &[&Value]| -> Vec<u64> {
        lines
            .iter()
            .map(|line| line["step"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&steps), [1, 2, 3, 4, 5, 6]);
    assert_eq!(numbers(&evaluations), [0, 6]);

    let lines = json_lines(&place.read("out/ranks.jsonl"));
    assert_snapshot!(keys(&lines[0]), @"steps update_steps adapters budget unit");
    assert_eq!(lines[0]["adapters"].as_array().unwrap().len(), 42);
    assert_eq!(numbers(&lines[1..].iter().collect::<Vec<_>>()), [2, 4, 6]);
    assert_eq!(lines[3]["final"], true);
    for line in &lines[1..] {
        let ranks = line["ranks"].as_array().unwrap();
        let total: u64 = ranks.iter().map(|rank| rank.as_u64().unwrap()).sum();
        assert_eq!((ranks.len(), total), (42, 42 * 4));
    }
}

/// The saved recipe holds what the command line laid over the file, and gives the same run again.
#[test]
fn a_saved_recipe_is_the_run_again() {
    let place = &trained().place;
    let args = [
        "--quiet",
        "--json",
        "train",
        "out/recipe.toml",
        "--output",
        "again",
    ];
    let ran = place.run(&args).well();
    assert_eq!(ran.stderr, "");
    assert_eq!(ran.json()["steps"], 6);

    let losses = |folder: &str| -> Vec<String> {
        let lines = json_lines(&place.read(&format!("{folder}/metrics.jsonl")));
        let parts = ["step", "loss", "grad_norm", "eval_loss"];
        lines
            .iter()
            .map(|line| parts.map(|part| line[part].to_string()).join(" "))
            .collect()
    };
    assert_eq!(losses("again"), losses("out"));
    assert_eq!(
        place.read("again/ranks.jsonl"),
        place.read("out/ranks.jsonl")
    );
    for name in place.names("out/adapter") {
        let bytes =
            |folder: &str| fs::read(place.path(folder).join("adapter").join(&name)).unwrap();
        assert!(bytes("again") == bytes("out"), "{name}");
    }
    let recipe = place
        .read("out/recipe.toml")
        .replace("\"out\"", "\"again\"");
    let text = |recipe: &str| {
        recipe
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect::<String>()
    };
    assert_eq!(text(&place.read("again/recipe.toml")), text(&recipe));
}

/// Without a recipe; with what a recipe seldom says: packing, accumulation, samples held out.
#[test]
fn a_run_without_a_recipe() {
    let place = with_data(TempDir::new().unwrap());
    let model = model();
    let args = [
        "train",
        "--model",
        &model,
        "--data",
        "train.jsonl",
        "--output",
        "deep/run",
        "--set",
        "train.steps=2",
        "--set",
        "train.warmup_steps=0",
        "--set",
        "train.batch_size=1",
        "--set",
        "train.accumulation=2",
        "--set",
        "data.packing=true",
        "--set",
        "data.max_length=96",
        "--set",
        "data.eval_rows=2",
        "--set",
        "adapters.policy=fixed",
        "--set",
        "adapters.rank=2",
        "--set",
        "log.report=false",
    ];
    let ran = place.run(&args).well();
    assert!(ran.stdout.starts_with("eval loss   "), "{}", ran.stdout);
    assert!(
        ran.stdout
            .ends_with("adapter     deep/run/adapter (PEFT files; gates beside them)\n")
    );
    assert!(
        ran.stderr.contains("steps     2 of 2 × 1 row"),
        "{}",
        ran.stderr
    );
    assert!(!place.path("deep/run/report.html").exists());

    // A second run must not overwrite the first one by accident, but may on purpose.
    let said = place.mistake(&args);
    assert!(said.contains("--overwrite"), "{said}");
    let again = [&["--quiet"], &args[..], &["--overwrite"]].concat();
    assert_eq!(place.run(&again).well().stderr, "");
}

#[test]
fn a_penalty_that_nothing_can_hold_is_refused_before_the_run() {
    let place = Place::new();
    let gates = [
        "--set",
        "adapters.policy=lasso",
        "--set",
        "adapters.lambda=8",
        "--set",
        "adapters.eta_c=0.1",
    ];
    let ran = place.run(&[&["train", "recipe.toml", "--plain"], gates.as_slice()].concat());
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let error = ran.stderr.lines().last().unwrap_or_default();
    assert_snapshot!(error, @"error: --set adapters.lambda=8: adapters.lambda = 8: below 1: above, the pull of eta_c · lambda = 0.8 a step is more than Adam's step of about eta_c = 0.1 can hold, so every gate is zero after 2 of the 8 steps and the run has no effect. 0.5 is a first try for a run of this length");
    assert!(!place.path("out").exists());
}

#[test]
fn a_run_without_any_effect_is_a_failure() {
    let place = Place::new();
    // A pull of 1.5 a step: gone at once, but not for certain by the arithmetic of `plan`.
    let gates = ["--set", "adapters.lambda=1", "--set", "adapters.eta_c=1.5"];
    let fixed = ["--set", "adapters.policy=fixed"];
    let ran = place.run(
        &[
            &["train", "recipe.toml", "--plain"],
            gates.as_slice(),
            &fixed,
        ]
        .concat(),
    );
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    let error = ran.stderr.lines().last().unwrap_or_default();
    assert_snapshot!(error, @"error: the run had no effect: after 8 steps every gate is zero, so no adapter was written. The pull of eta_c · lambda took more than the loss gave back: lower adapters.lambda or adapters.eta_c");
    for file in [
        "metrics.jsonl",
        "ranks.jsonl",
        "recipe.toml",
        "report.html",
        "checkpoints",
    ] {
        assert!(place.path(&format!("out/{file}")).exists(), "{file}");
    }
    assert!(!place.path("out/adapter").exists());
    let said = place.run(&["report", "out"]).well().stdout;
    assert!(said.contains("Every gate is zero at the end"), "{said}");
}
