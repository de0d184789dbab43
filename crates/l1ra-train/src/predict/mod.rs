//! Peak memory and time of a step, before the run.
//!
//! [`predict_memory`] adds up what the code keeps, from shapes alone, with a few measured constants.
//! [`predict_time`] measures parts of a step on the device and adds those up. [`advise`] says what
//! would fit where a run does not. How good they are: `docs/results/prediction.md`.
//!
//! ```
//! # use l1ra_core::L1raConfig;
//! # use l1ra_models::ModelConfig;
//! # use l1ra_train::predict::{MicroBatch, Workload, predict_memory};
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/finetune/model/config.json");
//! # let config = ModelConfig::from_file(path.as_ref())?;
//! let batch = MicroBatch::full(4, 256, 1020);
//! let workload = Workload::new(config, &L1raConfig::default(), vec![batch])?;
//! println!("{}", predict_memory(&workload));
//! # Ok(())
//! # }
//! ```

mod advice;
mod head;
mod kept;
#[cfg(test)]
mod made;
mod memory;
mod probe;
mod source;
mod time;
mod workload;

pub use advice::advise;
pub use memory::{MemoryPrediction, Phase, predict_memory};
pub use source::WeightsFrom;
pub use time::{ProbePart, ProbeReport, TimePrediction, predict_time};
pub use workload::{Home, MicroBatch, RowShape, Workload};
