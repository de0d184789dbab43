//! Whether a checkpoint is one of this run.

use std::path::Path;

use crate::{
    checkpoint::{Checkpoint, Identity},
    error::TrainError,
    options::TrainOptions,
    plural::counted,
};

/// Why a run cannot go on from a checkpoint.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is of another run: one sentence a difference.
    OtherRun(Vec<String>),
    /// It is beyond the run's end: steps done, and steps of the run.
    PastEnd(usize, usize),
}

impl Refusal {
    pub(crate) fn in_file(self, path: &Path) -> TrainError {
        match self {
            Self::OtherRun(differences) => TrainError::OtherRun {
                path: path.into(),
                detail: format!(
                    "{}; what may change: more steps, device, evaluations, checkpoints, logs, and \
                     what happens to numbers that are not finite",
                    differences.join("; ")
                ),
            },
            Self::PastEnd(done, steps) => TrainError::option(
                "steps",
                steps,
                format!(
                    "at least the {} of {}",
                    counted(done, "step"),
                    path.display()
                ),
            ),
        }
    }
}

/// Whether a run of this identity may go on from `checkpoint`.
pub(crate) fn check_resume(
    checkpoint: &Checkpoint,
    identity: &Identity,
    options: &TrainOptions,
) -> Result<(), Refusal> {
    let differences = identity.differences(&checkpoint.identity);
    if !differences.is_empty() {
        return Err(Refusal::OtherRun(differences));
    }
    let (done, steps) = (checkpoint.progress.step, options.steps);
    match done > steps {
        true => Err(Refusal::PastEnd(done, steps)),
        false => Ok(()),
    }
}
