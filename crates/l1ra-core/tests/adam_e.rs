//! Proves that AdamE steps as its formula says, counts the age of every rank on its own, and treats
//! gates and matrices as two groups.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;

use burn::{
    module::ParamId,
    optim::{GradientsParams, ModuleOptimizer, Optimizer},
    tensor::{Device, Tensor},
};
use common::{Numbers, Small, assert_close, bits, devices, flex, tensor, values};
use l1ra_core::{
    AdamE, Init, L1raConfig, Policy, RankPlan,
    allocation::{RankChange, surgery},
    init::SeededNoise,
    optim::{AdamEConfig, AdamEState, Lasso, adapter_optimizer},
    walk::{self, AdapterView},
};

const LR: f64 = 0.02;

/// One number's Adam in f64, from the formula of the authors' code.
#[derive(Clone, Default)]
struct Scalar {
    t: i32,
    m: f64,
    v: f64,
}

impl Scalar {
    fn step(&mut self, p: f64, g: f64, rule: &AdamE) -> f64 {
        let AdamEConfig {
            beta_1,
            beta_2,
            epsilon,
            ..
        } = rule.config;
        self.t += 1;
        self.m = beta_1 * self.m + (1.0 - beta_1) * g;
        self.v = beta_2 * self.v + (1.0 - beta_2) * g * g;
        let m_hat = self.m / (1.0 - beta_1.powi(self.t));
        let v_hat = self.v / (1.0 - beta_2.powi(self.t));
        let step = LR * m_hat / (v_hat.sqrt() + epsilon);
        let moved = p * (1.0 - LR * rule.weight_decay) - step;
        match rule.lasso {
            Lasso::Off => moved,
            Lasso::Marked if p >= 1.0 => p,
            Lasso::Marked => (moved - LR * rule.lambda).clamp(0.0, 1.0),
            Lasso::Subgradient => {
                let sign = if p > 0.0 {
                    1.0
                } else if p < 0.0 {
                    -1.0
                } else {
                    0.0
                };
                moved - LR * rule.lambda * sign
            }
            Lasso::Proximal => {
                let soft = moved.signum() * (moved.abs() - LR * rule.lambda).max(0.0);
                soft.clamp(0.0, 1.0)
            }
        }
    }
}

fn rule(lasso: Lasso, weight_decay: f64, lambda: f64, rank_axis: Option<usize>) -> AdamE {
    AdamE {
        config: AdamEConfig::default(),
        weight_decay,
        lasso,
        lambda,
        rank_axis,
    }
}

/// 50 steps of `rule` on a `[4, 6]` tensor against the scalar form, step by step.
fn fifty_steps(name: &str, rule: &AdamE, device: &Device) {
    let mut numbers = Numbers::new(31);
    let start: Vec<f32> = match rule.lasso {
        Lasso::Off => numbers.signed(24),
        _ => (0..24).map(|_| numbers.unit() as f32).collect(),
    };
    let mut scalars = vec![Scalar::default(); 24];
    let mut want: Vec<f64> = start.iter().map(|v| f64::from(*v)).collect();
    let mut param = tensor(&start, [4, 6], device);
    let mut state: Option<AdamEState<2>> = None;
    for step in 0..50 {
        // A drift beside the noise, so that gates travel far and some reach zero and one.
        let grad: Vec<f32> = numbers
            .signed(24)
            .iter()
            .enumerate()
            .map(|(i, g)| 0.3 * (g + (i as f32 - 11.5) / 8.0))
            .collect();
        (param, state) = rule.step(LR, param, tensor(&grad, [4, 6], device), state);
        for ((p, g), scalar) in want.iter_mut().zip(&grad).zip(&mut scalars) {
            *p = scalar.step(*p, f64::from(*g), rule);
        }
        let got = values(&param);
        let what = format!(
            "{name} {:?} axis {:?} step {step}",
            rule.lasso, rule.rank_axis
        );
        // 1 − β₂ᵗ in f32 is known to 1e-4 of itself at the first steps.
        assert_close(&what, &got, &want, 2e-5);
        if rule.lasso == Lasso::Proximal {
            assert!(
                got.iter().all(|gate| (0.0..=1.0).contains(gate)),
                "{what}: {got:?}"
            );
        }
    }
    let state = state.unwrap();
    assert_eq!(state.time, 50);
    let moments = |pick: fn(&Scalar) -> f64| scalars.iter().map(pick).collect::<Vec<_>>();
    assert_close(name, &values(&state.moment_1), &moments(|s| s.m), 1e-5);
    assert_close(name, &values(&state.moment_2), &moments(|s| s.v), 1e-5);
    match rule.lasso {
        Lasso::Proximal => {
            let got = values(&param);
            assert!(
                got.contains(&0.0) && got.contains(&1.0),
                "no gate came to an end: {got:?}"
            );
        }
        Lasso::Subgradient => assert!(values(&param).iter().any(|c| !(0.0..=1.0).contains(c))),
        Lasso::Off | Lasso::Marked => {}
    }
}

