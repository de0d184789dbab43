//! Fine-tuning from a program of your own: the calls that `l1ra train` makes, one after the other,
//! with an observer of one's own.
//!
//! ```text
//! cargo run --release -p finetune
//! cargo run --release -p finetune -- models/smollm2 ANSWERS.jsonl
//! ```
#![allow(clippy::print_stdout)] // A program: its output is the point.

use std::path::{Path, PathBuf};

use anyhow::Result;
use burn::tensor::Device;
use l1ra_core::L1raConfig;
use l1ra_models::{LoadOptions, Sampling, generate::generate_text, load::ModelFiles};
use l1ra_train::{
    RankUpdate, TrainError, TrainOptions,
    data::{DataOptions, prepare_data},
    finetune,
    observe::{Observer, Plain},
    run::RunInput,
};

fn main() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let model = arguments.next().unwrap_or_else(|| beside("model"));
    let train = arguments
        .next()
        .unwrap_or_else(|| beside("data/train.jsonl"));
    let device = Device::flex();

    // Configuration, tokenizer and template first: mistakes are found before weights are read.
    let files = ModelFiles::open(&model)?;
    let data = DataOptions {
        train: vec![train.display().to_string().into()],
        eval_rows: 100,
        max_length: 128,
        ..Default::default()
    };
    let data = prepare_data(&data, &files.tokenizer, files.template.as_ref(), &())?;
    println!("train  {}\neval   {}", data.train_stats, data.eval_stats);

    let options = TrainOptions {
        adapters: L1raConfig {
            rank: 8,
            alpha: 8.0,
            ..Default::default()
        },
        steps: 100,
        batch_size: 16,
        lr: 1e-2,
        warmup_steps: 10,
        ..Default::default()
    };
    let question = data.eval[0].prompt().to_vec();
    let loaded = files.load(LoadOptions::default(), &device)?;
    let tokenizer = loaded.tokenizer;
    let (name, output) = ("examples/finetune/model", Path::new("runs/finetune"));
    let input = RunInput {
        packing: data.packing,
        pad: tokenizer.pad.unwrap_or(0),
        ..RunInput::new(loaded.model, name, data.train, data.eval, &device, output)
    };
    let observers: Vec<Box<dyn Observer>> =
        vec![Box::new(Plain::new(options.steps)), Box::new(Movers)];
    let (model, report) = finetune(&options, input, observers)?;

    println!(
        "eval loss {:.4} → {:.4}",
        report.before.loss, report.after.loss
    );
    println!("{}", report.ranks);
    let answer = generate_text(&model, &tokenizer, &question, Sampling::default())?;
    println!(
        "asked    {}\nanswers  {answer}",
        tokenizer.decode(&question)?
    );
    Ok(())
}

/// Says which layers gained in every rank update.
struct Movers;

impl Observer for Movers {
    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        for change in update.plan.changes.iter().filter(|change| change.added > 0) {
            println!("  step {}: {} + {}", update.step, change.path, change.added);
        }
        Ok(())
    }
}

/// A path beside this example's manifest.
fn beside(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
