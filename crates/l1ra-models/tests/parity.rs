//! Logits and hidden states of the tiny models equal transformers' (recorded in the fixtures), and
//! generation with a cache equals generation without.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use l1ra_core::parse_device;
use l1ra_models::{CausalLm, Generation, Sampling, weights};
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

/// `flex`, or what `L1RA_TEST_DEVICE` says.
fn device() -> Device {
    let name = std::env::var("L1RA_TEST_DEVICE");
    parse_device(name.as_deref().unwrap_or("flex")).unwrap()
}

fn load(name: &str) -> CausalLm {
    let dir = fixture(name);
    let config = l1ra_models::ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let files = weights::SafetensorsFiles::open(&dir).unwrap();
    weights::build_model(&files, &config, weights::Storage::F32, &device()).unwrap()
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn ids(file: &SafeTensors<'_>) -> (Vec<i64>, [usize; 2]) {
    let view = file.tensor("input_ids").unwrap();
    let data = view
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    (data.collect(), [view.shape()[0], view.shape()[1]])
}

fn largest_difference<const D: usize>(seen: &Tensor<D>, expected: &[f32]) -> f32 {
    let seen = seen.to_data().try_into_vec::<f32>().unwrap();
    assert_eq!(seen.len(), expected.len());
    seen.iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[rstest::rstest]
#[case("tiny-llama")]
#[case("tiny-mistral")] // 48 tokens with a window of 16: the window matters from position 16 on
fn logits_and_hidden_states_equal_transformers(#[case] name: &str) {
    let model = load(name);
    let bytes = std::fs::read(fixture(name).join("golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let (values, shape) = ids(&golden);
    let input = Tensor::<2, Int>::from_data(TensorData::new(values, shape), &device());
    let mut states = Vec::new();
    let hidden = model.hidden_each(input, None, |state| states.push(state.clone()));
    for (i, state) in states.iter().enumerate() {
        let difference = largest_difference(state, &floats(&golden, &format!("hidden_{i}")));
        assert!(difference < 1e-4, "hidden_{i} differs by {difference}");
    }
    let difference = largest_difference(&model.logits(hidden), &floats(&golden, "logits"));
    println!("{name}: largest difference of logits {difference:.2e}");
    assert!(difference < 1e-4, "logits differ by {difference}");
}

#[rstest::rstest]
#[case("tiny-llama")]
#[case("tiny-mistral")]
fn a_cache_changes_no_token(#[case] name: &str) {
    let model = load(name);
    let prompt: Vec<u32> = (3..13).collect();
    for temperature in [0.0, 1.0] {
        let sampling = Sampling {
            max_new_tokens: 40,
            temperature,
            seed: 5,
            ..Default::default()
        };
        let run = |cached: bool| {
            let generation = Generation::new(&model, &prompt, [], sampling.clone()).unwrap();
            let generation = if cached {
                generation
            } else {
                generation.without_cache()
            };
            generation.collect::<Result<Vec<u32>, _>>().unwrap()
        };
        let with_cache = run(true);
        assert_eq!(with_cache.len(), 40);
        assert_eq!(with_cache, run(false), "temperature {temperature}");
    }
}
