//! When ranks move, validated before the first step.

use crate::{
    allocation::policies::Gates,
    config::{L1raConfig, Policy},
    error::ConfigError,
};

/// The optimizer steps after which ranks are updated.
///
/// Steps are optimizer steps, never micro-steps of an accumulation window. An update "at step `s`"
/// happens after `s` steps were taken and before the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateSchedule {
    period: usize,
    first: usize,
    last: usize,
}

impl UpdateSchedule {
    /// The schedule for a run of `total_steps` with `warmup_steps`.
    ///
    /// The period is `⌊update_ratio · total_steps⌋`; a policy has a
    /// [window](crate::allocation::policies::RankPolicy::window) within which updates happen.
    ///
    /// # Errors
    /// [`ConfigError::Schedule`] when a run could never move a rank, or would move them more often
    /// than it has steps; with `l1ra`, which needs no schedule, there are then no updates.
    pub fn new(
        config: &L1raConfig,
        total_steps: usize,
        warmup_steps: usize,
    ) -> Result<Self, ConfigError> {
        let logic = config.policy.logic();
        let Some(window) = logic.window(config, total_steps, warmup_steps) else {
            return Ok(Self::never());
        };
        let period = (config.update_ratio * total_steps as f64) as usize;
        let choice = logic.gates() == Gates::Marked; // Nothing was asked for that could not be had.
        if period == 0 {
            if choice {
                return Ok(Self::never());
            }
            return Err(ConfigError::Schedule {
                detail: more_updates_than_steps(config, total_steps),
            });
        }
        let (first, last) = window.into_inner();
        let schedule = Self {
            period,
            first,
            last: last.min(total_steps.saturating_sub(1)),
        };
        if schedule.count() == 0 && !choice {
            let detail = schedule.without_updates(config, total_steps, warmup_steps);
            return Err(ConfigError::Schedule { detail });
        }
        Ok(schedule)
    }

    /// A schedule without updates.
    fn never() -> Self {
        Self {
            period: usize::MAX,
            first: 1,
            last: 0,
        }
    }

    /// Steps between two updates; `usize::MAX` where there are none.
    pub fn period(&self) -> usize {
        self.period
    }

    /// Whether ranks are updated after `step` optimizer steps.
    pub fn is_update(&self, step: usize) -> bool {
        step >= self.first && step <= self.last && step.is_multiple_of(self.period)
    }

    /// Number of updates in the run.
    pub fn count(&self) -> usize {
        self.steps().count()
    }

    /// The steps of all updates.
    pub fn steps(&self) -> impl Iterator<Item = usize> {
        let Self {
            period,
            first,
            last,
        } = *self;
        (1..)
            .map_while(move |k: usize| k.checked_mul(period).filter(|step| *step <= last))
            .filter(move |step| *step >= first)
    }

    fn without_updates(
        &self,
        config: &L1raConfig,
        total_steps: usize,
        warmup_steps: usize,
    ) -> String {
        let settle = match config.policy {
            Policy::Lasso => format!(
                ", a warm-up of {warmup_steps} steps and none in the last {:.0} % (settle_ratio)",
                config.settle_ratio * 100.0
            ),
            _ => String::new(),
        };
        format!(
            "no update would ever happen: {total_steps} optimizer steps, one update every {} \
             (update_ratio = {}){settle}. Train for more steps, lower update_ratio, warmup or \
             settle_ratio, or set policy = \"lora\"",
            self.period, config.update_ratio
        )
    }
}

fn more_updates_than_steps(config: &L1raConfig, total_steps: usize) -> String {
    format!(
        "update_ratio = {} asks for more updates than the {total_steps} optimizer steps of this \
         run. Use an update_ratio of at least {:.3}, train for more steps, or set policy = \"lora\"",
        config.update_ratio,
        1.0 / total_steps.max(1) as f64
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(policy: Policy, update_ratio: f64) -> L1raConfig {
        L1raConfig {
            policy,
            update_ratio,
            ..Default::default()
        }
    }

    #[test]
    fn the_reference_updates_at_every_multiple_before_the_end() {
        let schedule = UpdateSchedule::new(&config(Policy::Reference, 0.2), 40, 4).unwrap();
        assert_eq!(schedule.steps().collect::<Vec<_>>(), [8, 16, 24, 32]);
        assert!(!schedule.is_update(0) && schedule.is_update(8) && !schedule.is_update(40));
    }

    #[test]
    fn ours_waits_for_the_warm_up_and_stops_before_the_end() {
        let schedule = UpdateSchedule::new(&config(Policy::Lasso, 0.1), 100, 10).unwrap();
        assert_eq!(
            schedule.steps().collect::<Vec<_>>(),
            [20, 30, 40, 50, 60, 70, 80]
        );
    }

    #[test]
    fn impossible_schedules_say_what_to_change() {
        let never = UpdateSchedule::new(&config(Policy::Lasso, 0.9), 10, 0).unwrap_err();
        assert!(
            never.to_string().contains("no update would ever happen"),
            "{never}"
        );
        let often = UpdateSchedule::new(&config(Policy::Lasso, 0.01), 10, 0).unwrap_err();
        assert!(
            often.to_string().contains("more updates than the 10"),
            "{often}"
        );
    }
}
