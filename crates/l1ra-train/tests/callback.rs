//! [`RankCallback`] moves ranks within the budget in Burn's own training strategies, on one device
//! and on several, in a model that is no language model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::{Arc, Mutex};

use burn::{
    data::{
        dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher},
        dataset::InMemDataset,
    },
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    nn::loss::CrossEntropyLossConfig,
    optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams},
    tensor::{Device, Int, Tensor, TensorData, activation::relu},
    train::{
        ClassificationOutput, ExecutionStrategy, InferenceStep, Learner, MultiDeviceOptim,
        SupervisedTraining, TrainOutput, TrainStep, metric::LossMetric,
    },
};
use l1ra_core::{
    AdaptedLinear, AdaptedModule, BudgetUnit, L1raConfig, Policy, RankAllocator, attach_adapters,
    optim::{AdamEConfig, adapter_optimizer},
    walk,
};
use l1ra_train::{
    RankCallback,
    observe::Silent,
    schedule::{GateSchedule, Shape, WarmupSchedule, adapter_schedule},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const INPUTS: usize = 12;
const CLASSES: usize = 4;
const BATCH: usize = 16;
const ITEMS: usize = 256;
const EPOCHS: usize = 6;

/// A point and its class.
#[derive(Clone, Debug)]
struct Item {
    values: [f32; INPUTS],
    class: usize,
}

/// Clouds around one centre a class.
fn items(seed: u64, count: usize) -> Vec<Item> {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    let item = |index: usize| {
        let class = index % CLASSES;
        let value = |axis: usize| {
            let centre = if axis % CLASSES == class { 1.0 } else { -0.2 };
            centre + draw.random_range(-0.8..0.8)
        };
        Item {
            values: std::array::from_fn(value),
            class,
        }
    };
    (0..count).map(item).collect()
}

#[derive(Clone, Debug)]
struct Points {
    values: Tensor<2>,
    classes: Tensor<1, Int>,
}

#[derive(Clone, Debug)]
struct Stack;

impl Batcher<Item, Points> for Stack {
    fn batch(&self, items: Vec<Item>, device: &Device) -> Points {
        let count = items.len();
        let values: Vec<f32> = items.iter().flat_map(|item| item.values).collect();
        let classes: Vec<i64> = items.iter().map(|item| item.class as i64).collect();
        Points {
            values: Tensor::from_data(TensorData::new(values, [count, INPUTS]), device),
            classes: Tensor::from_data(TensorData::new(classes, [count]), device),
        }
    }
}

/// Three layers that can take adapters.
#[derive(Module, Debug)]
struct Net {
    input: AdaptedLinear,
    hidden: AdaptedLinear,
    output: AdaptedLinear,
    #[module(skip)]
    ranks: Option<RankCallback>,
}

impl AdaptedModule for Net {
    fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut AdaptedLinear)) {
        visit("input", &mut self.input);
        visit("hidden", &mut self.hidden);
        visit("output", &mut self.output);
    }
}

impl Net {
    fn classify(&self, batch: Points) -> ClassificationOutput {
        let x = relu(self.input.forward(batch.values));
        let output = self.output.forward(relu(self.hidden.forward(x)));
        let loss = CrossEntropyLossConfig::new().init(&output.device());
        let loss = loss.forward(output.clone(), batch.classes.clone());
        ClassificationOutput::new(loss, output, batch.classes)
    }
}

impl TrainStep for Net {
    type Input = Points;
    type Output = ClassificationOutput;

    fn step(&self, batch: Points) -> TrainOutput<ClassificationOutput> {
        let item = self.classify(batch);
        TrainOutput::new(self, item.loss.clone().backward(), item)
    }

