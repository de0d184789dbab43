//! [`Job`]: a recipe made ready, planned and run. What the program `l1ra` does, as calls.
//!
//! ```text
//! RecipeFile ── Job::prepare ── Job::plan ── Job::run ── Finished
//!                (checks all,    (predicts)   (trains)
//!                 tokenises)
//! ```

mod plan;
mod ready;
mod summary;

pub(crate) use plan::check_gates;
pub use plan::{AdapterFacts, DataFacts, ModelFacts, Plan, TokenisedData};
pub use ready::{Finished, Job, JobProgress, RECIPE_FILE, holds_run};
pub(crate) use ready::{adapters_of, check_output, first_of, write_recipe};
pub use summary::{Prediction, RunSummary, SUMMARY_FILE};