#[test]
fn fifty_steps_follow_the_formula() {
    for (name, device) in devices() {
        for axis in [None, Some(0), Some(1)] {
            fifty_steps(name, &rule(Lasso::Off, 0.1, 0.0, axis), &device);
            fifty_steps(name, &rule(Lasso::Off, 0.0, 0.0, axis), &device);
            fifty_steps(name, &rule(Lasso::Subgradient, 0.0, 0.5, axis), &device);
            fifty_steps(name, &rule(Lasso::Proximal, 0.0, 0.5, axis), &device);
            fifty_steps(name, &rule(Lasso::Proximal, 0.2, 0.5, axis), &device);
            fifty_steps(name, &rule(Lasso::Marked, 0.0, 0.5, axis), &device);
        }
    }
}

#[test]
fn the_lasso_alone_brings_a_gate_to_exact_zero_and_leaves_it_there() {
    let rule = rule(Lasso::Proximal, 0.0, 0.5, Some(0));
    let mut gates = tensor(&[0.05, 0.0, 1.0], [3], &flex());
    let mut state = None;
    for _ in 0..6 {
        (gates, state) = rule.step(LR, gates, Tensor::zeros([3], &flex()), state);
    }
    let gates = values(&gates);
    assert_eq!(gates[..2], [0.0, 0.0]);
    assert!((gates[2] - 0.94).abs() < 1e-6, "{gates:?}");
}

#[test]
fn a_gate_at_one_is_no_business_of_the_marked_lasso() {
    let rule = rule(Lasso::Marked, 0.0, 0.5, Some(0));
    let mut gates = tensor(&[1.0, 0.99, 0.99], [3], &flex());
    let mut state = None;
    for _ in 0..200 {
        // The loss wants the third gate and does not mind the second; the first it would shrink.
        let grad = tensor(&[1.0, 0.0, -1.0], [3], &flex());
        (gates, state) = rule.step(LR, gates, grad, state);
    }
    assert_eq!(values(&gates), [1.0, 0.0, 1.0]);
}

#[test]
fn the_subgradient_of_a_zero_gate_is_zero() {
    let rule = rule(Lasso::Subgradient, 0.0, 0.5, None);
    let gates = tensor(&[0.0, 0.3, -0.3], [3], &flex());
    let (next, _) = rule.step(LR, gates, Tensor::zeros([3], &flex()), None);
    assert_close("gates", &values(&next), &[0.0_f32, 0.29, -0.29], 1e-6);
}

/// A gradient for each of A, c and B of every adapter, from a function of path, part and shape.
fn gradients(
    module: &Small,
    grad: impl Fn(&str, usize, [usize; 2]) -> Vec<f32>,
) -> GradientsParams {
    let mut grads = GradientsParams::new();
    for view in walk::adapters(module) {
        let device = view.a.device();
        let ([d_in, d_out], r) = (view.dims(), view.rank());
        let a = grad(&view.path, 0, [d_in, r]);
        let c = grad(&view.path, 1, [1, r]);
        let b = grad(&view.path, 2, [r, d_out]);
        grads.register(view.ids[0], tensor(&a, [d_in, r], &device));
        grads.register(view.ids[1], tensor(&c, [r], &device));
        grads.register(view.ids[2], tensor(&b, [r, d_out], &device));
    }
    grads
}

