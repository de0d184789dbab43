//! A run repeats to the bit, weighs micro-batches by their targets, keeps the budget, saves an
//! adapter that gives the trained model's logits, and stops with the step where a number is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod tiny;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
    train::{Learner, SupervisedTraining, TrainingStrategy},
};
use l1ra_core::{
    BudgetUnit, L1raConfig, Policy, RankAllocator, attach_adapters, merge_adapters,
    optim::{AdamEConfig, adapter_optimizer},
    peft::{install_adapters, load_adapter},
    walk,
};
use l1ra_models::CausalLm;
use l1ra_train::{
    FineTune, RankCallback, RunReport, StepStrategy, TrainError, TrainOptions,
    data::{Sample, loader},
    eval::EvalResult,
    finetune,
    observe::Silent,
    observe::{Observer, StepMetrics},
    run::RunInput,
    schedule::{GateSchedule, Shape, WarmupSchedule, adapter_schedule},
    strategy::Outcome,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use tempfile::TempDir;
use tiny::{alone, model};

/// A row of `length` tokens whose last `targets` are targets.
fn row(draw: &mut ChaCha8Rng, length: usize, targets: usize) -> Sample {
    assert!(targets < length);
    // Each token follows from the one before it more often than not, so there is much to learn.
    let mut ids = vec![draw.random_range(3..256_u32)];
    while ids.len() < length {
        let last = ids[ids.len() - 1];
        let next = if draw.random_bool(0.8) {
            (last * 7 + 11) % 253 + 3
        } else {
            last / 2 + 3
        };
        ids.push(next);
    }
    let is_target = (0..length)
        .map(|position| position >= length - targets)
        .collect();
    Sample { ids, is_target }
}

fn rows(seed: u64, count: usize) -> Vec<Sample> {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|_| {
            let length = draw.random_range(6..20);
            let targets = draw.random_range(1..length);
            row(&mut draw, length, targets)
        })
        .collect()
}

/// Ranks move soon and far under these.
fn options(policy: Policy) -> TrainOptions {
    TrainOptions {
        adapters: L1raConfig {
            rank: 4,
            alpha: 8.0,
            policy,
            budget: Some(BudgetUnit::Ranks),
            lambda: 1.0,
            eta_c: 0.1,
            update_ratio: 0.15,
            ..Default::default()
        },
        steps: 20,
        batch_size: 4,
        lr: 1e-2,
        warmup_steps: 2,
        ..Default::default()
    }
}

struct Run {
    dir: TempDir,
    model: CausalLm,
    report: RunReport,
}

impl Run {
    fn new(options: &TrainOptions) -> Self {
        Self::of(options, model(), rows(1, 24)).unwrap()
    }

    fn of(options: &TrainOptions, model: CausalLm, train: Vec<Sample>) -> Result<Self, TrainError> {
        let dir = TempDir::new().unwrap();
        let (model, report) = start(options, model, train, dir.path(), Vec::new())?;
        Ok(Self { dir, model, report })
    }

    fn adapter(&self) -> PathBuf {
        self.dir.path().join("adapter")
    }
}

fn start(
    options: &TrainOptions,
    model: CausalLm,
    train: Vec<Sample>,
    output: &Path,
    observers: Vec<Box<dyn Observer>>,
) -> Result<(CausalLm, RunReport), TrainError> {
    let device = Device::flex();
    let input = RunInput::new(model, "tiny-llama", train, rows(2, 6), &device, output);
    finetune(options, input, observers)
}

fn bits(losses: &[f64]) -> Vec<u64> {
    losses.iter().map(|loss| loss.to_bits()).collect()
}

/// Every adapter's values as bits.
fn adapter_bits(model: &CausalLm) -> Vec<(String, Vec<u32>)> {
    walk::adapters(model)
        .iter()
        .map(|view| {
            let data = view.data().unwrap();
            let values = data.a.iter().chain(&data.c).chain(&data.b);
            (
                data.path.clone(),
                values.map(|value| value.to_bits()).collect(),
            )
        })
        .collect()
}

