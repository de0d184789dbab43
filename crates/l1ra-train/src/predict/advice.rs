//! [`advise`]: what would fit where a run does not.

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
/// First comes what changes no result: fewer rows in a micro-batch and more accumulation in their
/// place. Then what does: two-byte storage of the frozen weights, shorter rows. Where nothing is
/// enough alone, all of them together; where that is not enough either, a smaller model.
pub fn advise(prediction: &MemoryPrediction, available: u64, workload: &Workload) -> Vec<String> {
    if prediction.needed_bytes <= available {
        return Vec::new();
    }
    let changes = [
        Change::fewer_rows(workload, available),
        Change::two_bytes(workload),
        Change::shorter_rows(workload, available),
    ];
    let changes: Vec<Change> = changes.into_iter().flatten().collect();
    let mut advice: Vec<String> = changes
        .iter()
        .map(|change| change.line(available))
        .collect();
    if changes.iter().all(|change| !change.fits(available)) {
        advice.push(together(workload, available));
    }
    advice
}

/// A workload that needs less, and how to get it.
struct Change {
    what: String,
    workload: Workload,
    needed: u64,
}

impl Change {
    fn new(what: String, workload: Workload) -> Self {
        let needed = predict_memory(&workload).needed_bytes;
        Self {
            what,
            workload,
            needed,
        }
    }

    fn fits(&self, available: u64) -> bool {
        self.needed <= available
    }

    fn line(&self, available: u64) -> String {
        let verdict = if self.fits(available) {
            ""
        } else {
            ", still too much alone"
        };
        format!("{}: {}{verdict}", self.what, Bytes(self.needed))
    }

    /// Halves the micro-batch and doubles the accumulation until it fits, or a row is left.
    fn fewer_rows(workload: &Workload, available: u64) -> Option<Self> {
        let rows = largest(workload, |batch| batch.rows);
        let mut change = None;
        let mut divisor = 2;
        while rows >= 2 && divisor < 2 * rows {
            let rows_left = rows.div_ceil(divisor);
            let accumulation = workload.accumulation.max(1) * rows.div_ceil(rows_left);
            let what = format!("batch_size = {rows_left} and accumulation = {accumulation}");
            let next = with_rows(workload, rows_left, accumulation);
            let next = Self::new(what, next);
            let done = next.fits(available);
            change = Some(next);
            if done || rows_left == 1 {
                break;
            }
            divisor *= 2;
        }
        change
    }

    fn two_bytes(workload: &Workload) -> Option<Self> {
        (workload.element() == 4).then(|| {
            let less = Workload {
                storage: Storage::BF16,
                ..workload.clone()
            };
            Self::new("dtype = \"bf16\" for the frozen weights".into(), less)
        })
    }

    /// Halves the rows' length until it fits, or rows are short.
    fn shorter_rows(workload: &Workload, available: u64) -> Option<Self> {
        let longest = largest(workload, |batch| batch.length);
        let mut change = None;
        let mut length = longest / 2;
        while length >= SHORTEST {
            let next = Self::new(
                format!("max_length = {length}"),
                with_length(workload, length),
            );
            let done = next.fits(available);
            change = Some(next);
            if done {
                break;
            }
            length /= 2;
        }
        change
    }
}

/// The last resort: everything at once.
fn together(workload: &Workload, available: u64) -> String {
    let mut parts = Vec::new();
    let mut least = workload.clone();
    for step in [
        Change::fewer_rows as fn(&Workload, u64) -> Option<Change>,
        |workload, _| Change::two_bytes(workload),
        Change::shorter_rows,
    ] {
        if let Some(change) = step(&least, available) {
            let fits = change.fits(available);
            parts.push(change.what);
            least = change.workload;
            if fits {
                break;
            }
        }
    }
    let needed = predict_memory(&least).needed_bytes;
    if needed <= available {
        return format!("together, {}: {}", parts.join(", "), Bytes(needed));
    }
    let place = match workload.home {
        Home::Gpu => "a device",
        Home::Flex | Home::OtherCpu => "a machine",
    };
    format!(
        "even with all of these it needs {}: take a smaller model, or {place} with more memory",
        Bytes(needed)
    )
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
