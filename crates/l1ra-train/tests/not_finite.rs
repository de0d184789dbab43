//! A loss or gradient that is not finite is caught in its step and named; the run stops with its last
//! good state saved, or skips the window.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod tiny;

use std::{
    fs,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use burn::{
    data::dataloader::DataLoader,
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams},
    tensor::Device,
    train::{InferenceStep, Learner, SupervisedTraining, TrainOutput, TrainStep, TrainingStrategy},
};
use l1ra_core::{
    L1raConfig, RankAllocator, attach_adapters,
    optim::adapter_optimizer,
    walk::{self, AdapterData, AdapterView},
};
use l1ra_train::{
    FineTune, RankCallback, StepStrategy, TrainError, TrainOptions,
    checkpoint::{CheckpointFolder, Identity},
    data::{Order, Sample, TokenBatch, TokenLoader, loader},
    finite::NotFinite,
    loss_scale::LossScale,
    model::LossOutput,
    observe::{AdapterInfo, JsonLines, Observer, RunStart, Silent},
    report::RunRecord,
    schedule::{GateSchedule, WarmupSchedule, adapter_schedule},
    strategy::Outcome,
};
use tempfile::TempDir;

/// Breaks the gradients of some micro-batches, counted from 1.
#[derive(Module, Debug)]
struct Faulty {
    inner: FineTune,
    #[module(skip)]
    fault: Fault,
}

#[derive(Clone, Debug)]
struct Fault {
    at: Vec<usize>,
    /// End of the path of the adapter whose B gets the value; nothing: the loss.
    adapter: Option<&'static str>,
    value: f32,
    seen: Arc<AtomicUsize>,
}

impl TrainStep for Faulty {
    type Input = TokenBatch;
    type Output = LossOutput;

    fn step(&self, batch: TokenBatch) -> TrainOutput<LossOutput> {
        let mut output = TrainStep::step(&self.inner, batch);
        let number = self.fault.seen.fetch_add(1, Ordering::Relaxed) + 1;
        if !self.fault.at.contains(&number) {
            return output;
        }
        let Some(end) = self.fault.adapter else {
            output.item.loss_sum = output.item.loss_sum.mul_scalar(self.fault.value);
            return output;
        };
        let views = walk::adapters(self);
        let view = views.iter().find(|view| view.path.ends_with(end)).unwrap();
        let grad = output.grads.remove::<2>(view.ids[2]).unwrap();
        let broken = grad.mul_scalar(0.0).add_scalar(self.fault.value);
        output.grads.register(view.ids[2], broken);
        output
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let inner = self.inner.optimize(optim, lr, grads);
        Self { inner, ..self }
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        let inner = self.inner.optimize_multi(optim, lr, grads);
        Self { inner, ..self }
    }
}

impl InferenceStep for Faulty {
    type Input = TokenBatch;
    type Output = LossOutput;

    fn step(&self, batch: TokenBatch) -> LossOutput {
        InferenceStep::step(&self.inner, batch)
    }
}

const STEPS: usize = 8;

fn samples() -> Vec<Sample> {
    let sample = |index: u32| Sample {
        ids: (0..6)
            .map(|place| 3 + (index * 31 + place * 7) % 250)
            .collect(),
        is_target: (0..6).map(|place| place > 2).collect(),
    };
    (0..32).map(sample).collect()
}

fn options() -> TrainOptions {
    TrainOptions {
        adapters: L1raConfig {
            rank: 2,
            policy: l1ra_core::Policy::Lasso,
            update_ratio: 0.25,
            ..Default::default()
        },
        steps: STEPS,
        batch_size: 2,
        accumulation: 2,
        lr: 1e-2,
        warmup_steps: 1,
        max_skipped: 2,
        ..Default::default()
    }
}

struct Ran {
    dir: TempDir,
    outcome: Outcome,
    adapters: Vec<AdapterData>,
    skipped: Vec<(usize, String)>,
}

#[derive(Clone, Default)]
struct Skips(Arc<Mutex<Vec<(usize, String)>>>);

