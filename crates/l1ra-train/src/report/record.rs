//! [`RunRecord`]: what a run wrote into its folder.

use serde::Deserialize;

use crate::{
    eval::EvalResult,
    observe::{AdapterInfo, RunStart, StepMetrics},
    plural::counted,
    ranks::{RankEntry, RankTable},
    report::info::RunInfo,
};

/// An evaluation in the course of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    /// Optimizer steps taken before it.
    pub step: usize,
    /// What it gave.
    pub result: EvalResult,
}

/// A rank update, as `ranks.jsonl` holds it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct UpdateRecord {
    /// Optimizer steps taken before it.
    pub step: usize,
    /// Rank of each adapter after it.
    pub ranks: Vec<usize>,
    /// The gates that it was decided from, one list an adapter.
    #[serde(default)]
    pub gates: Vec<Vec<f32>>,
    /// Ranks that were pruned.
    #[serde(default)]
    pub spare: usize,
    /// Adapters that got a rank, one entry a rank.
    #[serde(default)]
    pub grown: Vec<usize>,
}

/// Ranks and gates at the end of a run.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
pub struct EndRecord {
    /// Optimizer steps of the run.
    pub step: usize,
    /// Rank of each adapter.
    pub ranks: Vec<usize>,
    /// Gates, one list an adapter.
    #[serde(default)]
    pub gates: Vec<Vec<f32>>,
}

/// Everything that a run's folder tells, read back.
///
/// | file | gives | if it is not there |
/// |---|---|---|
/// | `metrics.jsonl` | `steps`, `evaluations` | an error |
/// | `ranks.jsonl` | `start`, `updates`, `end` | a note; no ranks in the report |
/// | `run.json` | `info` | numbers are taken from the metrics |
/// | `recipe.toml` | `recipe` | no recipe in the report |
#[derive(Clone, Debug, Default)]
pub struct RunRecord {
    /// Every optimizer step.
    pub steps: Vec<StepMetrics>,
    /// Every evaluation; the first one before training.
    pub evaluations: Vec<Evaluation>,
    /// The adapters as the run began.
    pub start: Option<RunStart>,
    /// Every rank update.
    pub updates: Vec<UpdateRecord>,
    /// Ranks and gates at the end; `None` for a run that was cut off.
    pub end: Option<EndRecord>,
    /// What `run.json` says.
    pub info: RunInfo,
    /// The resolved recipe, word for word.
    pub recipe: Option<String>,
    /// What is missing from the folder, in sentences.
    pub notes: Vec<String>,
}

impl RunRecord {
    /// A sentence on where the run's files end, if that is before the run does.
    pub(super) fn cut_off(&self) -> Option<String> {
        if self.is_complete() {
            return None;
        }
        let written = self.last_step();
        let of = match &self.start {
            Some(start) => format!("{written} of {}", counted(start.steps, "step")),
            None => counted(written, "step"),
        };
        Some(format!(
            "The run has no end, with {of} written: it was cut off, or it still goes on."
        ))
    }

    /// Whether the run came to its end.
    pub fn is_complete(&self) -> bool {
        self.end.is_some()
    }

    /// Gates at the end that are zero, and all of them; `None` for a run that was cut off.
    pub fn zero_gates(&self) -> Option<(usize, usize)> {
        let gates = || self.end.iter().flat_map(|end| end.gates.iter().flatten());
        self.end.as_ref()?;
        Some((
            gates().filter(|gate| **gate == 0.0).count(),
            gates().count(),
        ))
    }

    /// Whether the run ended with adapters and every gate is zero.
    pub(super) fn has_no_gate(&self) -> bool {
        let adapters = self.end.as_ref().map_or(0, |end| end.gates.len());
        adapters > 0 && self.zero_gates().is_some_and(|(zero, all)| zero == all)
    }

    /// The last optimizer step that was written.
    pub fn last_step(&self) -> usize {
        let steps = self.steps.last().map_or(0, |step| step.step);
        let updates = self.updates.last().map_or(0, |update| update.step);
        let end = self.end.as_ref().map_or(0, |end| end.step);
        steps.max(updates).max(end)
    }

    /// The ranks that are known last, with those of the start; `None` where no ranks are known.
    pub fn ranks(&self) -> Option<RankTable> {
        let start = self.start.as_ref()?;
        let last = self.last_ranks()?;
        let entry = |(adapter, after): (&AdapterInfo, usize)| RankEntry {
            path: adapter.path.clone(),
            before: adapter.rank,
            after,
        };
        Some(RankTable {
            entries: start.adapters.iter().zip(last).map(entry).collect(),
        })
    }

    fn last_ranks(&self) -> Option<Vec<usize>> {
        let end = self.end.as_ref().map(|end| end.ranks.clone());
        let update = || self.updates.last().map(|update| update.ranks.clone());
        let start = || {
            let adapters = &self.start.as_ref()?.adapters;
            Some(adapters.iter().map(|adapter| adapter.rank).collect())
        };
        end.or_else(update).or_else(start)
    }
}
