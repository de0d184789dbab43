//! [`finetune`]: a whole run, top to bottom.

use std::{path::Path, sync::Arc};

use burn::{
    data::dataloader::DataLoader,
    module::Module,
    tensor::Device,
    train::{Learner, SupervisedTraining, TrainingStrategy},
};
use l1ra_core::{
    RankAllocator, UpdateSchedule,
    allocation::policies::Start,
    attach_adapters,
    device::guard,
    optim::{adapter_optimizer, gate_rate},
    peft::{Layout, install_adapters, save_adapter_data},
    walk::{AdapterData, AdapterView, adapter_parameters, adapters},
};
use l1ra_models::CausalLm;
use serde::Serialize;

use crate::{
    callback::{RankCallback, RankUpdate},
    checkpoint::{Checkpoint, CheckpointFolder, Identity, check_resume, data_mark},
    data::{Order, Packing, Sample, TokenBatch, TokenLoader, loader},
    error::TrainError,
    eval::EvalResult,
    loss_scale::LossScale,
    model::FineTune,
    observe::{AdapterInfo, JsonLines, Observer, RunStart, Silent},
    options::TrainOptions,
    ranks::{RankEntry, RankTable},
    recompute::Recompute,
    schedule::{GateSchedule, WarmupSchedule, adapter_schedule},
    spectrum::gradient_spectra,
    stop::StopSignal,
    strategy::StepStrategy,
};

/// What a run did.
#[derive(Clone, Debug, Serialize)]
pub struct RunReport {
    /// Evaluation before training.
    pub before: EvalResult,
    /// Evaluation after training.
    pub after: EvalResult,
    /// Loss of every step.
    #[serde(skip)]
    pub losses: Vec<f64>,
    /// Ranks before and after.
    pub ranks: RankTable,
    /// Every rank update.
    #[serde(skip)]
    pub updates: Vec<RankUpdate>,
    /// Gates at the end, one list an adapter.
    #[serde(skip)]
    pub gates: Vec<Vec<f32>>,
    /// Adapter parameters at the start and at the end.
    pub parameters: [usize; 2],
    /// Tokens trained on, padding not counted.
    pub tokens: usize,
    /// Seconds in optimizer steps, evaluations not counted.
    pub seconds: f64,
    /// Peak memory, bytes: on a GPU the most that Burn held of it after a step; on a CPU the process's
    /// resident memory, by the system's own mark, or the largest after a step where there is none; 0 where
    /// the system does not say.
    pub peak_bytes: u64,
}

/// What a run needs besides its options.
#[derive(Debug)]
pub struct RunInput<'a> {
    /// The frozen model, on a plain or an autodiff device.
    pub model: CausalLm,
    /// What the adapter's files name as its base model.
    pub model_name: &'a str,
    /// Training samples.
    pub train: Vec<Sample>,
    /// Which of them share a row; `None`: each has its own.
    pub packing: Option<Packing>,
    /// Evaluation samples.
    pub eval: Vec<Sample>,
    /// Padding id; any id of the vocabulary will do.
    pub pad: u32,
    /// Where to train.
    pub device: &'a Device,
    /// Further devices, each of which takes its share of every window's micro-batches.
    pub further_devices: Vec<Device>,
    /// How the adapter's files are written.
    pub layout: Layout,
    /// Where metrics, rank decisions, checkpoints and the adapter go; made if it is not there.
    pub output: &'a Path,
    /// What a checkpoint is compared by besides the data: a recipe's settings, or nothing, which
    /// stands for the options; and the hash of the model's files, where one was made.
    pub known_by: KnownBy,
    /// Asks the run to stop after its step.
    pub stop: StopSignal,
    /// What to go on from; its run's checkpoints lie in `output`.
    pub resume: Option<Box<Checkpoint>>,
}

/// What a run is known by besides its data.
#[derive(Clone, Debug, Default)]
pub struct KnownBy {
    /// Settings; `null` stands for the options.
    pub settings: serde_json::Value,
    /// Hash of the model's files.
    pub model: String,
}

impl<'a> RunInput<'a> {
    /// Input of a run from its beginning, every sample in a row of its own, adapter files folded.
    pub fn new(
        model: CausalLm,
        model_name: &'a str,
        train: Vec<Sample>,
        eval: Vec<Sample>,
        device: &'a Device,
        output: &'a Path,
    ) -> Self {
        Self {
            model,
            model_name,
            train,
            packing: None,
            eval,
            pad: 0,
            device,
            further_devices: Vec::new(),
            layout: Layout::default(),
            output,
            known_by: KnownBy::default(),
            stop: StopSignal::default(),
            resume: None,
        }
    }
}

impl KnownBy {
    /// What a checkpoint of a run on these data is known by.
    pub(crate) fn identity(
        &self,
        train: &[Sample],
        packing: Option<&Packing>,
        eval: &[Sample],
    ) -> Identity {
        Identity {
            settings: self.settings.clone(),
            model: self.model.clone(),
            train: data_mark(train, packing),
            eval: data_mark(eval, None),
        }
    }
}

