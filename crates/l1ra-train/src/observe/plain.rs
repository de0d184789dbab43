//! Plain lines: what a log can hold, nothing that redraws.

use std::{
    fmt,
    io::{self, Write},
};

use crate::{
    callback::RankUpdate,
    checkpoint::Progress,
    error::TrainError,
    eval::EvalResult,
    observe::{Observer, RunStart, StepMetrics},
    plural::counted,
};

/// Steps between two lines, at most, unless a number is asked for.
const LARGEST_PAUSE: usize = 50;

/// Says a run in lines on standard error: the first step, the last, and one step in every tenth of
/// the run or every fiftieth, whichever comes more often; every evaluation and every rank update.
///
/// Every line begins with `step N`, and names its numbers, so that a log can be searched:
///
/// ```text
/// step 40/400  loss 2.3456  lr 9.80e-5  212 tokens/s  9 min 40 s left
/// step 40  eval loss 2.5100  perplexity 12.30
/// step 40  12 ranks pruned, 12 grown
/// ```
pub struct Plain {
    total: usize,
    every: Option<usize>,
    tokens: usize,
    out: Box<dyn Write + Send>,
}

impl Plain {
    /// Lines on standard error for a run of `total` steps.
    pub fn new(total: usize) -> Self {
        Self::to(total, io::stderr())
    }

    /// Lines to `out` for a run of `total` steps.
    pub fn to(total: usize, out: impl Write + Send + 'static) -> Self {
        Self {
            total,
            every: None,
            tokens: 0,
            out: Box::new(out),
        }
    }

    /// A line every `every` steps.
    pub fn every(self, every: usize) -> Self {
        Self {
            every: Some(every.max(1)),
            ..self
        }
    }

    fn is_due(&self, step: usize) -> bool {
        let usual = self.total.div_ceil(10).clamp(1, LARGEST_PAUSE);
        let every = self.every.unwrap_or(usual);
        step == 1 || step.is_multiple_of(every) || step == self.total
    }

    /// A closed standard error is no reason to stop a run.
    fn line(&mut self, mut line: String) {
        line.push('\n');
        let _ = self.out.write_all(line.as_bytes());
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Plain");
        debug.field("total", &self.total).finish_non_exhaustive()
    }
}

/// `4 s`, `3 min 20 s`, `2 h 05 min`.
pub fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0).round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// An evaluation in a line.
pub(super) fn evaluation_line(step: usize, result: &EvalResult) -> String {
    let (loss, perplexity) = (result.loss, result.perplexity);
    format!("step {step}  eval loss {loss:.4}  perplexity {perplexity:.2}")
}

/// A rank update in a line; none if no rank moved.
pub(super) fn update_line(update: &RankUpdate) -> Option<String> {
    let (step, spare, grown) = (update.step, update.plan.spare, update.plan.grown.len());
    let text = || {
        format!(
            "step {step}  {} pruned, {grown} grown",
            counted(spare, "rank")
        )
    };
    (spare > 0 || grown > 0).then(text)
}

/// That a window was skipped, in a line.
pub(super) fn skipped_line(step: usize, detail: &str) -> String {
    format!("step {step}  a window is skipped: {detail}")
}

/// That a file could not be written, in a line.
pub(super) fn not_saved_line(step: usize, error: &TrainError) -> String {
    format!("step {step}  could not be written, going on without: {error}")
}

impl Observer for Plain {
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.total = start.steps;
        Ok(())
    }

    fn resumed(&mut self, progress: &Progress, _updates: &[RankUpdate]) -> Result<(), TrainError> {
        self.tokens = progress.tokens;
        self.line(format!("step {}  going on from here", progress.step));
        Ok(())
    }

    fn skipped(&mut self, step: usize, detail: &str) -> Result<(), TrainError> {
        self.line(skipped_line(step, detail));
        Ok(())
    }

    fn not_saved(&mut self, step: usize, error: &TrainError) -> Result<(), TrainError> {
        self.line(not_saved_line(step, error));
        Ok(())
    }

    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.tokens += metrics.tokens;
        let StepMetrics { step, loss, lr, .. } = metrics;
        if self.is_due(*step) {
            let total = self.total;
            let rate = self.tokens as f64 / metrics.seconds.max(1e-9);
            let left = metrics.seconds / *step as f64 * total.saturating_sub(*step) as f64;
            self.line(format!(
                "step {step}/{total}  loss {loss:.4}  lr {lr:.2e}  {rate:.0} tokens/s  {} left",
                duration(left)
            ));
        }
        Ok(())
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        self.line(evaluation_line(step, result));
        Ok(())
    }

    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        if let Some(line) = update_line(update) {
            self.line(line);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let said = [3.6, 61.0, 200.0, 7500.0].map(duration);
        assert_eq!(said, ["4 s", "1 min 01 s", "3 min 20 s", "2 h 05 min"]);
    }

    #[test]
    fn a_line_every_few_steps() {
        let due = |plain: &Plain| -> Vec<usize> {
            (1..=plain.total)
                .filter(|step| plain.is_due(*step))
                .collect()
        };
        assert_eq!(due(&Plain::new(5)), [1, 2, 3, 4, 5]);
        assert_eq!(due(&Plain::new(45)), [1, 5, 10, 15, 20, 25, 30, 35, 40, 45]);
        assert_eq!(due(&Plain::new(10_000)).len(), 201);
        assert_eq!(due(&Plain::new(10).every(4)), [1, 4, 8, 10]);
        assert_eq!(due(&Plain::new(3).every(0)), [1, 2, 3]);
    }
}
