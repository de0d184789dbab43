//! Loss and perplexity of a model on data.

use std::ops::ControlFlow;

use burn::{data::dataloader::DataLoader, train::InferenceStep};
use serde::{Deserialize, Serialize};

use crate::{data::TokenBatch, error::TrainError, model::LossOutput};

/// Cross-entropy over all target tokens.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct EvalResult {
    /// Sum over all target tokens, divided by their number.
    pub loss: f64,
    /// `exp(loss)`.
    pub perplexity: f64,
    /// Target tokens.
    pub tokens: usize,
}

/// Evaluates `model`, which should be on a plain device (`model.valid()`), on all of `data`;
/// `progress` is told the batches done, and how many there are, after each.
///
/// # Errors
/// Data that cannot be read, or a loss that is not finite.
pub fn evaluate<M>(
    model: &M,
    data: &dyn DataLoader<TokenBatch>,
    mut progress: impl FnMut(usize, usize),
) -> Result<EvalResult, TrainError>
where
    M: InferenceStep<Input = TokenBatch, Output = LossOutput>,
{
    let losses = |batches: Vec<TokenBatch>| SumOfLosses::of_each(model, batches.into_iter());
    let result = evaluate_until(data, 1, losses, |done, total| {
        progress(done, total);
        ControlFlow::Continue(())
    })?;
    result.ok_or_else(|| stopped("the evaluation was broken off".into()))
}

/// The losses of a batch, added up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SumOfLosses {
    sum: f64,
    targets: usize,
}

impl SumOfLosses {
    /// Those of `model`, which is where the batches are.
    pub(crate) fn of_each<M>(model: &M, batches: impl Iterator<Item = TokenBatch>) -> Vec<Self>
    where
        M: InferenceStep<Input = TokenBatch, Output = LossOutput>,
    {
        let of = |batch| {
            let output = model.step(batch);
            match output.targets {
                0 => Self::default(),
                targets => Self {
                    sum: output.sum(),
                    targets,
                },
            }
        };
        batches.map(of).collect()
    }
}

/// [`evaluate`] that gives `losses` as many batches as `at_once` says, and that `progress` may break off,
/// for no result.
pub(crate) fn evaluate_until(
    data: &dyn DataLoader<TokenBatch>,
    at_once: usize,
    losses: impl Fn(Vec<TokenBatch>) -> Vec<SumOfLosses>,
    mut progress: impl FnMut(usize, usize) -> ControlFlow<()>,
) -> Result<Option<EvalResult>, TrainError> {
    let (mut sum, mut tokens) = (0.0, 0);
    let mut batches = data.iter();
    let total = batches.progress().items_total;
    loop {
        let some = batches.by_ref().take(at_once.max(1));
        let some = some.collect::<Result<Vec<_>, _>>();
        let some = some.map_err(|error| stopped(format!("evaluation data: {error}")))?;
        if some.is_empty() {
            break;
        }
        // In the order of the batches, whoever computed them.
        for batch in losses(some) {
            sum += batch.sum;
            tokens += batch.targets;
        }
        let done = batches.progress().items_processed.min(total);
        if progress(done, total).is_break() {
            return Ok(None);
        }
    }
    let loss = sum / tokens.max(1) as f64;
    if !loss.is_finite() {
        return Err(stopped(format!("the evaluation loss is {loss}")));
    }
    Ok(Some(EvalResult {
        loss,
        perplexity: loss.exp(),
        tokens,
    }))
}

fn stopped(detail: String) -> TrainError {
    TrainError::Stopped { step: 0, detail }
}
