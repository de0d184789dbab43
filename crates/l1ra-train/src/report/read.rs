//! [`RunRecord::read`]: a run's folder, read.

use std::path::Path;

use serde::Deserialize;

use crate::{
    error::TrainError,
    eval::EvalResult,
    observe::{RunStart, StepMetrics},
    report::{
        info::RunInfo,
        lines::{Line, each_line},
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
        let Some(read) = each_line(&metrics, |line| record.add_metrics(line))? else {
            return Err(data(
                "no metrics.jsonl in it, so it is not the output folder of a run; name the folder that \
                 the run wrote to",
            ));
        };
        record.note_cut("metrics.jsonl", read.cut);
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

    fn add_metrics(&mut self, line: &Line<'_>) -> Result<(), TrainError> {
        if line.keys().eval_loss {
            let evaluation: EvalLine = line.parse_as("an evaluation")?;
            check_size(line, "step", evaluation.step, MAX_COUNT)?;
            self.evaluations.push(evaluation.into());
        } else if line.keys().skipped {
            let SkippedLine { step, skipped } = line.parse_as("a skipped window")?;
            let note = format!("A window of step {step} was skipped: {skipped}.");
            self.notes.push(note);
        } else if line.keys().loss {
            let step: StepLine = line.parse_as("a step")?;
            check_size(line, "step", step.step, MAX_COUNT)?;
            check_size(line, "tokens", step.tokens, MAX_COUNT)?;
            self.steps.push(step.into());
        } else {
            return Err(line.error("neither a step (`loss`) nor an evaluation (`eval_loss`)"));
        }
        Ok(())
    }

    fn read_ranks(&mut self, path: &Path) -> Result<(), TrainError> {
        match each_line(path, |line| self.add_ranks(line))? {
            Some(read) => self.note_cut("ranks.jsonl", read.cut),
            None => self
                .notes
                .push("There is no ranks.jsonl, so nothing is known of ranks.".into()),
        }
        Ok(())
    }

    fn add_ranks(&mut self, line: &Line<'_>) -> Result<(), TrainError> {
        let Some(start) = &self.start else {
            let start: RunStart = line.parse_as("the start of the run")?;
            check_start(line, &start)?;
            self.start = Some(start);
            return Ok(());
        };
        if self.end.is_some() {
            return Err(line.error("a line after the run's last one (`final`)"));
        }
        let adapters = start.adapters.len();
        let (step, ranks, gates) = if line.keys().r#final {
            let end = self.end.insert(line.parse_as("the end of the run")?);
            (end.step, &end.ranks, &end.gates)
        } else {
            self.updates.push(line.parse_as("a rank update")?);
            let Some(update) = self.updates.last() else {
                return Ok(());
            };
            (update.step, &update.ranks, &update.gates)
        };
        check_size(line, "step", step, MAX_COUNT)?;
        check_length(line, "ranks", ranks.len(), adapters)?;
        let largest = ranks.iter().copied().max().unwrap_or(0);
        check_size(line, "ranks", largest, MAX_WIDTH)?;
        if !gates.is_empty() {
            check_length(line, "gates", gates.len(), adapters)?;
        }
        Ok(())
    }
}

/// Largest rank and width of a layer: what is summed and multiplied then stays a number.
const MAX_WIDTH: usize = 1 << 24;
/// Most adapters; a model of a thousand layers has fewer.
const MAX_ADAPTERS: usize = 1 << 14;
/// Largest number of a step or of its tokens.
const MAX_COUNT: usize = 1 << 40;

fn check_start(line: &Line<'_>, start: &RunStart) -> Result<(), TrainError> {
    check_size(line, "steps", start.steps, MAX_COUNT)?;
    check_size(line, "adapters", start.adapters.len(), MAX_ADAPTERS)?;
    for adapter in &start.adapters {
        check_size(line, "rank", adapter.rank, MAX_WIDTH)?;
        check_size(line, "d_in", adapter.d_in, MAX_WIDTH)?;
        check_size(line, "d_out", adapter.d_out, MAX_WIDTH)?;
    }
    Ok(())
}

fn check_size(line: &Line<'_>, what: &str, seen: usize, most: usize) -> Result<(), TrainError> {
    if seen <= most {
        return Ok(());
    }
    Err(line.error(&format!("`{what}` is {seen}; at most {most} is possible")))
}

fn check_length(
    line: &Line<'_>,
    what: &str,
    seen: usize,
    expected: usize,
) -> Result<(), TrainError> {
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
