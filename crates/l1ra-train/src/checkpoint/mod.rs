//! Checkpoints: a run saved between two steps, and gone on with to the bit.
//!
//! A checkpoint is one safetensors file, `checkpoints/step-00000040.safetensors` in the run's folder.
//! It holds what the next step depends on: adapters with their ranks, what the optimizer keeps of them,
//! the rank allocator's state, the place in the data, and the settings and hashes by which the run is
//! known again. Frozen weights are not in it. Random numbers are functions of seed and place, so they
//! need no state.
//!
//! | file | holds |
//! |---|---|
//! | `options.rs` | [`CheckpointOptions`]: when to save, what to keep |
//! | `progress.rs` | [`Progress`]: how far a run is |
//! | `identity.rs` | [`Identity`]: which run it is, and what may change |
//! | `resume.rs` | whether a checkpoint is one of this run |
//! | `file.rs`, `header.rs` | [`Checkpoint`]: the file |
//! | `folder.rs` | [`CheckpointFolder`]: the newest whole file; what is kept |

mod file;
mod folder;
mod header;
mod identity;
mod options;
mod progress;
mod resume;

pub use file::Checkpoint;
pub use folder::{CHECKPOINT_FOLDER, CheckpointFolder, Found};
pub use identity::{DataMark, Identity, data_mark};
pub use options::{CheckpointOptions, OnError};
pub use progress::{Evaluated, Progress};
pub(crate) use resume::check_resume;
