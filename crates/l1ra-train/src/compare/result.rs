//! [`RunResult`]: what a finished run of a comparison leaves in its folder.

use std::path::Path;

use l1ra_core::files::write_whole;
use serde::{Deserialize, Serialize};

use crate::{
    checkpoint::Identity, compare::Cell, error::TrainError, ranks::RankTable, run::RunReport,
};

/// Name of its file in the run's folder.
pub const RESULT_FILE: &str = "result.json";

/// A finished run in numbers, with what it is known by: the same settings, model and data are the same
/// run, which is not made again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Version of the program that trained it.
    pub version: String,
    /// Which run.
    pub cell: Cell,
    /// Evaluation loss before training.
    pub loss_before: Option<f64>,
    /// Evaluation loss after training; `None` where a number was not finite.
    pub loss: Option<f64>,
    /// Why there is no loss.
    pub failure: Option<String>,
    /// Adapter parameters at the start and at the end.
    pub parameters: [usize; 2],
    /// Ranks that ended in another adapter than they began in.
    pub moved: usize,
    /// Optimizer steps.
    pub steps: usize,
    /// Seconds of an optimizer step, the mean over all of them.
    pub step_seconds: f64,
    /// Peak memory of this run, bytes; `None` where it cannot be told from that of the runs before.
    pub peak_bytes: Option<u64>,
    /// Ranks before and after.
    pub ranks: RankTable,
    /// Settings, model and data.
    pub identity: Identity,
}

/// Settings that make another run here although a checkpoint may go on with them: what a step costs
/// depends on the device, and a longer run is another one.
const STRICT: [&str; 2] = ["/train/steps", "/device"];

impl RunResult {
    pub(super) fn new(cell: &Cell, report: RunReport, identity: Identity) -> Self {
        let steps = report.losses.len();
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            cell: cell.clone(),
            loss_before: Some(report.before.loss),
            loss: Some(report.after.loss),
            failure: None,
            parameters: report.parameters,
            moved: report.ranks.moved(),
            steps,
            step_seconds: report.seconds / steps.max(1) as f64,
            peak_bytes: Some(report.peak_bytes).filter(|bytes| *bytes > 0),
            ranks: report.ranks,
            identity,
        }
    }

    /// Of a run in which a number was not finite.
    pub(super) fn failed(cell: &Cell, step: usize, detail: String, identity: Identity) -> Self {
        Self {
            version: env!("CARGO_PKG_VERSION").into(),
            cell: cell.clone(),
            loss_before: None,
            loss: None,
            failure: Some(detail),
            parameters: [0, 0],
            moved: 0,
            steps: step,
            step_seconds: 0.0,
            peak_bytes: None,
            ranks: RankTable::default(),
            identity,
        }
    }

    /// The result in a run's folder; `None` where there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read(folder: &Path) -> Result<Option<Self>, TrainError> {
        let path = folder.join(RESULT_FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(TrainError::io(path, error)),
        };
        match serde_json::from_str(&text) {
            Ok(result) => Ok(Some(result)),
            Err(error) => Err(TrainError::Data {
                path,
                detail: format!("is no result of a run ({error}); remove it to run again"),
            }),
        }
    }

    pub(super) fn write(&self, folder: &Path) -> Result<(), TrainError> {
        let path = folder.join(RESULT_FILE);
        let text = serde_json::to_string_pretty(self)
            .map_err(|error| TrainError::io(&path, error.into()))?;
        write_whole(&path, (text + "\n").as_bytes()).map_err(|error| TrainError::io(path, error))
    }

    /// Final ranks, in the module's order.
    pub fn final_ranks(&self) -> Vec<f64> {
        let entries = self.ranks.entries.iter();
        entries.map(|entry| entry.after as f64).collect()
    }
}

/// What keeps a run with `identity` from being the one of `saved`, one sentence each.
pub(super) fn differences(identity: &Identity, saved: &Identity) -> Vec<String> {
    let mut found = identity.differences(saved);
    for key in STRICT {
        let (then, now) = (saved.settings.pointer(key), identity.settings.pointer(key));
        if let (Some(then), Some(now)) = (then, now)
            && then != now
        {
            let name = key.trim_start_matches('/').replace('/', ".");
            found.push(format!("{name} is {now}, and was {then}"));
        }
    }
    found
}
