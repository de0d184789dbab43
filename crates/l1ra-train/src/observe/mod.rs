//! What a run says while it goes: [`Observer`], and who listens.
//!
//! | observer | says it to |
//! |---|---|
//! | [`JsonLines`] | `metrics.jsonl` and `ranks.jsonl` |
//! | [`Live`] | a terminal, in place, while the run goes |
//! | [`Plain`] | standard error, a line every few steps |
//! | [`TensorBoard`] | event files that TensorBoard reads |
//!
//! [`terminal_observer`] chooses between [`Live`] and [`Plain`].

mod jsonl;
pub mod live;
mod plain;
mod silent;
mod tensorboard;

pub use jsonl::JsonLines;
pub use live::{Live, RunLabels, terminal_observer};
pub use plain::{Plain, duration};
pub use silent::Silent;
pub use tensorboard::TensorBoard;

use std::path::Path;

use l1ra_core::BudgetUnit;
use serde::{Deserialize, Serialize};

use crate::{
    callback::RankUpdate, checkpoint::Progress, error::TrainError, eval::EvalResult, run::RunReport,
};

/// An adapter as the run begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterInfo {
    /// Path of the adapted layer.
    pub path: String,
    /// Inputs of the layer.
    pub d_in: usize,
    /// Outputs of the layer.
    pub d_out: usize,
    /// Rank it starts with.
    pub rank: usize,
}

impl AdapterInfo {
    /// Parameters of an adapter of this layer with `rank` ranks: `rank·(d_in + d_out + 1)`.
    pub fn parameters(&self, rank: usize) -> usize {
        rank * (self.d_in + self.d_out + 1)
    }
}

/// A run that is about to take its first step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStart {
    /// Optimizer steps of the run.
    pub steps: usize,
    /// Steps after which ranks are updated.
    pub update_steps: Vec<usize>,
    /// Every adapter, in the module's order.
    pub adapters: Vec<AdapterInfo>,
    /// Ranks or parameters that the adapters may hold together.
    pub budget: usize,
    /// What the budget counts.
    pub unit: BudgetUnit,
}

impl RunStart {
    /// Parameters of all adapters with these `ranks`.
    pub fn parameters(&self, ranks: &[usize]) -> usize {
        let pairs = self.adapters.iter().zip(ranks);
        pairs.map(|(adapter, rank)| adapter.parameters(*rank)).sum()
    }
}

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepMetrics {
    /// Optimizer step, from 1.
    pub step: usize,
    /// Loss over the targets of the window, before the step.
    pub loss: f64,
    /// Global gradient norm before clipping.
    pub grad_norm: f64,
    /// Learning rate of A and B.
    pub lr: f64,
    /// Targets of the window.
    pub targets: usize,
    /// Tokens of the window, padding not counted.
    pub tokens: usize,
    /// Seconds of training since the run began, evaluations not counted.
    pub seconds: f64,
    /// Memory after the step, bytes: what Burn holds on a GPU ([`device_bytes`]), or on a CPU the resident
    /// memory of the process; 0 where the system does not say.
    ///
    /// [`device_bytes`]: crate::memory::device_bytes
    pub resident_bytes: u64,
}

/// Who wants to know what happens in a run. Every method does nothing by default; an error stops
/// the run.
pub trait Observer: Send {
    /// Before the first evaluation and the first step.
    fn started(&mut self, _start: &RunStart) -> Result<(), TrainError> {
        Ok(())
    }

    /// After an optimizer step.
    fn step(&mut self, _metrics: &StepMetrics) -> Result<(), TrainError> {
        Ok(())
    }

    /// After `started`, where a run goes on from a checkpoint.
    fn resumed(&mut self, _progress: &Progress, _updates: &[RankUpdate]) -> Result<(), TrainError> {
        Ok(())
    }

    /// A window was skipped in the step that is under way, because a number was not finite.
    fn skipped(&mut self, _step: usize, _detail: &str) -> Result<(), TrainError> {
        Ok(())
    }

    /// Before a checkpoint is written: what was said so far should outlast it.
    fn saving(&mut self, _step: usize) -> Result<(), TrainError> {
        Ok(())
    }

    /// A checkpoint was written.
    fn saved(&mut self, _step: usize, _path: &Path) -> Result<(), TrainError> {
        Ok(())
    }

    /// A checkpoint or a log could not be written, and the run goes on all the same.
    fn not_saved(&mut self, _step: usize, _error: &TrainError) -> Result<(), TrainError> {
        Ok(())
    }

    /// During an evaluation: `done` of `total` batches.
    fn evaluating(&mut self, _step: usize, _done: usize, _total: usize) -> Result<(), TrainError> {
        Ok(())
    }

    /// After an evaluation; `step` optimizer steps were taken before it.
    fn evaluated(&mut self, _step: usize, _result: &EvalResult) -> Result<(), TrainError> {
        Ok(())
    }

    /// After a rank update.
    fn ranks_moved(&mut self, _update: &RankUpdate) -> Result<(), TrainError> {
        Ok(())
    }

    /// After the last evaluation, the adapter saved.
    fn finished(&mut self, _report: &RunReport) -> Result<(), TrainError> {
        Ok(())
    }
}
