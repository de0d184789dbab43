//! [`RunLine`]: the runs as CSV.

use serde::Serialize;

use crate::compare::{RunResult, Table};

const HEAD: &str = "policy,rank,lr,seed,eval_loss,parameters_start,parameters_end,ranks_moved,\
                    step_seconds,peak_bytes,run\n";

/// A run, as a line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RunLine {
    /// The policy, with its targets where the grid has several.
    pub policy: String,
    /// Initial rank, of the grid's first targets.
    pub rank: usize,
    /// Learning rate.
    pub lr: f64,
    /// Seed.
    pub seed: u64,
    /// Eval loss after training.
    pub eval_loss: Option<f64>,
    /// Adapter parameters at the start.
    pub parameters_start: usize,
    /// The same at the end.
    pub parameters_end: usize,
    /// Ranks that ended in another adapter.
    pub ranks_moved: usize,
    /// Seconds of an optimizer step.
    pub step_seconds: f64,
    /// Peak memory, bytes.
    pub peak_bytes: Option<u64>,
    /// Name of the run, and of its folder in `runs`.
    pub run: String,
}

impl RunLine {
    pub(super) fn new(result: &RunResult) -> Self {
        let cell = &result.cell;
        Self {
            policy: cell.arm(),
            rank: cell.rank,
            lr: cell.lr,
            seed: cell.seed,
            eval_loss: result.loss,
            parameters_start: result.parameters[0],
            parameters_end: result.parameters[1],
            ranks_moved: result.moved,
            step_seconds: result.step_seconds,
            peak_bytes: result.peak_bytes,
            run: cell.name(),
        }
    }
}

impl Table {
    /// Every run as a line of CSV, numbers in full; what is not known is empty.
    pub fn csv(&self) -> String {
        HEAD.to_string() + &self.runs.iter().map(line).collect::<String>()
    }
}

fn line(run: &RunLine) -> String {
    let loss = run.eval_loss.map_or(String::new(), |loss| loss.to_string());
    let peak = run
        .peak_bytes
        .map_or(String::new(), |bytes| bytes.to_string());
    format!(
        "{},{},{},{},{loss},{},{},{},{},{peak},{}\n",
        quoted(&run.policy),
        run.rank,
        run.lr,
        run.seed,
        run.parameters_start,
        run.parameters_end,
        run.ranks_moved,
        run.step_seconds,
        quoted(&run.run),
    )
}

/// As RFC 4180 has it.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}
