//! What the output head and the loss need, beside what layers keep.
//!
//! For `T` targets and a vocabulary of `V`, the composed cross-entropy of `l1ra_ops::loss` holds, in arrays of
//! `[T, V]` in f32:
//!
//! - forward: the logits less their maximum, and the exponential or the log-probabilities: two;
//! - backward: the first of those, the gradient, and its negative or the exponential: three.
//!
//! On `flex` the loss is one operation with the head: logits of [`CHUNK`] rows at most exist at once,
//! beside the gradient of the hidden states `[T, hidden]`.
//!
//! On another CPU backend a head stored in bf16 is turned to f32 for its product (6 bytes a weight, for
//! as long as the product takes), beside two arrays of `[T, V]`.

use l1ra_models::{ops::LOSS_ROWS as CHUNK, weights::Storage};

use super::{
    kept::{F32, adapters},
    workload::{Home, MicroBatch, Workload},
};

/// `[T, V]` arrays alive at once in a forward.
const FORWARD_COPIES: u64 = 2;
/// `[T, V]` arrays alive at once in the backward of the loss. Measured, as the sums below, with the
/// heap counter of `examples/predict_check`: the heap's peak less weights and activations is 3.02
/// times the logits (SmolLM2, 4 × 256 tokens, 1020 targets), 3.07 (embedded model, 16 × 64).
const BACKWARD_COPIES: u64 = 3;
/// `[T, V]` arrays beside a bf16 head that is being converted: 2.03 to 2.1 measured (SmolLM2,
/// 4 × 64 tokens, 12 to 104 targets).
const CONVERTED_COPIES: u64 = 2;
/// Bytes of a bf16 weight while it is being converted: a row-major copy and the f32 values.
pub(super) const CONVERTED_BYTES: u64 = 6;

/// Bytes of one `[T, V]` array in f32.
pub(super) fn logits(workload: &Workload, batch: &MicroBatch) -> u64 {
    F32 * batch.targets as u64 * workload.config.vocab_size as u64
}

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
        let rows = batch.targets.min(CHUNK) as u64;
        let chunk = F32 * rows * workload.config.vocab_size as u64;
        return chunk + (copies - 1).min(2) * picked(workload, batch);
    }
    let logits = logits(workload, batch);
    (copies * logits).max(conversion(workload, logits)) + picked(workload, batch)
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
