//! What the output head and the loss need, beside what layers keep.
//!
//! With a frozen head the loss of `l1ra_ops::loss` makes logits of a part at a time, and the gradient of the
//! hidden states `[T, hidden]` beside them. On `flex` a part is one array of [`PART_ROWS`] rows and
//! [`PART_COLUMNS`] words in f32, at most. On a GPU it is [`CHUNK`] rows in the type of products, whose gradient
//! takes their place. On another CPU backend, where it is put together from Burn's own operations, it is
//! [`CHUNK`] rows in f32: the logits less their maximum and the exponential or the log-probabilities, and one
//! more with a gradient.
//!
//! A head with an adapter has all logits at once, for `T` targets arrays of `[T, V]`: two in the forward,
//! and three in the backward.
//!
//! On another CPU backend a head stored in bf16 is turned to f32 for its product (6 bytes a weight, for
//! as long as the product takes), beside two arrays of logits.

use l1ra_models::{
    ops::{LOSS_PART_COLUMNS as PART_COLUMNS, LOSS_PART_ROWS as PART_ROWS, LOSS_ROWS as CHUNK},
    weights::Storage,
};

use super::{
    kept::{F32, adapters},
    workload::{Home, MicroBatch, Workload},
};

/// Arrays of logits alive at once in a forward.
const FORWARD_COPIES: u64 = 2;
/// The same in the backward of the loss. Measured, as the sums below, with the
/// heap counter of `examples/predict_check`: the heap's peak less weights and activations is 3.02
/// times the logits (SmolLM2, 4 × 256 tokens, 1020 targets), 3.07 (embedded model, 16 × 64).
const BACKWARD_COPIES: u64 = 3;
/// Arrays of logits beside a bf16 head that is being converted: 2.03 to 2.1 measured (SmolLM2,
/// 4 × 64 tokens, 12 to 104 targets).
const CONVERTED_COPIES: u64 = 2;
/// Bytes of a bf16 weight while it is being converted: a row-major copy and the f32 values.
pub(super) const CONVERTED_BYTES: u64 = 6;

/// Bytes at the peak of the head's forward and backward, its adapter's inputs included.
pub(super) fn backward(workload: &Workload, batch: &MicroBatch) -> u64 {
    peak(workload, batch, BACKWARD_COPIES) + kept(workload, batch)
}

/// Bytes at the peak of the head's forward alone.
pub(super) fn forward(workload: &Workload, batch: &MicroBatch) -> u64 {
    peak(workload, batch, FORWARD_COPIES)
}

fn peak(workload: &Workload, batch: &MicroBatch, copies: u64) -> u64 {
    if batch.targets == 0 {
        return 0;
    }
    if workload.home == Home::Flex && workload.rank("lm_head") == 0 {
        let rows = batch.targets.min(PART_ROWS) as u64;
        let part = F32 * rows * workload.config.vocab_size.min(PART_COLUMNS) as u64;
        return part + (copies - 1).min(2) * picked(workload, batch);
    }
    let frozen = workload.rank("lm_head") == 0;
    let rows = if frozen { CHUNK } else { usize::MAX };
    let rows = batch.targets.min(rows);
    let gradient = if frozen && copies == BACKWARD_COPIES {
        2
    } else {
        1
    };
    let logits = (rows * workload.config.vocab_size) as u64;
    if frozen && workload.home == Home::Gpu {
        return workload.product_bytes() * logits + gradient * picked(workload, batch);
    }
    let logits = F32 * logits;
    (copies * logits).max(conversion(workload, logits)) + gradient * picked(workload, batch)
}

fn conversion(workload: &Workload, logits: u64) -> u64 {
    if !converts(workload) {
        return 0;
    }
    let head = workload.config.vocab_size * workload.config.hidden_size;
    CONVERTED_COPIES * logits + CONVERTED_BYTES * head as u64
}

/// Whether products with matrices are taken by converting them to f32 first.
pub(super) fn converts(workload: &Workload) -> bool {
    // Weights that are kept as stored in two bytes are taken for bf16, which needs more than f16.
    workload.home == Home::OtherCpu && workload.element() == 2 && workload.storage != Storage::F16
}

/// The hidden states that have a target.
fn picked(workload: &Workload, batch: &MicroBatch) -> u64 {
    F32 * (batch.targets * workload.config.hidden_size) as u64
}

/// What an adapter on the head keeps.
fn kept(workload: &Workload, batch: &MicroBatch) -> u64 {
    let rank = workload.rank("lm_head") as u64;
    let input = picked(workload, batch) / F32;
    let dropout = workload.options.dropout > 0.0;
    F32 * adapters(&[rank], input, batch.targets as u64, true, dropout)
}

#[cfg(test)]
mod tests;
