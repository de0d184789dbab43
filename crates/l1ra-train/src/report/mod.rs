//! The report of a run: one HTML page that needs nothing but itself, SVG files, and a summary for
//! the terminal.
//!
//! ```no_run
//! # fn main() -> Result<(), l1ra_train::TrainError> {
//! use std::path::Path;
//! use l1ra_train::report::{RunRecord, summary, write_report};
//!
//! let dir = Path::new("runs/wordnet");
//! let record = RunRecord::read(dir)?;
//! let files = write_report(&record, dir)?; // report.html, report/loss.svg, …
//! print!("{}", summary(&record));
//! # Ok(())
//! # }
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `record.rs`, `read.rs`, `lines.rs`, `info.rs` | [`RunRecord`]: what the run wrote, read back |
//! | `grid.rs`, `history.rs`, `gates.rs` | adapters by layer and module type, over the updates |
//! | `adapted.rs`, `sentence.rs` | [`most_adapted`]: which components needed most adaptation |
//! | `overview.rs`, `summary.rs` | the numbers that matter first; [`summary`] |
//! | `pattern.rs` | [`rank_pattern`]: the ranks of a run, for other trainers |
//! | `curve.rs`, `chart/`, `charts.rs` | curves thinned and smoothed; every chart as SVG |
//! | `page.rs`, `heat_table.rs`, `tables.rs`, `data.rs`, `page.{html,css,js}` | the page |

mod adapted;
pub(crate) mod chart;
mod charts;
mod curve;
mod data;
mod gates;
pub(crate) mod grid;
mod heat_table;
mod history;
mod info;
mod lines;
pub(crate) mod number;
mod overview;
pub(crate) mod page;
mod pattern;
mod read;
mod record;
mod sentence;
mod summary;
mod tables;

use std::path::{Path, PathBuf};

pub use adapted::{Adaptation, Movement, PartChange, most_adapted};
pub use info::RunInfo;
pub use pattern::{Trainer, rank_pattern};
pub use record::{EndRecord, Evaluation, RunRecord, UpdateRecord};
pub use summary::summary;

use crate::error::TrainError;

/// Writes `dir/report.html` and the charts `dir/report/{loss,ranks,modules,gates,parameters}.svg`,
/// in place of older ones, and returns their paths, the page first.
///
/// The page is one file without links to anything else; it works from a disk and without a network.
/// Curves are thinned to 2,000 points, keeping the smallest and the largest value of every stretch,
/// so that the page of a long run stays small. Without a rank log there are only the loss charts.
///
/// # Errors
/// When a file cannot be written.
pub fn write_report(record: &RunRecord, dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let charts = charts::Charts::new(record);
    let folder = dir.join("report");
    std::fs::create_dir_all(&folder).map_err(|error| TrainError::io(&folder, error))?;
    let mut written = Vec::new();
    let mut write = |path: PathBuf, text: String| match std::fs::write(&path, text) {
        Ok(()) => {
            written.push(path);
            Ok(())
        }
        Err(error) => Err(TrainError::io(path, error)),
    };
    write(dir.join("report.html"), page::page(record, &charts)?)?;
    for chart in charts.files() {
        write(folder.join(format!("{}.svg", chart.name)), chart.file())?;
    }
    Ok(written)
}

/// Ranks by layer and module type after `step` steps, coloured by their change from those that
/// `adapters` began with; `None` without adapters.
pub(crate) fn rank_chart(
    adapters: Vec<crate::observe::AdapterInfo>,
    ranks: Vec<usize>,
    step: usize,
) -> Option<chart::Chart> {
    let record = RunRecord {
        start: Some(crate::observe::RunStart {
            steps: step,
            update_steps: Vec::new(),
            adapters,
            budget: ranks.iter().sum(),
            unit: l1ra_core::BudgetUnit::Ranks,
        }),
        end: Some(EndRecord {
            step,
            ranks,
            gates: Vec::new(),
        }),
        ..Default::default()
    };
    history::History::new(&record).map(|history| chart::heat(&history))
}