/// Trains adapters on `input.model` and saves them, with the run's metrics, in `input.output`.
///
/// Returns the model with its adapters, on a plain device, and what happened. The adapter lies in
/// `output/adapter` (PEFT files and sidecar), metrics in `output/metrics.jsonl`, rank decisions in
/// `output/ranks.jsonl`.
///
/// The same options, rows and thread count give the same losses and ranks, to the bit, on `flex`, also
/// when a run is interrupted and gone on with from a checkpoint. With dropout, that holds for one run at
/// a time in a process: Burn's generator is global.
///
/// Checkpoints go to `output/checkpoints`; a run from its beginning removes those that lie there.
///
/// # Errors
/// An option or target that cannot work, found before the first step; a checkpoint of another run; a
/// loss or gate that is not finite; a device that runs out of memory or fails; a file that cannot be
/// written; [`TrainError::Interrupted`] when `stop` was requested; [`TrainError::NoEffect`], with
/// everything written but an adapter without modules, when the adapters change nothing at the end.
pub fn finetune(
    options: &TrainOptions,
    input: RunInput<'_>,
    observers: Vec<Box<dyn Observer>>,
) -> Result<(CausalLm, RunReport), TrainError> {
    guard(|| train(options, input, observers)).unwrap_or_else(|failure| {
        Err(TrainError::device_failed(
            "beside the training steps",
            failure,
        ))
    })
}

