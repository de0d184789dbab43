//! [`predict_time`]: seconds of an optimizer step, from a short measurement on the device itself.

use std::{fmt, time::Instant};

use burn::tensor::Device;
use serde::Serialize;

use crate::{
    error::TrainError,
    predict::{
        probe::{Part, Probe, Stopwatch},
        workload::{MicroBatch, Workload},
    },
};

/// Longest single measurement, in seconds: what would take longer is measured on fewer tokens, rows
/// or vocabulary, and scaled up.
const LONGEST: f64 = 0.45;
/// Tokens of the first, rough measurement of a block.
const ROUGH_TOKENS: usize = 32;
/// Elements of the logits in the first, rough measurement of the head.
const ROUGH_LOGITS: usize = 1 << 17;
/// Vocabulary of the smallest slice that is measured.
const LEAST_VOCABULARY: usize = 512;

/// One part of a step, measured and scaled.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ProbePart {
    /// What was measured.
    pub name: &'static str,
    /// At which sizes.
    pub measured: String,
    /// Seconds of one call at the run's sizes.
    pub seconds: f64,
    /// Calls in an optimizer step.
    pub calls: usize,
}

/// What a prediction of time rests on.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct ProbeReport {
    /// The micro-batch that stands for all.
    pub batch: MicroBatch,
    /// Parts of a step.
    pub parts: Vec<ProbePart>,
    /// Seconds that the measurement took.
    pub seconds: f64,
}

/// Predicted time of an optimizer step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct TimePrediction {
    /// Seconds of an optimizer step, all micro-batches of its window.
    pub step_seconds: f64,
    /// Tokens in a second, padding not counted.
    pub tokens_per_second: f64,
    /// What that rests on.
    pub how: ProbeReport,
}

impl fmt::Display for TimePrediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let step = self.step_seconds;
        writeln!(
            f,
            "{step:.3} s a step, {:.0} tokens/s (measured in {:.1} s)",
            self.tokens_per_second, self.how.seconds
        )?;
        write!(f, "{:<36}{:>8}{:>12}", "part", "calls", "s a step")?;
        for part in &self.how.parts {
            let seconds = part.seconds * part.calls as f64;
            write!(f, "\n{:<36}{:>8}{seconds:>12.3}", part.name, part.calls)?;
        }
        Ok(())
    }
}

/// Predicts the time of an optimizer step of `workload` by measuring its parts on `device`: one
/// decoder block of the model's shape with adapters, forward and backward, at the micro-batch's
/// size; the output head with the loss on a slice of the vocabulary; the embedding; the optimizer on
/// one block's adapters. Weights are made up; each part is warmed up once.
///
/// What would take too long is measured smaller and scaled: rows and vocabulary by a line, the
/// length of a row by a parabola, because attention grows with its square. Several GPUs share the
/// micro-batches; what they say to each other after them is not counted. The whole takes a few
/// seconds. Other programs that run at the same time slow the measurement as they would the run.
///
/// # Errors
/// A model that cannot be built on the device.
pub fn predict_time(workload: &Workload, device: &Device) -> Result<TimePrediction, TrainError> {
    let started = Instant::now();
    let mut prediction = estimate(workload, &mut Probe::new(workload, device))?;
    prediction.how.seconds = started.elapsed().as_secs_f64();
    Ok(prediction)
}

