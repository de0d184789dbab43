//! [`GateOutlook`]: what the penalty will do to the gates of a run, known before its first step.

use serde::Serialize;

use crate::{
    allocation::{UpdateSchedule, policies::Gates},
    config::{L1raConfig, Policy},
    error::ConfigError,
};

/// What becomes of gates that start at 1, by arithmetic alone.
///
/// A gate without an opposing gradient loses `eta_c · lambda` a step. Against that, Adam's
/// normalised step gives back about `eta_c` at most.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum GateOutlook {
    /// No penalty acts on the gates.
    NoPenalty,
    /// The penalty alone brings no gate to zero in time.
    TooWeak {
        /// The most that it takes from a gate before the last rank update, or in the whole run where
        /// ranks never move.
        pull: f64,
    },
    /// A gate that the loss does not hold is zero in time for a rank update.
    Prunes {
        /// Steps that it takes.
        steps: usize,
    },
    /// Every gate reaches zero before the end, also one that the loss holds with all it has.
    AllZero {
        /// Steps that it takes at most.
        steps: usize,
    },
}

/// Whether the optimizer pulls the gates of this policy to zero.
pub fn penalises_gates(policy: Policy) -> bool {
    policy.logic().gates() == Gates::Trained
}

impl GateOutlook {
    /// The outlook of a run of `total_steps` with `warmup_steps`.
    ///
    /// # Errors
    /// As [`UpdateSchedule::new`].
    pub fn new(
        config: &L1raConfig,
        total_steps: usize,
        warmup_steps: usize,
    ) -> Result<Self, ConfigError> {
        let schedule = UpdateSchedule::new(config, total_steps, warmup_steps)?;
        let L1raConfig { lambda, eta_c, .. } = *config;
        if !penalises_gates(config.policy) || lambda == 0.0 {
            return Ok(Self::NoPenalty);
        }
        if lambda > 1.0 {
            let steps = steps_to_zero(eta_c * (lambda - 1.0));
            if steps < total_steps {
                return Ok(Self::AllZero { steps });
            }
        }
        let last = schedule.steps().last().unwrap_or(total_steps);
        let steps = steps_to_zero(eta_c * lambda);
        Ok(if steps <= last {
            Self::Prunes { steps }
        } else {
            Self::TooWeak {
                pull: eta_c * lambda * last as f64,
            }
        })
    }

    /// Refuses a run in which every gate reaches zero.
    ///
    /// # Errors
    /// [`ConfigError::Value`] of `lambda`, with the remedy.
    pub fn check(self, config: &L1raConfig, total_steps: usize) -> Result<(), ConfigError> {
        let Self::AllZero { steps } = self else {
            return Ok(());
        };
        let eta_c = config.eta_c;
        Err(ConfigError::Value {
            field: "lambda",
            seen: config.lambda.to_string(),
            expected: format!(
                "below 1: above, the pull of eta_c · lambda = {} a step is more than Adam's step of \
                 about eta_c = {eta_c} can hold, so every gate is zero after {steps} of the \
                 {total_steps} steps and the run has no effect. {} is a first try for a run of this \
                 length",
                short(eta_c * config.lambda),
                short((2.0 / (eta_c * total_steps as f64)).min(0.5)),
            ),
        })
    }

    /// The outlook in a sentence without a full stop.
    pub fn sentence(self, config: &L1raConfig) -> String {
        let L1raConfig { lambda, eta_c, .. } = *config;
        let with = format!("with lambda = {lambda} and eta_c = {eta_c}");
        let moves = config.policy != Policy::Fixed;
        match self {
            Self::NoPenalty if moves => {
                "no penalty: no rank moves unless the loss itself pushes its gate to zero".into()
            }
            Self::NoPenalty => "no penalty".into(),
            Self::TooWeak { pull } if moves => format!(
                "{with} the penalty takes at most {} from a gate before the last update: no rank \
                 moves unless the loss itself pushes its gate to zero",
                short(pull)
            ),
            Self::TooWeak { pull } => {
                format!(
                    "{with} the penalty takes at most {} from a gate",
                    short(pull)
                )
            }
            Self::Prunes { steps } => {
                format!("{with} a gate that the loss does not hold is zero after {steps} steps")
            }
            Self::AllZero { steps } => format!("{with} every gate is zero after {steps} steps"),
        }
    }
}

