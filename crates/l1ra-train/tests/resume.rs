//! A run that is interrupted and gone on with is the run that was not, to the bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod tiny;

use std::{
    fs,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use l1ra_core::{BudgetUnit, L1raConfig, Policy};

use l1ra_train::{
    Checkpoint, RunReport, StopSignal, TrainError, TrainOptions,
    checkpoint::{CheckpointFolder, CheckpointOptions, Found},
    data::{Packing, Sample},
    finetune,
    observe::{Observer, StepMetrics},
    recompute::Recompute,
    run::RunInput,
    schedule::Shape,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;
use tiny::{alone, model};

fn rows(seed: u64, count: usize) -> Vec<Sample> {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let row = |_| {
        let length = draw.random_range(4..16_usize);
        let ids = (0..length).map(|_| draw.random_range(3..256)).collect();
        let is_target = (0..length).map(|place| place > 1).collect();
        Sample { ids, is_target }
    };
    (0..count).map(row).collect()
}

/// A run to be interrupted: its settings and data.
#[derive(Clone, Debug)]
struct Case {
    options: TrainOptions,
    rows: usize,
    packed: bool,
    /// Steps after which the run is stopped, ascending.
    stops: Vec<usize>,
}

impl Case {
    fn random(seed: u64) -> Self {
        let mut draw = ChaCha8Rng::seed_from_u64(seed);
        let steps = draw.random_range(10..19);
        let policy = [
            Policy::L1ra,
            Policy::Lasso,
            Policy::Reference,
            Policy::Fixed,
        ][draw.random_range(0..4_usize)];
        let unit = [BudgetUnit::Ranks, BudgetUnit::Parameters][draw.random_range(0..2_usize)];
        let options = TrainOptions {
            adapters: L1raConfig {
                rank: draw.random_range(2..5),
                policy,
                budget: (policy != Policy::Reference).then_some(unit),
                dropout: [0.0, 0.2][draw.random_range(0..2_usize)],
                lambda: if policy == Policy::Fixed { 0.5 } else { 2.0 },
                eta_c: 0.1,
                update_ratio: if policy == Policy::L1ra { 0.1 } else { 0.2 },
                allow_zero_rank: policy == Policy::Lasso && draw.random_bool(0.5),
                seed,
                ..Default::default()
            },
            steps,
            batch_size: draw.random_range(1..5),
            accumulation: draw.random_range(1..4),
            lr: 1e-2,
            schedule: [Shape::Cosine, Shape::Linear, Shape::Constant]
                [draw.random_range(0..3_usize)],
            warmup_steps: draw.random_range(0..3),
            eval_every: draw.random_range(0..6),
            recompute: [Recompute::Off, Recompute::Blocks][draw.random_range(0..2_usize)],
            seed,
            checkpoint: CheckpointOptions {
                save_every: [None, Some(0), Some(1), Some(4)][draw.random_range(0..4_usize)],
                keep_last: draw.random_range(1..4),
                keep_best: draw.random_bool(0.5),
                ..Default::default()
            },
            ..Default::default()
        };
        let mut stops: Vec<usize> = (0..draw.random_range(1..4))
            .map(|_| draw.random_range(1..steps))
            .collect();
        stops.sort_unstable();
        stops.dedup();
        Self {
            options,
            rows: draw.random_range(9..30),
            packed: draw.random_bool(0.5),
            stops,
        }
    }

    fn start(&self, dir: &Path, stop: Option<usize>, resume: Option<Found>) -> Outcome {
        let device = Device::flex();
        let train = rows(1, self.rows);
        let eval = rows(2, 5);
        let packing = self.packed.then(|| Packing::new(&train, 24, 0));
        let signal = StopSignal::default();
        let input = RunInput {
            packing,
            stop: signal.clone(),
            resume: resume.map(|found| Box::new(found.checkpoint)),
            ..RunInput::new(model(), "tiny-llama", train, eval, &device, dir)
        };
        let stopper = Stopper { at: stop, signal };
        finetune(&self.options, input, vec![Box::new(stopper)]).map(|(_, report)| report)
    }
}

type Outcome = Result<RunReport, TrainError>;

/// Asks for a stop after a step.
struct Stopper {
    at: Option<usize>,
    signal: StopSignal,
}

impl Observer for Stopper {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        if Some(metrics.step) == self.at {
            self.signal.request(2);
        }
        Ok(())
    }
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// A run's lines without what depends on the machine.
fn lines(path: PathBuf) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let mut value: Value = serde_json::from_str(line).unwrap();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|key, _| key != "seconds" && key != "resident_bytes");
        }
        value
    };
    text.lines().map(line).collect()
}