impl Observer for Skips {
    fn skipped(&mut self, step: usize, detail: &str) -> Result<(), TrainError> {
        self.0.lock().unwrap().push((step, detail.into()));
        Ok(())
    }
}

fn run(options: &TrainOptions, fault: Fault) -> Ran {
    run_scaled(options, fault, &LossScale::default())
}

fn run_scaled(options: &TrainOptions, fault: Fault, scale: &LossScale) -> Ran {
    let device = Device::flex();
    let training = device.clone().autodiff();
    let mut model = tiny::model().fork(&training).no_grad();
    attach_adapters(&mut model, &options.adapters, &training).unwrap();
    let (steps, warmup) = (options.steps, options.warmup_steps);
    let allocator =
        RankAllocator::new(&model, &options.adapters, &options.optimizer, steps, warmup).unwrap();
    let ranks = RankCallback::new(allocator);
    let info = |view: &AdapterView| AdapterInfo {
        path: view.path.clone(),
        d_in: view.dims()[0],
        d_out: view.dims()[1],
        rank: view.rank(),
    };
    let infos: Vec<AdapterInfo> = walk::adapters(&model).iter().map(info).collect();
    let dir = TempDir::new().unwrap();
    let skips = Skips::default();
    let strategy = StepStrategy::new(options, ranks.clone(), device.clone())
        .with_loss_scale(scale.clone())
        .with_checkpoints(
            CheckpointFolder::of_run(dir.path()),
            &options.checkpoint,
            Identity::default(),
        )
        .with_observer(Box::new(JsonLines::create(dir.path()).unwrap()))
        .with_observer(Box::new(skips.clone()));
    strategy
        .tell(|observer| {
            observer.started(&RunStart {
                steps,
                update_steps: Vec::new(),
                adapters: infos.clone(),
                budget: 28,
                unit: Default::default(),
            })
        })
        .unwrap();
    let strategy = Arc::new(strategy);
    let rate = WarmupSchedule::new(options.lr, steps, warmup, options.schedule);
    let learner = Learner::new(
        Faulty {
            inner: FineTune::new(model, Some(ranks)).with_loss_scale(scale.clone()),
            fault,
        },
        adapter_optimizer(&options.adapters, &options.optimizer),
        adapter_schedule(rate, GateSchedule::constant(0.01)),
    );
    let train = TokenLoader::new(samples().into(), 2, 0, Order::InOrder, &training);
    let train: Arc<dyn DataLoader<TokenBatch>> = Arc::new(train);
    let eval = loader(samples(), 8, 0, None, &device);
    let result = SupervisedTraining::new(dir.path(), train, eval)
        .with_training_strategy(TrainingStrategy::Custom(strategy.clone()))
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .launch(learner);
    let views = walk::adapters(&result.model);
    let skipped = skips.0.lock().unwrap().clone();
    Ran {
        dir,
        outcome: strategy.take_outcome(),
        adapters: views.iter().map(|view| view.data().unwrap()).collect(),
        skipped,
    }
}

fn fault(at: &[usize], adapter: Option<&'static str>, value: f32) -> Fault {
    Fault {
        at: at.to_vec(),
        adapter,
        value,
        seen: Arc::default(),
    }
}

const Q: &str = "layers.1.self_attn.q_proj";

