//! Learning rates by optimizer step.

use std::f64::consts::PI;

use burn::{
    lr_scheduler::{LrScheduler, LrSchedulerRecord, module_lr_scheduler::ModuleLrScheduler},
    optim::LearningRate,
};
use l1ra_core::optim::gate_group;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Course of the learning rate after the warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// Half a cosine from the peak to 0.
    #[default]
    Cosine,
    /// A line from the peak to 0.
    Linear,
    /// The peak.
    Constant,
}

impl std::str::FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "cosine" => Ok(Self::Cosine),
            "linear" => Ok(Self::Linear),
            "constant" => Ok(Self::Constant),
            _ => Err(format!(
                "schedule `{text}` is unknown; known: cosine, linear, constant"
            )),
        }
    }
}

/// A linear warm-up from 0, then a [`Shape`]:
///
/// ```text
/// s < w:  lr·s / w
/// else    lr·½(1 + cos πp)  |  lr·(1 − p)  |  lr        p = (s − w) / (total − w)
/// ```
///
/// The first step has `s = 0`, as transformers counts.
#[derive(Clone, Debug, PartialEq)]
pub struct WarmupSchedule {
    /// Peak learning rate.
    pub peak: f64,
    /// Steps of the run.
    pub total: usize,
    /// Steps of the warm-up, `w`.
    pub warmup: usize,
    /// Course after the warm-up.
    pub shape: Shape,
    step: usize,
}

impl WarmupSchedule {
    /// A schedule that starts at step 0.
    pub fn new(peak: f64, total: usize, warmup: usize, shape: Shape) -> Self {
        Self {
            peak,
            total,
            warmup,
            shape,
            step: 0,
        }
    }

    /// The same from step `step` on: a run that is gone on with.
    pub fn starting_at(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// The learning rate of step `s`.
    pub fn at(&self, step: usize) -> f64 {
        if step < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let span = self.total.saturating_sub(self.warmup).max(1) as f64;
        let progress = ((step - self.warmup) as f64 / span).min(1.0);
        self.peak
            * match self.shape {
                Shape::Cosine => 0.5 * (1.0 + (PI * progress).cos()),
                Shape::Linear => 1.0 - progress,
                Shape::Constant => 1.0,
            }
    }
}

impl LrScheduler for WarmupSchedule {
    fn step(&mut self) -> LearningRate {
        let lr = self.at(self.step);
        self.step += 1;
        lr
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("step", self.step)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.step = record.scalar("step").unwrap_or(self.step);
    }
}

/// The gates' learning rate: constant, with another value at the first step if asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct GateSchedule {
    /// Learning rate of every step but the first.
    pub eta_c: f64,
    /// Learning rate of the first step.
    pub first: f64,
    started: bool,
}

impl GateSchedule {
    /// `eta_c` at every step.
    pub fn constant(eta_c: f64) -> Self {
        Self {
            eta_c,
            first: eta_c,
            started: false,
        }
    }

    /// What the authors' code does under a warm-up: `eta_c·λ(0)`, that is 0, at the first step.
    pub fn with_first(self, first: f64) -> Self {
        Self { first, ..self }
    }
}

impl LrScheduler for GateSchedule {
    fn step(&mut self) -> LearningRate {
        if std::mem::replace(&mut self.started, true) {
            self.eta_c
        } else {
            self.first
        }
    }

    fn to_record(&self) -> LrSchedulerRecord {
        LrSchedulerRecord::new().with_scalar("started", self.started)
    }

    fn load_record(&mut self, record: LrSchedulerRecord) {
        self.started = record.scalar("started").unwrap_or(self.started);
    }
}

/// Learning rates of all adapters in a module: `matrices` for A and B, `gates` for c.
pub fn adapter_schedule(matrices: WarmupSchedule, gates: GateSchedule) -> ModuleLrScheduler {
    ModuleLrScheduler::new(matrices).with_group(gate_group(), gates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(shape: Shape, count: usize) -> Vec<f64> {
        let mut schedule = WarmupSchedule::new(1.0, 8, 4, shape);
        (0..count).map(|_| schedule.step()).collect()
    }

    #[test]
    fn rates_rise_from_zero_and_fall_by_shape() {
        assert_eq!(
            rates(Shape::Linear, 9),
            [0.0, 0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25, 0.0]
        );
        let cosine = rates(Shape::Cosine, 8);
        assert!((cosine[6] - 0.5).abs() < 1e-12 && cosine[4] == 1.0);
        assert_eq!(rates(Shape::Constant, 7)[4..], [1.0; 3]);
    }

    #[test]
    fn a_record_continues_the_schedule() {
        let mut schedule = WarmupSchedule::new(1.0, 8, 4, Shape::Linear);
        schedule.step();
        schedule.step();
        let mut other = WarmupSchedule::new(1.0, 8, 4, Shape::Linear);
        other.load_record(schedule.to_record());
        assert_eq!(other.step(), schedule.step());
    }

    #[test]
    fn gates_may_start_at_another_rate() {
        let mut gates = GateSchedule::constant(0.1).with_first(0.0);
        assert_eq!([gates.step(), gates.step(), gates.step()], [0.0, 0.1, 0.1]);
    }
}
