//! The arithmetic of an estimate, on a stopwatch that knows the answer.

use super::*;
use crate::predict::made::{batch, workload};

/// Seconds by formula: blocks `fixed + rows · (linear · L + square · L²)`, the head `fixed + logit`
/// for each logit.
#[derive(Clone, Debug, Default)]
struct Formula {
    fixed: f64,
    linear: f64,
    square: f64,
    logit: f64,
    embedding: f64,
    optimizer: f64,
    asked: Vec<Part>,
}

impl Formula {
    fn block(&self, rows: usize, length: usize) -> f64 {
        let (rows, length) = (rows as f64, length as f64);
        self.fixed + rows * (self.linear * length + self.square * length * length)
    }

    fn head(&self, targets: usize, vocabulary: usize) -> f64 {
        self.fixed + self.logit * (targets * vocabulary) as f64
    }

    /// Rows and lengths of the blocks that were asked for.
    fn blocks(&self) -> Vec<(usize, usize)> {
        let size = |part: &Part| match part {
            Part::Block { rows, length, .. } => Some((*rows, *length)),
            _ => None,
        };
        self.asked.iter().filter_map(size).collect()
    }
}

impl Stopwatch for Formula {
    fn seconds(&mut self, part: Part) -> Result<f64, TrainError> {
        self.asked.push(part);
        Ok(match part {
            Part::Block { rows, length, .. } => self.block(rows, length),
            Part::Head {
                targets,
                vocabulary,
                ..
            } => self.head(targets, vocabulary),
            Part::Embedding { .. } => self.embedding,
            Part::Optimizer => self.optimizer,
        })
    }
}

fn close(seen: f64, expected: f64) {
    let off = (seen - expected).abs();
    assert!(off <= 1e-9 * expected.abs(), "{seen}, not {expected}");
}

fn part<'a>(prediction: &'a TimePrediction, name: &str) -> &'a ProbePart {
    let mut parts = prediction.how.parts.iter();
    parts.find(|part| part.name == name).unwrap()
}

const BLOCK: &str = "block with adapters";
const HEAD: &str = "output head and loss";

#[test]
fn a_step_is_the_sum_of_its_parts() {
    let workload = Workload {
        accumulation: 3,
        ..workload("all-linear")
    };
    let mut watch = Formula {
        linear: 1e-4,
        logit: 1e-6,
        embedding: 1e-3,
        optimizer: 2e-3,
        ..Formula::default()
    };
    let prediction = estimate(&workload, &mut watch).unwrap();
    let calls: Vec<usize> = prediction.how.parts.iter().map(|part| part.calls).collect();
    assert_eq!(calls, [2 * 3, 3, 3, 2]);
    let step = 6.0 * 1.6e-3 + 3.0 * 2.56e-3 + 3.0 * 1e-3 + 2.0 * 2e-3;
    close(prediction.step_seconds, step);
    close(prediction.tokens_per_second, 3.0 * 16.0 / step);
    assert_eq!(prediction.how.batch, batch());
}

#[test]
fn many_rows_are_measured_on_fewer() {
    let workload = Workload {
        train: vec![MicroBatch::full(64, 32, 10)],
        ..workload("all-linear")
    };
    let mut watch = Formula {
        fixed: 0.01,
        linear: 0.001 / 32.0,
        ..Formula::default()
    };
    let prediction = estimate(&workload, &mut watch).unwrap();
    assert_eq!(watch.blocks(), [(1, 32), (20, 32), (40, 32)]);
    close(part(&prediction, BLOCK).seconds, watch.block(64, 32));
    assert_eq!(part(&prediction, BLOCK).measured, "20 and 40 × 32 tokens");
}

#[test]
fn long_rows_are_measured_on_shorter_ones() {
    let workload = Workload {
        train: vec![MicroBatch::full(2, 1024, 10)],
        ..workload("all-linear")
    };
    let mut watch = Formula {
        fixed: 0.01,
        linear: 5e-4,
        square: 1e-6,
        ..Formula::default()
    };
    let prediction = estimate(&workload, &mut watch).unwrap();
    assert!(watch.blocks().iter().all(|(rows, _)| *rows == 1));
    assert!(watch.blocks().iter().all(|(_, length)| *length < 1024));
    close(part(&prediction, BLOCK).seconds, watch.block(2, 1024));
}

