//! `config.json`.

use std::{fs, path::Path};

use l1ra_models::{
    ModelConfig,
    weights::{linear_dims, parameter_count},
};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, repository, run, run_crafted},
};

const FILE: &str = "config.json";

fn load(dir: &Path) -> Outcome {
    let config = ModelConfig::from_file(&dir.join(FILE))?;
    let _ = (parameter_count(&config), linear_dims(&config));
    Ok(())
}

fn format() -> Format {
    let fixture = |name: &str| {
        let path = repository(&format!("tests/fixtures/{name}/{FILE}"));
        Seed::new(Shell::Text, FILE, fs::read(path).unwrap())
    };
    let llama = r#"{"model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
        "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256, "head_dim": 16,
        "rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", "factor": 32.0,
        "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192}, "eos_token_id": [1, 2]}"#;
    let mut format = Format::new("config", load);
    format.inputs = 1500;
    format.seeds = vec![
        fixture("tiny-llama"),
        fixture("tiny-mistral"),
        fixture("smollm2"),
        Seed::new(Shell::Text, FILE, llama),
    ];
    format
}

#[test]
fn config() {
    run(format);
}

fn crafted() -> Crafted {
    let with = |keys: &str| {
        let text = format!(
            "{{\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 128, \
             \"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"vocab_size\": 256, {keys}}}"
        );
        Seed::new(Shell::Text, FILE, text)
    };
    let zeros = vec!["0"; 500_000].join(",");
    let mut format = format();
    // JSON that is kept as it is becomes a tree of values.
    format.factor = 45;
    (
        format,
        vec![
            (
                "an unknown key with a long list",
                with(&format!("\"a\": [{zeros}]")),
            ),
            (
                "many ends of a text",
                with(&format!("\"eos_token_id\": [{zeros}]")),
            ),
            (
                "a long list of scalings",
                with(&format!("\"rope_scaling\": [{zeros}]")),
            ),
            (
                "nested lists",
                with(&format!("\"a\": {}", "[".repeat(500_000))),
            ),
            (
                "heads that overflow",
                Seed::new(
                    Shell::Text,
                    FILE,
                    "{\"model_type\": \"llama\", \"hidden_size\": 16777216, \
                     \"intermediate_size\": 16777216, \"num_hidden_layers\": 4096, \
                     \"num_attention_heads\": 16777216, \"head_dim\": 16777216, \
                     \"vocab_size\": 16777216}",
                ),
            ),
            (
                "as many layers as are taken",
                Seed::new(
                    Shell::Text,
                    FILE,
                    "{\"model_type\": \"llama\", \"hidden_size\": 64, \"intermediate_size\": 128, \
                     \"num_hidden_layers\": 4096, \"num_attention_heads\": 4, \"vocab_size\": 256}",
                ),
            ),
        ],
    )
}

#[test]
fn config_crafted() {
    run_crafted(crafted);
}
