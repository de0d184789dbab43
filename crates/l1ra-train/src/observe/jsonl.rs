//! The files of a run, one JSON object a line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use l1ra_core::files::write_whole;
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    callback::RankUpdate,
    checkpoint::Progress,
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
    /// Rank decisions from before the run was gone on with.
    earlier: Option<Vec<String>>,
}

const METRICS: &str = "metrics.jsonl";
const RANKS: &str = "ranks.jsonl";

impl JsonLines {
    /// Makes both files in `dir`, in place of older ones.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(dir: &Path) -> Result<Self, TrainError> {
        let new = |name: &str| {
            let path = dir.join(name);
            let made = File::create(&path);
            made.map(|file| (path.clone(), file))
                .map_err(|error| TrainError::io(path, error))
        };
        Ok(Self {
            metrics: new(METRICS)?,
            ranks: new(RANKS)?,
            start: None,
            earlier: None,
        })
    }

    /// Goes on with both files in `dir` from a checkpoint's `progress`: what was written after it is
    /// taken out, as it comes again.
    ///
    /// # Errors
    /// When they cannot be read or written.
    pub fn resume(dir: &Path, progress: &Progress) -> Result<Self, TrainError> {
        let step = progress.step as u64;
        let evaluated = progress.evaluated.map(|last| last.step as u64);
        let metrics = kept(&dir.join(METRICS), |at, line| match line {
            line if line.get("eval_loss").is_some() => Some(at) <= evaluated,
            _ => at <= step,
        })?;
        let earlier = kept(&dir.join(RANKS), |at, line| {
            at <= step && line.get("final").is_none()
        })?;
        Ok(Self {
            metrics: rewritten(dir.join(METRICS), &metrics)?,
            ranks: rewritten(dir.join(RANKS), &earlier)?,
            start: None,
            earlier: Some(earlier),
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

/// The lines of a file about a step that `keep` wants; a line that is no JSON was cut off.
fn kept(path: &Path, keep: impl Fn(u64, &Value) -> bool) -> Result<Vec<String>, TrainError> {
    let text = match std::fs::read(path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(TrainError::io(path, error)),
    };
    let wanted = |line: &&str| {
        let value: Value = serde_json::from_str(line).unwrap_or_default();
        let step = value.get("step").and_then(Value::as_u64);
        step.is_some_and(|step| keep(step, &value))
    };
    Ok(text.lines().filter(wanted).map(String::from).collect())
}

/// A file of these lines, to be added to.
fn rewritten(path: PathBuf, lines: &[String]) -> Result<(PathBuf, File), TrainError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = write_whole(&path, text.as_bytes())
        .and_then(|()| OpenOptions::new().append(true).open(&path));
    match file {
        Ok(file) => Ok((path, file)),
        Err(error) => Err(TrainError::io(path, error)),
    }
}

impl Observer for JsonLines {
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.start = Some(start.clone());
        if let Some(earlier) = self.earlier.take() {
            let first = serde_json::to_string(start)
                .map_err(|error| TrainError::io(&self.ranks.0, error.into()))?;
            let lines: Vec<String> = std::iter::once(first).chain(earlier).collect();
            self.ranks = rewritten(self.ranks.0.clone(), &lines)?;
            return Ok(());
        }
        line(&mut self.ranks, start)
    }

    fn skipped(&mut self, step: usize, detail: &str) -> Result<(), TrainError> {
        line(&mut self.metrics, &json!({"step": step, "skipped": detail}))
    }

    /// What a checkpoint goes on from must not be lost with the power.
    fn saving(&mut self, _step: usize) -> Result<(), TrainError> {
        for (path, file) in [&self.metrics, &self.ranks] {
            file.sync_data()
                .map_err(|error| TrainError::io(path.as_path(), error))?;
        }
        Ok(())
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
