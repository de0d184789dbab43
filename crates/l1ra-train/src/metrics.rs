//! What a run says while it goes, and the files it says it to.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::json;

use crate::{callback::RankUpdate, error::TrainError, eval::EvalResult};

/// One optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize)]
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
    /// Seconds since the run began.
    pub seconds: f64,
}

/// Who wants to know what happens in a run. Every method does nothing by default.
pub trait Observer: Send {
    /// After an optimizer step.
    fn step(&mut self, _metrics: &StepMetrics) -> Result<(), TrainError> {
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
}

/// Writes `metrics.jsonl` (steps and evaluations) and `ranks.jsonl` (every rank decision).
#[derive(Debug)]
pub struct JsonLines {
    metrics: (PathBuf, File),
    ranks: (PathBuf, File),
}

impl JsonLines {
    /// Makes both files in `dir`, in place of older ones.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(dir: &Path) -> Result<Self, TrainError> {
        let open = |name: &str| {
            let path = dir.join(name);
            let file = OpenOptions::new()
                .create(true)
                .write(true)
                .truncate(true)
                .open(&path);
            file.map(|file| (path.clone(), file))
                .map_err(|error| TrainError::io(path, error))
        };
        Ok(Self {
            metrics: open("metrics.jsonl")?,
            ranks: open("ranks.jsonl")?,
        })
    }
}

fn line(target: &mut (PathBuf, File), value: &impl Serialize) -> Result<(), TrainError> {
    let (path, file) = target;
    let mut text = serde_json::to_string(value)
        .map_err(|error| TrainError::io(path.as_path(), error.into()))?;
    text.push('\n');
    file.write_all(text.as_bytes())
        .map_err(|error| TrainError::io(path.as_path(), error))
}

impl Observer for JsonLines {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        line(&mut self.metrics, metrics)
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        let EvalResult {
            loss,
            perplexity,
            tokens,
        } = result;
        let value = json!({"step": step, "eval_loss": loss, "eval_perplexity": perplexity, "eval_tokens": tokens});
        line(&mut self.metrics, &value)
    }

    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        let plan = &update.plan;
        let value = json!({
            "step": update.step,
            "spare": plan.spare,
            "ranks": plan.ranks(),
            "changes": plan.changes.iter().filter(|change| change.is_change()).collect::<Vec<_>>(),
            "min_gates": plan.min_values.iter().map(|v| v.is_finite().then_some(*v)).collect::<Vec<_>>(),
            "excluded": plan.excluded,
            "order": plan.order,
            "grown": plan.grown,
        });
        line(&mut self.ranks, &value)
    }
}