fn assert_same_runs(case: &Case, (whole, one): (&RunReport, &Path), parts: (&RunReport, &Path)) {
    let (resumed, other) = parts;
    assert_eq!(bits(&whole.losses), bits(&resumed.losses), "{case:?}");
    assert_eq!(whole.gates, resumed.gates);
    assert_eq!(whole.ranks, resumed.ranks);
    assert_eq!(whole.updates, resumed.updates);
    assert_eq!((whole.before, whole.after), (resumed.before, resumed.after));
    assert_eq!(whole.tokens, resumed.tokens);
    assert_eq!(whole.parameters, resumed.parameters);
    for name in [
        "adapter_model.safetensors",
        "l1ra_adapter.safetensors",
        "adapter_config.json",
    ] {
        let read = |dir: &Path| fs::read(dir.join("adapter").join(name)).unwrap();
        assert!(read(one) == read(other), "{name} of {case:?}");
    }
    for name in ["metrics.jsonl", "ranks.jsonl"] {
        assert_eq!(lines(one.join(name)), lines(other.join(name)), "{case:?}");
    }
}

#[test]
fn twenty_random_runs_go_on_to_the_bit() {
    let _alone = alone();
    let (mut moved, mut packed, mut dropped, mut inside) = (0, 0, 0, 0);
    for seed in 0..20 {
        let case = Case::random(seed);
        let whole_dir = TempDir::new().unwrap();
        let whole = case.start(whole_dir.path(), None, None).unwrap();

        let dir = TempDir::new().unwrap();
        let mut found = None;
        for stop in &case.stops {
            match case.start(dir.path(), Some(*stop), found.take()) {
                Err(TrainError::Interrupted {
                    step,
                    checkpoint: Some(path),
                    reason: 2,
                    ..
                }) => {
                    assert_eq!(step, *stop);
                    found = Some(Found::at(&path).unwrap());
                }
                other => panic!("{other:?}"),
            }
            let newest = CheckpointFolder::of_run(dir.path()).newest().unwrap();
            assert_eq!(newest.checkpoint.progress.step, *stop);
        }
        let resumed = case.start(dir.path(), None, found).unwrap();
        assert_same_runs(&case, (&whole, whole_dir.path()), (&resumed, dir.path()));
        moved += whole.ranks.moved();
        packed += usize::from(case.packed);
        dropped += usize::from(case.options.adapters.dropout > 0.0);
        inside += case.stops.len();
    }
    assert!(
        moved > 20 && packed > 4 && dropped > 4 && inside > 20,
        "{moved} {packed} {dropped} {inside}"
    );
}

fn case() -> Case {
    let mut case = Case::random(0);
    case.options.steps = 12;
    case.options.eval_every = 3;
    case.options.warmup_steps = 1;
    case.options.checkpoint = CheckpointOptions {
        save_every: Some(2),
        ..Default::default()
    };
    case.stops = vec![5];
    case
}