fn train(
    options: &TrainOptions,
    input: RunInput<'_>,
    observers: Vec<Box<dyn Observer>>,
) -> Result<(CausalLm, RunReport), TrainError> {
    options.validate()?;
    options.check_devices(1 + input.further_devices.len())?;
    check_rows(&input)?;
    let mut known_by = input.known_by;
    if known_by.settings.is_null() {
        known_by.settings = serde_json::to_value(options)
            .map_err(|error| TrainError::io(input.output, error.into()))?;
    }
    let identity = known_by.identity(&input.train, input.packing.as_ref(), &input.eval);
    let folder = CheckpointFolder::of_run(input.output);
    let resume = input.resume.as_deref();
    if let Some(checkpoint) = resume {
        let file = folder.file(checkpoint.progress.step);
        check_resume(checkpoint, &identity, options).map_err(|what| what.in_file(&file))?;
    }
    let device = input.device.clone().inner();
    let training_device = device.clone().autodiff();

    let mut model = input.model.fork(&training_device).no_grad();
    attach_adapters(&mut model, &options.adapters, &training_device)?;
    let parameters_before = adapter_parameters(&model);
    let infos: Vec<AdapterInfo> = adapters(&model).iter().map(adapter_info).collect();
    let fresh = adapter_optimizer(&options.adapters, &options.optimizer);
    let (adapters_config, adam) = (&options.adapters, &options.optimizer);
    let (steps, warmup) = (options.steps, options.warmup_steps);
    let order = Order::Shuffled { seed: options.seed };
    let train = TokenLoader::new(
        input.train.into(),
        options.batch_size,
        input.pad,
        order,
        &training_device,
    );
    let train = match input.packing {
        Some(packing) => train.with_packing(Arc::new(packing)),
        None => train,
    };
    let (ranks, optimizer) = match resume {
        None => {
            let mut new = RankAllocator::new(&model, adapters_config, adam, steps, warmup)?;
            let (mut optimizer, mut started) = (fresh, Vec::new());
            if new.measures() == Start::Gradient {
                let values = measure(&model, options, &train)?;
                let (moved, outcome) = new
                    .start(model, &mut optimizer, &values)
                    .map_err(|(_, error)| error)?;
                model = moved;
                started.extend(RankUpdate::of(outcome));
            }
            (RankCallback::new(new).with_updates(started), optimizer)
        }
        Some(Checkpoint { state, updates, .. }) => {
            let set = state.adapter_set(adapters_config.dropout);
            install_adapters(&mut model, &set, &training_device)?;
            let known = &state.allocator;
            let again =
                RankAllocator::restore(&model, adapters_config, adam, steps, warmup, known)?;
            model = again.prepare_gates(model).map_err(|(_, error)| error)?;
            let ranks = RankCallback::new(again).with_updates(updates.clone());
            (ranks, state.restore_optimizer(&model, &fresh)?)
        }
    };
    let progress = resume.map(|checkpoint| checkpoint.progress.clone());
    let start = RunStart {
        steps: options.steps,
        update_steps: ranks.update_steps(),
        adapters: infos,
        budget: ranks.budget(),
        unit: options.adapters.budget_unit(),
    };

    std::fs::create_dir_all(input.output).map_err(|error| TrainError::io(input.output, error))?;
    let lines = match &progress {
        None => {
            folder.clear()?;
            JsonLines::create(input.output)?
        }
        Some(progress) => {
            folder.clear_after(progress.step)?;
            JsonLines::resume(input.output, progress)?
        }
    };
    options.activations.set(&mut model);
    let scale = LossScale::of(&model);
    let mut strategy = StepStrategy::new(options, ranks.clone(), device.clone())
        .with_loss_scale(scale.clone())
        .with_further_devices(input.further_devices)
        .with_stop(input.stop)
        .with_checkpoints(folder, &options.checkpoint, identity)
        .with_observer(Box::new(lines));
    for observer in observers {
        strategy = strategy.with_observer(observer);
    }
    strategy.tell(|observer| observer.started(&start))?;
    if let Some(progress) = &progress {
        let updates = ranks.updates();
        strategy.tell(|observer| observer.resumed(progress, &updates))?;
        strategy = strategy.starting_at(progress.clone());
    } else {
        for update in &ranks.updates() {
            strategy.tell(|observer| observer.ranks_moved(update))?;
        }
    }
    let strategy = Arc::new(strategy);

    let (done, batches) = progress.map_or((0, 0), |done| (done.step, done.batches));
    let place = train.position_after(batches);
    let train: Arc<dyn DataLoader<TokenBatch>> = Arc::new(train.starting_at(place));
    let eval = loader(input.eval, options.batch_size, input.pad, None, &device);
    let rate = WarmupSchedule::new(
        options.lr,
        options.steps,
        options.warmup_steps,
        options.schedule,
    )
    .starting_at(done);
    let mut model = FineTune::new(model, Some(ranks.clone()))
        .with_seed(options.seed)
        .with_loss_scale(scale);
    if options.recompute == Recompute::Blocks {
        model = model.with_block_recompute();
    }
    let updates = UpdateSchedule::new(&options.adapters, steps, warmup)?;
    let learner = Learner::new(
        model,
        optimizer,
        adapter_schedule(
            rate,
            GateSchedule::constant(gate_rate(&options.adapters, &updates)),
        ),
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
    let progress = outcome.progress;
    let (Some(before), Some(after)) = (progress.before, outcome.after) else {
        let detail = result
            .error
            .map_or("it did not start".into(), |error| error.to_string());
        return Err(TrainError::Stopped { step: 0, detail });
    };
    let model = result.model.lm;
    let trained = adapters(&model)
        .iter()
        .map(AdapterView::data)
        .collect::<Result<Vec<_>, _>>()?;
    if trained.iter().any(AdapterData::has_gate) {
        save_adapter_data(
            &trained,
            &options.adapters,
            input.layout,
            input.model_name,
            &input.output.join("adapter"),
        )?;
    }
    let updates = ranks.updates();
    let end: Vec<usize> = match updates.last() {
        Some(update) => update.plan.ranks(),
        None => start.adapters.iter().map(|adapter| adapter.rank).collect(),
    };
    let entry = |(adapter, after): (&AdapterInfo, usize)| RankEntry {
        path: adapter.path.clone(),
        before: adapter.rank,
        after,
    };
    let report = RunReport {
        before,
        after,
        losses: progress.losses,
        ranks: RankTable {
            entries: start.adapters.iter().zip(end).map(entry).collect(),
        },
        updates,
        gates: trained.iter().map(|adapter| adapter.c.clone()).collect(),
        parameters: [parameters_before, adapter_parameters(&model)],
        tokens: progress.tokens,
        seconds: progress.seconds,
        peak_bytes: outcome.peak_bytes,
    };
    strategy.tell(|observer| observer.finished(&report))?;
    check_effect(&trained, options.steps)?;
    Ok((model, report))
}

/// Micro-batches that the measurement before the first step looks at, each twice.
const MEASURED: usize = 2;

/// What ranks are worth in every layer, on the first micro-batches of the run.
fn measure(
    model: &CausalLm,
    options: &TrainOptions,
    train: &TokenLoader,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let batches = train.first(MEASURED).collect::<Result<Vec<_>, _>>();
    let batches = batches.map_err(|error| TrainError::Stopped {
        step: 0,
        detail: format!("training data: {error}"),
    })?;
    // More than a layer is likely to take.
    let directions = 4 * options.adapters.rank + 8;
    let recompute = options.recompute == Recompute::Blocks;
    gradient_spectra(
        model,
        &batches,
        directions,
        options.adapters.seed,
        recompute,
    )
}

/// A run after which the model is what it was is none.
fn check_effect(trained: &[AdapterData], steps: usize) -> Result<(), TrainError> {
    if !trained.iter().all(AdapterData::is_without_effect) {
        return Ok(());
    }
    let detail = if trained.iter().any(AdapterData::has_gate) {
        "every rank has a gate or a row of B that is zero. Raise train.lr, or train for more steps"
    } else {
        "every gate is zero, so no adapter was written. The pull of eta_c · lambda took more than the \
         loss gave back: lower adapters.lambda or adapters.eta_c"
    };
    Err(TrainError::NoEffect { steps, detail })
}

fn adapter_info(view: &AdapterView) -> AdapterInfo {
    let [d_in, d_out] = view.dims();
    AdapterInfo {
        path: view.path.clone(),
        d_in,
        d_out,
        rank: view.rank(),
    }
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
