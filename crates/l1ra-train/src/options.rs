//! [`TrainOptions`]: the settings of a run.

use l1ra_core::{L1raConfig, optim::AdamEConfig};
use serde::{Deserialize, Serialize};

use crate::{
    activations::Activations, checkpoint::CheckpointOptions, error::TrainError, finite::NotFinite,
    recompute::Recompute, schedule::Shape,
};

/// Settings of a run, checked before anything is loaded.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainOptions {
    /// Adapters and rank allocation.
    pub adapters: L1raConfig,
    /// Optimizer.
    pub optimizer: AdamEConfig,
    /// Optimizer steps of the run.
    pub steps: usize,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an optimizer step. Gradients are normalised by the target tokens of all of
    /// them together.
    pub accumulation: usize,
    /// Peak learning rate of A and B. Gates have their own, constant one (`adapters.eta_c`).
    pub lr: f64,
    /// Course of the learning rate after the warm-up.
    pub schedule: Shape,
    /// Steps over which the learning rate rises from 0.
    pub warmup_steps: usize,
    /// Largest global gradient norm; 0: no clipping.
    pub max_grad_norm: f64,
    /// Steps between evaluations; 0: only before and after.
    pub eval_every: usize,
    /// Which activations are made again in the backward. `auto` is for a [`Plan`](crate::job::Plan)
    /// to decide; the training loop itself takes it for `off`.
    pub recompute: Recompute,
    /// What activations within blocks are kept in.
    pub activations: Activations,
    /// Seed of shuffling and dropout. Adapters have their own (`adapters.seed`).
    pub seed: u64,
    /// What happens when a loss or gradient is not finite.
    pub not_finite: NotFinite,
    /// Most windows that are skipped in a run.
    pub max_skipped: usize,
    /// When the run is saved, and what is kept.
    pub checkpoint: CheckpointOptions,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            adapters: L1raConfig::default(),
            optimizer: AdamEConfig::default(),
            steps: 100,
            batch_size: 8,
            accumulation: 1,
            lr: 5e-4,
            schedule: Shape::Cosine,
            warmup_steps: 10,
            max_grad_norm: 1.0,
            eval_every: 0,
            recompute: Recompute::Auto,
            activations: Activations::Auto,
            seed: 0,
            not_finite: NotFinite::default(),
            max_skipped: 10,
            checkpoint: CheckpointOptions::default(),
        }
    }
}

impl TrainOptions {
    /// Checks every value that needs no model and no data.
    ///
    /// # Errors
    /// The first value outside its range, or a rank schedule that could not work.
    pub fn validate(&self) -> Result<(), TrainError> {
        self.adapters.validate()?;
        self.checkpoint.validate()?;
        at_least("steps", self.steps, 1)?;
        at_least("batch_size", self.batch_size, 1)?;
        at_least("accumulation", self.accumulation, 1)?;
        number("lr", self.lr, self.lr > 0.0, "a positive number")?;
        let clip = self.max_grad_norm;
        number(
            "max_grad_norm",
            clip,
            clip >= 0.0,
            "zero (no clipping) or a positive number",
        )?;
        let decay = self.optimizer.weight_decay;
        number(
            "weight_decay",
            decay,
            decay >= 0.0,
            "zero or a positive number",
        )?;
        if self.warmup_steps >= self.steps {
            let expected = format!("fewer than the {} steps of the run", self.steps);
            return Err(TrainError::option(
                "warmup_steps",
                self.warmup_steps,
                expected,
            ));
        }
        for (field, beta) in [
            ("beta_1", self.optimizer.beta_1),
            ("beta_2", self.optimizer.beta_2),
        ] {
            number(
                field,
                beta,
                (0.0..1.0).contains(&beta),
                "a number in [0, 1)",
            )?;
        }
        let epsilon = self.optimizer.epsilon;
        number("epsilon", epsilon, epsilon > 0.0, "a positive number")?;
        l1ra_core::allocation::UpdateSchedule::new(&self.adapters, self.steps, self.warmup_steps)?;
        Ok(())
    }
}

impl TrainOptions {
    /// Checks that a window has a micro-batch for each of `devices` devices, and that what one of them drops
    /// out in a block can be dropped again when the block is made again: Burn's generator is one for all.
    ///
    /// # Errors
    /// When it is not so.
    pub fn check_devices(&self, devices: usize) -> Result<(), TrainError> {
        if devices > 1 && self.adapters.dropout > 0.0 && self.recompute != Recompute::Off {
            return Err(TrainError::option(
                "recompute",
                self.recompute,
                "off, with dropout on several devices: they draw from one generator, and a block made \
                 again would drop other parts",
            ));
        }
        if self.accumulation >= devices {
            return Ok(());
        }
        Err(TrainError::option(
            "accumulation",
            self.accumulation,
            format!(
                "at least {devices}, as the micro-batches of a window are dealt out to the {devices} \
                 devices; with a smaller batch_size, the window stays what it is"
            ),
        ))
    }
}

fn at_least(field: &'static str, seen: usize, least: usize) -> Result<(), TrainError> {
    if seen >= least {
        Ok(())
    } else {
        Err(TrainError::option(field, seen, format!("at least {least}")))
    }
}

fn number(field: &'static str, seen: f64, holds: bool, expected: &str) -> Result<(), TrainError> {
    if seen.is_finite() && holds {
        Ok(())
    } else {
        Err(TrainError::option(field, seen, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        TrainOptions::default().validate().unwrap();
    }

    #[test]
    fn bad_values_name_the_field_and_the_remedy() {
        let message = |options: TrainOptions| options.validate().unwrap_err().to_string();
        let options = TrainOptions {
            steps: 0,
            ..Default::default()
        };
        assert_eq!(message(options), "steps = 0: at least 1");
        let options = TrainOptions {
            warmup_steps: 100,
            ..Default::default()
        };
        assert_eq!(
            message(options),
            "warmup_steps = 100: fewer than the 100 steps of the run"
        );
        let mut options = TrainOptions {
            steps: 20,
            warmup_steps: 2,
            ..Default::default()
        };
        options.adapters.policy = l1ra_core::Policy::Lasso;
        options.adapters.update_ratio = 0.01;
        assert!(message(options).contains("more updates than the 20 optimizer steps"));
        let mut options = TrainOptions::default();
        options.adapters.rank = 0;
        assert!(message(options).starts_with("rank = 0"));
    }
}
