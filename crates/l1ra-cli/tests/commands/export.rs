//! `l1ra export`.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{
    eval::{assert_near, evaluate_adapter},
    run::trained,
};

fn export(layout: &str, output: &str) -> String {
    let args = [
        "export",
        "--adapter",
        "out/adapter",
        "--layout",
        layout,
        "--output",
        output,
    ];
    let ran = trained().place.run(&args).well();
    assert_eq!(ran.stderr, "");
    ran.stdout.trim_end().to_string()
}

#[test]
fn every_reader_has_a_line() {
    assert_snapshot!(export("exact", "x/exact"), @"
    42 adapters, lay-out exact, in x/exact
      PEFT       right: each module has its own alpha and rank; checked by running PEFT 0.21
      llama.cpp  WRONG for mixed ranks or scales: one alpha, divided by each module's own rank; write the lay-out padded or folded for it
      vLLM       WRONG for mixed ranks or scales: one alpha and one rank for all modules; write the lay-out padded for it
    ");
    assert_snapshot!(export("folded", "x/folded"), @"
    42 adapters, lay-out folded, in x/folded
      PEFT       right: each module has its own alpha and rank; checked by running PEFT 0.21
      llama.cpp  right: one alpha, divided by each module's own rank; by its formula, read in its source and not run
      vLLM       WRONG for mixed ranks or scales: one alpha and one rank for all modules; write the lay-out padded for it
    ");
    assert_snapshot!(export("padded", "x/padded"), @"
    42 adapters, lay-out padded, in x/padded
      PEFT       right: each module has its own alpha and rank; checked by running PEFT 0.21
      llama.cpp  right: one alpha, divided by each module's own rank; by its formula, read in its source and not run
      vLLM       right: one alpha and one rank for all modules; by its formula, read in its source (2025) and not run
    ");
}

/// PEFT's two files are complete: each lay-out is the same model without the sidecar too.
#[test]
fn every_layout_is_the_same_adapter() {
    let place = &trained().place;
    let adapted = evaluate_adapter("out/adapter");
    for layout in ["exact", "folded", "padded"] {
        let folder = format!("y/{layout}");
        export(layout, &folder);
        assert_near(evaluate_adapter(&folder), adapted, 1e-6);
        fs::remove_file(place.path(&folder).join("l1ra_adapter.safetensors")).unwrap();
        assert_near(evaluate_adapter(&folder), adapted, 1e-5);
    }
    let config = |layout: &str| -> Value {
        let text = place.read(&format!("y/{layout}/adapter_config.json"));
        serde_json::from_str(&text).unwrap()
    };
    let patterns = |layout: &str| {
        let config = config(layout);
        ["rank_pattern", "alpha_pattern"].map(|key| !config[key].as_object().unwrap().is_empty())
    };
    assert_eq!(patterns("exact"), [true, true]);
    assert_eq!(patterns("folded"), [true, false]);
    assert_eq!(patterns("padded"), [false, false]);
}

#[test]
fn what_a_program_reads_of_an_export() {
    let place = &trained().place;
    let args = [
        "export",
        "--adapter",
        "out/adapter",
        "--output",
        "z",
        "--base-model",
        "org/mine",
    ];
    let result = place.run(&[&["--json"], &args[..]].concat()).well().json();
    assert_snapshot!(serde_json::to_string_pretty(&result).unwrap(), @r#"
    {
      "output": "z",
      "layout": "folded",
      "adapters": 42,
      "readers": [
        {
          "reader": "peft",
          "right": true,
          "note": "right: each module has its own alpha and rank; checked by running PEFT 0.21"
        },
        {
          "reader": "llama.cpp",
          "right": true,
          "note": "right: one alpha, divided by each module's own rank; by its formula, read in its source and not run"
        },
        {
          "reader": "vllm",
          "right": false,
          "note": "WRONG for mixed ranks or scales: one alpha and one rank for all modules; write the lay-out padded for it"
        }
      ]
    }
    "#);
    let config: Value = serde_json::from_str(&place.read("z/adapter_config.json")).unwrap();
    assert_eq!(config["base_model_name_or_path"], "org/mine");
}
