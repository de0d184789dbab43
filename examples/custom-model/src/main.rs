//! Adapters, optimizer and rank reallocation on a model of your own, in Burn's training loop.
//!
//! A small network is trained to tell which of 8 patterns is in a noisy picture; then the patterns
//! change, the network is frozen, and adapters learn the new ones.
//!
//! ```text
//! cargo run --release -p custom-model
//! ```
#![allow(clippy::print_stdout)] // A program: its output is the point.

mod data;
mod model;

use anyhow::{Result, anyhow};
use burn::{
    data::dataloader::DataLoaderBuilder,
    module::Module,
    optim::AdamWConfig,
    tensor::Device,
    train::{
        ExecutionStrategy, Learner, SupervisedTraining, metric::AccuracyMetric, metric::LossMetric,
    },
};
use clap::Parser;
use data::{BATCH, Pictures, PicturesBatcher};
use l1ra_core::{
    L1raConfig, Policy, RankAllocator, attach_adapters,
    optim::{AdamEConfig, adapter_optimizer},
    walk::{adapters, trainable_parameters},
};
use l1ra_train::{
    RankCallback,
    observe::Silent,
    ranks::{RankEntry, RankTable},
    schedule::{GateSchedule, Shape, WarmupSchedule, adapter_schedule},
};
use model::{Classifier, accuracy};

/// Fine-tunes a model that is no language model.
#[derive(Parser)]
struct Args {
    /// Device.
    #[arg(long, default_value = "flex")]
    device: String,
    /// Epochs of each of the two trainings.
    #[arg(long, default_value_t = 8)]
    epochs: usize,
    /// Folder for Burn's logs.
    #[arg(long, default_value = "runs/custom-model")]
    output: std::path::PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let device = l1ra_core::open_device(&args.device)?;
    device.seed(0);

    // Any Burn model, trained or loaded in any way.
    let old = Pictures::new(0, 4096);
    let learner = Learner::new(
        Classifier::new(&device.clone().autodiff()),
        AdamWConfig::new().init(),
        3e-3,
    );
    let base = fit(&args, &device, learner, old.clone())?;

    // The same model with adapters: its linear layers are frozen, A, c and B are trained.
    let new = Pictures::new(1, 4096);
    let steps = args.epochs * new.len().div_ceil(BATCH);
    let config = L1raConfig {
        rank: 6,
        alpha: 6.0,
        policy: Policy::Lasso,
        lambda: 0.3,
        eta_c: 0.05,
        ..Default::default()
    };
    let optimizer = AdamEConfig::default();
    let training = device.clone().autodiff();
    let mut model = base.clone().fork(&training).no_grad();
    attach_adapters(&mut model, &config, &training)?;
    let start = adapters(&model);
    let trainable = trainable_parameters(&model);
    let ranks = RankCallback::new(RankAllocator::new(
        &model,
        &config,
        &optimizer,
        steps,
        steps / 20,
    )?);
    let model = model.with_ranks(ranks.clone());
    let rate = WarmupSchedule::new(1e-2, steps, steps / 20, Shape::Cosine);
    let learner = Learner::new(
        model,
        adapter_optimizer(&config, &optimizer),
        adapter_schedule(rate, GateSchedule::constant(config.eta_c)),
    );
    let tuned = fit(&args, &device, learner, new.clone())?;

    let (old_test, new_test) = (old.test_set(), new.test_set());
    println!(
        "{} of {} parameters were trained",
        trainable,
        base.num_params()
    );
    println!(
        "accuracy on the old patterns: base {:.3}",
        accuracy(&base, &old_test, &device)
    );
    println!(
        "accuracy on the new patterns: base {:.3}, with adapters {:.3}",
        accuracy(&base, &new_test, &device),
        accuracy(&tuned, &new_test, &device)
    );
    let end = adapters(&tuned);
    let entries = start.iter().zip(&end).map(|(before, after)| RankEntry {
        path: before.path.clone(),
        before: before.rank(),
        after: after.rank(),
    });
    println!("ranks after {} updates", ranks.updates().len());
    println!(
        "{}",
        RankTable {
            entries: entries.collect()
        }
    );
    Ok(())
}

/// Burn's own loop, nothing of ours in it but the model.
fn fit(
    args: &Args,
    device: &Device,
    learner: Learner<Classifier>,
    pictures: Pictures,
) -> Result<Classifier> {
    let test = pictures.test_set();
    let loader = |set: Pictures| {
        let builder = DataLoaderBuilder::new(PicturesBatcher)
            .batch_size(BATCH)
            .shuffle(0);
        builder.set_device(device.clone()).build(set)
    };
    let result = SupervisedTraining::new(&args.output, loader(pictures), loader(test))
        .metrics((LossMetric::new(), AccuracyMetric::new()))
        .with_training_strategy(ExecutionStrategy::single(device.clone().autodiff()).into())
        .renderer(Box::new(Silent))
        .with_application_logger(None)
        .num_epochs(args.epochs)
        .launch(learner);
    match result.error {
        Some(error) => Err(anyhow!("{error}")),
        None => Ok(result.model),
    }
}
