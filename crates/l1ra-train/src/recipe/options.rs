//! [`Recipe`]: what a recipe says, as a type.

use std::path::PathBuf;

use l1ra_core::{L1raConfig, optim::AdamEConfig, peft::Layout};
use l1ra_models::weights::Storage;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    activations::Activations, checkpoint::CheckpointOptions, data::DataOptions, error::TrainError,
    finite::NotFinite, options::TrainOptions, recompute::Recompute, schedule::Shape,
};

/// A run, as its recipe tells it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Recipe {
    /// Folder for everything that the run writes; made if it is not there.
    pub output: PathBuf,
    /// Where to train: flex, ndarray, wgpu, vulkan, metal, cuda or rocm; a GPU may have an index
    /// (cuda:1), and several share the micro-batches of a step (cuda:0,1).
    pub device: String,
    /// How the adapter's files are written: folded (PEFT and llama.cpp), exact (PEFT) or padded
    /// (PEFT, llama.cpp and vLLM).
    pub layout: Layout,
    /// The model.
    pub model: ModelOptions,
    /// The data.
    pub data: DataOptions,
    /// Adapters and rank allocation.
    pub adapters: L1raConfig,
    /// The optimizer.
    pub optimizer: AdamEConfig,
    /// The training loop.
    pub train: TrainSection,
    /// Checkpoints.
    pub checkpoint: CheckpointOptions,
    /// What the run writes beside the adapter.
    pub log: LogOptions,
}

/// The model to fine-tune.
// The brackets of `[@revision]` are read by people, in the help of a program, not by rustdoc.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ModelOptions {
    /// Hugging Face folder, .gguf file, folder with one, or a hub name (org/name[@revision]).
    pub path: String,
    /// What the frozen matrices are kept and multiplied in: f32, bf16, f16, or stored (as the file has them). On
    /// flex, f32 keeps what a file has in bf16 in these two bytes, which changes no number.
    pub dtype: Storage,
    /// File with a chat template to use in place of the model's.
    pub chat_template: Option<PathBuf>,
}

/// The training loop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TrainSection {
    /// Optimizer steps; in place of epochs.
    pub steps: Option<usize>,
    /// Passes over the training data, fractions allowed; without it and steps: 1.
    pub epochs: Option<f64>,
    /// Rows of a micro-batch.
    pub batch_size: usize,
    /// Micro-batches of an optimizer step. Gradients are normalised by the target tokens of all of
    /// them together.
    pub accumulation: usize,
    /// Peak learning rate of A and B. Gates have their own, constant one (adapters.eta_c).
    pub lr: f64,
    /// Course of the learning rate after the warm-up.
    pub schedule: Shape,
    /// Steps over which the learning rate rises from 0; in place of warmup_ratio.
    pub warmup_steps: Option<usize>,
    /// The same as a share of all steps, in [0, 1); without it and warmup_steps: 0.1.
    pub warmup_ratio: Option<f64>,
    /// Largest global gradient norm; 0: no clipping.
    pub max_grad_norm: f64,
    /// Steps between evaluations; 0: only before and after.
    pub eval_every: usize,
    /// Activations made again in the backward: off, blocks (a fraction of the memory, about a quarter
    /// more time) or auto (blocks where the predicted memory of off is not there; off on a GPU).
    pub recompute: Recompute,
    /// What activations within blocks are kept in: f32, base (the type of the frozen matrices) or auto
    /// (bf16 where the matrices are bf16, else f32). Two bytes take half the memory.
    pub activations: Activations,
    /// Seed of shuffling and dropout. Adapters and data have their own.
    pub seed: u64,
    /// What happens when a loss or gradient is not finite: stop (before the step, the run saved as it
    /// was) or skip (the window's data; the next ones take their place).
    pub not_finite: NotFinite,
    /// Most windows that are skipped in a run.
    pub max_skipped: usize,
}

/// What a run writes beside the adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LogOptions {
    /// Steps between two lines where there is no terminal; 0: ten lines a run.
    pub every: usize,
    /// Whether the report (report.html) is written at the end.
    pub report: bool,
    /// Whether TensorBoard event files are written.
    pub tensorboard: bool,
}

impl Default for Recipe {
    fn default() -> Self {
        Self {
            output: "runs/l1ra".into(),
            device: "flex".into(),
            layout: Layout::default(),
            model: ModelOptions::default(),
            data: DataOptions::default(),
            adapters: L1raConfig::default(),
            optimizer: AdamEConfig::default(),
            train: TrainSection::default(),
            checkpoint: CheckpointOptions::default(),
            log: LogOptions::default(),
        }
    }
}

impl Default for TrainSection {
    fn default() -> Self {
        let options = TrainOptions::default();
        Self {
            steps: None,
            epochs: None,
            batch_size: options.batch_size,
            accumulation: options.accumulation,
            lr: options.lr,
            schedule: options.schedule,
            warmup_steps: None,
            warmup_ratio: None,
            max_grad_norm: options.max_grad_norm,
            eval_every: options.eval_every,
            recompute: options.recompute,
            activations: options.activations,
            seed: options.seed,
            not_finite: options.not_finite,
            max_skipped: options.max_skipped,
        }
    }
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            every: 0,
            report: true,
            tensorboard: false,
        }
    }
}

