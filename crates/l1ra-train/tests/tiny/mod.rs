//! The tiny Llama of the fixtures, and one run at a time.
// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn::tensor::Device;
use l1ra_models::{CausalLm, ModelConfig, weights};
use l1ra_train::{RunReport, data::Sample};

/// Dropout draws from the device's one generator, which runs at the same time would share.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn model() -> CausalLm {
    model_on(&Device::flex())
}

pub(crate) fn model_on(device: &Device) -> CausalLm {
    stored_on(weights::Storage::F32, device)
}

pub(crate) fn stored_on(storage: weights::Storage, device: &Device) -> CausalLm {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-llama");
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let files = weights::SafetensorsFiles::open(&dir).unwrap();
    weights::build_model(&files, &config, storage, device).unwrap()
}

/// Samples of 8 to 16 tokens, whose first three are no targets.
pub(crate) fn samples(count: u32) -> Vec<Sample> {
    let sample = |index: u32| Sample {
        ids: (0..8 + index % 9)
            .map(|place| 3 + (index * 31 + place * 7) % 250)
            .collect(),
        is_target: (0..8 + index % 9).map(|place| place > 2).collect(),
    };
    (0..count).map(sample).collect()
}

/// Step and ranks of every update of a run.
pub(crate) fn ranks(report: &RunReport) -> Vec<(usize, Vec<usize>)> {
    let updates = report.updates.iter();
    updates
        .map(|update| (update.step, update.plan.ranks()))
        .collect()
}
