//! The tiny Llama of the fixtures, and one run at a time.
// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use burn::tensor::Device;
use l1ra_models::{CausalLm, ModelConfig, weights};

/// Dropout draws from the device's one generator, which runs at the same time would share.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn model() -> CausalLm {
    model_on(&Device::flex())
}

pub(crate) fn model_on(device: &Device) -> CausalLm {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-llama");
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let files = weights::SafetensorsFiles::open(&dir).unwrap();
    weights::build_model(&files, &config, weights::Storage::F32, device).unwrap()
}