#[rstest::rstest]
#[case(Policy::Lasso)]
#[case(Policy::Reference)]
fn a_run_repeats_to_the_bit(#[case] policy: Policy) {
    let _alone = alone();
    let mut options = options(policy);
    options.adapters.dropout = 0.1;
    let (first, second) = (Run::new(&options), Run::new(&options));

    assert_eq!(bits(&first.report.losses), bits(&second.report.losses));
    assert_eq!(first.report.ranks, second.report.ranks);
    assert!(
        first.report.ranks.moved() > 0,
        "no rank moved:\n{}",
        first.report.ranks
    );
    let updates = |run: &Run| format!("{:?}", run.report.updates);
    assert_eq!(updates(&first), updates(&second));
    assert_eq!(adapter_bits(&first.model), adapter_bits(&second.model));
    for name in [
        "adapter_config.json",
        "adapter_model.safetensors",
        "l1ra_adapter.safetensors",
    ] {
        let bytes = |run: &Run| fs::read(run.adapter().join(name)).unwrap();
        assert!(bytes(&first) == bytes(&second), "{name} differs");
    }
    let text = |run: &Run| fs::read_to_string(run.dir.path().join("ranks.jsonl")).unwrap();
    assert_eq!(text(&first), text(&second));

    let mut other = options.clone();
    other.seed = 1; // Shuffling and dropout.
    assert_ne!(
        bits(&first.report.losses),
        bits(&Run::new(&other).report.losses)
    );
    let mut other = options.clone();
    other.adapters.seed = 1; // Adapters: the same rows, so the same first loss, as B begins at 0.
    let other = Run::new(&other);
    assert_eq!(first.report.losses[0], other.report.losses[0]);
    assert_ne!(bits(&first.report.losses), bits(&other.report.losses));
}

/// Keeps every step's metrics and evaluation.
#[derive(Clone, Default)]
struct Keep(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    steps: Vec<StepMetrics>,
    evaluations: Vec<(usize, EvalResult)>,
}

impl Observer for Keep {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.0.lock().unwrap().steps.push(metrics.clone());
        Ok(())
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        self.0.lock().unwrap().evaluations.push((step, *result));
        Ok(())
    }
}

/// As `finetune`, with rows in their order, epoch after epoch.
fn in_order(options: &TrainOptions, train: Vec<Sample>) -> (CausalLm, Outcome, Vec<StepMetrics>) {
    let device = Device::flex();
    let training = device.clone().autodiff();
    let mut model = model().fork(&training).no_grad();
    attach_adapters(&mut model, &options.adapters, &training).unwrap();
    let allocator = RankAllocator::new(
        &model,
        &options.adapters,
        &options.optimizer,
        options.steps,
        options.warmup_steps,
    );
    let ranks = RankCallback::new(allocator.unwrap());
    let keep = Keep::default();
    let strategy = StepStrategy::new(options, ranks.clone(), device.clone())
        .with_observer(Box::new(keep.clone()));
    let strategy = Arc::new(strategy);
    let rate = WarmupSchedule::new(
        options.lr,
        options.steps,
        options.warmup_steps,
        options.schedule,
    );
    let learner = Learner::new(
        FineTune::new(model, Some(ranks)),
        adapter_optimizer(&options.adapters, &options.optimizer),
        adapter_schedule(rate, GateSchedule::constant(options.adapters.eta_c)),
    );
    let dir = TempDir::new().unwrap();
    let train = loader(train, options.batch_size, 0, None, &training);
    let eval = loader(rows(2, 6), options.batch_size, 0, None, &device);
    let result = SupervisedTraining::new(dir.path(), train, eval)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .launch(learner);
    let steps = std::mem::take(&mut keep.0.lock().unwrap().steps);
    (result.model.lm, strategy.take_outcome(), steps)
}

fn close(one: f64, other: f64, relative: f64) -> bool {
    (one - other).abs() <= relative * one.abs().max(other.abs())
}