fn view(module: &Small, path: &str) -> AdapterView {
    walk::adapters(module)
        .into_iter()
        .find(|view| view.path == path)
        .unwrap()
}

fn loss_gradients(module: &Small, x: &Tensor<2>) -> GradientsParams {
    let loss = module.forward(x.clone()).square().sum();
    GradientsParams::from_grads(loss.backward(), module)
}

/// Every parameter of a module's adapters, in f64.
fn parameters(module: &Small) -> Vec<(ParamId, usize, Vec<f64>)> {
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect();
    walk::adapters(module)
        .iter()
        .flat_map(|view| {
            [
                (view.ids[0], 0, wide(values(&view.a))),
                (view.ids[1], 1, wide(values(&view.c))),
                (view.ids[2], 2, wide(values(&view.b))),
            ]
        })
        .collect()
}

/// Burn's own optimizer on a module with its own gradients, against the scalar form fed with them.
#[test]
fn burns_module_optimizer_takes_the_same_steps() {
    for policy in [Policy::Lasso, Policy::Reference] {
        let device = flex().autodiff();
        let (mut module, config) = Small::trained(37, [3, 2, 4], &device);
        let config = L1raConfig {
            policy,
            lambda: 0.1,
            ..config
        };
        let adam = AdamEConfig {
            weight_decay: 0.1,
            ..Default::default()
        };
        let mut optimizer = adapter_optimizer(&config, &adam);
        let x = tensor(&Numbers::new(37).signed(8 * 5), [8, 5], &device);
        let gate_form = match policy {
            Policy::Reference => Lasso::Subgradient,
            _ => Lasso::Proximal,
        };
        let matrix = rule(Lasso::Off, 0.1, 0.0, None);
        let gate = rule(gate_form, 0.0, 0.1, None);
        let mut scalars: HashMap<(ParamId, usize), Scalar> = HashMap::new();
        for step in 0..20 {
            let grads = loss_gradients(&module, &x);
            let want: Vec<Vec<f64>> = parameters(&module)
                .into_iter()
                .map(|(id, part, start)| {
                    let grad = match part {
                        1 => values(&grads.get::<1>(id).unwrap()),
                        _ => values(&grads.get::<2>(id).unwrap()),
                    };
                    let rule = if part == 1 { &gate } else { &matrix };
                    let pairs = start.into_iter().zip(grad).enumerate();
                    pairs
                        .map(|(i, (p, g))| {
                            scalars
                                .entry((id, i))
                                .or_default()
                                .step(p, f64::from(g), rule)
                        })
                        .collect()
                })
                .collect();
            module = optimizer.step(LR, module, grads);
            for ((_, part, got), want) in parameters(&module).iter().zip(&want) {
                assert_close(
                    &format!("{policy:?} step {step} part {part}"),
                    got,
                    want,
                    2e-5,
                );
            }
        }
        let frozen = Small::new(37, &device);
        assert_eq!(
            values(&module.head.weight.val()),
            values(&frozen.head.weight.val())
        );
    }
}

#[test]
fn without_gradient_gates_feel_the_lasso_and_matrices_the_decay() {
    let device = flex().autodiff();
    let (module, config) = Small::trained(41, [3, 2, 4], &device);
    for policy in [Policy::Lasso, Policy::Reference] {
        let config = L1raConfig {
            policy,
            lambda: 0.5,
            ..config.clone()
        };
        let adam = AdamEConfig {
            weight_decay: 0.1,
            ..Default::default()
        };
        let mut optimizer = adapter_optimizer(&config, &adam);
        let grads = gradients(&module, |_, _, [rows, columns]| vec![0.0; rows * columns]);
        let stepped = optimizer.step(LR, module.clone(), grads);
        for ((_, part, before), (_, _, after)) in
            parameters(&module).into_iter().zip(parameters(&stepped))
        {
            let want: Vec<f64> = before
                .iter()
                .map(|p| match part {
                    1 => (p - LR * 0.5).max(0.0),
                    _ => p * (1.0 - LR * 0.1),
                })
                .collect();
            assert_close(&format!("{policy:?} part {part}"), &after, &want, 1e-6);
        }
    }
}

