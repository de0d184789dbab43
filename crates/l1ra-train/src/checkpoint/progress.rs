//! [`Progress`]: how far a run is.

use serde::{Deserialize, Serialize};

use crate::eval::EvalResult;

/// How far a run is, between two optimizer steps.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps taken.
    pub step: usize,
    /// Micro-batches taken from the training data, those of skipped windows among them.
    pub batches: usize,
    /// Tokens trained on, padding not counted.
    pub tokens: usize,
    /// Seconds in optimizer steps, evaluations and saving not counted.
    pub seconds: f64,
    /// Windows that were skipped because a number was not finite.
    pub skipped: usize,
    /// Evaluation before training.
    pub before: Option<EvalResult>,
    /// The last evaluation.
    pub evaluated: Option<Evaluated>,
    /// The evaluation with the lowest loss after a step.
    pub best: Option<Evaluated>,
    /// Loss of every step. In a checkpoint, a tensor of its own.
    #[serde(skip)]
    pub losses: Vec<f64>,
}

/// An evaluation, and the steps before it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluated {
    /// Optimizer steps taken.
    pub step: usize,
    /// What it gave.
    pub result: EvalResult,
}

impl Progress {
    /// Takes an evaluation in; returns whether it is the best after a step so far.
    pub(crate) fn evaluated(&mut self, result: EvalResult) -> bool {
        let evaluated = Evaluated {
            step: self.step,
            result,
        };
        self.evaluated = Some(evaluated);
        if self.step == 0 {
            self.before = Some(result);
            return false;
        }
        let best = self.best.map(|best| best.result.loss);
        let better = best.is_none_or(|loss| result.loss < loss);
        if better {
            self.best = Some(evaluated);
        }
        better
    }

    /// Whether the state after the current step was evaluated.
    pub(crate) fn is_evaluated(&self) -> bool {
        self.evaluated.is_some_and(|last| last.step == self.step)
    }
}