#[test]
fn micro_batches_weigh_as_much_as_their_targets() {
    let _alone = alone();
    // Each window of 8: two rows with 1 target, two with 2, two with 8, two with 30.
    let mut draw = ChaCha8Rng::seed_from_u64(3);
    let window = [1, 1, 2, 2, 8, 8, 30, 30];
    let train: Vec<Sample> = (0..24)
        .map(|index| row(&mut draw, 31, window[index % 8]))
        .collect();
    let mut options = options(Policy::Fixed);
    options.steps = 9; // Three epochs.
    options.max_grad_norm = 0.5; // Clipping must see the same norm.
    (options.batch_size, options.accumulation) = (8, 1);
    let (whole_model, whole, whole_steps) = in_order(&options, train.clone());
    (options.batch_size, options.accumulation) = (2, 4);
    let (parts_model, parts, parts_steps) = in_order(&options, train.clone());

    assert_eq!(
        (whole.progress.losses.len(), parts.progress.losses.len()),
        (9, 9)
    );
    for (one, other) in whole_steps.iter().zip(&parts_steps) {
        assert!(close(one.loss, other.loss, 1e-5), "{one:?} {other:?}");
        assert!(
            close(one.grad_norm, other.grad_norm, 1e-4),
            "{one:?} {other:?}"
        );
        assert_eq!((one.targets, one.tokens), (82, 8 * 31));
        assert_eq!((other.targets, other.tokens), (82, 8 * 31));
    }
    assert_eq!(whole.progress.tokens, parts.progress.tokens);
    let (one, other) = (whole.after.unwrap().loss, parts.after.unwrap().loss);
    assert!(close(one, other, 1e-5), "{one} {other}");
    assert!(
        one < whole.progress.before.unwrap().loss,
        "learned something"
    );
    drop((whole_model, parts_model));

    // The mean of the micro-batches' means is another number here, so a wrong weight would show.
    (options.batch_size, options.accumulation, options.steps) = (2, 1, 4);
    options.warmup_steps = 3;
    options.lr = 1e-30;
    let (_, micro, _) = in_order(&options, train);
    let weighted: f64 = micro
        .progress
        .losses
        .iter()
        .zip([2.0, 4.0, 16.0, 60.0])
        .map(|(l, n)| l * n)
        .sum();
    assert!(close(weighted / 82.0, whole.progress.losses[0], 1e-5));
    let mean_of_means = micro.progress.losses.iter().sum::<f64>() / 4.0;
    assert!(
        !close(mean_of_means, whole.progress.losses[0], 5e-3),
        "{mean_of_means} {:?}",
        whole.progress.losses
    );
}

#[test]
fn a_batch_without_a_target_is_harmless() {
    let _alone = alone();
    let mut draw = ChaCha8Rng::seed_from_u64(4);
    // Every second row has no target.
    let train: Vec<Sample> = (0..8)
        .map(|index| row(&mut draw, 12, if index % 2 == 0 { 6 } else { 0 }))
        .collect();
    let mut options = options(Policy::Lasso);
    options.batch_size = 1;
    let (model, outcome, steps) = in_order(&options, train.clone());
    assert!(outcome.error.is_none(), "{:?}", outcome.error);
    assert_eq!(steps.len(), options.steps);
    for (index, step) in steps.iter().enumerate() {
        let expected = if index % 2 == 0 { 6 } else { 0 };
        assert_eq!(step.targets, expected);
        assert!(
            step.loss.is_finite() && step.grad_norm.is_finite(),
            "{step:?}"
        );
        assert_eq!(step.loss > 0.0, expected > 0, "{step:?}");
    }
    for view in walk::adapters(&model) {
        let data = view.data().unwrap();
        assert!(
            data.a
                .iter()
                .chain(&data.b)
                .chain(&data.c)
                .all(|value| value.is_finite())
        );
    }

    // In a window with others it adds nothing: the run is the one without it.
    options.accumulation = 2;
    let (_, with, _) = in_order(&options, train.clone());
    options.accumulation = 1;
    let without: Vec<Sample> = train.into_iter().step_by(2).collect();
    let (_, without, _) = in_order(&options, without);
    for (one, other) in with.progress.losses.iter().zip(&without.progress.losses) {
        assert!(close(*one, *other, 1e-6), "{one} {other}");
    }
}

