//! [`RunSummary`]: what `run.json` holds.

use std::{path::Path, time::SystemTime};

use l1ra_core::files::write_whole;
use serde::{Deserialize, Serialize};

use crate::{
    data::DataStats,
    error::TrainError,
    eval::EvalResult,
    job::{DataFacts, Plan},
    run::RunReport,
};

/// Name of the file.
pub const SUMMARY_FILE: &str = "run.json";

/// A finished run in numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunSummary {
    /// Version of this program.
    pub version: String,
    /// The model, as the recipe names it.
    pub model: String,
    /// The device.
    pub device: String,
    /// What the frozen matrices were kept in.
    pub dtype: String,
    /// When it began, RFC 3339, UTC.
    pub started: String,
    /// When it ended.
    pub finished: String,
    /// Optimizer steps.
    pub steps: usize,
    /// Evaluation before training.
    pub before: EvalResult,
    /// Evaluation after training.
    pub after: EvalResult,
    /// Adapter parameters at the start and at the end.
    pub parameters: [usize; 2],
    /// Sum of all ranks at the start and at the end.
    pub ranks: [usize; 2],
    /// Ranks that ended in another adapter than they began in.
    pub moved: usize,
    /// Rank updates.
    pub updates: usize,
    /// Tokens trained on, padding not counted.
    pub tokens: usize,
    /// Seconds in optimizer steps.
    pub seconds: f64,
    /// Peak memory, bytes, as [`RunReport::peak_bytes`] counts it; 0 where the system does not say.
    pub peak_bytes: u64,
    /// Training data.
    pub train: DataStats,
    /// Evaluation data.
    pub eval: DataStats,
    /// What was predicted before the run.
    pub prediction: Prediction,
}

/// The plan's numbers that a run is measured against.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// Peak memory, bytes.
    pub peak_bytes: u64,
    /// Seconds of an optimizer step, where they were measured.
    pub step_seconds: Option<f64>,
}

impl RunSummary {
    pub(crate) fn new(plan: &Plan, report: &RunReport, started: SystemTime) -> Self {
        let time = |time| humantime::format_rfc3339_seconds(time).to_string();
        let (before, after) = report.ranks.totals();
        let recipe = &plan.recipe;
        let (train, eval) = match &plan.data {
            DataFacts::Tokenised(data) => (data.train.clone(), data.eval.clone()),
            DataFacts::Counted { .. } => Default::default(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            model: recipe.model.path.clone(),
            device: recipe.device.clone(),
            dtype: recipe.model.dtype.to_string(),
            started: time(started),
            finished: time(SystemTime::now()),
            steps: report.losses.len(),
            before: report.before,
            after: report.after,
            parameters: report.parameters,
            ranks: [before, after],
            moved: report.ranks.moved(),
            updates: report.updates.len(),
            tokens: report.tokens,
            seconds: report.seconds,
            peak_bytes: report.peak_bytes,
            train,
            eval,
            prediction: plan.prediction(),
        }
    }

    pub(crate) fn write(&self, dir: &Path) -> Result<(), TrainError> {
        let path = dir.join(SUMMARY_FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| TrainError::io(&path, error.into()))?;
        write_whole(&path, (text + "\n").as_bytes()).map_err(|error| TrainError::io(path, error))
    }
}
