//! `l1ra merge`.

use std::fs;

use insta::assert_snapshot;
use safetensors::SafeTensors;
use serde_json::Value;

use crate::{
    eval::{assert_near, evaluate, evaluate_adapter, loss},
    run::trained,
    support::{Ran, model},
};

fn merge(output: &str, more: &[&str]) -> Ran {
    let model = model();
    let args = [
        "merge",
        "--model",
        &model,
        "--adapter",
        "out/adapter",
        "--output",
        output,
    ];
    trained().place.run(&[&args[..], more].concat()).well()
}

fn names(path: &str) -> Vec<String> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = file.names().into_iter().map(String::from).collect();
    names.sort();
    names
}

#[test]
fn a_merged_model_is_the_adapted_one() {
    let place = &trained().place;
    let ran = merge("merged", &["--dtype", "f32"]);
    assert_snapshot!(ran.stdout.trim_end(), @"
    42 adapters folded into 56 tensors, 3148224 parameters, f32, in [dir]/merged
      config.json                               574 bytes
      generation_config.json                     66 bytes
      model.safetensors                    12598888 bytes
      tokenizer.json                         109940 bytes
      tokenizer_config.json                     436 bytes
    ");
    assert_eq!(ran.stderr, "");
    let adapted = evaluate_adapter("out/adapter");
    assert_near(loss(&evaluate("merged", &[])), adapted, 1e-5);

    // What a reader of Hugging Face folders looks for.
    assert_snapshot!(place.names("merged").join("\n"), @"
    config.json
    generation_config.json
    model.safetensors
    tokenizer.json
    tokenizer_config.json
    ");
    let weights = place.path("merged/model.safetensors").display().to_string();
    assert_eq!(
        names(&weights),
        names(&format!("{}/model.safetensors", model()))
    );
    let config = |path: String| -> Value {
        let mut config: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
        config["torch_dtype"].take();
        config
    };
    let merged = place.path("merged/config.json").display().to_string();
    assert_eq!(config(merged), config(format!("{}/config.json", model())));
}

/// In the base's own numbers, half the bits, as its files are.
#[test]
fn a_merged_model_has_the_base_s_number_type() {
    let place = &trained().place;
    let ran = merge("merged-f16", &["--json"]);
    let result = ran.json();
    assert_eq!(result["dtype"], "f16");
    assert_eq!(result["merged"], 42);
    let size = |path: String| fs::metadata(path).unwrap().len();
    let weights = place
        .path("merged-f16/model.safetensors")
        .display()
        .to_string();
    let base = size(format!("{}/model.safetensors", model()));
    assert!(size(weights).abs_diff(base) < 1000);
    assert_near(
        loss(&evaluate("merged-f16", &[])),
        evaluate_adapter("out/adapter"),
        1e-3,
    );
}