#[rstest::rstest]
#[case(BudgetUnit::Ranks)]
#[case(BudgetUnit::Parameters)]
fn ranks_move_and_the_total_stays_at_the_budget(#[case] unit: BudgetUnit) {
    let _alone = alone();
    let mut options = options(Policy::Lasso);
    options.adapters.budget = Some(unit);
    let run = Run::new(&options);
    let costs: Vec<usize> = walk::adapters(&run.model)
        .iter()
        .map(|view| view.dims()[0] + view.dims()[1] + 1)
        .collect();
    let held = |ranks: &[usize]| -> usize {
        let of = |(rank, cost): (&usize, &usize)| match unit {
            BudgetUnit::Ranks => *rank,
            BudgetUnit::Parameters => rank * cost,
        };
        ranks.iter().zip(&costs).map(of).sum()
    };
    let budget = held(&vec![4; costs.len()]);
    let updates = &run.report.updates;
    // A period of ⌊0.15 · 20⌋ = 3, none in the warm-up of 2 nor in the last 20 %.
    assert_eq!(
        updates.iter().map(|update| update.step).collect::<Vec<_>>(),
        [3, 6, 9, 12, 15]
    );
    assert!(
        run.report.ranks.moved() > 0,
        "no rank moved:\n{}",
        run.report.ranks
    );
    for update in updates {
        let ranks = update.plan.ranks();
        let held = held(&ranks);
        match unit {
            BudgetUnit::Ranks => assert_eq!(held, budget),
            BudgetUnit::Parameters => {
                // Short of the budget by less than the cheapest rank that could still be given.
                let caps = walk::adapters(&run.model)
                    .iter()
                    .map(|view| 16.min(view.dims()[0].min(view.dims()[1])))
                    .collect::<Vec<usize>>();
                let cheapest = (0..costs.len())
                    .filter(|index| ranks[*index] < caps[*index])
                    .map(|index| costs[index])
                    .min();
                assert!(held <= budget, "{held} of {budget}");
                assert!(
                    cheapest.is_none_or(|cost| budget - held < cost),
                    "{held} of {budget}"
                );
            }
        }
        assert!(ranks.iter().all(|rank| *rank >= 1), "{ranks:?}");
    }
    let last: Vec<usize> = walk::adapters(&run.model)
        .iter()
        .map(walk::AdapterView::rank)
        .collect();
    assert_eq!(last, updates[4].plan.ranks());
    let after: Vec<usize> = run
        .report
        .ranks
        .entries
        .iter()
        .map(|entry| entry.after)
        .collect();
    assert_eq!(last, after);
    assert_eq!(
        run.report.parameters[1],
        walk::adapter_parameters(&run.model)
    );
    let losses = &run.report.losses;
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(
        mean(&losses[14..]) < mean(&losses[..6]),
        "nothing learned: {losses:?}"
    );
}

fn logits(model: &CausalLm) -> Vec<f32> {
    let ids: Vec<i64> = (0..24).map(|index| (index * 37 + 5) % 256).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [2, 12]), &Device::flex());
    model.forward(ids, None).into_data().try_into_vec().unwrap()
}

fn largest_difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    one.iter()
        .zip(other)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[rstest::rstest]
#[case(Policy::Lasso)]
#[case(Policy::Reference)]
fn the_saved_adapter_gives_the_trained_model_s_logits(#[case] policy: Policy) {
    let _alone = alone();
    let mut options = options(policy);
    options.adapters.dropout = 0.1;
    let run = Run::new(&options);
    let trained = logits(&run.model);
    let base = logits(&model());
    assert!(
        largest_difference(&trained, &base) > 0.1,
        "training changed the model"
    );

    let set = load_adapter(&run.adapter()).unwrap();
    let mut loaded = model();
    install_adapters(&mut loaded, &set, &Device::flex()).unwrap();
    assert_eq!(adapter_bits(&loaded), adapter_bits(&run.model));
    assert_eq!(trained, logits(&loaded));

    // PEFT's files alone: gates are folded into B.
    fs::remove_file(run.adapter().join("l1ra_adapter.safetensors")).unwrap();
    let set = load_adapter(&run.adapter()).unwrap();
    let mut plain = model();
    install_adapters(&mut plain, &set, &Device::flex()).unwrap();
    let seen = largest_difference(&trained, &logits(&plain));
    assert!(seen < 1e-4, "PEFT's files: {seen}");

    merge_adapters(&mut loaded);
    assert_eq!(walk::adapters(&loaded).len(), 0);
    let seen = largest_difference(&trained, &logits(&loaded));
    assert!(seen < 1e-4, "merged: {seen}");
}