/// The arithmetic of [`predict_time`] on any stopwatch.
pub(crate) fn estimate(
    workload: &Workload,
    watch: &mut dyn Stopwatch,
) -> Result<TimePrediction, TrainError> {
    let batch = typical(&workload.train);
    let rounding = mean(&workload.train, MicroBatch::positions) / batch.positions() as f64;
    let mut parts = Vec::new();
    let micro = workload.in_turn();
    let kinds = BlockKinds::of(workload);
    for (kind, layers) in kinds.parts() {
        if layers > 0 {
            let mut part = block(watch, kind, &batch, layers * micro)?;
            part.seconds *= rounding;
            parts.push(part);
        }
    }
    if batch.targets > 0 {
        parts.push(head(watch, &batch, workload.config.vocab_size, micro)?);
    }
    parts.push(ProbePart {
        name: "embedding and positions",
        measured: format!("{} × {} tokens", batch.rows, batch.length),
        seconds: watch.seconds(Part::Embedding {
            rows: batch.rows,
            length: batch.length,
        })?,
        calls: micro,
    });
    if kinds.adapted > 0 {
        parts.push(ProbePart {
            name: "optimizer, one block's adapters",
            measured: "all of them".into(),
            seconds: watch.seconds(Part::Optimizer)?,
            calls: kinds.adapted,
        });
    }
    let step_seconds = parts.iter().map(|p| p.seconds * p.calls as f64).sum();
    let tokens = mean(&workload.train, |batch| batch.tokens) * workload.accumulation.max(1) as f64;
    Ok(TimePrediction {
        step_seconds,
        tokens_per_second: tokens / f64::max(step_seconds, 1e-9),
        how: ProbeReport {
            batch,
            parts,
            seconds: 0.0,
        },
    })
}

/// How many layers are of which kind.
struct BlockKinds {
    /// With adapters, forward and backward.
    adapted: usize,
    /// Without adapters, above one that has: the gradient passes through.
    passed: usize,
    /// Below every adapter: forward only.
    frozen: usize,
}

impl BlockKinds {
    fn of(workload: &Workload) -> Self {
        let layers = workload.config.num_hidden_layers;
        let adapted = workload.adapted_layers();
        let frozen = (0..layers)
            .take_while(|layer| !workload.is_adapted(*layer))
            .count();
        Self {
            adapted,
            passed: layers - adapted - frozen,
            frozen,
        }
    }

    fn parts(&self) -> [(BlockKind, usize); 3] {
        [
            (BlockKind::Adapted, self.adapted),
            (BlockKind::Passed, self.passed),
            (BlockKind::Frozen, self.frozen),
        ]
    }
}

/// What a block does in a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BlockKind {
    /// Has adapters; forward and backward.
    Adapted,
    /// Has none, but the gradient passes through it.
    Passed,
    /// Forward only.
    Frozen,
}

impl BlockKind {
    fn name(self) -> &'static str {
        match self {
            Self::Adapted => "block with adapters",
            Self::Passed => "block without adapters",
            Self::Frozen => "block below every adapter, forward",
        }
    }
}

/// One block at the run's micro-batch.
fn block(
    watch: &mut dyn Stopwatch,
    kind: BlockKind,
    batch: &MicroBatch,
    calls: usize,
) -> Result<ProbePart, TrainError> {
    let mut time = |rows: usize, length: usize| watch.seconds(Part::Block { kind, rows, length });
    let rough_length = batch.length.min(ROUGH_TOKENS);
    let rough = time(1, rough_length)?;
    let one_row = rough * batch.length as f64 / rough_length as f64;
    let affordable = (LONGEST / f64::max(one_row, 1e-9)) as usize;
    let (seconds, measured) = if affordable >= batch.rows {
        let seconds = time(batch.rows, batch.length)?;
        (seconds, format!("{} × {} tokens", batch.rows, batch.length))
    } else if affordable >= 2 {
        let half = affordable / 2;
        let points = [half, affordable];
        let times = [time(half, batch.length)?, time(affordable, batch.length)?];
        let seconds = line(points, times, batch.rows);
        let measured = format!("{half} and {affordable} × {} tokens", batch.length);
        (seconds, measured)
    } else {
        let share = (LONGEST / f64::max(one_row, 1e-9)).min(1.0);
        let most = (batch.length as f64 * share) as usize;
        let most = most.max(rough_length).max(4).min(batch.length.max(4));
        let lengths = [most / 4, most / 2, most].map(|length| length.max(1));
        let mut times = [0.0; 3];
        for (time_of, length) in times.iter_mut().zip(lengths) {
            *time_of = time(1, length)?;
        }
        let seconds = parabola(lengths, times, batch.length, batch.rows);
        let [one, two, three] = lengths;
        (seconds, format!("1 × {one}, {two} and {three} tokens"))
    };
    Ok(ProbePart {
        name: kind.name(),
        measured,
        seconds,
        calls,
    })
}