#[test]
fn the_run_stops_before_the_step_and_names_what_it_saw() {
    // The second micro-batch of the third window.
    let ran = run(&options(), fault(&[6], Some(Q), f32::NAN));
    let error = ran.outcome.error.unwrap();
    assert!(!error.is_users_mistake());
    insta::assert_snapshot!(error, @r#"training stopped at step 3: the loss is 5.808 and the gradient norm NaN; samples 8, 9, 10, 11 (from 0, in the order of the training data); first tensor that is not finite: gradient of inner.lm.model.layers.1.self_attn.q_proj.adapter.lora_b; try a lower learning rate or a longer warm-up, or train.not_finite = "skip" to leave such windows out"#);
    // The state after the second step is whole, saved, and what the model still holds.
    let newest = CheckpointFolder::of_run(ran.dir.path()).newest().unwrap();
    let checkpoint = newest.checkpoint;
    assert_eq!(
        (checkpoint.progress.step, checkpoint.progress.batches),
        (2, 4)
    );
    for (saved, held) in checkpoint.state.adapters.iter().zip(&ran.adapters) {
        assert_eq!((&saved.data.a, &saved.data.b), (&held.a, &held.b));
    }
}

#[test]
fn a_loss_that_is_not_finite_names_its_samples() {
    let ran = run(&options(), fault(&[5], None, f32::INFINITY));
    let error = ran.outcome.error.unwrap();
    insta::assert_snapshot!(error, @r#"training stopped at step 3: the loss is inf and the gradient norm 38.437; samples 8, 9 (from 0, in the order of the training data); first tensor that is not finite: none, only the loss; try a lower learning rate or a longer warm-up, or train.not_finite = "skip" to leave such windows out"#);
}

#[test]
fn a_window_is_skipped_and_the_next_takes_its_place() {
    let mut options = options();
    options.not_finite = NotFinite::Skip;
    let ran = run(&options, fault(&[2, 9], Some(Q), f32::INFINITY));
    assert!(ran.outcome.error.is_none(), "{:?}", ran.outcome.error);
    let progress = &ran.outcome.progress;
    assert_eq!((progress.step, progress.skipped), (STEPS, 2));
    assert_eq!(progress.batches, 2 * (STEPS + 2));
    assert!(progress.losses.iter().all(|loss| loss.is_finite()));
    let steps: Vec<usize> = ran.skipped.iter().map(|(step, _)| *step).collect();
    assert_eq!(steps, [1, 4]);
    assert!(
        ran.skipped[0].1.contains("gradient of "),
        "{:?}",
        ran.skipped
    );
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    assert!(ran.adapters.iter().all(|a| finite(&a.a) && finite(&a.b)));

    // The report tells of it.
    let text = fs::read_to_string(ran.dir.path().join("metrics.jsonl")).unwrap();
    assert_eq!(text.matches("\"skipped\"").count(), 2);
    let record = RunRecord::read(ran.dir.path()).unwrap();
    let told = record.notes.iter().filter(|note| note.contains("skipped"));
    assert_eq!(told.count(), 2);
}

/// A power of two changes no bit; gradients that overflow are made again with half of it.
#[test]
fn a_loss_is_scaled_and_the_scale_halved_where_gradients_overflow() {
    let plain = run(&options(), fault(&[], None, 1.0));
    let scale = LossScale::power(10);
    let ran = run_scaled(&options(), fault(&[4, 5], Some(Q), f32::INFINITY), &scale);
    assert!(ran.outcome.error.is_none(), "{:?}", ran.outcome.error);
    // The fourth micro-batch ends the second window; the fifth begins it anew.
    assert_eq!(scale.value(), 256.0);
    assert!(ran.skipped.is_empty());
    assert_eq!(ran.outcome.progress.losses, plain.outcome.progress.losses);
    assert_eq!(ran.adapters, plain.adapters);

    // Without a scale to halve, it is what it is.
    let ran = run_scaled(
        &options(),
        fault(&[4, 5], Some(Q), f32::NAN),
        &LossScale::power(1),
    );
    let error = ran.outcome.error.unwrap().to_string();
    assert!(error.starts_with("training stopped at step 2: "), "{error}");
}

#[test]
fn only_so_many_windows_are_skipped() {
    let mut options = options();
    options.not_finite = NotFinite::Skip;
    let every: Vec<usize> = (5..100).collect();
    let ran = run(&options, fault(&every, Some(Q), f32::NAN));
    let error = ran.outcome.error.unwrap().to_string();
    assert!(error.starts_with("training stopped at step 3: "), "{error}");
    assert!(
        error.ends_with("train.max_skipped = 2 windows were skipped before"),
        "{error}"
    );
    assert_eq!(ran.skipped.len(), 2);
    let newest = CheckpointFolder::of_run(ran.dir.path()).newest().unwrap();
    assert_eq!(newest.checkpoint.progress.step, 2);
}