#[test]
fn a_large_head_is_measured_on_a_slice() {
    let mut workload = workload("all-linear");
    workload.config.vocab_size = 32_768;
    workload.train = vec![MicroBatch::full(2, 512, 1000)];
    let mut watch = Formula {
        fixed: 0.02,
        logit: 1e-7,
        ..Formula::default()
    };
    let prediction = estimate(&workload, &mut watch).unwrap();
    close(part(&prediction, HEAD).seconds, watch.head(1000, 32_768));
    let slices = watch.asked.iter().filter_map(|part| match part {
        Part::Head { vocabulary, .. } => Some(*vocabulary),
        _ => None,
    });
    assert!(slices.max().unwrap() < 4096);
}

#[test]
fn layers_count_by_what_they_do() {
    let names = |targets: &str| -> Vec<(&'static str, usize)> {
        let prediction = estimate(&workload(targets), &mut Formula::default()).unwrap();
        let parts = prediction.how.parts.iter();
        parts.map(|part| (part.name, part.calls)).collect()
    };
    let blocks = |targets: &str| names(targets)[..2].to_vec();
    assert_eq!(
        blocks(r".*\.1\..*"),
        [(BLOCK, 1), ("block below every adapter, forward", 1)]
    );
    assert_eq!(
        blocks(r".*\.0\..*"),
        [(BLOCK, 1), ("block without adapters", 1)]
    );
    // An adapter on the head alone: nothing passes through a block.
    assert_eq!(
        names("lm_head")[0],
        ("block below every adapter, forward", 2)
    );
}

#[test]
fn without_targets_there_is_no_head() {
    let workload = Workload {
        train: vec![MicroBatch::full(2, 8, 0)],
        ..workload("all-linear")
    };
    let prediction = estimate(&workload, &mut Formula::default()).unwrap();
    assert!(prediction.how.parts.iter().all(|part| part.name != HEAD));
}

#[test]
fn the_typical_batch_costs_what_the_mean_costs() {
    let batches = [MicroBatch::full(1, 10, 4), MicroBatch::full(1, 30, 8)];
    let typical = typical(&batches);
    // (10² + 30²) / (10 + 30)
    assert_eq!(
        typical,
        MicroBatch {
            tokens: 20,
            ..MicroBatch::full(1, 25, 6)
        }
    );
    // What rounding adds to the positions is taken off again.
    let workload = Workload {
        train: batches.to_vec(),
        ..workload("all-linear")
    };
    let mut watch = Formula {
        linear: 1e-4,
        ..Formula::default()
    };
    let prediction = estimate(&workload, &mut watch).unwrap();
    close(part(&prediction, BLOCK).seconds, 1e-4 * 20.0);
}

#[test]
fn noise_makes_nothing_fall() {
    close(line([2, 4], [0.5, 0.4], 8), 0.4);
    // No negative fixed part: at most through zero.
    close(line([2, 4], [0.1, 0.4], 8), 0.8);
    close(line([4, 4], [0.4, 0.4], 8), 0.8);
    let falling = parabola([10, 20, 40], [3.0, 2.0, 1.0], 80, 1);
    assert!((1.0..=4.0).contains(&falling), "{falling}");
    close(parabola([1, 1, 4], [0.1, 0.1, 0.4], 8, 2), 1.6);
}

#[test]
fn an_error_of_the_device_is_passed_on() {
    struct Broken;
    impl Stopwatch for Broken {
        fn seconds(&mut self, _: Part) -> Result<f64, TrainError> {
            Err(TrainError::Stopped {
                step: 0,
                detail: "gone".into(),
            })
        }
    }
    let error = estimate(&workload("all-linear"), &mut Broken).unwrap_err();
    assert!(error.to_string().contains("gone"), "{error}");
}

#[test]
fn it_is_said_as_a_table() {
    let mut watch = Formula {
        linear: 0.5 / 16.0,
        embedding: 0.25,
        ..Formula::default()
    };
    let prediction = estimate(&workload("all-linear"), &mut watch).unwrap();
    insta::assert_snapshot!(prediction, @"
    1.250 s a step, 13 tokens/s (measured in 0.0 s)
    part                                   calls    s a step
    block with adapters                        2       1.000
    output head and loss                       1       0.000
    embedding and positions                    1       0.250
    optimizer, one block's adapters            2       0.000
    ");
}