/// Steps in which a gate of 1 is gone. What rounding adds to a whole number is no step more.
fn steps_to_zero(pull: f64) -> usize {
    (1.0 / pull - 1e-6).ceil().max(1.0) as usize
}

/// Two significant digits.
fn short(value: f64) -> String {
    let digits = (1.0 - value.log10().floor()).clamp(0.0, 12.0) as usize;
    let text = format!("{value:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').into(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(policy: Policy, lambda: f64, eta_c: f64) -> L1raConfig {
        L1raConfig {
            policy,
            lambda,
            eta_c,
            ..Default::default()
        }
    }

    fn outlook(policy: Policy, lambda: f64, eta_c: f64, steps: usize) -> GateOutlook {
        GateOutlook::new(&config(policy, lambda, eta_c), steps, 0).unwrap()
    }

    #[test]
    fn a_weak_penalty_is_said_with_what_it_takes() {
        let weak = outlook(Policy::Lasso, 1e-3, 0.02, 100);
        // Ten updates less those of the last fifth: the last one is after step 80.
        assert!(matches!(weak, GateOutlook::TooWeak { pull } if (pull - 0.0016).abs() < 1e-12));
        assert_eq!(
            weak.sentence(&config(Policy::Lasso, 1e-3, 0.02)),
            "with lambda = 0.001 and eta_c = 0.02 the penalty takes at most 0.0016 from a gate before \
             the last update: no rank moves unless the loss itself pushes its gate to zero"
        );
        let fixed = outlook(Policy::Fixed, 1e-3, 0.02, 100);
        assert_eq!(
            fixed.sentence(&config(Policy::Fixed, 1e-3, 0.02)),
            "with lambda = 0.001 and eta_c = 0.02 the penalty takes at most 0.002 from a gate"
        );
    }

    #[test]
    fn a_gate_in_time_for_the_last_update_is_counted() {
        let prunes = GateOutlook::Prunes { steps: 100 };
        assert_eq!(outlook(Policy::Lasso, 0.2, 0.05, 400), prunes);
        assert_eq!(outlook(Policy::Reference, 0.2, 0.05, 400), prunes);
        // The last update is after step 80 for ours, 90 for the reference, and there is none.
        let pull = |policy| outlook(policy, 0.2, 0.05, 100);
        assert!(matches!(pull(Policy::Lasso), GateOutlook::TooWeak { .. }));
        assert!(matches!(
            pull(Policy::Reference),
            GateOutlook::TooWeak { .. }
        ));
        assert_eq!(pull(Policy::Fixed), prunes);
    }

    #[test]
    fn a_penalty_that_nothing_can_hold_is_refused_with_the_remedy() {
        let bad = config(Policy::Lasso, 3.0, 0.05);
        let all = GateOutlook::new(&bad, 60, 0).unwrap();
        assert_eq!(all, GateOutlook::AllZero { steps: 10 });
        assert_eq!(
            all.check(&bad, 60).unwrap_err().to_string(),
            "lambda = 3: below 1: above, the pull of eta_c · lambda = 0.15 a step is more than Adam's \
             step of about eta_c = 0.05 can hold, so every gate is zero after 10 of the 60 steps and \
             the run has no effect. 0.5 is a first try for a run of this length"
        );
        assert_eq!(
            outlook(Policy::Fixed, 3.0, 0.05, 60),
            GateOutlook::AllZero { steps: 10 }
        );
    }

    #[test]
    fn at_one_the_loss_can_still_hold_a_gate() {
        let one = outlook(Policy::Lasso, 1.0, 0.3, 60);
        assert_eq!(one, GateOutlook::Prunes { steps: 4 });
        one.check(&config(Policy::Lasso, 1.0, 0.3), 60).unwrap();
        // Too few steps even for a pull that nothing holds.
        let few = outlook(Policy::Lasso, 3.0, 0.001, 60);
        assert!(matches!(few, GateOutlook::TooWeak { .. }));
    }

    #[test]
    fn no_penalty_is_said() {
        let none = outlook(Policy::Fixed, 0.0, 0.02, 60);
        assert_eq!(none, GateOutlook::NoPenalty);
        assert_eq!(
            none.sentence(&config(Policy::Fixed, 0.0, 0.02)),
            "no penalty"
        );
    }
}
