//! [`RunRecord::read`]: a run's folder, read.

use std::path::Path;

use serde::Deserialize;

use crate::{
    error::TrainError,
    eval::EvalResult,
    observe::{RunStart, StepMetrics},
    report::{
        info::RunInfo,
        lines::{Line, read_lines},
        record::{Evaluation, RunRecord},
    },
};

impl RunRecord {
    /// Reads the folder of a run. A run that was cut off is read as far as it went: the last line
    /// of a file may be half a line.
    ///
    /// # Errors
    /// When `dir` is no folder or holds no `metrics.jsonl`, and when a line is damaged: file, line
    /// and what is wrong are named.
    pub fn read(dir: &Path) -> Result<Self, TrainError> {
        let data = |detail: &str| TrainError::Data {
            path: dir.into(),
            detail: detail.into(),
        };
        if !dir.is_dir() {
            return Err(data(
                "there is no such folder; name the output folder of a run",
            ));
        }
        let mut record = Self::default();
        let metrics = dir.join("metrics.jsonl");
        let Some(lines) = read_lines(&metrics)? else {
            return Err(data(
                "no metrics.jsonl in it, so it is not the output folder of a run; name the folder that \
                 the run wrote to",
            ));
        };
        record.note_cut("metrics.jsonl", lines.cut);
        lines
            .lines
            .iter()
            .try_for_each(|line| record.add_metrics(line))?;
        record.read_ranks(&dir.join("ranks.jsonl"))?;
        record.info = RunInfo::read(&dir.join("run.json"), &mut record.notes)?;
        record.recipe = read_text(&dir.join("recipe.toml"))?;
        if let Some(note) = record.cut_off() {
            record.notes.insert(0, note);
        }
        Ok(record)
    }

    fn note_cut(&mut self, file: &str, cut: Option<usize>) {
        if let Some(number) = cut {
            let note = format!("{file} ends in half a line (line {number}), which was left out.");
            self.notes.push(note);
        }
    }

    fn add_metrics(&mut self, line: &Line) -> Result<(), TrainError> {
        if line.has("eval_loss") {
            self.evaluations
                .push(line.parse_as::<EvalLine>("an evaluation")?.into());
        } else if line.has("skipped") {
            let SkippedLine { step, skipped } = line.parse_as("a skipped window")?;
            let note = format!("A window of step {step} was skipped: {skipped}.");
            self.notes.push(note);
        } else if line.has("loss") {
            self.steps.push(line.parse_as::<StepLine>("a step")?.into());
        } else {
            return Err(line.error("neither a step (`loss`) nor an evaluation (`eval_loss`)"));
        }
        Ok(())
    }

    fn read_ranks(&mut self, path: &Path) -> Result<(), TrainError> {
        let Some(read) = read_lines(path)? else {
            self.notes
                .push("There is no ranks.jsonl, so nothing is known of ranks.".into());
            return Ok(());
        };
        self.note_cut("ranks.jsonl", read.cut);
        let Some((first, rest)) = read.lines.split_first() else {
            return Ok(());
        };
        let start: RunStart = first.parse_as("the start of the run")?;
        for line in rest {
            if self.end.is_some() {
                return Err(line.error("a line after the run's last one (`final`)"));
            }
            let (ranks, gates) = if line.has("final") {
                let end = self.end.insert(line.parse_as("the end of the run")?);
                (&end.ranks, &end.gates)
            } else {
                self.updates.push(line.parse_as("a rank update")?);
                let Some(update) = self.updates.last() else {
                    continue;
                };
                (&update.ranks, &update.gates)
            };
            check_length(line, "ranks", ranks.len(), start.adapters.len())?;
            if !gates.is_empty() {
                check_length(line, "gates", gates.len(), start.adapters.len())?;
            }
        }
        self.start = Some(start);
        Ok(())
    }
}

fn check_length(line: &Line, what: &str, seen: usize, expected: usize) -> Result<(), TrainError> {
    if seen == expected {
        return Ok(());
    }
    Err(line.error(&format!(
        "`{what}` has {seen} entries, and the run has {expected} adapters (line 1); was the file \
         put together from two runs?"
    )))
}

fn read_text(path: &Path) -> Result<Option<String>, TrainError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(TrainError::io(path, error)),
    }
}

/// A step as it stands in the file: JSON writes a number that is not finite as `null`.
#[derive(Deserialize)]
struct StepLine {
    step: usize,
    loss: Option<f64>,
    grad_norm: Option<f64>,
    lr: Option<f64>,
    #[serde(default)]
    targets: usize,
    #[serde(default)]
    tokens: usize,
    #[serde(default)]
    seconds: f64,
    #[serde(default)]
    resident_bytes: u64,
}

impl From<StepLine> for StepMetrics {
    fn from(line: StepLine) -> Self {
        Self {
            step: line.step,
            loss: line.loss.unwrap_or(f64::NAN),
            grad_norm: line.grad_norm.unwrap_or(f64::NAN),
            lr: line.lr.unwrap_or(f64::NAN),
            targets: line.targets,
            tokens: line.tokens,
            seconds: line.seconds,
            resident_bytes: line.resident_bytes,
        }
    }
}

#[derive(Deserialize)]
struct SkippedLine {
    step: usize,
    skipped: String,
}

#[derive(Deserialize)]
struct EvalLine {
    step: usize,
    eval_loss: f64,
    eval_perplexity: Option<f64>,
    #[serde(default)]
    eval_tokens: usize,
}

impl From<EvalLine> for Evaluation {
    fn from(line: EvalLine) -> Self {
        Self {
            step: line.step,
            result: EvalResult {
                loss: line.eval_loss,
                perplexity: line.eval_perplexity.unwrap_or_else(|| line.eval_loss.exp()),
                tokens: line.eval_tokens,
            },
        }
    }
}
