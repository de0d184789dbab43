//! [`Table`]: a row for every policy and rank, at its best learning rate.

use std::path::{Path, PathBuf};

use l1ra_core::files::write_whole;
use serde::Serialize;

use crate::{
    compare::{
        BASELINE, Estimate, Grid, RunResult, csv::RunLine, mean_spearman, page, sentence::sentences,
    },
    error::TrainError,
    observe::AdapterInfo,
    report,
};

/// Names of the table's files in the folder of the comparison; the first one marks it as such.
pub(super) const FILES: [&str; 4] = ["compare.json", "compare.md", "compare.csv", "compare.html"];

/// What a comparison found.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// Version of this program.
    pub version: String,
    /// What differences are taken to.
    pub baseline: String,
    /// The grid.
    pub grid: Grid,
    /// A row for every policy (with its targets) and rank.
    pub rows: Vec<Row>,
    /// What the numbers show, and what they do not.
    pub sentences: Vec<String>,
    /// Every run.
    pub runs: Vec<RunLine>,
    #[serde(skip)]
    pub(super) results: Vec<RunResult>,
}

/// A policy at a rank, at its best learning rate.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The policy, with its targets where the grid has several.
    pub policy: String,
    /// Initial rank, of the grid's first targets.
    pub rank: usize,
    /// The learning rate with the smallest mean eval loss; `None` where every rate had a run without
    /// one.
    pub lr: Option<f64>,
    /// Whether that is at the edge of the rates that were tried.
    pub edge: Option<Edge>,
    /// Eval loss after training, over seeds.
    pub loss: Option<Estimate>,
    /// The eval loss of each seed.
    pub losses: Vec<f64>,
    /// Eval loss minus that of the baseline at the same rank and its own best rate, paired by seed;
    /// `None` for the baseline.
    pub difference: Option<Estimate>,
    /// Mean adapter parameters at the start and at the end.
    pub parameters: [f64; 2],
    /// Mean number of ranks that ended in another adapter.
    pub moved: f64,
    /// Mean Spearman correlation of the final ranks of two seeds; `None` where ranks are constant.
    pub agreement: Option<f64>,
    /// Mean seconds of an optimizer step.
    pub step_seconds: f64,
    /// The largest peak of a run, bytes; `None` where a run has none of its own.
    pub peak_bytes: Option<u64>,
    /// Mean final rank of each module type.
    pub modules: Vec<(String, f64)>,
}

/// Which edge of the grid a learning rate is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Edge {
    /// The smallest one.
    Lowest,
    /// The largest one.
    Highest,
}

impl Table {
    /// The table of `results`, which are those of every run of `grid`.
    pub fn new(grid: &Grid, results: Vec<RunResult>) -> Self {
        let arms = in_order(results.iter().map(|result| result.cell.arm()));
        let first = arms.first().cloned().unwrap_or_default();
        let is_baseline = |arm: &&String| arm.split(' ').next() == Some(BASELINE);
        let baseline = arms.iter().find(is_baseline).cloned().unwrap_or(first);
        let mut rows = Vec::new();
        for rank in &grid.ranks {
            rows.extend(arms.iter().map(|arm| row(grid, &results, arm, *rank)));
        }
        let bases: Vec<Row> = rows
            .iter()
            .filter(|row| row.policy == baseline)
            .cloned()
            .collect();
        for row in rows.iter_mut().filter(|row| row.policy != baseline) {
            let base = bases.iter().find(|base| base.rank == row.rank);
            row.difference = base.and_then(|base| difference(row, base));
        }
        let mut table = Self {
            version: env!("CARGO_PKG_VERSION").into(),
            baseline,
            grid: grid.clone(),
            rows,
            sentences: Vec::new(),
            runs: results.iter().map(RunLine::new).collect(),
            results,
        };
        table.sentences = sentences(&table);
        table
    }

    /// Policies (with their targets), the baseline first.
    pub(super) fn arms(&self) -> Vec<String> {
        let mut arms = in_order(self.rows.iter().map(|row| row.policy.clone()));
        arms.sort_by_key(|arm| *arm != self.baseline);
        arms
    }

    /// The finished runs of a row, in the order of their seeds.
    pub(super) fn results_of(&self, row: &Row) -> Vec<&RunResult> {
        let own = |result: &&RunResult| {
            let cell = &result.cell;
            cell.arm() == row.policy && cell.rank == row.rank && Some(cell.lr) == row.lr
        };
        self.results.iter().filter(own).collect()
    }

