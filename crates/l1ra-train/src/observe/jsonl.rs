//! The files of a run, one JSON object a line.

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

use serde::Serialize;
use serde_json::json;

use crate::{
    callback::RankUpdate,
    error::TrainError,
    eval::EvalResult,
    observe::{Observer, RunStart, StepMetrics},
    run::RunReport,
};

/// Writes `metrics.jsonl` (steps and evaluations) and `ranks.jsonl`: [`RunStart`], every rank
/// decision with the gates that it was made from, and the ranks and gates at the end.
#[derive(Debug)]
pub struct JsonLines {
    metrics: (PathBuf, File),
    ranks: (PathBuf, File),
    start: Option<RunStart>,
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
            start: None,
        })
    }

    fn parameters(&self, ranks: &[usize]) -> Option<usize> {
        self.start.as_ref().map(|start| start.parameters(ranks))
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
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.start = Some(start.clone());
        line(&mut self.ranks, start)
    }

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
        let ranks = plan.ranks();
        let value = json!({
            "step": update.step,
            "spare": plan.spare,
            "parameters": self.parameters(&ranks),
            "ranks": ranks,
            "gates": update.gates,
            "changes": plan.changes.iter().filter(|change| change.is_change()).collect::<Vec<_>>(),
            "min_gates": plan.min_values.iter().map(|v| v.is_finite().then_some(*v)).collect::<Vec<_>>(),
            "excluded": plan.excluded,
            "order": plan.order,
            "grown": plan.grown,
        });
        line(&mut self.ranks, &value)
    }

    fn finished(&mut self, report: &RunReport) -> Result<(), TrainError> {
        let ranks: Vec<usize> = report
            .ranks
            .entries
            .iter()
            .map(|entry| entry.after)
            .collect();
        let value = json!({
            "step": report.losses.len(),
            "final": true,
            "parameters": self.parameters(&ranks),
            "ranks": ranks,
            "gates": report.gates,
        });
        line(&mut self.ranks, &value)
    }
}
