//! The command line.

use std::path::{Path, PathBuf};

use clap::Parser;
use l1ra_core::{BudgetUnit, L1raConfig, Policy, Targets, optim::AdamEConfig};
use l1ra_models::weights::Storage;
use l1ra_train::{TrainOptions, data::TrainOn, schedule::Shape};

/// Fine-tunes a Llama-family model with adapters whose ranks move.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Args {
    /// Hugging Face folder, .gguf file, or a folder with one; default: the repository's small model.
    #[arg(long, default_value_os_t = beside("model"))]
    pub(crate) model: PathBuf,
    /// Conversations (.jsonl, {"messages": …}) or plain text to train on.
    #[arg(long, default_value_os_t = beside("data/train.jsonl"))]
    pub(crate) data: PathBuf,
    /// Data to evaluate on; default: rows held out of --data (or the repository's own).
    #[arg(long)]
    eval_data: Option<PathBuf>,
    /// Most rows to evaluate on.
    #[arg(long, default_value_t = 200)]
    pub(crate) eval_rows: usize,
    /// Folder for the adapter and the metrics.
    #[arg(long, default_value = "runs/finetune")]
    pub(crate) output: PathBuf,
    /// flex, ndarray, wgpu, vulkan, metal, cuda or rocm; a GPU may have an index (`cuda:1`).
    #[arg(long, default_value = "flex")]
    pub(crate) device: String,
    /// What the frozen matrices are kept in: f32, bf16, f16 or stored.
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Storage,
    /// File with a chat template to use in place of the model's.
    #[arg(long)]
    pub(crate) chat_template: Option<PathBuf>,

    /// Optimizer steps.
    #[arg(long, default_value_t = 400)]
    steps: usize,
    /// Rows of a micro-batch.
    #[arg(long, default_value_t = 16)]
    batch_size: usize,
    /// Micro-batches of an optimizer step.
    #[arg(long, default_value_t = 1)]
    accumulation: usize,
    /// Tokens of a row; longer samples are cut, and counted.
    #[arg(long, default_value_t = 128)]
    max_length: usize,
    /// Tokens that the loss is taken on: completions or all.
    #[arg(long, default_value = "completions")]
    train_on: TrainOn,
    /// Peak learning rate of A and B; default: 5e-3 for the repository's small model, 5e-4 for
    /// any other.
    #[arg(long)]
    lr: Option<f64>,
    /// Course of the learning rate after the warm-up: cosine, linear or constant.
    #[arg(long, default_value = "cosine")]
    schedule: Shape,
    /// Steps of the warm-up; default: a tenth of all steps, at most 10.
    #[arg(long)]
    warmup: Option<usize>,
    /// Decoupled weight decay of A and B.
    #[arg(long, default_value_t = 0.01)]
    weight_decay: f64,
    /// Largest global gradient norm; 0: no clipping.
    #[arg(long, default_value_t = 1.0)]
    max_grad_norm: f64,
    /// Steps between evaluations; 0: only before and after.
    #[arg(long, default_value_t = 0)]
    eval_every: usize,

    /// Initial rank of every adapter.
    #[arg(long, default_value_t = 8)]
    rank: usize,
    /// Scale numerator; adapters are multiplied by alpha / rank.
    #[arg(long, default_value_t = 8.0)]
    alpha: f64,
    /// Dropout on the adapters' inputs.
    #[arg(long, default_value_t = 0.0)]
    dropout: f64,
    /// all-linear, a list of names (q_proj,v_proj), or a regular expression after `re:`.
    #[arg(long, default_value = "all-linear")]
    targets: String,
    /// Rank policy: l1ra, reference (the authors' code) or fixed (ranks never move).
    #[arg(long, default_value = "l1ra", value_parser = parse_policy)]
    policy: Policy,
    /// What the budget counts: ranks or parameters.
    #[arg(long, default_value = "ranks", value_parser = parse_budget)]
    budget: BudgetUnit,
    /// L1 coefficient on the gates: a gate that the loss does not hold shrinks by eta_c · lambda a
    /// step. Short runs need a larger one than the authors' 1e-3.
    #[arg(long, default_value_t = 0.2)]
    lambda: f64,
    /// Constant learning rate of the gates.
    #[arg(long, default_value_t = 0.05)]
    eta_c: f64,
    /// Share of all steps between two rank updates.
    #[arg(long, default_value_t = 0.1)]
    update_ratio: f64,
    /// Seed of adapters, shuffling and dropout.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl Args {
    /// The run's settings.
    pub(crate) fn options(&self) -> TrainOptions {
        TrainOptions {
            adapters: L1raConfig {
                rank: self.rank,
                alpha: self.alpha,
                dropout: self.dropout,
                targets: self.targets(),
                policy: self.policy,
                budget: self.budget,
                lambda: self.lambda,
                eta_c: self.eta_c,
                update_ratio: self.update_ratio,
                seed: self.seed,
                ..Default::default()
            },
            optimizer: AdamEConfig {
                weight_decay: self.weight_decay,
                ..Default::default()
            },
            steps: self.steps,
            batch_size: self.batch_size,
            accumulation: self.accumulation,
            max_length: self.max_length,
            train_on: self.train_on,
            lr: self.lr.unwrap_or(if self.model == beside("model") {
                5e-3
            } else {
                5e-4
            }),
            schedule: self.schedule,
            warmup_steps: self.warmup.unwrap_or((self.steps / 10).min(10)),
            max_grad_norm: self.max_grad_norm,
            eval_every: self.eval_every,
            seed: self.seed,
        }
    }

    /// The evaluation file: the one given, or the repository's for the repository's data.
    pub(crate) fn eval_data(&self) -> Option<PathBuf> {
        let own = beside("data/eval.jsonl");
        let default = (self.data == beside("data/train.jsonl")).then_some(own);
        self.eval_data.clone().or(default)
    }

    fn targets(&self) -> Targets {
        match self.targets.strip_prefix("re:") {
            Some(pattern) => Targets::Regex(pattern.into()),
            None if self.targets == l1ra_core::target::ALL_LINEAR => Targets::AllLinear,
            None => Targets::Names(self.targets.split(',').map(str::to_string).collect()),
        }
    }
}

/// A path beside this example's manifest.
fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn parse_policy(text: &str) -> Result<Policy, String> {
    match text {
        "l1ra" => Ok(Policy::L1ra),
        "reference" => Ok(Policy::Reference),
        "fixed" => Ok(Policy::Fixed),
        _ => Err("known: l1ra, reference, fixed".into()),
    }
}

fn parse_budget(text: &str) -> Result<BudgetUnit, String> {
    match text {
        "ranks" => Ok(BudgetUnit::Ranks),
        "parameters" => Ok(BudgetUnit::Parameters),
        _ => Err("known: ranks, parameters".into()),
    }
}