/// Head and loss at the run's number of targets.
fn head(
    watch: &mut dyn Stopwatch,
    batch: &MicroBatch,
    vocabulary: usize,
    calls: usize,
) -> Result<ProbePart, TrainError> {
    let mut time = |targets: usize, vocabulary: usize| {
        watch.seconds(Part::Head {
            rows: batch.rows,
            length: batch.length,
            targets,
            vocabulary,
        })
    };
    let least = vocabulary.min(LEAST_VOCABULARY);
    let few = batch.targets.min(ROUGH_LOGITS / least).max(1);
    let rough = time(few, least)?;
    let logits = batch.targets as f64 * vocabulary as f64;
    let all = rough * logits / (few as f64 * least as f64);
    let share = LONGEST / f64::max(all, 1e-9);
    let part = |seconds, measured| ProbePart {
        name: "output head and loss",
        measured,
        seconds,
        calls,
    };
    if share >= 1.0 {
        let measured = format!("{} targets, all {vocabulary} tokens", batch.targets);
        return Ok(part(time(batch.targets, vocabulary)?, measured));
    }
    let slice = ((vocabulary as f64 * share) as usize).max(least);
    let half = (slice / 2).max(1);
    let targets = batch.targets;
    let times = [time(targets, half)?, time(targets, slice)?];
    let seconds = line([half, slice], times, vocabulary);
    let measured = format!("{targets} targets, {half} and {slice} of {vocabulary} tokens");
    Ok(part(seconds, measured))
}

/// The line through two measurements, at `size`; through zero where it would fall.
fn line(sizes: [usize; 2], seconds: [f64; 2], size: usize) -> f64 {
    let [low, high] = sizes.map(|size| size as f64);
    if high <= low {
        return seconds[1] * size as f64 / high.max(1.0);
    }
    let slope = (seconds[1] - seconds[0]) / (high - low);
    // Noise must not make the fixed part negative, nor the slope.
    let slope = slope.clamp(0.0, seconds[1] / high);
    seconds[1] + slope * (size as f64 - high)
}

/// `a + b·N + c·N·L` fitted to three lengths of a single row, for `rows` rows of `length`. No term
/// may be negative.
fn parabola(lengths: [usize; 3], seconds: [f64; 3], length: usize, rows: usize) -> f64 {
    let [x0, x1, x2] = lengths.map(|length| length as f64);
    let [y0, y1, y2] = seconds;
    let (target, rows) = (length as f64, rows as f64);
    if x0 >= x1 || x1 >= x2 {
        return y2 * target * rows / x2.max(1.0);
    }
    let first = (y1 - y0) / (x1 - x0);
    let second = (y2 - y1) / (x2 - x1);
    let square = ((second - first) / (x2 - x0)).clamp(0.0, y2 / (x2 * x2));
    let linear = ((y2 - y0) / (x2 - x0) - square * (x2 + x0)).max(0.0);
    let fixed = (y2 - linear * x2 - square * x2 * x2).max(0.0);
    fixed + rows * (linear * target + square * target * target)
}

/// A micro-batch that costs what the mean of `batches` costs: attention counts by the square of the
/// length.
pub(crate) fn typical(batches: &[MicroBatch]) -> MicroBatch {
    let positions = mean(batches, MicroBatch::positions);
    let squares = mean(batches, |batch| batch.positions() * batch.length);
    let length = (squares / f64::max(positions, 1.0)).round().max(1.0);
    let count = |number: f64| number.round() as usize;
    MicroBatch {
        rows: count(positions / length).max(1),
        length: length as usize,
        targets: count(mean(batches, |batch| batch.targets)),
        tokens: count(mean(batches, |batch| batch.tokens)),
    }
}

fn mean(batches: &[MicroBatch], of: impl Fn(&MicroBatch) -> usize) -> f64 {
    let sum: f64 = batches.iter().map(|batch| of(batch) as f64).sum();
    sum / batches.len().max(1) as f64
}

#[cfg(test)]
mod tests;
