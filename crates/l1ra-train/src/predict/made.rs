//! Workloads for the tests of this module, small enough to add up by hand.

use std::path::{Path, PathBuf};

use l1ra_core::{L1raConfig, target::Targets};
use l1ra_models::ModelConfig;

use super::workload::{MicroBatch, Workload};

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Two layers, hidden 64, inner 128, 4 heads of 16 and 2 for keys and values, vocabulary 256, a
/// head of its own.
pub(super) fn tiny_llama() -> ModelConfig {
    ModelConfig::from_file(&repository("tests/fixtures/tiny-llama/config.json")).unwrap()
}

/// The configuration of Llama-3.1-8B.
pub(super) fn llama_8b() -> ModelConfig {
    ModelConfig::from_file(&repository("recipes/configs/llama-3.1-8b.json")).unwrap()
}

/// Rank 4 on every layer that `targets` (a regular expression, or `all-linear`) selects.
pub(super) fn rank_4(targets: &str) -> L1raConfig {
    L1raConfig {
        rank: 4,
        policy: l1ra_core::Policy::Lasso,
        budget: Some(l1ra_core::BudgetUnit::Ranks),
        targets: Targets::from(targets),
        ..Default::default()
    }
}

/// Two rows of 8 tokens, 10 targets in all.
pub(super) fn batch() -> MicroBatch {
    MicroBatch::full(2, 8, 10)
}

/// The tiny model with rank 4 on `targets`, trained on [`batch`].
pub(super) fn workload(targets: &str) -> Workload {
    Workload::new(tiny_llama(), &rank_4(targets), vec![batch()]).unwrap()
}