#[rstest::rstest]
#[case(4, &[0, 4, 8, 10])]
#[case(5, &[0, 5, 10])] // The last step's evaluation is not written twice.
#[case(0, &[0, 10])]
fn evaluations_come_when_asked_for(#[case] every: usize, #[case] expected: &[usize]) {
    let _alone = alone();
    let mut options = options(Policy::Fixed);
    (options.steps, options.eval_every) = (10, every);
    let (keep, dir) = (Keep::default(), TempDir::new().unwrap());
    let observers: Vec<Box<dyn Observer>> = vec![Box::new(keep.clone())];
    let (_, report) = start(&options, model(), rows(1, 24), dir.path(), observers).unwrap();

    let kept = keep.0.lock().unwrap();
    let at: Vec<usize> = kept.evaluations.iter().map(|(step, _)| *step).collect();
    assert_eq!(at, expected);
    assert_eq!(kept.evaluations[0].1, report.before);
    assert_eq!(kept.evaluations[at.len() - 1].1, report.after);
    let text = fs::read_to_string(dir.path().join("metrics.jsonl")).unwrap();
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let written: Vec<usize> = lines
        .iter()
        .filter(|line| line.get("eval_loss").is_some())
        .map(|line| line["step"].as_u64().unwrap() as usize)
        .collect();
    assert_eq!(written, expected);
    assert_eq!(lines.len(), 10 + expected.len());
    let tokens: usize = rows(2, 6).iter().map(Sample::targets).sum();
    assert_eq!(report.before.tokens, tokens);
}

fn stopped(options: &TrainOptions, model: CausalLm) -> (usize, String, bool) {
    let dir = TempDir::new().unwrap();
    let result = start(options, model, rows(1, 24), dir.path(), Vec::new());
    let error = result.map(|(_, report)| report.losses).unwrap_err();
    assert!(!error.is_users_mistake());
    let saved = dir.path().join("adapter").exists();
    let text = error.to_string();
    match error {
        TrainError::Stopped { step, .. } => (step, text, saved),
        error => panic!("{error}"),
    }
}

#[test]
fn a_model_that_holds_no_number_stops_before_the_first_step() {
    let _alone = alone();
    let mut broken = model();
    broken.model.norm.gamma = broken
        .model
        .norm
        .gamma
        .map(|gamma| gamma.mul_scalar(f32::NAN));
    let (step, text, saved) = stopped(&options(Policy::Lasso), broken);
    assert_eq!((step, saved), (0, false));
    assert_eq!(
        text,
        "training stopped at step 0: the evaluation loss is NaN"
    );
}

#[test]
fn a_loss_that_is_lost_stops_at_its_step() {
    let _alone = alone();
    let mut options = options(Policy::Lasso);
    (options.lr, options.warmup_steps, options.max_grad_norm) = (1e30, 0, 0.0);
    options.schedule = Shape::Constant;
    let (step, text, saved) = stopped(&options, model());
    assert!(!saved);
    assert!(
        text.starts_with(&format!("training stopped at step {step}: the loss is ")),
        "{text}"
    );
    assert!(step == 2 || step == 3, "{text}"); // B moves in step 1, A's gradient comes with it.
    assert!(
        text.contains("try a lower learning rate or a longer warm-up"),
        "{text}"
    );

    // Lost in the last step, it is the evaluation that finds it, and it names that step.
    options.adapters.policy = Policy::Fixed;
    options.steps = step - 1;
    let (at, text, saved) = stopped(&options, model());
    assert_eq!((at, saved), (step - 1, false), "{text}");
    assert!(text.contains("evaluation loss"), "{text}");
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let mut train = rows(1, 4);
    train[2].ids[1] = 256;
    let error = Run::of(&options(Policy::Lasso), model(), train)
        .map(|_| ())
        .unwrap_err();
    assert!(error.is_users_mistake());
    assert_eq!(
        error.to_string(),
        "data = token id 256 (padding 0): ids below the model's vocabulary of 256; \
         is this its tokenizer?"
    );
    let error = Run::of(&options(Policy::Lasso), model(), Vec::new())
        .map(|_| ())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "data = no training samples: at least one"
    );
}

#[test]
fn the_optimizer_s_own_options_reach_the_run() {
    let _alone = alone();
    let plain = Run::new(&options(Policy::Fixed));
    let mut options = options(Policy::Fixed);
    options.optimizer = AdamEConfig {
        weight_decay: 0.5,
        ..options.optimizer
    };
    let decayed = Run::new(&options);
    assert_eq!(plain.report.losses[0], decayed.report.losses[0]);
    assert_ne!(bits(&plain.report.losses), bits(&decayed.report.losses));
}
