//! [`CheckpointOptions`].

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::TrainError;

/// When a run is saved, and what is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointOptions {
    /// Steps between checkpoints; 0: only at the end and when the run is interrupted; unset: a tenth of
    /// the run.
    pub save_every: Option<usize>,
    /// How many of the last checkpoints are kept, at least 1.
    pub keep_last: usize,
    /// Whether the checkpoint with the lowest evaluation loss is kept besides. With train.eval_every, it
    /// is saved right after its evaluation.
    pub keep_best: bool,
    /// What happens when a checkpoint or a log cannot be written: stop, or continue without it.
    pub on_error: OnError,
}

/// What happens when a checkpoint or a log cannot be written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The run stops; checkpoints from before are still there.
    #[default]
    Stop,
    /// The run says so and goes on.
    Continue,
}

impl Default for CheckpointOptions {
    fn default() -> Self {
        Self {
            save_every: None,
            keep_last: 2,
            keep_best: true,
            on_error: OnError::default(),
        }
    }
}

impl CheckpointOptions {
    /// # Errors
    /// Nothing to keep.
    pub(crate) fn validate(&self) -> Result<(), TrainError> {
        match self.keep_last {
            0 => Err(TrainError::option("keep_last", 0, "at least 1")),
            _ => Ok(()),
        }
    }

    /// Whether a run of `steps` is saved after `step`.
    pub fn is_due(&self, step: usize, steps: usize) -> bool {
        let every = self.save_every.unwrap_or(steps.div_ceil(10));
        step == steps || (every > 0 && step.is_multiple_of(every))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_saved_every_tenth_at_the_end_and_as_told() {
        let due = |save_every, steps| {
            let options = CheckpointOptions {
                save_every,
                ..Default::default()
            };
            (1..=steps)
                .filter(|step| options.is_due(*step, steps))
                .collect::<Vec<_>>()
        };
        assert_eq!(due(None, 25), [3, 6, 9, 12, 15, 18, 21, 24, 25]);
        assert_eq!(due(Some(10), 25), [10, 20, 25]);
        assert_eq!(due(Some(0), 25), [25]);
        assert_eq!(due(None, 2), [1, 2]);
    }
}