    fn optimize(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> Self {
        let ranks = self.ranks.clone().unwrap();
        ranks.optimize(self, optim, lr, grads)
    }

    fn optimize_multi(
        self,
        optim: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> Self {
        let ranks = self.ranks.clone().unwrap();
        ranks.optimize_multi(self, optim, lr, grads)
    }
}

impl InferenceStep for Net {
    type Input = Points;
    type Output = ClassificationOutput;

    fn step(&self, batch: Points) -> ClassificationOutput {
        self.classify(batch)
    }
}

fn loader(items: Vec<Item>) -> Arc<dyn DataLoader<Points>> {
    DataLoaderBuilder::new(Stack)
        .batch_size(BATCH)
        .build(InMemDataset::new(items))
}

fn config(policy: Policy, budget: BudgetUnit) -> L1raConfig {
    L1raConfig {
        rank: 4,
        alpha: 8.0,
        policy,
        budget: Some(budget),
        lambda: 1.0,
        eta_c: 0.15,
        update_ratio: 0.15,
        max_rank: Some(10),
        ..Default::default()
    }
}

/// A frozen random network with adapters, its callback, and a learner around it.
fn learner(config: &L1raConfig, steps: usize) -> (Learner<Net>, RankCallback) {
    let device = Device::flex().autodiff();
    // Not from the device's generator, which tests at the same time share.
    let mut draw = ChaCha8Rng::seed_from_u64(7);
    let mut linear = |inputs: usize, outputs: usize| {
        let bound = (inputs as f32).sqrt().recip();
        let weight = (0..inputs * outputs)
            .map(|_| draw.random_range(-bound..bound))
            .collect();
        let weight = TensorData::new::<f32, _>(weight, [inputs, outputs]);
        AdaptedLinear::new(Tensor::from_data(weight, &device), None)
    };
    let mut net = Net {
        input: linear(INPUTS, 16),
        hidden: linear(16, 16),
        output: linear(16, CLASSES),
        ranks: None,
    };
    net = net.no_grad();
    attach_adapters(&mut net, config, &device).unwrap();
    let optimizer = AdamEConfig::default();
    let allocator = RankAllocator::new(&net, config, &optimizer, steps, 2).unwrap();
    let ranks = RankCallback::new(allocator);
    net.ranks = Some(ranks.clone());
    let rate = WarmupSchedule::new(2e-2, steps, 2, Shape::Cosine);
    let schedule = adapter_schedule(rate, GateSchedule::constant(config.eta_c));
    (
        Learner::new(net, adapter_optimizer(config, &optimizer), schedule),
        ranks,
    )
}

fn train(learner: Learner<Net>, strategy: ExecutionStrategy) -> Result<Net, String> {
    let dir = tempfile::TempDir::new().unwrap();
    let result = SupervisedTraining::new(dir.path(), loader(items(1, ITEMS)), loader(items(2, 64)))
        .metrics((LossMetric::new(),))
        .with_training_strategy(strategy.into())
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .num_epochs(EPOCHS)
        .launch(learner);
    match result.error {
        Some(error) => Err(error.to_string()),
        None => Ok(result.model),
    }
}

fn loss(net: &Net) -> f32 {
    let batch = Stack.batch(items(2, 64), &Device::flex());
    net.classify(batch).loss.into_scalar()
}

fn one_device() -> (ExecutionStrategy, usize) {
    (
        ExecutionStrategy::single(Device::flex().autodiff()),
        ITEMS / BATCH,
    )
}

/// Two devices take a batch each for one step.
fn two_devices(optim: MultiDeviceOptim) -> (ExecutionStrategy, usize) {
    let device = Device::flex().autodiff();
    (
        ExecutionStrategy::multi(vec![device.clone(), device], optim),
        ITEMS / BATCH / 2,
    )
}

#[rstest::rstest]
#[case::one_device(one_device())]
#[case::main_device(two_devices(MultiDeviceOptim::OptimMainDevice))]
#[case::sharded(two_devices(MultiDeviceOptim::OptimSharded))]
fn ranks_move_in_burn_s_strategies(#[case] strategy: (ExecutionStrategy, usize)) {
    let (strategy, epoch) = strategy;
    let config = config(Policy::Lasso, BudgetUnit::Ranks);
    let steps = EPOCHS * epoch;
    let (learner, ranks) = learner(&config, steps);
    let before = loss(&learner.model().valid());
    let net = train(learner, strategy).unwrap();

    assert_eq!(ranks.step(), steps, "one call an optimizer step");
    assert_eq!(ranks.error(), None);
    assert_eq!(ranks.budget(), 12);
    let updates = ranks.updates();
    let due: Vec<usize> = RankAllocator::new(&net, &config, &AdamEConfig::default(), steps, 2)
        .unwrap()
        .schedule()
        .steps()
        .collect();
    let at: Vec<usize> = updates.iter().map(|update| update.step).collect();
    assert_eq!(at, due);
    assert!(
        updates
            .iter()
            .all(|update| update.plan.ranks().iter().sum::<usize>() == 12)
    );
    assert!(
        updates.iter().any(|update| update.plan.is_change()),
        "{updates:?}"
    );
    let now: Vec<usize> = walk::adapters(&net)
        .iter()
        .map(walk::AdapterView::rank)
        .collect();
    assert_eq!(now, updates[updates.len() - 1].plan.ranks());
    assert!(
        updates
            .iter()
            .any(|update| update.plan.ranks() != [4, 4, 4]),
        "{updates:?}"
    );
    let after = loss(&net);
    assert!(after < before, "{before} → {after}");
}

#[test]
fn both_multi_device_strategies_take_the_same_decisions() {
    let config = config(Policy::Lasso, BudgetUnit::Parameters);
    let run = |optim| {
        let (strategy, epoch) = two_devices(optim);
        let (learner, ranks) = learner(&config, EPOCHS * epoch);
        let net = train(learner, strategy).unwrap();
        assert!(walk::adapter_parameters(&net) <= ranks.budget());
        let updates = ranks.updates();
        updates
            .iter()
            .map(|update| (update.step, update.plan.ranks()))
            .collect::<Vec<_>>()
    };
    let main = run(MultiDeviceOptim::OptimMainDevice);
    assert!(!main.is_empty());
    assert_eq!(main, run(MultiDeviceOptim::OptimSharded));
}

#[test]
fn a_lost_gate_stops_burn_s_training_with_its_reason() {
    let (learner, ranks) = learner(&config(Policy::Lasso, BudgetUnit::Ranks), 48);
    let dir = tempfile::TempDir::new().unwrap();
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let ranks = ranks.with_observer(move |step, views| {
        let ranks: Vec<usize> = views.iter().map(walk::AdapterView::rank).collect();
        sink.lock().unwrap().push((step, ranks));
    });
    let mut poisoned = items(1, ITEMS);
    poisoned[5 * BATCH].values[0] = f32::NAN; // In the sixth batch; the update is after step 7.
    let training = SupervisedTraining::new(dir.path(), loader(poisoned), loader(items(2, 64)))
        .metrics((LossMetric::new(),))
        .with_training_strategy(one_device().0.into())
        .with_application_logger(None)
        .renderer(Box::new(Silent))
        .num_epochs(EPOCHS);
    let ranks = ranks.with_interrupter(training.interrupter());
    let _ = training.launch(learner);

    let error = ranks.error().expect("an error");
    assert!(
        error.contains("not finite") || error.contains("NaN"),
        "{error}"
    );
    assert_eq!(ranks.step(), 7, "training went on after the error");
    assert!(ranks.updates().is_empty());
    // The observer saw every step, ranks untouched.
    let seen = seen.lock().unwrap();
    assert_eq!(
        *seen,
        (1..=7)
            .map(|step| (step, vec![4, 4, 4]))
            .collect::<Vec<_>>()
    );
}
