//! Several devices do what one does: a run on two copies of the CPU, and two optimizers that decide about
//! ranks apart from each other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, missing_docs)]

mod one_step;
mod tiny;

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams, ModuleOptimizer},
    tensor::Device,
    train::{Interrupter, TrainStep},
};
use l1ra_core::{
    L1raConfig, RankAllocator, attach_adapters,
    device::compiled_devices,
    optim::{AdamEConfig, adapter_optimizer},
    parse_device, walk,
};
use l1ra_train::{
    FineTune, RankCallback, RunReport, StopSignal, TrainError, TrainOptions,
    checkpoint::{CheckpointFolder, CheckpointOptions},
    data::{Packing, TokenBatch},
    finetune,
    observe::{Observer, StepMetrics},
    recompute::Recompute,
    run::RunInput,
    schedule::{GateSchedule, Shape, WarmupSchedule, adapter_schedule},
};
use rstest::rstest;
use tempfile::TempDir;

/// Settings under which ranks move.
fn options(batch_size: usize, accumulation: usize) -> TrainOptions {
    TrainOptions {
        adapters: L1raConfig {
            rank: 3,
            policy: l1ra_core::Policy::Lasso,
            budget: Some(l1ra_core::BudgetUnit::Ranks),
            lambda: 1.0,
            eta_c: 0.2,
            update_ratio: 0.1,
            ..Default::default()
        },
        steps: 50,
        batch_size,
        accumulation,
        lr: 3e-3,
        warmup_steps: 3,
        eval_every: 20,
        recompute: Recompute::Off,
        checkpoint: CheckpointOptions {
            save_every: Some(0),
            ..Default::default()
        },
        ..Default::default()
    }
}

/// A run on as many copies of the CPU.
fn input<'a>(devices: usize, device: &'a Device, dir: &'a TempDir) -> RunInput<'a> {
    RunInput {
        further_devices: vec![device.clone(); devices - 1],
        ..RunInput::new(
            tiny::model(),
            "tiny-llama",
            tiny::samples(24),
            tiny::samples(6),
            device,
            dir.path(),
        )
    }
}

fn run(options: &TrainOptions, devices: usize, packed: bool) -> RunReport {
    let (device, dir) = (Device::flex(), TempDir::new().unwrap());
    let input = input(devices, &device, &dir);
    let input = RunInput {
        packing: packed.then(|| Packing::new(&input.train, 24, 0)),
        ..input
    };
    finetune(options, input, Vec::new()).unwrap().1
}

fn largest_difference(one: &RunReport, other: &RunReport) -> f64 {
    assert_eq!(one.losses.len(), other.losses.len());
    let losses = one.losses.iter().zip(&other.losses);
    losses
        .map(|(one, other)| (one - other).abs())
        .fold(0.0, f64::max)
}

#[rstest]
fn two_devices_are_one_with_twice_the_batch(#[values(false, true)] packed: bool) {
    let one = run(&options(4, 1), 1, packed);
    let two = run(&options(2, 2), 2, packed);
    let off = largest_difference(&one, &two);
    println!("losses off by {off:.1e}, {} ranks moved", one.ranks.moved());
    assert!(one.ranks.moved() > 0);
    assert!(off < 1e-5, "{off}");
    assert!((one.after.loss - two.after.loss).abs() < 1e-5);
    assert_eq!(tiny::ranks(&one), tiny::ranks(&two));
    assert_eq!((one.tokens, one.parameters), (two.tokens, two.parameters));
}

/// A micro-batch for each device: the same sums in the same order.
#[rstest]
fn the_number_of_devices_changes_no_bit(
    #[values(Recompute::Off, Recompute::Blocks)] recompute: Recompute,
) {
    let options = TrainOptions {
        recompute,
        ..options(2, 3)
    };
    let [one, three] = [1, 3].map(|devices| run(&options, devices, false));
    assert_eq!(one.losses, three.losses);
    assert_eq!((one.after, one.gates), (three.after, three.gates));
    assert_eq!(one.updates, three.updates);
}

#[test]
fn shares_may_differ_in_size() {
    let options = options(2, 3);
    let [one, two] = [1, 2].map(|devices| run(&options, devices, false));
    assert!(largest_difference(&one, &two) < 1e-5);
    assert_eq!(tiny::ranks(&one), tiny::ranks(&two));
}

struct StopAt(usize, StopSignal);

