//! `l1ra plan`, on the recipes that are shipped.

use insta::assert_snapshot;

use crate::{
    masked,
    support::{Place, Ran, repository},
};

/// Plans a recipe of the folder `recipes`, in the repository's root.
fn plan(recipe: &str, more: &[&str]) -> Ran {
    let recipe = format!("recipes/{recipe}.toml");
    let mut command = Place::new().command(&[&["plan", &recipe], more].concat());
    let output = command.current_dir(repository()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let ran = Ran {
        code: output.status.code(),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    };
    ran.well()
}

/// What is planned, without what depends on this machine.
fn said(ran: &Ran) -> String {
    assert_eq!(ran.stderr, "");
    let text = masked(&ran.stdout, &["time      "]);
    let memory = |line: &str| match line.split_once("; ") {
        Some((predicted, _)) if line.starts_with("memory") => predicted.to_string(),
        _ => line.to_string(),
    };
    let lines = text.lines().map(memory);
    // Advice depends on what is there.
    let kept =
        lines.filter(|line| !line.starts_with("          - ") && !line.contains("it does not fit"));
    kept.collect::<Vec<_>>().join("\n")
}

/// A recipe whose weights are not in the repository: from its configuration alone.
/// With activations kept or made again: `auto` goes by the memory that this machine has left.
fn from_config(recipe: &str, recompute: &str) -> String {
    let recompute = format!("train.recompute={recompute}");
    let config = format!("recipes/configs/{recipe}.json");
    let data = "examples/finetune/data/train.jsonl";
    said(&plan(
        recipe,
        &[
            "--config",
            &config,
            "--data",
            data,
            "--no-time",
            "--set",
            &recompute,
        ],
    ))
}

#[test]
fn the_repository_s_own_model() {
    assert_snapshot!(said(&plan("tiny", &[])), @"
    model     examples/finetune/model: llama, 6 layers, hidden 192, 3.15 M parameters, f32
    adapters  42 on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj: 336 ranks, 163152 parameters
    ranks     policy l1ra, placed by the gradient before the first step: 3 updates, after steps 40 to 120; budget in parameters, at most 163152 parameters
    data      examples/finetune/data/train.jsonl: 3000 records, form messages (recognised)
    data      examples/finetune/data/eval.jsonl: 400 records, form messages (recognised)
    train     3000 samples, 157266 tokens, 86096 targets; 28 to 128 tokens a sample, half of them up to 51, 95 % up to 74; 2 cut (0.1 %), 31 tokens lost
              padding 33.0 % of the tokens in batches of 16
    eval      200 samples, 10645 tokens, 5905 targets; 30 to 99 tokens a sample, half of them up to 53, 95 % up to 74
    steps     400 of 16 rows, 2.13 epochs; warm-up 10, lr 1e-2, cosine
    memory    peak 157 MB predicted
    time      …
    ");
}

#[test]
fn smollm2() {
    assert_snapshot!(from_config("smollm2-135m", "off"), @"
    model     models/smollm2: llama, 30 layers, hidden 576, 134.52 M parameters, f32
    adapters  210 on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj: 1680 ranks, 2443920 parameters
    ranks     policy l1ra, placed by the gradient before the first step: 2 updates, after steps 20 to 30; budget in parameters, at most 2443920 parameters
    data      3000 training records, 318541 letters; 400 evaluation records
              no tokenizer: every row is taken to have 96 tokens
    steps     100 of 8 rows, 0.27 epochs; warm-up 10, lr 2e-3, cosine
    memory    peak 1.17 GB predicted
    ");
}

#[test]
fn llama_3_2() {
    assert_snapshot!(from_config("llama-3.2-1b", "blocks"), @"
    model     meta-llama/Llama-3.2-1B: llama, 16 layers, hidden 2048, 1.24 G parameters, bf16
    adapters  112 on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj: 1792 ranks, 11273984 parameters
    ranks     policy reference: 20 updates, after steps 9 to 180; budget in ranks, at most 17909504 parameters
    gates     with lambda = 0.005 and eta_c = 0.02 the penalty takes at most 0.018 from a gate before the last update: no rank moves unless the loss itself pushes its gate to zero
    data      3000 training records, 318541 letters; evaluation records are held out of them
              no tokenizer: every row is taken to have 1024 tokens
    steps     188 of 4 × 4 rows, 1.00 epochs; warm-up 9, lr 1e-4, cosine
    memory    peak 4.70 GB predicted
    ");
}

#[test]
fn llama_3_1() {
    assert_snapshot!(from_config("llama-3.1-8b", "blocks"), @"
    model     meta-llama/Llama-3.1-8B: llama, 32 layers, hidden 4096, 8.03 G parameters, bf16
    adapters  224 on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj: 3584 ranks, 41946624 parameters
    ranks     policy reference: 20 updates, after steps 9 to 180; budget in ranks, at most 64556544 parameters
    gates     with lambda = 0.005 and eta_c = 0.02 the penalty takes at most 0.018 from a gate before the last update: no rank moves unless the loss itself pushes its gate to zero
    data      3000 training records, 318541 letters; evaluation records are held out of them
              no tokenizer: every row is taken to have 1024 tokens
    steps     188 of 16 × 1 row, 1.00 epochs; warm-up 9, lr 1e-4, cosine
    memory    peak 18.17 GB predicted
    ");
}

#[test]
fn mistral() {
    assert_snapshot!(from_config("mistral-7b-v0.3", "blocks"), @"
    model     mistralai/Mistral-7B-v0.3: mistral, 32 layers, hidden 4096, 7.25 G parameters, bf16
    adapters  224 on q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj: 3584 ranks, 41946624 parameters
    ranks     policy reference: 20 updates, after steps 9 to 180; budget in ranks, at most 64556544 parameters
    gates     with lambda = 0.005 and eta_c = 0.02 the penalty takes at most 0.018 from a gate before the last update: no rank moves unless the loss itself pushes its gate to zero
    data      3000 training records, 318541 letters; evaluation records are held out of them
              no tokenizer: every row is taken to have 1024 tokens
    steps     188 of 16 × 1 row, 1.00 epochs; warm-up 9, lr 1e-4, cosine
    memory    peak 16.58 GB predicted
    ");
}

#[test]
fn a_plan_trains_nothing() {
    let place = Place::new();
    let before = place.tree();
    place.run(&["plan", "recipe.toml", "--no-time"]).well();
    assert_eq!(place.tree(), before);
}

#[test]
fn what_a_program_reads_of_a_plan() {
    let place = Place::new();
    let ran = place
        .run(&["--json", "-v", "plan", "recipe.toml", "--no-time"])
        .well();
    let result = ran.json();
    let keys: Vec<&str> = result
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect();
    assert_snapshot!(keys.join(" "), @"recipe model adapters steps epochs update_steps gates data recompute memory available_bytes advice time");
    assert_eq!(result["steps"], 8);
    assert_eq!(result["update_steps"], serde_json::json!([2, 4, 6]));
    assert_eq!(result["adapters"]["ranks"], 42 * 4);
    assert!(
        result["memory"]["peak_bytes"].as_u64().unwrap() > 10_000_000,
        "{result}"
    );
    assert!(result["time"].is_null(), "{result}");
    // `-v` says where the memory is.
    assert!(ran.stderr.starts_with("peak memory "), "{}", ran.stderr);
    assert!(ran.stderr.contains("\nmodel     "), "{}", ran.stderr);
}

#[test]
fn what_the_penalty_does_is_said_before_the_run() {
    let place = Place::new();
    let said = |lambda: &str| {
        let lambda = format!("adapters.lambda={lambda}");
        let ran = place
            .run(&["plan", "recipe.toml", "--no-time", "--set", &lambda])
            .well();
        let line = ran.stdout.lines().find(|line| line.starts_with("gates"));
        line.unwrap_or_default().to_string()
    };
    assert_snapshot!(said("1e-3"), @"gates     with lambda = 0.001 and eta_c = 0.02 the penalty takes at most 0.00012 from a gate before the last update: no rank moves unless the loss itself pushes its gate to zero");
    assert_snapshot!(said("0"), @"gates     no penalty: no rank moves unless the loss itself pushes its gate to zero");
}
