//! One real run, in a process of its own: the peak of a process's memory cannot be set back.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use l1ra_core::{L1raConfig, Targets, parse_device, target::ALL_LINEAR};
use l1ra_models::{LoadOptions, load::ModelFiles};
use l1ra_train::{
    TrainError, TrainOptions,
    data::Sample,
    finetune,
    memory::{peak_resident_bytes, resident_bytes},
    observe::{Observer, StepMetrics},
    run::RunInput,
};
use serde::{Deserialize, Serialize};

/// Counts live heap bytes, to tell what the program asks for from what the allocator holds.
pub(crate) struct Counting;

static LIVE: AtomicU64 = AtomicU64::new(0);
static PEAK: AtomicU64 = AtomicU64::new(0);

fn grow(bytes: usize) {
    let live = LIVE.fetch_add(bytes as u64, Relaxed) + bytes as u64;
    PEAK.fetch_max(live, Relaxed);
}

// SAFETY: every call is the system allocator's own; counters do not touch the memory.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        LIVE.fetch_sub(layout.size() as u64, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// One row of the table.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Setting {
    pub(crate) model: PathBuf,
    pub(crate) storage: String,
    pub(crate) rank: usize,
    pub(crate) targets: String,
    pub(crate) dropout: f64,
    pub(crate) batch: usize,
    pub(crate) length: usize,
    /// Share of a row's tokens that are targets, at its end.
    pub(crate) share: f64,
    pub(crate) accumulation: usize,
    pub(crate) steps: usize,
    pub(crate) device: String,
}

impl Setting {
    /// 4 × 256 tokens, all of them targets, r = 16 everywhere.
    pub(crate) fn new(model: &str, storage: &str) -> Self {
        Self {
            model: model.into(),
            storage: storage.into(),
            rank: 16,
            targets: ALL_LINEAR.into(),
            dropout: 0.0,
            batch: 4,
            length: 256,
            share: 1.0,
            accumulation: 1,
            steps: 6,
            device: "flex".into(),
        }
    }

    /// Target tokens of a row.
    pub(crate) fn row_targets(&self) -> usize {
        let wanted = (self.share * self.length as f64).round() as usize;
        wanted.clamp(1, self.length - 1)
    }

    pub(crate) fn adapters(&self) -> L1raConfig {
        L1raConfig {
            rank: self.rank,
            alpha: self.rank as f64,
            dropout: self.dropout,
            targets: Targets::from(self.targets.as_str()),
            update_ratio: 0.5,
            ..Default::default()
        }
    }
}

/// What a run took.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Resident peak and heap peak after loading.
    pub(crate) loaded: [u64; 2],
    /// Live heap after loading.
    pub(crate) loaded_live: u64,
    /// Live heap after the second step.
    pub(crate) step_live: u64,
    /// Resident bytes after the second step.
    pub(crate) step_resident: u64,
    /// Heap peak within the steps.
    pub(crate) step_heap_peak: u64,
    /// Resident peak of the process.
    pub(crate) peak: u64,
    /// Heap peak of the process.
    pub(crate) heap_peak: u64,
    /// Seconds of each step.
    pub(crate) seconds: Vec<f64>,
    /// Processor seconds of each step, user and system.
    pub(crate) cpu: Vec<[f64; 2]>,
}

impl Measured {
    /// The median step, the first one left out.
    pub(crate) fn step_seconds(&self) -> f64 {
        let mut seconds = self.seconds.get(1..).unwrap_or_default().to_vec();
        seconds.sort_unstable_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied().unwrap_or(f64::NAN)
    }
}

/// Loads the model, trains on random tokens, and says what it took.
pub(crate) fn run(setting: &Setting) -> anyhow::Result<Measured> {
    let device = parse_device(&setting.device)?;
    let storage = setting.storage.parse().map_err(anyhow::Error::msg)?;
    let loaded = ModelFiles::open(&setting.model)?.load(LoadOptions { storage }, &device)?;
    let mut measured = Measured {
        loaded: [peak_resident_bytes().unwrap_or(0), PEAK.load(Relaxed)],
        loaded_live: LIVE.load(Relaxed),
        ..Default::default()
    };
    let options = TrainOptions {
        adapters: setting.adapters(),
        steps: setting.steps,
        batch_size: setting.batch,
        accumulation: setting.accumulation,
        warmup_steps: 1,
        ..Default::default()
    };
    let vocabulary = loaded.model.config().vocab_size as u32;
    let rows = setting.batch * setting.accumulation * setting.steps;
    let output = tempfile::tempdir()?;
    let watch = Arc::new(Mutex::new(Watch::default()));
    let train = samples(setting, rows, vocabulary);
    let eval = samples(setting, setting.batch, vocabulary);
    let name = "predict_check";
    let input = RunInput::new(loaded.model, name, train, eval, &device, output.path());
    let observer = Box::new(Watcher(watch.clone()));
    let _kept = loaded.tokenizer;
    finetune(&options, input, vec![observer])?;
    let watch = watch.lock().map_err(|_| anyhow::anyhow!("poisoned"))?;
    measured.step_live = watch.live;
    measured.step_resident = watch.resident;
    measured.step_heap_peak = watch.heap_peak;
    measured.seconds.clone_from(&watch.seconds);
    measured.cpu.clone_from(&watch.cpu);
    measured.peak = peak_resident_bytes().unwrap_or(0);
    measured.heap_peak = watch.first_peak.max(PEAK.load(Relaxed));
    Ok(measured)
}

/// Rows of pseudo-random tokens, all of the setting's length.
fn samples(setting: &Setting, rows: usize, vocabulary: u32) -> Vec<Sample> {
    let mut state = 1_u64;
    let mut draw = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32 % vocabulary
    };
    let first = setting.length - setting.row_targets();
    (0..rows)
        .map(|_| Sample {
            ids: (0..setting.length).map(|_| draw()).collect(),
            is_target: (0..setting.length).map(|at| at >= first).collect(),
        })
        .collect()
}

#[derive(Default)]
struct Watch {
    seconds: Vec<f64>,
    cpu: Vec<[f64; 2]>,
    last: f64,
    last_cpu: [f64; 2],
    live: u64,
    resident: u64,
    heap_peak: u64,
    first_peak: u64,
}

struct Watcher(Arc<Mutex<Watch>>);

impl Observer for Watcher {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let mut watch = self
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let seconds = metrics.seconds - watch.last;
        watch.last = metrics.seconds;
        watch.seconds.push(seconds);
        let now = cpu_seconds();
        let cpu = [now[0] - watch.last_cpu[0], now[1] - watch.last_cpu[1]];
        watch.last_cpu = now;
        watch.cpu.push(cpu);
        if metrics.step == 1 {
            watch.first_peak = PEAK.swap(LIVE.load(Relaxed), Relaxed);
        }
        if metrics.step == 2 {
            watch.live = LIVE.load(Relaxed);
            watch.resident = resident_bytes().unwrap_or(0);
            watch.heap_peak = PEAK.load(Relaxed);
        }
        Ok(())
    }
}

/// User and system seconds of this process, to 10 ms (Linux; zero elsewhere).
pub(crate) fn cpu_seconds() -> [f64; 2] {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let mut fields = after.split_whitespace().skip(11);
    let mut ticks = || {
        fields
            .next()
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
            / 100.0
    };
    [ticks(), ticks()]
}