const EPOCHS: f64 = 1.0;
const WARMUP_RATIO: f64 = 0.1;

impl Recipe {
    /// Checks every value that needs no file: ranges, and keys that exclude each other.
    ///
    /// # Errors
    /// The first value that cannot be used.
    pub fn validate(&self) -> Result<(), TrainError> {
        let missing =
            |field, seen: &str, expected: &str| Err(TrainError::option(field, seen, expected));
        if self.model.path.is_empty() {
            return missing(
                "model.path",
                "(nothing)",
                "a Hugging Face folder, a .gguf file or a hub name; or give --model",
            );
        }
        if self.data.train.is_empty() {
            let remedy = "a file, a list of files, or tables with `path`; or give --data";
            return missing("data.train", "(nothing)", remedy);
        }
        self.data.validate()?;
        self.train.check()?;
        // With a number of steps everything else can be checked as well, schedule included.
        match self.train.steps {
            Some(steps) => self.options(steps).validate(),
            None => Ok(self.adapters.validate()?),
        }
    }

    /// The settings of a run of `steps` optimizer steps.
    pub fn options(&self, steps: usize) -> TrainOptions {
        let train = &self.train;
        TrainOptions {
            adapters: self.adapters.clone(),
            optimizer: self.optimizer.clone(),
            steps,
            batch_size: train.batch_size,
            accumulation: train.accumulation,
            lr: train.lr,
            schedule: train.schedule,
            warmup_steps: train.warmup(steps),
            max_grad_norm: train.max_grad_norm,
            eval_every: train.eval_every,
            recompute: train.recompute,
            activations: train.activations,
            seed: train.seed,
            not_finite: train.not_finite,
            max_skipped: train.max_skipped,
            checkpoint: self.checkpoint.clone(),
        }
    }

    /// The same with the choices of a run written out: its steps and its warm-up.
    pub fn resolved(&self, options: &TrainOptions) -> Self {
        let mut recipe = self.clone();
        recipe.train.steps = Some(options.steps);
        recipe.train.epochs = None;
        recipe.train.warmup_steps = Some(options.warmup_steps);
        recipe.train.warmup_ratio = None;
        recipe
    }
}

impl TrainSection {
    /// Optimizer steps for `rows` training rows: `⌈epochs · rows / (batch_size · accumulation)⌉`.
    pub fn steps_for(&self, rows: usize) -> usize {
        self.steps.unwrap_or_else(|| {
            let window = (self.batch_size * self.accumulation).max(1) as f64;
            let epochs = self.epochs.unwrap_or(EPOCHS);
            ((epochs * rows as f64 / window).ceil() as usize).max(1)
        })
    }

    fn warmup(&self, steps: usize) -> usize {
        let ratio = self.warmup_ratio.unwrap_or(WARMUP_RATIO);
        self.warmup_steps
            .unwrap_or((ratio * steps as f64).round() as usize)
    }

    fn check(&self) -> Result<(), TrainError> {
        if let (Some(_), Some(epochs)) = (self.steps, self.epochs) {
            let remedy = "train.steps is given as well; keep one of them";
            return Err(TrainError::option("train.epochs", epochs, remedy));
        }
        if let (Some(_), Some(ratio)) = (self.warmup_steps, self.warmup_ratio) {
            let remedy = "train.warmup_steps is given as well; keep one of them";
            return Err(TrainError::option("train.warmup_ratio", ratio, remedy));
        }
        if let Some(epochs) = self.epochs.filter(|e| !(e.is_finite() && *e > 0.0)) {
            return Err(TrainError::option(
                "train.epochs",
                epochs,
                "a positive number",
            ));
        }
        if let Some(ratio) = self.warmup_ratio.filter(|r| !(0.0..1.0).contains(r)) {
            return Err(TrainError::option(
                "train.warmup_ratio",
                ratio,
                "a number in [0, 1)",
            ));
        }
        for (field, size) in [
            ("train.batch_size", self.batch_size),
            ("train.accumulation", self.accumulation),
        ] {
            if size == 0 {
                return Err(TrainError::option(field, size, "at least 1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn epochs_become_steps_and_a_ratio_the_warm_up() {
        let train = TrainSection {
            epochs: Some(1.5),
            batch_size: 4,
            accumulation: 2,
            ..Default::default()
        };
        assert_eq!(train.steps_for(100), 19);
        assert_eq!(train.warmup(19), 2);
        let train = TrainSection {
            steps: Some(7),
            ..Default::default()
        };
        assert_eq!(train.steps_for(100), 7);
    }

    #[test]
    fn a_resolved_recipe_says_its_steps() {
        let recipe = Recipe::default();
        let resolved = recipe.resolved(&recipe.options(40));
        assert_eq!(resolved.train.steps, Some(40));
        assert_eq!(resolved.train.warmup_steps, Some(4));
        assert_eq!(resolved.options(40), recipe.options(40));
    }

    #[test]
    fn keys_that_exclude_each_other_are_refused() {
        let train = TrainSection {
            steps: Some(7),
            epochs: Some(2.0),
            ..Default::default()
        };
        assert_eq!(
            train.check().unwrap_err().to_string(),
            "train.epochs = 2: train.steps is given as well; keep one of them"
        );
    }
}
