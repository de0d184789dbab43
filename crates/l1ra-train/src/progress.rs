//! The terminal: a progress bar, or plain lines where the output is no terminal.

use std::io::{IsTerminal, Write};

use burn::train::{
    logger::{EvaluationProgressLogger, TrainingProgressLogger},
    metric::MetricDefinition,
    renderer::{
        EvaluationName, MetricState, MetricsRenderer, MetricsRendererEvaluation,
        MetricsRendererTraining,
    },
};
use indicatif::{ProgressBar, ProgressStyle};

use crate::{
    callback::RankUpdate,
    error::TrainError,
    eval::EvalResult,
    metrics::{Observer, StepMetrics},
};

/// Shows a run on standard error.
#[derive(Debug)]
pub struct Progress {
    total: usize,
    every: usize,
    bar: Option<ProgressBar>,
    tokens: usize,
}

impl Progress {
    /// A bar where standard error is a terminal; else a line about ten times in `total` steps.
    pub fn new(total: usize) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template(
                "{bar:30} {pos}/{len}  {msg}  [{elapsed_precise} < {eta_precise}]",
            );
            ProgressBar::new(total as u64)
                .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self {
            total,
            every: total.div_ceil(10).max(1),
            bar,
            tokens: 0,
        }
    }

    /// Prints a line, above the bar where there is one. A closed standard error is no reason to
    /// stop a run.
    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => {
                let _ = writeln!(std::io::stderr(), "{text}");
            }
        }
    }
}

impl Observer for Progress {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.tokens += metrics.tokens;
        let rate = self.tokens as f64 / metrics.seconds.max(1e-9);
        let StepMetrics { step, loss, .. } = metrics;
        match &self.bar {
            Some(bar) => {
                bar.set_message(format!("loss {loss:.4}  {rate:.0} tokens/s"));
                bar.set_position(*step as u64);
                if *step == self.total {
                    bar.finish_and_clear();
                }
            }
            None if step % self.every == 0 || *step == 1 => {
                self.line(&format!(
                    "step {step}/{}  loss {loss:.4}  {rate:.0} tokens/s",
                    self.total
                ));
            }
            None => {}
        }
        Ok(())
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        let EvalResult {
            loss, perplexity, ..
        } = result;
        self.line(&format!(
            "step {step}  eval loss {loss:.4}  perplexity {perplexity:.2}"
        ));
        Ok(())
    }

    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        let spare = update.plan.spare;
        if spare > 0 {
            let grown = update.plan.grown.len();
            self.line(&format!(
                "step {}  {spare} ranks pruned, {grown} grown",
                update.step
            ));
        }
        Ok(())
    }
}

/// Burn's renderer, silent: [`Progress`] shows what is to be seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl MetricsRendererTraining for Silent {
    fn update_train(&mut self, _: MetricState) {}
    fn update_valid(&mut self, _: MetricState) {}
}

impl MetricsRendererEvaluation for Silent {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}
}

impl TrainingProgressLogger for Silent {
    fn start(&mut self, _: usize, _: usize, _: Option<usize>, _: Option<&str>) {}
    fn update_epoch(&mut self, _: usize) {}
    fn start_split(&mut self, _: &str, _: usize) {}
    fn update_split(&mut self, _: usize) {}
    fn end_split(&mut self) {}
    fn end(&mut self) {}
    fn log_event_training(&mut self, _: String) {}
}

impl EvaluationProgressLogger for Silent {
    fn start_global_progress(&mut self, _: usize) {}
    fn start_test(&mut self, _: &str, _: usize) {}
    fn update_test_progress(&mut self, _: usize) {}
    fn end_test(&mut self) {}
    fn end_global_progress(&mut self) {}
    fn log_event_evaluation(&mut self, _: String) {}
}

impl MetricsRenderer for Silent {
    fn manual_close(&mut self) {}
    fn register_metric(&mut self, _: MetricDefinition) {}
}
