//! A real model: SmolLM2-135M-Instruct from its GGUF gives the loss, the token ids and the answer
//! that transformers gives.
//!
//! Runs where the file is: `cargo xtask fetch smollm2` puts it in `models/smollm2`, and
//! `L1RA_SMOLLM2` names another place. Elsewhere it says so and passes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData, activation::log_softmax};
use l1ra_models::{LoadOptions, Message, Role, Sampling, generate::generate_text, load_model};
use safetensors::SafeTensors;

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

#[test]
fn the_golden_sentence_and_answer() {
    let path = std::env::var_os("L1RA_SMOLLM2")
        .map_or_else(|| root().join("models/smollm2"), PathBuf::from);
    if !path.exists() {
        println!(
            "skipped: {} is not there (cargo xtask fetch smollm2)",
            path.display()
        );
        return;
    }
    let loaded = load_model(&path, LoadOptions::default(), &Device::flex()).unwrap();
    let (model, tokenizer) = (&loaded.model, &loaded.tokenizer);

    let ids = tokenizer.encode("Hello world 2024!").unwrap();
    assert_eq!(ids, [19556, 905, 216, 34, 32, 34, 36, 17]);

    let bytes = std::fs::read(root().join("tests/fixtures/smollm2/golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let expected: Vec<i64> = golden
        .tensor("input_ids")
        .unwrap()
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()))
        .collect();
    let text = "The capital of France is Paris. In 1969, Neil Armstrong walked on the Moon.";
    let ids: Vec<i64> = tokenizer
        .encode(text)
        .unwrap()
        .into_iter()
        .map(i64::from)
        .collect();
    assert_eq!(ids, expected, "ids of the golden sentence");

    let count = ids.len();
    let input = |ids: &[i64]| {
        let data = TensorData::new(ids.to_vec(), [1, ids.len()]);
        Tensor::<2, Int>::from_data(data, &Device::flex())
    };
    let logits = model
        .forward(input(&ids), None)
        .flatten::<2>(0, 1)
        .narrow(0, 0, count - 1);
    let targets = input(&ids[1..]).reshape([-1, 1]);
    let loss: f32 = log_softmax(logits, 1)
        .gather(1, targets)
        .mean()
        .neg()
        .into_scalar();
    println!("loss of the golden sentence: {loss:.4}");
    assert!((loss - 2.2888).abs() < 2e-3, "{loss}");

    let question = [Message::new(Role::User, "What is the capital of France?")];
    let prompt = loaded
        .template
        .as_ref()
        .unwrap()
        .render(&question, true)
        .unwrap();
    let prompt = tokenizer.encode(&prompt).unwrap();
    let sampling = Sampling {
        max_new_tokens: 20,
        ..Default::default()
    };
    let answer = generate_text(model, tokenizer, &prompt, sampling).unwrap();
    assert_eq!(answer.trim(), "The capital of France is Paris.");
}
