//! [`advise`]: what would fit where a run does not.

use burn::tensor::FloatDType;
use l1ra_models::weights::Storage;

use crate::{
    memory::Bytes,
    predict::{
        memory::{MemoryPrediction, predict_memory},
        workload::{Home, MicroBatch, Workload},
    },
};

/// Rows shorter than this are not worth advising.
const SHORTEST: usize = 32;

/// What to change so that `workload` fits into `available` bytes, each with the memory it would
/// then need; nothing where `prediction` fits as it is.
///
/// Tried in this order: activations made again in the backward; fewer rows in a micro-batch with more accumulation in their place, which
/// changes no result; shorter rows, beside fewer where those alone are not enough; two-byte storage
/// of the frozen weights. Each that is enough is named. Where none is, the first combination with
/// two-byte storage that is; where that is not enough either, a smaller model or more memory, and
/// why.
pub fn advise(prediction: &MemoryPrediction, available: u64, workload: &Workload) -> Vec<String> {
    if prediction.needed_bytes <= available {
        return Vec::new();
    }
    let enough = |steps: &[Step]| {
        let change = Change::of(steps, workload, available)?;
        (change.needed <= available).then(|| change.to_string())
    };
    let fewer = enough(&[FewerRows]);
    // As long as they can be: 32 tokens in each of 8 rows are worse than 256 in one.
    let both = || enough(&[FewerRows, ShorterRows]).filter(|_| fewer.is_none());
    let shorter = both().or_else(|| enough(&[ShorterRows]));
    let found: Vec<String> = [enough(&[Recompute]), fewer, shorter, enough(&[TwoBytes])]
        .into_iter()
        .flatten()
        .collect();
    if !found.is_empty() {
        return found;
    }
    let together = TOGETHER.iter().find_map(|steps| enough(steps));
    vec![together.unwrap_or_else(|| not_enough(workload, available))]
}

/// One thing to change.
#[derive(Clone, Copy)]
enum Step {
    /// Make the activations of blocks again in the backward.
    Recompute,
    /// Halve the micro-batch and double the accumulation until it fits, or a row is left.
    FewerRows,
    /// Halve the rows' length until it fits, or rows are short.
    ShorterRows,
    /// Keep the frozen weights in bf16.
    TwoBytes,
}

use Step::{FewerRows, Recompute, ShorterRows, TwoBytes};

/// The last step of each is taken only as far as needed.
const TOGETHER: [&[Step]; 6] = [
    &[Recompute, FewerRows],
    &[Recompute, TwoBytes],
    &[Recompute, TwoBytes, FewerRows],
    &[TwoBytes, FewerRows],
    &[TwoBytes, FewerRows, ShorterRows],
    &[TwoBytes, ShorterRows],
];

/// A workload that needs less, and how to get it.
struct Change {
    what: Vec<String>,
    workload: Workload,
    needed: u64,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.what.join(", "), Bytes(self.needed))
    }
}

impl Change {
    /// All of `steps`, one after the other; `None` where one of them changes nothing.
    fn of(steps: &[Step], workload: &Workload, available: u64) -> Option<Self> {
        let mut change = Self::nothing(workload);
        for step in steps {
            change = change.then(*step, available)?;
        }
        Some(change)
    }

    /// The workload as it is.
    fn nothing(workload: &Workload) -> Self {
        Self {
            what: Vec::new(),
            workload: workload.clone(),
            needed: predict_memory(workload).needed_bytes,
        }
    }

    fn then(&self, step: Step, available: u64) -> Option<Self> {
        let smaller = match step {
            Recompute => self.recompute(),
            FewerRows => self.fewer_rows(),
            ShorterRows => self.shorter_rows(),
            TwoBytes => self.two_bytes(),
        };
        let mut last = None;
        for (what, workload) in smaller {
            let needed = predict_memory(&workload).needed_bytes;
            let what = self.what.iter().cloned().chain([what]).collect();
            last = Some(Self {
                what,
                workload,
                needed,
            });
            if needed <= available {
                break;
            }
        }
        last
    }

    fn recompute(&self) -> Vec<(String, Workload)> {
        if self.workload.recompute {
            return Vec::new();
        }
        let workload = Workload {
            recompute: true,
            ..self.workload.clone()
        };
        vec![("recompute = \"blocks\"".into(), workload)]
    }

