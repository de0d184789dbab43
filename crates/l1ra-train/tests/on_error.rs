//! What cannot be written ends the run, or is said, as `checkpoint.on_error` has it.
#![allow(clippy::unwrap_used, missing_docs)]

mod tiny;

use std::{
    io,
    sync::{Arc, Mutex},
};

use burn::tensor::Device;
use l1ra_core::{L1raConfig, Policy};
use l1ra_train::{
    TrainError, TrainOptions,
    checkpoint::{CheckpointOptions, OnError},
    data::Sample,
    finetune,
    observe::{Observer, StepMetrics},
    run::RunInput,
};
use tempfile::TempDir;

/// A log on a disk that is full at step 2.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Observer for Log {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        if metrics.step == 2 {
            let full = io::Error::from(io::ErrorKind::StorageFull);
            return Err(TrainError::Io {
                path: "a.log".into(),
                source: full,
            });
        }
        self.0
            .lock()
            .unwrap()
            .push(format!("step {}", metrics.step));
        Ok(())
    }

    fn not_saved(&mut self, step: usize, error: &TrainError) -> Result<(), TrainError> {
        self.0.lock().unwrap().push(format!("step {step}: {error}"));
        Ok(())
    }
}

fn run(on_error: OnError) -> (Vec<String>, Option<String>) {
    let sample = |id| Sample {
        ids: vec![id, 5, 6, 7],
        is_target: vec![false, true, true, true],
    };
    let options = TrainOptions {
        adapters: L1raConfig {
            rank: 2,
            policy: Policy::Fixed,
            ..Default::default()
        },
        steps: 3,
        batch_size: 2,
        warmup_steps: 1,
        eval_every: 0,
        checkpoint: CheckpointOptions {
            on_error,
            ..Default::default()
        },
        ..Default::default()
    };
    let (device, dir) = (Device::flex(), TempDir::new().unwrap());
    let samples = |ids: std::ops::Range<u32>| ids.map(sample).collect::<Vec<_>>();
    let input = RunInput::new(
        tiny::model(),
        "tiny-llama",
        samples(10..16),
        samples(20..22),
        &device,
        dir.path(),
    );
    let log = Log::default();
    let result = finetune(&options, input, vec![Box::new(log.clone())]);
    let lines = log.0.lock().unwrap().clone();
    (lines, result.err().map(|error| error.to_string()))
}

#[test]
fn a_log_that_cannot_be_written_ends_the_run_or_is_said() {
    let (lines, error) = run(OnError::Stop);
    assert_eq!(lines, ["step 1"]);
    assert_eq!(error.unwrap(), "a.log: no storage space");
    let (lines, error) = run(OnError::Continue);
    assert_eq!(
        lines,
        ["step 1", "step 2: a.log: no storage space", "step 3"]
    );
    assert_eq!(error, None);
}
