//! Writes an adapter with mixed ranks and gates in the three lay-outs, and the logits that every
//! reader should get from it: what `cargo xtask interop` compares with PEFT.
//!
//! ```text
//! cargo run --release -p l1ra-train --example interop_adapter -- \
//!     --model tests/fixtures/tiny-llama --output target/interop/adapter
//! ```
#![allow(clippy::print_stdout)] // A program: its output is the point.

use std::{collections::HashMap, error::Error, fs, path::PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use l1ra_core::{
    AdaptedModule, GatedLora, L1raConfig,
    peft::{Layout, save_adapter},
};
use l1ra_models::{
    ModelConfig,
    weights::{SafetensorsFiles, Storage, build_model},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, tensor::TensorView};

fn main() -> Result<(), Box<dyn Error>> {
    let (model, output) = arguments()?;
    let device = Device::flex();
    let config = ModelConfig::from_file(&model.join("config.json"))?;
    let mut lm = build_model(
        &SafetensorsFiles::open(&model)?,
        &config,
        Storage::F32,
        &device,
    )?;

    let mut generator = ChaCha8Rng::seed_from_u64(7);
    lm.for_each_linear(&mut |path, linear| {
        if path == "lm_head" {
            return;
        }
        let [d_in, d_out] = linear.dims();
        let rank = generator.random_range(1..14);
        let mut draw = |count: usize, low: f32, high: f32| -> Vec<f32> {
            (0..count)
                .map(|_| generator.random_range(low..high))
                .collect()
        };
        let a = TensorData::new(draw(d_in * rank, -0.3, 0.3), [d_in, rank]);
        let c = TensorData::new(draw(rank, 0.0, 1.0), [rank]);
        let b = TensorData::new(draw(rank * d_out, -0.3, 0.3), [rank, d_out]);
        linear.adapter = Some(GatedLora::from_data(a, c, b, 1.5, 0.0, &device));
    });
    let adapters = L1raConfig {
        rank: 8,
        alpha: 12.0,
        ..Default::default()
    };
    for layout in Layout::ALL {
        let dir = output.join(layout.to_string());
        save_adapter(&lm, &adapters, layout, &model.display().to_string(), &dir)?;
    }

    let ids: Vec<i64> = (0..24).map(|i| 3 + (i * 37) % 250).collect();
    let input = Tensor::<2, Int>::from_data(TensorData::new(ids.clone(), [1, 24]), &device);
    let logits = lm.forward(input, None);
    let shape = logits.dims().to_vec();
    let logits: Vec<f32> = logits
        .into_data()
        .try_into_vec()
        .map_err(|e| format!("{e:?}"))?;
    let ids: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let logits: Vec<u8> = logits
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    let tensors = HashMap::from([
        ("input_ids", TensorView::new(Dtype::I64, vec![1, 24], &ids)?),
        ("logits", TensorView::new(Dtype::F32, shape, &logits)?),
    ]);
    fs::write(
        output.join("logits.safetensors"),
        safetensors::serialize(tensors, None)?,
    )?;
    println!("wrote {}", output.display());
    Ok(())
}

fn arguments() -> Result<(PathBuf, PathBuf), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| {
        let at = arguments.iter().position(|argument| argument == name)?;
        arguments.get(at + 1).map(PathBuf::from)
    };
    let found = value("--model").zip(value("--output"));
    found.ok_or_else(|| "usage: interop_adapter --model DIR --output DIR".into())
}