/// A change of one adapter; the others stay.
fn plan_for(module: &Small, path: &str, pruned: &[usize], added: usize) -> RankPlan {
    let views = walk::adapters(module);
    let changes: Vec<RankChange> = views
        .iter()
        .map(|view| {
            let here = view.path == path;
            RankChange {
                path: view.path.clone(),
                before: view.rank(),
                pruned: if here { pruned.to_vec() } else { Vec::new() },
                added: if here { added } else { 0 },
            }
        })
        .collect();
    let index = views.iter().position(|view| view.path == path).unwrap();
    RankPlan {
        spare: pruned.len(),
        min_values: vec![0.0; changes.len()],
        changes,
        excluded: Vec::new(),
        order: vec![index],
        grown: vec![index; added],
        restart_optimizer: false,
        marked: Vec::new(),
    }
}

fn operate(
    module: Small,
    optimizer: &ModuleOptimizer,
    plan: &RankPlan,
    config: &L1raConfig,
) -> (Small, ModuleOptimizer) {
    let optimizer = surgery::apply_to_optimizer(optimizer, &module, plan).unwrap();
    let initial: HashMap<String, usize> = walk::adapters(&module)
        .iter()
        .map(|view| (view.path.clone(), view.rank()))
        .collect();
    let mut noise = SeededNoise::new(config.seed);
    let module =
        surgery::apply_to_module(module, plan, &initial, &mut noise, Init::Gaussian, 0).unwrap();
    (module, optimizer)
}

/// Rank `k` of an adapter: its column of A, its gate and its row of B.
fn rank(view: &AdapterView, k: usize) -> Vec<f32> {
    let r = view.rank();
    let (a, c, b) = (values(&view.a), values(&view.c), values(&view.b));
    let d_out = view.dims()[1];
    let column = a.iter().skip(k).step_by(r);
    column
        .chain(&c[k..=k])
        .chain(&b[k * d_out..(k + 1) * d_out])
        .copied()
        .collect()
}

/// A gradient that belongs to a rank by its label, wherever the rank lies.
fn labelled(step: usize, labels: &[usize], part: usize, shape: [usize; 2]) -> Vec<f32> {
    let [rows, columns] = shape;
    let value = |label: usize, along: usize| {
        Numbers::new((step * 1000 + label * 100 + part * 10) as u64).signed(along + 1)[along]
    };
    (0..rows * columns)
        .map(|index| {
            let (row, column) = (index / columns, index % columns);
            if part == 2 {
                value(labels[row], column)
            } else {
                value(labels[column], row)
            }
        })
        .collect()
}