impl Observer for StopAt {
    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        if metrics.step == self.0 {
            self.1.request(2);
        }
        Ok(())
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_devices() {
    let options = options(2, 2);
    let whole = run(&options, 1, false);
    let dir = TempDir::new().unwrap();
    let device = Device::flex();
    let stop = StopSignal::default();
    let first = RunInput {
        stop: stop.clone(),
        ..input(2, &device, &dir)
    };
    let stopped = finetune(&options, first, vec![Box::new(StopAt(23, stop))]);
    assert!(matches!(
        stopped,
        Err(TrainError::Interrupted { step: 23, .. })
    ));
    let found = CheckpointFolder::of_run(dir.path()).newest().unwrap();
    let second = RunInput {
        resume: Some(Box::new(found.checkpoint)),
        ..input(1, &device, &dir)
    };
    let report = finetune(&options, second, Vec::new()).unwrap().1;
    assert_eq!(report.losses, whole.losses);
    assert_eq!((report.gates, report.updates), (whole.gates, whole.updates));
}

#[test]
fn fewer_micro_batches_than_devices_are_refused() {
    let device = Device::flex();
    let dir = TempDir::new().unwrap();
    let error = finetune(&options(4, 1), input(2, &device, &dir), Vec::new()).unwrap_err();
    insta::assert_snapshot!(error, @"accumulation = 1: at least 2, as the micro-batches of a window are dealt out to the 2 devices; with a smaller batch_size, the window stays what it is");
}

/// A worker of distributed training: a copy of the model with an optimizer of its own.
struct Worker {
    device: Device,
    model: FineTune,
    optimizer: ModuleOptimizer,
}

const STEPS: usize = 20;

fn config() -> L1raConfig {
    L1raConfig {
        rank: 3,
        policy: l1ra_core::Policy::Lasso,
        budget: Some(l1ra_core::BudgetUnit::Ranks),
        lambda: 1.0,
        eta_c: 0.2,
        update_ratio: 0.2,
        ..Default::default()
    }
}

/// The workers on every CPU backend of this build, with the callback that they share; `None` where
/// there is one backend only.
fn workers() -> Option<(Vec<Worker>, RankCallback)> {
    let names = compiled_devices();
    let names: Vec<_> = names
        .into_iter()
        .filter(|name| ["flex", "ndarray"].contains(name))
        .collect();
    if names.len() < 2 {
        println!("this build has the backends {names:?}; two are needed");
        return None;
    }
    let (config, adam) = (config(), AdamEConfig::default());
    let models: Vec<_> = names
        .iter()
        .map(|name| {
            let device = parse_device(name).unwrap();
            let mut model = tiny::model_on(&device)
                .fork(&device.clone().autodiff())
                .no_grad();
            attach_adapters(&mut model, &config, &device.clone().autodiff()).unwrap();
            (device, model)
        })
        .collect();
    let allocators = models
        .iter()
        .map(|(_, model)| RankAllocator::new(model, &config, &adam, STEPS, 1).unwrap());
    let callback = RankCallback::for_each_device(allocators.collect());
    let workers = models
        .into_iter()
        .map(|(device, model)| Worker {
            device,
            model: FineTune::new(model, Some(callback.clone())),
            optimizer: adapter_optimizer(&config, &adam),
        })
        .collect();
    Some((workers, callback))
}

/// What all-reduce leaves on every device: the sum of all gradients.
fn all_reduced(workers: &[Worker], step: usize) -> Vec<GradientsParams> {
    let samples = tiny::samples(64);
    let part = |index: usize, worker: &Worker| {
        let row = &samples[(step * 2 + index) % samples.len()];
        let batch = TokenBatch::new(&[vec![row]], 0, &worker.device.clone().autodiff());
        TrainStep::step(&worker.model, batch).grads
    };
    let sum_on = |here: &Worker| {
        let mut sum = GradientsAccumulator::new();
        for (index, worker) in workers.iter().enumerate() {
            let grads = part(index, worker).to_device(&here.device, &worker.model);
            sum.accumulate(&here.model, renamed(grads, &worker.model, &here.model));
        }
        sum.grads()
    };
    workers.iter().map(sum_on).collect()
}

/// The gradients of `from`'s adapters under the ids of `to`'s, which was not copied from it.
fn renamed(mut grads: GradientsParams, from: &FineTune, to: &FineTune) -> GradientsParams {
    let mut named = GradientsParams::new();
    for (from, to) in walk::adapters(from).iter().zip(walk::adapters(to)) {
        for part in [0, 2] {
            if let Some(grad) = grads.remove::<2>(from.ids[part]) {
                named.register(to.ids[part], grad);
            }
        }
        if let Some(grad) = grads.remove::<1>(from.ids[1]) {
            named.register(to.ids[1], grad);
        }
    }
    named
}

fn step(workers: Vec<Worker>, grads: Vec<GradientsParams>) -> Vec<Worker> {
    let gates = GateSchedule::constant(config().eta_c);
    let rate = WarmupSchedule::new(3e-3, STEPS, 0, Shape::Constant);
    let rates = adapter_schedule(rate, gates).step();
    let step = |(mut worker, grads): (Worker, GradientsParams)| {
        let Worker {
            model, optimizer, ..
        } = &mut worker;
        *model = model.clone().optimize(optimizer, rates.clone(), grads);
        worker
    };
    workers.into_iter().zip(grads).map(step).collect()
}

#[test]
fn each_device_decides_the_same() {
    let Some((mut workers, callback)) = workers() else {
        return;
    };
    for index in 0..STEPS {
        let grads = all_reduced(&workers, index);
        workers = step(workers, grads);
        assert_eq!(callback.error(), None);
    }
    let updates = callback.updates();
    assert_eq!(updates.len(), callback.update_steps().len());
    assert_eq!(callback.step(), STEPS);
    let of = |worker: &Worker| -> Vec<usize> {
        let views = walk::adapters(&worker.model);
        views.iter().map(walk::AdapterView::rank).collect()
    };
    let ranks = of(&workers[0]);
    assert!(ranks.iter().any(|rank| *rank != config().rank));
    assert!(workers.iter().all(|worker| of(worker) == ranks));
}

#[test]
fn a_device_that_decides_otherwise_stops_the_training() {
    let Some((mut workers, callback)) = workers() else {
        return;
    };
    let interrupter = Interrupter::new();
    let callback = callback.with_interrupter(interrupter.clone());
    for index in 0..STEPS {
        let mut grads = all_reduced(&workers, index);
        // The last device's gates are pulled to zero, as if it saw other data.
        let last = workers.last().unwrap();
        let views = walk::adapters(&last.model);
        let grad = grads.last_mut().unwrap();
        for view in views.iter().take(3) {
            grad.register(view.ids[1], view.c.clone().ones_like());
        }
        workers = step(workers, grads);
        if callback.error().is_some() {
            break;
        }
    }
    let said = callback.error().unwrap();
    assert!(said.contains("their gradients were not the same"), "{said}");
    assert_eq!(interrupter.get_message(), Some(said));
}
