//! The loss: cross-entropy summed over target tokens.

use burn::tensor::{Int, Tensor, activation::log_softmax};

/// Sum of `−log softmax(logits)[target]` over the rows of `logits [n, vocabulary]`, for
/// `targets [n]`: `[1]`.
///
/// The caller passes only rows that have a target, so no index such as −100 reaches the device and
/// a batch without targets is never sent here. A mean is this sum divided by the number of targets
/// of the whole accumulation window, not of the micro-batch.
pub fn cross_entropy_sum(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    log_softmax(logits, 1)
        .gather(1, targets.unsqueeze_dim(1))
        .sum()
        .neg()
}
