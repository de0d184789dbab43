//! How fast a run goes now, and how long it still takes.

use std::collections::VecDeque;

/// Speed over the last steps.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// Seconds that are looked back upon, if that is two steps or more.
    span: f64,
    /// Seconds of training after a step, and the step's tokens; the oldest is only a start.
    steps: VecDeque<(f64, usize)>,
}

impl Pace {
    /// The pace over the last `span` seconds of training.
    pub(super) fn over(span: f64) -> Self {
        Self {
            span,
            steps: VecDeque::from([(0.0, 0)]),
        }
    }

    /// Begins after `seconds` of training that were not seen.
    pub(super) fn begin(&mut self, seconds: f64) {
        self.steps = VecDeque::from([(seconds, 0)]);
    }

    /// A step of `tokens` that ended after `seconds` of training.
    pub(super) fn push(&mut self, seconds: f64, tokens: usize) {
        self.steps.push_back((seconds, tokens));
        while self.steps.len() > 2 && seconds - self.steps[1].0 >= self.span {
            self.steps.pop_front();
        }
    }

    fn seconds(&self) -> Option<f64> {
        let (first, last) = (self.steps.front()?.0, self.steps.back()?.0);
        (last > first).then_some(last - first)
    }

    /// Tokens a second.
    pub(super) fn tokens_per_second(&self) -> Option<f64> {
        let tokens: usize = self.steps.iter().skip(1).map(|(_, tokens)| tokens).sum();
        Some(tokens as f64 / self.seconds()?)
    }

    /// Seconds a step.
    pub(super) fn seconds_per_step(&self) -> Option<f64> {
        Some(self.seconds()? / (self.steps.len() - 1) as f64)
    }
}

/// Evaluations that are still to come after `step` of `total` steps: one at the end, and one every
/// so many steps as those that were seen, each at its step, tell.
pub(super) fn evaluations_left(seen: &[(usize, f64)], step: usize, total: usize) -> usize {
    let steps = seen.iter().map(|(step, _)| *step);
    if steps.clone().any(|step| step >= total) {
        return 0;
    }
    let every = steps.filter(|step| *step > 0).min();
    1 + every.map_or(0, |every| {
        (total.saturating_sub(1) / every).saturating_sub(step / every)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_back_over_its_span() {
        let mut pace = Pace::over(10.0);
        assert_eq!(pace.tokens_per_second(), None);
        pace.push(4.0, 400);
        assert_eq!(pace.tokens_per_second(), Some(100.0));
        for step in 1..=20 {
            pace.push(4.0 + f64::from(step), 300);
        }
        assert_eq!(pace.tokens_per_second(), Some(300.0));
        assert_eq!(pace.seconds_per_step(), Some(1.0));
    }

    #[test]
    fn one_step_longer_than_the_span_is_enough() {
        let mut pace = Pace::over(10.0);
        pace.push(60.0, 600);
        pace.push(90.0, 600);
        assert_eq!(pace.tokens_per_second(), Some(20.0));
        assert_eq!(pace.seconds_per_step(), Some(30.0));
    }

    #[test]
    fn steps_that_take_no_time_have_no_pace() {
        let mut pace = Pace::over(10.0);
        pace.push(0.0, 100);
        assert_eq!(pace.tokens_per_second(), None);
        assert_eq!(pace.seconds_per_step(), None);
    }

    #[test]
    fn evaluations_are_foreseen_from_those_seen() {
        assert_eq!(evaluations_left(&[(0, 3.0)], 30, 100), 1);
        let seen = [(0, 3.0), (20, 2.9)];
        // At 40, 60, 80 and at the end.
        assert_eq!(evaluations_left(&seen, 30, 100), 4);
        assert_eq!(evaluations_left(&seen, 90, 100), 1);
        assert_eq!(evaluations_left(&[(0, 3.0), (100, 2.0)], 100, 100), 0);
    }
}
