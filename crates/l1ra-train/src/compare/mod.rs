//! Comparisons: the same recipe under several rank policies, ranks, learning rates and seeds, and a
//! table that says what the numbers show.
//!
//! ```no_run
//! # fn main() -> Result<(), l1ra_train::TrainError> {
//! use std::path::Path;
//! use l1ra_train::{RecipeFile, compare::{Comparison, Grid, policy}};
//!
//! let file = RecipeFile::load(Path::new("recipes/tiny.toml"), &[])?;
//! let mut grid = Grid::of(&file.recipe);
//! grid.policies = vec![policy("l1ra")?, policy("fixed")?];
//! grid.ranks = vec![2, 4, 8];
//! let comparison = Comparison::prepare(&file, grid, false, &())?; // Checks all of it, trains nothing.
//! let table = comparison.run(&mut ())?; // Runs that are there already are not made again.
//! println!("{}", table.markdown());
//! # Ok(())
//! # }
//! ```
//!
//! The base model and the data are read once. Each run is one call of [`finetune`](crate::finetune)
//! in a folder of its own.
//!
//! | file | holds |
//! |---|---|
//! | `grid.rs` | [`Grid`], [`Cell`]: which runs, and the recipe of each |
//! | `check.rs`, `comparison.rs`, `runs.rs` | [`Comparison`]: checked, and run |
//! | `result.rs` | [`RunResult`]: a finished run |
//! | `statistics.rs` | [`Estimate`]: means with intervals; rank correlation |
//! | `table.rs`, `sentence.rs` | [`Table`]: the rows, and what they show |
//! | `markdown.rs`, `csv.rs`, `page.rs`, `chart.rs` | the table as files, [`RunLine`] among them |

mod chart;
mod check;
mod comparison;
mod csv;
mod grid;
mod markdown;
mod page;
mod result;
mod runs;
mod sentence;
mod statistics;
mod table;

pub use comparison::Comparison;
pub use csv::RunLine;
pub use grid::{BASELINE, Cell, Grid, name, policy, targets};
pub use result::{RESULT_FILE, RunResult};
pub use runs::{CompareProgress, Place};
pub use statistics::{Estimate, mean_spearman, spearman, student_t};
pub use table::{Edge, Row, Table};
