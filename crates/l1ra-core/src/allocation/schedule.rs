//! When ranks move, validated before the first step.

use crate::{
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
    /// The period is `⌊update_ratio · total_steps⌋`. The reference policy updates at every multiple
    /// of it before the end; the l1ra policy leaves out those within the warm-up and those within
    /// the last `settle_ratio` of the run, so that new ranks have time to train.
    ///
    /// # Errors
    /// [`ConfigError::Schedule`] when a run could never move a rank, or would move them more often
    /// than it has steps.
    pub fn new(
        config: &L1raConfig,
        total_steps: usize,
        warmup_steps: usize,
    ) -> Result<Self, ConfigError> {
        if config.policy == Policy::Fixed {
            return Ok(Self {
                period: usize::MAX,
                first: 1,
                last: 0,
            });
        }
        let period = (config.update_ratio * total_steps as f64) as usize;
        if period == 0 {
            return Err(ConfigError::Schedule {
                detail: more_updates_than_steps(config, total_steps),
            });
        }
        let (first, last) = match config.policy {
            Policy::L1ra => {
                let settle = (config.settle_ratio * total_steps as f64).ceil() as usize;
                (warmup_steps + 1, total_steps.saturating_sub(settle))
            }
            _ => (1, total_steps),
        };
        let schedule = Self {
            period,
            first,
            last: last.min(total_steps.saturating_sub(1)),
        };
        if schedule.count() == 0 {
            let detail = schedule.never(config, total_steps, warmup_steps);
            return Err(ConfigError::Schedule { detail });
        }
        Ok(schedule)
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

    fn never(&self, config: &L1raConfig, total_steps: usize, warmup_steps: usize) -> String {
        let settle = match config.policy {
            Policy::L1ra => format!(
                ", a warm-up of {warmup_steps} steps and none in the last {:.0} % (settle_ratio)",
                config.settle_ratio * 100.0
            ),
            _ => String::new(),
        };
        format!(
            "no update would ever happen: {total_steps} optimizer steps, one update every {} \
             (update_ratio = {}){settle}. Train for more steps, lower update_ratio, warmup or \
             settle_ratio, or set policy = \"fixed\"",
            self.period, config.update_ratio
        )
    }
}

fn more_updates_than_steps(config: &L1raConfig, total_steps: usize) -> String {
    format!(
        "update_ratio = {} asks for more updates than the {total_steps} optimizer steps of this \
         run. Use an update_ratio of at least {:.3}, train for more steps, or set policy = \"fixed\"",
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
        let schedule = UpdateSchedule::new(&config(Policy::L1ra, 0.1), 100, 10).unwrap();
        assert_eq!(
            schedule.steps().collect::<Vec<_>>(),
            [20, 30, 40, 50, 60, 70, 80]
        );
    }

    #[test]
    fn impossible_schedules_say_what_to_change() {
        let never = UpdateSchedule::new(&config(Policy::L1ra, 0.9), 10, 0).unwrap_err();
        assert!(
            never.to_string().contains("no update would ever happen"),
            "{never}"
        );
        let often = UpdateSchedule::new(&config(Policy::L1ra, 0.01), 10, 0).unwrap_err();
        assert!(
            often.to_string().contains("more updates than the 10"),
            "{often}"
        );
    }
}
