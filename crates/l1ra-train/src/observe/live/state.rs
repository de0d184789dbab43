//! [`LiveState`]: what a live display knows of a run.

use std::time::Duration;

use super::{
    grid::RankGrid,
    pace::{Pace, evaluations_left},
};
use crate::{
    callback::RankUpdate,
    checkpoint::Progress,
    eval::EvalResult,
    observe::{RunStart, StepMetrics},
    run::RunReport,
};

/// An update is news for this many steps and this long, whichever lasts longer.
const FRESH: (usize, Duration) = (5, Duration::from_secs(5));

/// Share of the last value in the smoothed loss: about the last ten steps count.
const SMOOTHING: f64 = 0.1;

/// What a display says about a run besides its numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunLabels {
    /// The recipe's or the model's name.
    pub title: String,
    /// Where it trains.
    pub device: String,
    /// Peak of the resident memory that was predicted, bytes.
    pub predicted_peak_bytes: Option<u64>,
}

/// What the run is doing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Starting,
    Training,
    /// Batches done, of how many.
    Evaluating(usize, usize),
    Finished,
    Stopped,
}

/// What [`RunReport`] adds at the end.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) before: f64,
    pub(super) after: f64,
    pub(super) parameters: [usize; 2],
    pub(super) tokens: usize,
    pub(super) seconds: f64,
    pub(super) peak_bytes: u64,
}

/// A run as far as a display has heard of it. No clock and no terminal: every call is given the
/// time since the run began. [`Dashboard`](super::Dashboard) draws it.
#[derive(Clone, Debug)]
pub struct LiveState {
    pub(super) labels: RunLabels,
    pub(super) start: RunStart,
    pub(super) phase: Phase,
    pub(super) last: Option<StepMetrics>,
    /// Loss of every step.
    pub(super) losses: Vec<(f64, f64)>,
    smooth: (f64, f64),
    /// Loss of every evaluation.
    pub(super) evals: Vec<(usize, f64)>,
    pub(super) ranks: RankGrid,
    /// Updates so far.
    pub(super) updates: usize,
    /// Ranks that found a new adapter so far.
    pub(super) moved: usize,
    pub(super) end: Option<End>,
    updated: Option<(usize, Duration)>,
    speed: Pace,
    pace: Pace,
    /// When the last step, update or evaluation ended.
    mark: Duration,
    evaluation: Duration,
    now: Duration,
}

impl LiveState {
    /// A run that has not begun.
    pub fn new(labels: RunLabels) -> Self {
        Self {
            labels,
            start: RunStart {
                steps: 0,
                update_steps: Vec::new(),
                adapters: Vec::new(),
                budget: 0,
                unit: l1ra_core::BudgetUnit::Ranks,
            },
            phase: Phase::default(),
            last: None,
            losses: Vec::new(),
            smooth: (0.0, 0.0),
            evals: Vec::new(),
            ranks: RankGrid::default(),
            updates: 0,
            moved: 0,
            end: None,
            updated: None,
            speed: Pace::over(10.0),
            pace: Pace::over(60.0),
            mark: Duration::ZERO,
            evaluation: Duration::ZERO,
            now: Duration::ZERO,
        }
    }

    /// [`Observer::started`](crate::observe::Observer::started), `now` after the run began.
    pub fn started(&mut self, start: &RunStart, now: Duration) {
        self.start = start.clone();
        self.ranks = RankGrid::new(&start.adapters);
        self.pass(now);
    }

    /// [`Observer::resumed`](crate::observe::Observer::resumed), `now` after the program began.
    pub fn resumed(&mut self, progress: &Progress, updates: &[RankUpdate], now: Duration) {
        for (index, loss) in progress.losses.iter().enumerate() {
            self.add_loss(index + 1, *loss);
        }
        let before = progress.before.map(|result| (0, result.loss));
        let last = progress.evaluated.map(|last| (last.step, last.result.loss));
        self.evals.extend(before);
        self.evals.extend(last.filter(|(step, _)| *step > 0));
        for update in updates {
            self.ranks_moved(update, now);
        }
        self.speed.begin(progress.seconds);
        self.pace.begin(progress.seconds);
        self.pass(now);
    }

    /// [`Observer::step`](crate::observe::Observer::step), `now` after the run began.
    pub fn step(&mut self, metrics: &StepMetrics, now: Duration) {
        self.phase = Phase::Training;
        self.add_loss(metrics.step, metrics.loss);
        self.speed.push(metrics.seconds, metrics.tokens);
        self.pace.push(metrics.seconds, metrics.tokens);
        self.last = Some(metrics.clone());
        self.pass(now);
    }

    fn add_loss(&mut self, step: usize, loss: f64) {
        self.losses.push((step as f64, loss));
        let (sum, weight) = self.smooth;
        let keep = 1.0 - SMOOTHING;
        self.smooth = (sum * keep + loss * SMOOTHING, weight * keep + SMOOTHING);
    }

    /// [`Observer::evaluating`](crate::observe::Observer::evaluating), `now` after the run began.
    pub fn evaluating(&mut self, done: usize, total: usize, now: Duration) {
        self.phase = Phase::Evaluating(done, total);
        self.now = now;
    }

    /// [`Observer::evaluated`](crate::observe::Observer::evaluated), `now` after the run began.
    pub fn evaluated(&mut self, step: usize, result: &EvalResult, now: Duration) {
        self.phase = Phase::Training;
        self.evals.push((step, result.loss));
        self.evaluation = now.saturating_sub(self.mark);
        self.pass(now);
    }

