//! Fine-tuning with rank reallocation on [Burn](burn)'s `Learner`.
//!
//! [`Job`] is a recipe made ready, planned and run, as the program `l1ra` does it; [`finetune`] is
//! the training itself, top to bottom. Everything that they do is a call of its own:
//!
//! | module | holds |
//! |---|---|
//! | [`recipe`] | [`RecipeFile`]: a run in one TOML file, and the reference of its keys |
//! | [`job`] | [`Job`]: a recipe checked, planned and run |
//! | [`data`] | files to records to samples to batches |
//! | [`predict`] | memory and time of a run, before it |
//! | [`options`] | [`TrainOptions`]: the settings of the training loop |
//! | [`clip`], [`schedule`], [`recompute`] | global-norm clipping, learning rates, blocks run again in the backward |
//! | [`loss_scale`] | gradients that pass through f16 without vanishing |
//! | [`mod@bench`] | what a step costs on this machine |
//! | [`callback`] | [`RankCallback`]: rank reallocation in any `TrainStep`, usable alone |
//! | [`model`] | [`FineTune`]: a language model as a Burn learner |
//! | [`strategy`] | [`StepStrategy`]: training by optimizer steps, in Burn's `SupervisedTraining` |
//! | [`mod@checkpoint`] | a run saved between two steps, and gone on with to the bit |
//! | [`stop`], [`lock`], [`finite`] | asked to stop; one run a folder; numbers that are not finite |
//! | `replicas` | several devices: copies of the model, each with its share of a window |
//! | [`eval`] | loss and perplexity of a model on data |
//! | [`observe`], [`ranks`] | what a run says: live display, lines, JSONL and TensorBoard files |
//! | [`report`] | a run to look at: HTML, SVG, summary |
//! | [`compare`] | policies × ranks × learning rates × seeds, with intervals |
//! | [`memory`] | memory of this process |
//! | [`spectrum`] | what ranks would be worth in every layer, before the first step |
//! | [`run`] | [`finetune`] |

pub mod activations;
pub mod bench;
pub mod callback;
pub mod checkpoint;
pub mod clip;
pub mod compare;
pub mod data;
mod error;
pub mod eval;
pub mod finite;
pub mod job;
pub mod lock;
pub mod loss_scale;
pub mod memory;
pub mod model;
pub mod observe;
pub mod options;
mod plural;
pub mod predict;
pub mod ranks;
pub mod recipe;
pub mod recompute;
mod replicas;
pub mod report;
pub mod run;
pub mod schedule;
pub mod spectrum;
pub mod stop;
pub mod strategy;
mod update_log;

pub use callback::{RankCallback, RankUpdate};
pub use checkpoint::Checkpoint;
pub use error::TrainError;
pub use job::Job;
pub use model::FineTune;
pub use options::TrainOptions;
pub use recipe::{Recipe, RecipeFile};
pub use run::{RunReport, finetune};
pub use stop::StopSignal;
pub use strategy::StepStrategy;