/// Ranks 0 to 3 train for five steps; rank 1 goes and two ranks, 7 and 8, come. From then on the
/// survivors must move as in a twin that never changed, and the new ones as in a fresh run.
#[test]
fn a_new_rank_starts_its_own_count_and_survivors_go_on() {
    for (name, device) in devices() {
        let (path, device) = ("layers.1", device.autodiff());
        let (module, config) = Small::trained(43, [3, 4, 2], &device);
        let config = L1raConfig {
            lambda: 0.05,
            ..config
        };
        let adam = AdamEConfig {
            weight_decay: 0.1,
            ..Default::default()
        };
        let labels_of = |module: &Small, here: &[usize], step: usize| {
            gradients(module, |adapter, part, shape| {
                if adapter == path {
                    labelled(step, here, part, shape)
                } else {
                    labelled(step, &[10, 11, 12, 13], part, shape)
                }
            })
        };
        let mut optimizer = adapter_optimizer(&config, &adam);
        let mut twin = module;
        for step in 0..5 {
            let grads = labels_of(&twin, &[0, 1, 2, 3], step);
            twin = optimizer.step(LR, twin, grads);
        }
        let plan = plan_for(&twin, path, &[1], 2);
        let mut twin_optimizer = optimizer.clone();
        let (mut changed, mut optimizer) = operate(twin.clone(), &optimizer, &plan, &config);
        let mut fresh = changed.clone();
        let mut fresh_optimizer = adapter_optimizer(&config, &adam);

        let labels = [0, 2, 3, 7, 8];
        for step in 5..12 {
            let grads = labels_of(&twin, &[0, 1, 2, 3], step);
            twin = twin_optimizer.step(LR, twin, grads);
            let grads = labels_of(&changed, &labels, step);
            changed = optimizer.step(LR, changed, grads);
            let grads = labels_of(&fresh, &labels, step);
            fresh = fresh_optimizer.step(LR, fresh, grads);

            let (old, new, first) = (view(&twin, path), view(&changed, path), view(&fresh, path));
            for (at, label) in [(0, 0), (1, 2), (2, 3)] {
                let what = format!("{name} step {step}: surviving rank {label}");
                assert_eq!(bits(&rank(&new, at)), bits(&rank(&old, label)), "{what}");
            }
            for at in [3, 4] {
                let what = format!("{name} step {step}: new rank {at}");
                assert_eq!(bits(&rank(&new, at)), bits(&rank(&first, at)), "{what}");
            }
            for other in ["layers.0", "head"] {
                let (got, want) = (view(&changed, other), view(&twin, other));
                for k in 0..got.rank() {
                    assert_eq!(
                        bits(&rank(&got, k)),
                        bits(&rank(&want, k)),
                        "{name} {other}"
                    );
                }
            }
        }
    }
}

/// Without a count of its own, a new rank's first step would be several times too long.
#[test]
fn a_shared_count_would_move_new_ranks_too_far() {
    let first_step = |rank_axis: Option<usize>| {
        let rule = rule(Lasso::Off, 0.0, 0.0, rank_axis);
        let (mut param, mut state) = (Tensor::<2>::zeros([1, 2], &flex()), None);
        for _ in 0..1000 {
            (param, state) = rule.step(LR, param, Tensor::ones([1, 2], &flex()), state);
        }
        let AdamEState {
            time,
            moment_1,
            moment_2,
            age,
        } = state.unwrap();
        let zero_second = tensor(&[1.0, 0.0], [1, 2], &flex());
        let state = AdamEState {
            time,
            moment_1: moment_1 * zero_second.clone(),
            moment_2: moment_2 * zero_second.clone(),
            age: age.map(|age| age * zero_second),
        };
        let before = values(&param);
        let (after, _) = rule.step(LR, param, Tensor::ones([1, 2], &flex()), Some(state));
        (before[1] - values(&after)[1]).abs()
    };
    let (own, shared) = (first_step(Some(1)), first_step(None));
    assert!((own - LR as f32).abs() < 1e-5, "{own}");
    assert!(shared / own > 2.0, "{shared} against {own}");
}

/// State that went through Burn's record goes on as if it had not.
#[test]
fn a_record_keeps_the_state_to_the_bit() {
    let device = flex().autodiff();
    let (module, config) = Small::trained(47, [3, 4, 2], &device);
    let adam = AdamEConfig::default();
    let x = tensor(&Numbers::new(47).signed(8 * 5), [8, 5], &device);
    let (mut module, mut optimizer) = (module, adapter_optimizer(&config, &adam));
    for _ in 0..3 {
        let grads = loss_gradients(&module, &x);
        module = optimizer.step(LR, module, grads);
    }
    let bytes = optimizer.to_record().into_bytes().unwrap();
    let record = burn::optim::OptimizerRecord::from_bytes(bytes).unwrap();
    let mut restored = adapter_optimizer(&config, &adam).load_record(record);
    let grads = || loss_gradients(&module, &x);
    let want = optimizer.step(LR, module.clone(), grads());
    let got = restored.step(LR, module.clone(), grads());
    assert_eq!(got.data(), want.data());
}