    /// [`Observer::ranks_moved`](crate::observe::Observer::ranks_moved), `now` after the run began.
    pub fn ranks_moved(&mut self, update: &RankUpdate, now: Duration) {
        self.ranks.update(&update.plan.ranks());
        self.updates += 1;
        self.moved += update.plan.grown.len();
        self.updated = Some((update.step, now));
        self.pass(now);
    }

    /// [`Observer::finished`](crate::observe::Observer::finished), `now` after the run began.
    pub fn finished(&mut self, report: &RunReport, now: Duration) {
        let ranks = report.ranks.entries.iter().map(|entry| entry.after);
        self.ranks.settle(&ranks.collect::<Vec<_>>());
        self.end = Some(End {
            before: report.before.loss,
            after: report.after.loss,
            parameters: report.parameters,
            tokens: report.tokens,
            seconds: report.seconds,
            peak_bytes: report.peak_bytes,
        });
        self.phase = Phase::Finished;
        self.pass(now);
    }

    /// The run ended before it was finished.
    pub fn stopped(&mut self, now: Duration) {
        self.phase = Phase::Stopped;
        self.now = now;
    }

    /// Whether [`LiveState::finished`] was called.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    fn pass(&mut self, now: Duration) {
        self.now = now;
        self.mark = now;
    }

    /// Optimizer steps so far.
    pub(super) fn steps(&self) -> usize {
        self.last.as_ref().map_or(0, |last| last.step)
    }

    /// Share of the run that is done, 0 to 1.
    pub(super) fn share(&self) -> f64 {
        if self.start.steps == 0 {
            return 0.0;
        }
        (self.steps() as f64 / self.start.steps as f64).min(1.0)
    }

    /// The loss of the last steps, the latest counting most.
    pub(super) fn smooth_loss(&self) -> Option<f64> {
        let (sum, weight) = self.smooth;
        (weight > 0.0).then(|| sum / weight)
    }

    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        self.speed.tokens_per_second()
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.now
    }

    /// Seconds until the end: steps at the pace of the last minute, evaluations as long as the last.
    pub(super) fn seconds_left(&self) -> Option<f64> {
        let (step, total) = (self.steps(), self.start.steps);
        let steps = total.saturating_sub(step) as f64 * self.pace.seconds_per_step()?;
        let evaluations = evaluations_left(&self.evals, step, total) as f64;
        Some(steps + evaluations * self.evaluation.as_secs_f64())
    }

    /// Steps until the next rank update.
    pub(super) fn next_update(&self) -> Option<usize> {
        let step = self.steps();
        let later = self.start.update_steps.iter().filter(|at| **at > step);
        later.min().map(|at| at - step)
    }

    /// Whether the last update is news.
    pub(super) fn is_fresh(&self) -> bool {
        let Some((step, at)) = self.updated else {
            return false;
        };
        self.steps().saturating_sub(step) < FRESH.0 || self.now.saturating_sub(at) < FRESH.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::AdapterInfo;

    fn metrics(step: usize, loss: f64) -> StepMetrics {
        StepMetrics {
            step,
            loss,
            grad_norm: 1.0,
            lr: 1e-4,
            targets: 100,
            tokens: 200,
            seconds: step as f64 * 2.0,
            resident_bytes: 0,
        }
    }

    fn state() -> LiveState {
        let mut state = LiveState::new(RunLabels::default());
        let adapter = AdapterInfo {
            path: "layers.0.q_proj".into(),
            d_in: 4,
            d_out: 4,
            rank: 2,
        };
        let start = RunStart {
            steps: 100,
            update_steps: vec![10, 20],
            adapters: vec![adapter],
            budget: 2,
            unit: l1ra_core::BudgetUnit::Ranks,
        };
        state.started(&start, Duration::ZERO);
        state
    }

    fn eval(loss: f64) -> EvalResult {
        EvalResult {
            loss,
            perplexity: loss.exp(),
            tokens: 10,
        }
    }

    #[test]
    fn the_smoothed_loss_starts_at_the_first_and_follows() {
        let mut state = state();
        assert_eq!(state.smooth_loss(), None);
        state.step(&metrics(1, 3.0), Duration::from_secs(1));
        assert!((state.smooth_loss().unwrap() - 3.0).abs() < 1e-12);
        state.step(&metrics(2, 2.0), Duration::from_secs(2));
        // (0.9·0.1·3 + 0.1·2) / (0.9·0.1 + 0.1)
        assert!((state.smooth_loss().unwrap() - 0.47 / 0.19).abs() < 1e-12);
    }

    #[test]
    fn time_left_counts_steps_and_evaluations() {
        let mut state = state();
        assert_eq!(state.seconds_left(), None);
        state.evaluating(1, 2, Duration::from_secs(3));
        state.evaluated(0, &eval(3.0), Duration::from_secs(6));
        for step in 1..=10 {
            state.step(
                &metrics(step, 3.0),
                Duration::from_secs(6 + 2 * step as u64),
            );
        }
        // 90 steps of 2 s, and the last evaluation of 6 s.
        assert_eq!(state.seconds_left(), Some(186.0));
    }

    #[test]
    fn an_update_is_news_for_a_while() {
        let mut state = state();
        for step in 1..=10 {
            state.step(&metrics(step, 3.0), Duration::from_secs(step as u64));
        }
        assert_eq!(state.next_update(), Some(10));
        assert!(!state.is_fresh());
        state.updated = Some((10, Duration::from_secs(10)));
        state.step(&metrics(14, 3.0), Duration::from_secs(60));
        assert!(state.is_fresh());
        state.step(&metrics(15, 3.0), Duration::from_secs(61));
        assert!(!state.is_fresh());
        state.step(&metrics(21, 3.0), Duration::from_secs(62));
        assert_eq!(state.next_update(), None);
    }
}
