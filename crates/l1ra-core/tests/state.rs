//! Adapters in training, captured and restored: the run goes on to the bit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use burn::{
    optim::{GradientsParams, ModuleOptimizer},
    tensor::Device,
};
use common::{Numbers, SMALL, Small, bits, flex, tensor};
use l1ra_core::{
    BudgetUnit, L1raConfig, Policy, RankAllocator, TrainingState,
    optim::{AdamEConfig, adapter_optimizer},
    peft::install_adapters,
    walk::AdapterData,
};

const STEPS: usize = 40;

struct Run {
    module: Small,
    optimizer: ModuleOptimizer,
    allocator: RankAllocator,
    device: Device,
}

impl Run {
    fn new(config: L1raConfig) -> Self {
        let device = flex().autodiff();
        let mut module = Small::new(3, &device);
        l1ra_core::attach_adapters(&mut module, &config, &device).unwrap();
        let adam = AdamEConfig::default();
        let allocator = RankAllocator::new(&module, &config, &adam, STEPS, 2).unwrap();
        Self {
            optimizer: adapter_optimizer(&config, &adam),
            module,
            allocator,
            device,
        }
    }

    /// The same run in another process: everything new but for what was saved.
    fn restored(config: L1raConfig, state: &TrainingState) -> Self {
        let device = flex().autodiff();
        let mut module = Small::new(3, &device);
        install_adapters(&mut module, &state.adapter_set(config.dropout), &device).unwrap();
        let adam = AdamEConfig::default();
        let allocator =
            RankAllocator::restore(&module, &config, &adam, STEPS, 2, &state.allocator).unwrap();
        let fresh = adapter_optimizer(&config, &adam);
        Self {
            optimizer: state.restore_optimizer(&module, &fresh).unwrap(),
            module,
            allocator,
            device,
        }
    }

    fn step(&mut self) {
        let step = self.allocator.step() as u64;
        let mut numbers = Numbers::new(step);
        let [d_in, d_out] = [SMALL[0].1[0], SMALL[2].1[1]];
        let x = tensor(&numbers.signed(6 * d_in), [6, d_in], &self.device);
        let y = tensor(&numbers.signed(6 * d_out), [6, d_out], &self.device);
        let loss = (self.module.forward(x) - y).square().sum();
        let grads = GradientsParams::from_grads(loss.backward(), &self.module);
        let module = self.optimizer.step(0.02, self.module.clone(), grads);
        let (module, _) = self
            .allocator
            .after_step(module, &mut self.optimizer)
            .unwrap();
        self.module = module;
    }

    fn state(&self) -> TrainingState {
        TrainingState::capture(&self.module, &self.optimizer, &self.allocator).unwrap()
    }
}

fn config(policy: Policy, budget: BudgetUnit, allow_zero_rank: bool) -> L1raConfig {
    L1raConfig {
        rank: 3,
        policy,
        budget: Some(budget),
        allow_zero_rank,
        lambda: 4.0,
        ..Default::default()
    }
}

fn assert_same(one: &AdapterData, other: &AdapterData) {
    assert_eq!(one.path, other.path);
    for (one, other) in [(&one.a, &other.a), (&one.c, &other.c), (&one.b, &other.b)] {
        assert_eq!(bits(one), bits(other));
    }
}

#[test]
fn a_restored_run_goes_on_to_the_bit() {
    let mut moved = false;
    for (policy, budget, zero) in [
        (Policy::Lasso, BudgetUnit::Ranks, false),
        (Policy::Lasso, BudgetUnit::Ranks, true),
        (Policy::Lasso, BudgetUnit::Parameters, true),
        (Policy::Reference, BudgetUnit::Ranks, false),
        (Policy::Fixed, BudgetUnit::Ranks, false),
    ] {
        let config = config(policy, budget, zero);
        // Before any step, between two, right at an update, and late.
        for stop in [0, 3, 4, 17, 32] {
            let mut whole = Run::new(config.clone());
            (0..stop).for_each(|_| whole.step());
            let saved = whole.state();
            let mut resumed = Run::restored(config.clone(), &saved);
            assert_eq!(resumed.state(), saved, "{policy:?}, at {stop}");
            for _ in stop..STEPS {
                whole.step();
                resumed.step();
            }
            let (one, other) = (whole.module.data(), resumed.module.data());
            one.iter()
                .zip(&other)
                .for_each(|(one, other)| assert_same(one, other));
            assert_eq!(whole.state(), resumed.state(), "{policy:?}, from {stop}");
            moved |= one.iter().any(|adapter| adapter.rank() != config.rank);
        }
    }
    assert!(moved, "no rank ever moved: the test shows nothing");
}

#[test]
fn a_state_that_does_not_hold_together_is_refused() {
    let mut run = Run::new(config(Policy::Lasso, BudgetUnit::Ranks, false));
    (0..5).for_each(|_| run.step());
    let good = run.state();
    good.check().unwrap();
    let refused = |change: &dyn Fn(&mut TrainingState)| {
        let mut state = good.clone();
        change(&mut state);
        state.check().unwrap_err().to_string()
    };
    let gate = refused(&|state| state.adapters[0].data.c[0] = 1.5);
    assert!(gate.contains("a gate is 1.5"), "{gate}");
    let nan = refused(&|state| state.adapters[1].data.a[2] = f32::NAN);
    assert!(nan.contains("lora_a holds NaN"), "{nan}");
    let short = refused(&|state| {
        state.adapters[2].data.b.pop();
    });
    assert!(short.contains("lora_b has"), "{short}");
    let moment = refused(&|state| {
        let moment = state.adapters[0].optimizer[0].tensors.get_mut("moment_1");
        moment.unwrap().shape = vec![1, 2, 3];
    });
    assert!(moment.contains("moment_1 of lora_a has shape"), "{moment}");
    let budget = refused(&|state| state.allocator.budget -= 1);
    assert!(budget.contains("the budget is 8"), "{budget}");
    let other = refused(&|state| state.adapters.swap(0, 1));
    assert!(other.contains("expected"), "{other}");
    let fewer = refused(&|state| {
        state.adapters.pop();
    });
    assert!(fewer.contains("has 2 adapters; expected 3"), "{fewer}");
}
