//! [`finetune`]: a whole run, top to bottom.

use std::{path::Path, sync::Arc};

use burn::{
    module::Module,
    tensor::Device,
    train::{Learner, SupervisedTraining, TrainingStrategy},
};
use l1ra_core::{
    RankAllocator, attach_adapters,
    optim::adapter_optimizer,
    peft::{Layout, save_adapter},
    walk::{adapter_parameters, adapters},
};
use l1ra_models::CausalLm;

use crate::{
    callback::{RankCallback, RankUpdate},
    data::{Sample, loader},
    error::TrainError,
    eval::EvalResult,
    metrics::{JsonLines, Observer},
    model::FineTune,
    options::TrainOptions,
    progress::Silent,
    ranks::{RankEntry, RankTable},
    schedule::{GateSchedule, WarmupSchedule, adapter_schedule},
    strategy::StepStrategy,
};

/// What a run did.
#[derive(Clone, Debug)]
pub struct RunReport {
    /// Evaluation before training.
    pub before: EvalResult,
    /// Evaluation after training.
    pub after: EvalResult,
    /// Loss of every step.
    pub losses: Vec<f64>,
    /// Ranks before and after.
    pub ranks: RankTable,
    /// Every rank update.
    pub updates: Vec<RankUpdate>,
    /// Adapter parameters at the start and at the end.
    pub parameters: [usize; 2],
    /// Tokens trained on, padding not counted.
    pub tokens: usize,
    /// Seconds in optimizer steps, evaluations not counted.
    pub seconds: f64,
}

/// What a run needs besides its options.
#[derive(Debug)]
pub struct RunInput<'a> {
    /// The frozen model, on a plain or an autodiff device.
    pub model: CausalLm,
    /// What the adapter's files name as its base model.
    pub model_name: &'a str,
    /// Training rows.
    pub train: Vec<Sample>,
    /// Evaluation rows.
    pub eval: Vec<Sample>,
    /// Padding id; any id of the vocabulary will do.
    pub pad: u32,
    /// Where to train.
    pub device: &'a Device,
    /// Where metrics, rank decisions and the adapter go; made if it is not there.
    pub output: &'a Path,
}

/// Trains adapters on `input.model` and saves them, with the run's metrics, in `input.output`.
///
/// Returns the model with its adapters, on a plain device, and what happened. The adapter lies in
/// `output/adapter` (PEFT files and sidecar), metrics in `output/metrics.jsonl`, rank decisions in
/// `output/ranks.jsonl`, the options in `output/options.json`.
///
/// The same options, rows and thread count give the same losses and ranks, to the bit, on `flex`.
/// With dropout, that holds for one run at a time in a process: Burn's generator is global.
///
/// # Errors
/// An option or target that cannot work, found before the first step; a loss or gate that is not
/// finite; a file that cannot be written.
pub fn finetune(
    options: &TrainOptions,
    input: RunInput<'_>,
    observers: Vec<Box<dyn Observer>>,
) -> Result<(CausalLm, RunReport), TrainError> {
    options.validate()?;
    check_rows(&input)?;
    let device = input.device.clone().inner();
    let training_device = device.clone().autodiff();

    let mut model = input.model.fork(&training_device).no_grad();
    attach_adapters(&mut model, &options.adapters, &training_device)?;
    let parameters_before = adapter_parameters(&model);
    let start: Vec<(String, usize)> = adapters(&model)
        .iter()
        .map(|view| (view.path.clone(), view.rank()))
        .collect();
    let allocator = RankAllocator::new(
        &model,
        &options.adapters,
        &options.optimizer,
        options.steps,
        options.warmup_steps,
    )?;
    let ranks = RankCallback::new(allocator);

    std::fs::create_dir_all(input.output).map_err(|error| TrainError::io(input.output, error))?;
    save_options(options, input.output)?;
    let mut strategy = StepStrategy::new(options, ranks.clone(), device.clone())
        .with_observer(Box::new(JsonLines::create(input.output)?));
    for observer in observers {
        strategy = strategy.with_observer(observer);
    }
    let strategy = Arc::new(strategy);

    device.seed(options.seed); // Dropout draws on the device.
    let seed = Some(options.seed);
    let train = loader(
        input.train,
        options.batch_size,
        input.pad,
        seed,
        &training_device,
    );
    let eval = loader(input.eval, options.batch_size, input.pad, None, &device);
    let rate = WarmupSchedule::new(
        options.lr,
        options.steps,
        options.warmup_steps,
        options.schedule,
    );
    let learner = Learner::new(
        FineTune::new(model, Some(ranks.clone())),
        adapter_optimizer(&options.adapters, &options.optimizer),
        adapter_schedule(rate, GateSchedule::constant(options.adapters.eta_c)),
    );
    let result = SupervisedTraining::new(input.output, train, eval)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .launch(learner);

    let outcome = strategy.take_outcome();
    if let Some(error) = outcome.error {
        return Err(error);
    }
    let (Some(before), Some(after)) = (outcome.before, outcome.after) else {
        let detail = result
            .error
            .map_or("it did not start".into(), |error| error.to_string());
        return Err(TrainError::Stopped { step: 0, detail });
    };
    let model = result.model.lm;
    save_adapter(
        &model,
        &options.adapters,
        Layout::default(),
        input.model_name,
        &input.output.join("adapter"),
    )?;
    let updates = ranks.updates();
    let end: Vec<usize> = match updates.last() {
        Some(update) => update.plan.ranks(),
        None => start.iter().map(|(_, rank)| *rank).collect(),
    };
    let entry = |((path, before), after)| RankEntry {
        path,
        before,
        after,
    };
    let report = RunReport {
        before,
        after,
        losses: outcome.losses,
        ranks: RankTable {
            entries: start.into_iter().zip(end).map(entry).collect(),
        },
        updates,
        parameters: [parameters_before, adapter_parameters(&model)],
        tokens: outcome.tokens,
        seconds: outcome.train_seconds,
    };
    Ok((model, report))
}

/// Every id must be in the vocabulary: out-of-range ids are undefined on some devices.
fn check_rows(input: &RunInput<'_>) -> Result<(), TrainError> {
    let vocabulary = input.model.config().vocab_size;
    for (name, rows) in [("training", &input.train), ("evaluation", &input.eval)] {
        if rows.is_empty() {
            return Err(TrainError::Option {
                field: "data",
                seen: format!("no {name} samples"),
                expected: "at least one".into(),
            });
        }
        let largest = rows
            .iter()
            .flat_map(|row| &row.ids)
            .max()
            .copied()
            .unwrap_or(0);
        if largest as usize >= vocabulary || input.pad as usize >= vocabulary {
            return Err(TrainError::Option {
                field: "data",
                seen: format!("token id {largest} (padding {})", input.pad),
                expected: format!(
                    "ids below the model's vocabulary of {vocabulary}; is this its tokenizer?"
                ),
            });
        }
    }
    Ok(())
}

fn save_options(options: &TrainOptions, output: &Path) -> Result<(), TrainError> {
    let path = output.join("options.json");
    let text = serde_json::to_string_pretty(options)
        .map_err(|error| TrainError::io(&path, error.into()))?;
    std::fs::write(&path, text + "\n").map_err(|error| TrainError::io(path, error))
}
