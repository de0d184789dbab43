//! The files of a run, one JSON object a line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek, SeekFrom, Write},
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
///
/// Lines that cannot be written wait for the next one, and the first failure is an error, as is one at
/// the end. So a run that goes on over a full disk loses none if there is room again.
#[derive(Debug)]
pub struct JsonLines {
    metrics: Lines,
    ranks: Lines,
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
            match File::create(&path) {
                Ok(file) => Ok(Lines::new(path, file, 0)),
                Err(error) => Err(TrainError::io(path, error)),
            }
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

/// A file of lines, whole ones only, and those that wait.
#[derive(Debug)]
struct Lines {
    path: PathBuf,
    file: File,
    /// Bytes of the lines that are in the file.
    written: u64,
    waiting: String,
    /// Whether it was said that lines wait.
    told: bool,
}

impl Lines {
    fn new(path: PathBuf, file: File, written: u64) -> Self {
        Self {
            path,
            file,
            written,
            waiting: String::new(),
            told: false,
        }
    }

    /// Adds a line. An error is returned when the first of several cannot be written.
    fn add(&mut self, value: &impl Serialize) -> Result<(), TrainError> {
        let text = serde_json::to_string(value)
            .map_err(|error| TrainError::io(self.path.as_path(), error.into()))?;
        self.waiting.push_str(&text);
        self.waiting.push('\n');
        let told = self.told;
        let written = self.write();
        self.told = written.is_err();
        match written {
            Err(error) if !told => Err(error),
            _ => Ok(()),
        }
    }

    fn write(&mut self) -> Result<(), TrainError> {
        let written = self.file.write_all(self.waiting.as_bytes());
        if let Err(error) = written {
            // Half a line would spoil the next one; and if it cannot be cut off, readers pass over it.
            let _ = self.file.set_len(self.written);
            let _ = self.file.seek(SeekFrom::Start(self.written));
            return Err(TrainError::io(self.path.as_path(), error));
        }
        self.written += self.waiting.len() as u64;
        self.waiting.clear();
        Ok(())
    }
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
fn rewritten(path: PathBuf, lines: &[String]) -> Result<Lines, TrainError> {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let file = write_whole(&path, text.as_bytes())
        .and_then(|()| OpenOptions::new().append(true).open(&path));
    match file {
        Ok(file) => Ok(Lines::new(path, file, text.len() as u64)),
        Err(error) => Err(TrainError::io(path, error)),
    }
}

impl Observer for JsonLines {
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.start = Some(start.clone());
        if let Some(earlier) = self.earlier.take() {
            let first = serde_json::to_string(start)
                .map_err(|error| TrainError::io(self.ranks.path.as_path(), error.into()))?;
            let lines: Vec<String> = std::iter::once(first).chain(earlier).collect();
            self.ranks = rewritten(self.ranks.path.clone(), &lines)?;
            return Ok(());
        }
        self.ranks.add(start)
    }

    fn skipped(&mut self, step: usize, detail: &str) -> Result<(), TrainError> {
        self.metrics.add(&json!({"step": step, "skipped": detail}))
    }

    /// What a checkpoint goes on from must not be lost with the power.
    fn saving(&mut self, _step: usize) -> Result<(), TrainError> {
        for lines in [&self.metrics, &self.ranks] {
            let synced = lines.file.sync_data();
            synced.map_err(|error| TrainError::io(lines.path.as_path(), error))?;
        }
        Ok(())
    }

    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.metrics.add(metrics)
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        let EvalResult {
            loss,
            perplexity,
            tokens,
        } = result;
        let value = json!({"step": step, "eval_loss": loss, "eval_perplexity": perplexity, "eval_tokens": tokens});
        self.metrics.add(&value)
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
        self.ranks.add(&value)
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
        self.ranks.add(&value)?;
        self.metrics.write()?;
        self.ranks.write()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn lines_wait_while_they_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(METRICS);
        let mut lines = Lines::new(path.clone(), File::create(&path).unwrap(), 0);
        lines.add(&json!({"step": 1})).unwrap();
        let good = std::mem::replace(&mut lines.file, File::open(&path).unwrap());
        let error = lines.add(&json!({"step": 2})).unwrap_err().to_string();
        assert!(error.contains(METRICS), "{error}");
        lines.add(&json!({"step": 3})).unwrap();
        assert!(lines.write().is_err());
        lines.file = good;
        lines.add(&json!({"step": 4})).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"step\":1}\n{\"step\":2}\n{\"step\":3}\n{\"step\":4}\n"
        );
        assert!(lines.write().is_ok() && !lines.told);
    }
}
