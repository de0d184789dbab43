//! Fine-tuning with rank reallocation on [Burn](burn)'s `Learner`.
//!
//! [`finetune`] is the whole run, top to bottom; everything it does is a call of its own:
//!
//! | module | holds |
//! |---|---|
//! | [`options`] | [`TrainOptions`]: the run's settings, checked before anything is loaded |
//! | [`data`] | text files to token rows to batches |
//! | [`loss`], [`clip`], [`schedule`] | cross-entropy over a window, global-norm clipping, learning rates |
//! | [`callback`] | [`RankCallback`]: rank reallocation in any `TrainStep`, usable alone |
//! | [`model`] | [`FineTune`]: a language model as a Burn learner |
//! | [`strategy`] | [`StepStrategy`]: training by optimizer steps, in Burn's `SupervisedTraining` |
//! | [`eval`] | loss and perplexity of a model on data |
//! | [`metrics`], [`progress`], [`ranks`] | what a run says: JSONL files, terminal, rank table |
//! | [`run`] | [`finetune`] |

pub mod callback;
pub mod clip;
pub mod data;
mod error;
pub mod eval;
pub mod loss;
pub mod metrics;
pub mod model;
pub mod options;
pub mod progress;
pub mod ranks;
pub mod run;
pub mod schedule;
pub mod strategy;

pub use callback::RankCallback;
pub use error::TrainError;
pub use model::FineTune;
pub use options::TrainOptions;
pub use run::{RunReport, finetune};
pub use strategy::StepStrategy;
