//! Recipes: one TOML file tells a run.
//!
//! ```toml
//! output = "runs/mine"
//!
//! [model]
//! path = "models/smollm2"
//!
//! [data]
//! train = "answers.jsonl"
//!
//! [adapters]
//! rank = 16
//!
//! [train]
//! epochs = 3
//! ```
//!
//! Every key has a default but `model.path` and `data.train`. [`RecipeFile::load`] reads a file and
//! lays `--set key=value` over it; [`keys`] is the reference of all keys, made from the fields' own
//! documentation. Relative paths are relative to the folder in which the program runs.

mod file;
mod keys;
mod options;
mod origin;

pub use file::{Override, RecipeFile};
pub use keys::{KeyDoc, keys, keys_of, reference, schema};
pub use options::{LogOptions, ModelOptions, Recipe, TrainSection};
pub use origin::Origins;