    /// Ever smaller micro-batches, down to one row.
    fn fewer_rows(&self) -> Vec<(String, Workload)> {
        let workload = &self.workload;
        let rows = largest(workload, |batch| batch.rows);
        halves(rows, 1)
            .map(|left| {
                let accumulation = workload.accumulation.max(1) * rows.div_ceil(left);
                let what = format!("batch_size = {left} and accumulation = {accumulation}");
                (what, with_rows(workload, left, accumulation))
            })
            .collect()
    }

    /// Ever shorter rows.
    fn shorter_rows(&self) -> Vec<(String, Workload)> {
        let longest = largest(&self.workload, |batch| batch.length);
        halves(longest, SHORTEST)
            .map(|length| {
                let what = format!("max_length = {length}");
                (what, with_length(&self.workload, length))
            })
            .collect()
    }

    fn two_bytes(&self) -> Vec<(String, Workload)> {
        if self.workload.base() != FloatDType::F32 {
            return Vec::new();
        }
        let workload = Workload {
            storage: Storage::BF16,
            ..self.workload.clone()
        };
        vec![("dtype = \"bf16\"".into(), workload)]
    }
}

/// Halves of `size`, rounded up, the largest first; none below `least`.
fn halves(size: usize, least: usize) -> impl Iterator<Item = usize> {
    let half = |size: &usize| (*size > 1).then(|| size.div_ceil(2));
    let smaller = std::iter::successors(half(&size), half);
    smaller.take_while(move |size| *size >= least)
}

/// What is left where no change is enough, and why.
fn not_enough(workload: &Workload, available: u64) -> String {
    let place = match workload.home {
        Home::Gpu => "a device",
        Home::Flex | Home::OtherCpu => "a machine",
    };
    let mut least = Change::nothing(workload);
    for step in [Recompute, TwoBytes, FewerRows, ShorterRows] {
        if let Some(change) = least.then(step, available) {
            least = change;
        }
    }
    let why = why_not(workload, &least, available);
    format!("a smaller model, or {place} with more memory: {why}")
}

fn why_not(workload: &Workload, least: &Change, available: u64) -> String {
    let weights = predict_memory(&least.workload).weights;
    if weights > available {
        let stored = if workload.element() == 2 {
            ""
        } else {
            " even in bf16"
        };
        return format!("the frozen weights alone take {}{stored}", Bytes(weights));
    }
    match least.what.as_slice() {
        [] => format!("this one needs {}", Bytes(least.needed)),
        what => format!(
            "even with {} it needs {}",
            what.join(", "),
            Bytes(least.needed)
        ),
    }
}

fn largest(workload: &Workload, of: impl Fn(&MicroBatch) -> usize) -> usize {
    workload.train.iter().map(of).max().unwrap_or(0)
}

/// Every micro-batch with at most `rows` rows, its targets in proportion.
fn with_rows(workload: &Workload, rows: usize, accumulation: usize) -> Workload {
    let fewer = |batch: &MicroBatch| {
        let share = |number: usize| (number * rows).div_ceil(batch.rows);
        if batch.rows <= rows {
            return *batch;
        }
        MicroBatch {
            rows,
            length: batch.length,
            targets: share(batch.targets),
            tokens: share(batch.tokens),
        }
    };
    Workload {
        accumulation,
        train: workload.train.iter().map(fewer).collect(),
        eval: workload.eval.iter().map(fewer).collect(),
        ..workload.clone()
    }
}

/// Every micro-batch with rows of at most `length` tokens, their targets in proportion.
fn with_length(workload: &Workload, length: usize) -> Workload {
    let shorter = |batch: &MicroBatch| {
        if batch.length <= length {
            return *batch;
        }
        let share = |number: usize| (number * length).div_ceil(batch.length);
        MicroBatch {
            rows: batch.rows,
            length,
            targets: share(batch.targets),
            tokens: share(batch.tokens),
        }
    };
    Workload {
        train: workload.train.iter().map(shorter).collect(),
        eval: workload.eval.iter().map(shorter).collect(),
        ..workload.clone()
    }
}

#[cfg(test)]
mod tests;