    /// Writes `compare.json`, `compare.md`, `compare.csv` and `compare.html` into `dir`, and returns
    /// their paths in this order.
    ///
    /// # Errors
    /// When one cannot be written.
    pub fn write(&self, dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
        let json = serde_json::to_string_pretty(self)
            .map_err(|error| TrainError::io(dir.join(FILES[0]), error.into()))?;
        let texts = [json + "\n", self.markdown(), self.csv(), page::page(self)?];
        let mut paths = Vec::new();
        for (name, text) in FILES.iter().zip(texts) {
            let path = dir.join(name);
            write_whole(&path, text.as_bytes()).map_err(|error| TrainError::io(&path, error))?;
            paths.push(path);
        }
        Ok(paths)
    }
}

fn in_order(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut found = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

fn row(grid: &Grid, results: &[RunResult], arm: &str, rank: usize) -> Row {
    let own: Vec<&RunResult> = results
        .iter()
        .filter(|result| result.cell.rank == rank && result.cell.arm() == arm)
        .collect();
    let mut best: Option<(f64, Estimate, Vec<&RunResult>)> = None;
    for lr in &grid.lrs {
        let at: Vec<&RunResult> = own.iter().copied().filter(|r| r.cell.lr == *lr).collect();
        let losses: Option<Vec<f64>> = at.iter().map(|result| result.loss).collect();
        let estimate = losses.and_then(|losses| Estimate::of(&losses));
        if let Some(estimate) = estimate
            && best.as_ref().is_none_or(|best| estimate.mean < best.1.mean)
        {
            best = Some((*lr, estimate, at));
        }
    }
    let (lr, loss, chosen) = match best {
        Some((lr, loss, chosen)) => (Some(lr), Some(loss), chosen),
        None => (None, None, Vec::new()),
    };
    let mean = |of: &dyn Fn(&RunResult) -> f64| {
        let values: Vec<f64> = chosen.iter().map(|result| of(result)).collect();
        Estimate::of(&values).map_or(0.0, |estimate| estimate.mean)
    };
    let peaks: Option<Vec<u64>> = chosen.iter().map(|result| result.peak_bytes).collect();
    let ranks: Vec<Vec<f64>> = chosen.iter().map(|result| result.final_ranks()).collect();
    Row {
        policy: arm.into(),
        rank,
        lr,
        edge: lr.and_then(|lr| edge(lr, &grid.lrs)),
        loss,
        losses: chosen.iter().filter_map(|result| result.loss).collect(),
        difference: None,
        parameters: [0, 1].map(|at| mean(&|result| result.parameters[at] as f64)),
        moved: mean(&|result| result.moved as f64),
        agreement: mean_spearman(&ranks),
        step_seconds: mean(&|result| result.step_seconds),
        peak_bytes: peaks.and_then(|peaks| peaks.into_iter().max()),
        modules: modules(&chosen),
    }
}

fn edge(lr: f64, tried: &[f64]) -> Option<Edge> {
    match tried.len() {
        0 | 1 => None,
        _ if tried.iter().all(|other| lr <= *other) => Some(Edge::Lowest),
        _ if tried.iter().all(|other| lr >= *other) => Some(Edge::Highest),
        _ => None,
    }
}

/// Each seed's loss minus the baseline's with the same seed.
fn difference(row: &Row, base: &Row) -> Option<Estimate> {
    if row.losses.len() != base.losses.len() {
        return None;
    }
    let pairs = row.losses.iter().zip(&base.losses);
    Estimate::of(&pairs.map(|(loss, base)| loss - base).collect::<Vec<_>>())
}

/// Mean final rank of each module type, over seeds.
fn modules(runs: &[&RunResult]) -> Vec<(String, f64)> {
    let Some(first) = runs.first() else {
        return Vec::new();
    };
    let grid = report::grid::Grid::new(&adapters(first));
    let mean = |module: usize| {
        let of_run = |run: &&RunResult| {
            let after = run.ranks.entries.iter().map(|entry| entry.after);
            grid.module_mean(module, &after.collect::<Vec<_>>())
        };
        runs.iter().map(of_run).sum::<f64>() / runs.len() as f64
    };
    let modules = grid.modules.iter().enumerate();
    modules
        .map(|(module, name)| (name.clone(), mean(module)))
        .collect()
}

/// The adapters of a run, as the report knows them.
pub(super) fn adapters(run: &RunResult) -> Vec<AdapterInfo> {
    let entries = run.ranks.entries.iter();
    let info = |entry: &crate::ranks::RankEntry| AdapterInfo {
        path: entry.path.clone(),
        d_in: 0,
        d_out: 0,
        rank: entry.before,
    };
    entries.map(info).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use l1ra_core::target::Targets;

    use super::*;
    use crate::{
        compare::{Cell, name, policy},
        ranks::{RankEntry, RankTable},
    };

    pub(in crate::compare) fn grid(lrs: &[f64], seeds: u64) -> Grid {
        Grid {
            policies: vec![policy("fixed").unwrap(), policy("l1ra").unwrap()],
            targets: vec![Targets::AllLinear],
            ranks: vec![2],
            lrs: lrs.to_vec(),
            seeds,
        }
    }

    pub(in crate::compare) fn result(cell: Cell, loss: Option<f64>) -> RunResult {
        let moves = name(cell.policy) == "l1ra";
        let entry = |path: &str, after| RankEntry {
            path: format!("model.layers.0.{path}"),
            before: 2,
            after: if moves { after } else { 2 },
        };
        RunResult {
            version: "0".into(),
            loss_before: Some(5.0),
            loss,
            failure: None,
            parameters: [1000, if moves { 1100 } else { 1000 }],
            moved: usize::from(moves),
            steps: 10,
            step_seconds: 0.5,
            peak_bytes: Some(300_000_000),
            ranks: RankTable {
                entries: vec![entry("q_proj", 1), entry("up_proj", 3)],
            },
            identity: Default::default(),
            cell,
        }
    }

    /// A table whose losses `of` gives by policy, rate and seed.
    pub(in crate::compare) fn table(
        grid: &Grid,
        of: impl Fn(&str, f64, u64) -> Option<f64>,
    ) -> Table {
        let results = grid.cells().into_iter().map(|cell| {
            let loss = of(&name(cell.policy), cell.lr, cell.seed);
            result(cell, loss)
        });
        Table::new(grid, results.collect())
    }

    #[test]
    fn each_policy_is_taken_at_its_own_best_rate_and_paired_by_seed() {
        let table = table(&grid(&[1e-3, 2e-3, 4e-3], 3), |policy, lr, seed| {
            let noise = seed as f64 * 0.1;
            Some(match (policy, lr) {
                ("fixed", 2e-3) => 3.0 + noise,
                ("l1ra", 4e-3) => 2.9 + noise,
                _ => 4.0,
            })
        });
        assert_eq!(table.baseline, "fixed");
        let [fixed, l1ra] = &table.rows[..] else {
            panic!("two rows")
        };
        assert_eq!((fixed.lr, fixed.edge), (Some(2e-3), None));
        assert_eq!((l1ra.lr, l1ra.edge), (Some(4e-3), Some(Edge::Highest)));
        assert!((fixed.loss.unwrap().mean - 3.1).abs() < 1e-12);
        assert_eq!(fixed.difference, None);
        let difference = l1ra.difference.unwrap();
        assert!((difference.mean + 0.1).abs() < 1e-12);
        // The noise is the seed's, so that it goes out.
        assert!(difference.half.unwrap() < 1e-9);
        assert_eq!((fixed.agreement, l1ra.agreement), (None, Some(1.0)));
        assert_eq!(l1ra.parameters, [1000.0, 1100.0]);
        assert_eq!(
            l1ra.modules,
            [("q_proj".to_string(), 1.0), ("up_proj".to_string(), 3.0)]
        );
    }

    #[test]
    fn a_rate_at_which_a_run_failed_is_not_the_best() {
        let of = |policy: &str, lr: f64, seed| match (policy, lr, seed) {
            ("l1ra", _, _) => None,
            (_, 1e-3, 1) => None,
            (_, 1e-3, _) => Some(1.0),
            _ => Some(2.0),
        };
        let table = table(&grid(&[1e-3, 2e-3], 2), of);
        assert_eq!(table.rows[0].lr, Some(2e-3));
        assert_eq!(table.rows[1].lr, None);
        assert_eq!(table.rows[1].difference, None);
        assert!(table.markdown().contains("| l1ra"));
    }
}