fn interrupted(case: &Case, dir: &Path) -> PathBuf {
    match case.start(dir, Some(case.stops[0]), None) {
        Err(TrainError::Interrupted {
            checkpoint: Some(path),
            ..
        }) => path,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_ones_and_the_best_are_kept() {
    let _alone = alone();
    let case = case();
    let dir = TempDir::new().unwrap();
    case.start(dir.path(), None, None).unwrap();
    let folder = CheckpointFolder::of_run(dir.path());
    let steps: Vec<usize> = folder
        .list()
        .unwrap()
        .iter()
        .map(|(step, _)| *step)
        .collect();
    let best = |step| {
        let checkpoint = Checkpoint::read(&folder.file(step)).unwrap();
        checkpoint.progress.best.map(|best| best.step)
    };
    let last = best(*steps.last().unwrap()).unwrap();
    assert!(steps.contains(&10) && steps.contains(&12), "{steps:?}");
    assert!(steps.len() <= 3, "{steps:?}");
    assert!(
        steps.contains(&last) || steps.len() == 2,
        "{steps:?}, best {last}"
    );
}

#[test]
fn a_finished_run_takes_more_steps() {
    let _alone = alone();
    let mut case = case();
    let dir = TempDir::new().unwrap();
    case.start(dir.path(), None, None).unwrap();
    let found = Found::at(dir.path()).unwrap();
    assert_eq!(found.checkpoint.progress.step, 12);
    case.options.steps = 20;
    let report = case.start(dir.path(), None, Some(found)).unwrap();
    assert_eq!(report.losses.len(), 20);
    let steps = lines(dir.path().join("metrics.jsonl"));
    let steps = steps.iter().filter(|line| line.get("loss").is_some());
    assert_eq!(steps.count(), 20);
    let ends = lines(dir.path().join("ranks.jsonl"));
    let ends = ends.iter().filter(|line| line.get("final").is_some());
    assert_eq!(ends.count(), 1);
}

#[test]
fn another_run_is_refused_and_what_may_change_may() {
    let _alone = alone();
    let mut case = case();
    case.stops = vec![8];
    let dir = TempDir::new().unwrap();
    let path = interrupted(&case, dir.path());
    let refused = |change: &dyn Fn(&mut Case)| {
        let mut other = case.clone();
        change(&mut other);
        let found = Found::at(&path).unwrap();
        let error = other.start(dir.path(), None, Some(found)).unwrap_err();
        assert!(error.is_users_mistake());
        error.to_string()
    };
    let lr = refused(&|case| case.options.lr = 0.5);
    assert!(lr.contains("lr is 0.5, and was 0.01"), "{lr}");
    let rank = refused(&|case| case.options.adapters.rank = 9);
    assert!(rank.contains("adapters.rank is 9, and was "), "{rank}");
    let data = refused(&|case| case.rows += 1);
    assert!(data.contains("the training data are "), "{data}");
    let packing = refused(&|case| case.packed = !case.packed);
    assert!(packing.contains("the training data are "), "{packing}");
    let fewer = refused(&|case| case.options.steps = 6);
    assert!(
        fewer.starts_with("steps = 6: at least the 8 steps of "),
        "{fewer}"
    );
    // The refused starts left everything as it was.
    let mut other = case.clone();
    other.options.eval_every = 0;
    other.options.checkpoint.save_every = Some(0);
    let found = Found::at(&path).unwrap();
    other.start(dir.path(), None, Some(found)).unwrap();
}

#[test]
fn a_damaged_checkpoint_gives_way_to_the_one_before() {
    let _alone = alone();
    let mut case = case();
    case.stops = vec![6];
    let dir = TempDir::new().unwrap();
    let path = interrupted(&case, dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let last = bytes.len() - 9;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let found = Found::at(dir.path()).unwrap();
    assert!(found.checkpoint.progress.step < 6);
    assert_eq!(found.damaged.len(), 1);
    assert!(found.damaged[0].contains("checksum"), "{:?}", found.damaged);
    let error = Found::at(&path).unwrap_err().to_string();
    assert!(error.contains("take another checkpoint"), "{error}");
    case.start(dir.path(), None, Some(found)).unwrap();
}
