//! Proves the invariants of rank plans over random gates, shapes and rules, and that a plan carried
//! out keeps the bits of everything that survives.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::{BTreeMap, HashMap};

use burn::{
    module::ParamId,
    optim::{GradientsParams, ModuleOptimizer},
    tensor::Tensor,
};
use burn_pack::Reader;
use common::{Numbers, Small, assert_close, bits, devices, flex, tensor, values};
use l1ra_core::{
    BudgetUnit, Init, L1raConfig, Policy, RankAllocator, RankPlan,
    allocation::{AdapterGates, PlanRules, plan, surgery},
    init::SeededNoise,
    optim::{AdamEConfig, adapter_optimizer},
    walk::{self, AdapterView},
};
use proptest::prelude::*;

/// One random run: adapters, rules, and a seed for the gates of its chain of plans.
#[derive(Clone, Debug)]
struct Run {
    adapters: Vec<AdapterGates>,
    config: L1raConfig,
    seed: u64,
}

fn runs(policy: Policy, unit: BudgetUnit) -> impl Strategy<Value = Run> {
    let adapter = (1..=24_usize, 1..=24_usize, 1..=9_usize);
    let adapters = prop::collection::vec(adapter, 1..=9);
    let max_rank = prop::option::of(1..=20_usize);
    let flags = (any::<bool>(), any::<bool>());
    (adapters, max_rank, flags, any::<u64>()).prop_map(
        move |(dims, max_rank, (exclude_pruned, allow_zero_rank), seed)| {
            let mut numbers = Numbers::new(seed);
            let mut adapters: Vec<AdapterGates> = dims
                .into_iter()
                .enumerate()
                .map(|(index, (d_in, d_out, rank))| {
                    let rank = rank.min(d_in).min(d_out);
                    AdapterGates {
                        path: format!("layers.{index}.q_proj"),
                        d_in,
                        d_out,
                        initial_rank: rank,
                        gates: vec![1.0; rank],
                        importance: Vec::new(),
                    }
                })
                .collect();
            numbers.shuffle(&mut adapters);
            let config = L1raConfig {
                policy,
                budget: Some(unit),
                max_rank,
                exclude_pruned,
                allow_zero_rank,
                ..Default::default()
            };
            Run {
                adapters,
                config,
                seed,
            }
        },
    )
}

/// Gates of one adapter before a plan; one style for a whole plan makes the extremes common.
fn gates(style: usize, rank: usize, numbers: &mut Numbers) -> Vec<f32> {
    let mut one = |zeros: f64, low: f64| match numbers.unit() < zeros {
        true => 0.0,
        false => (low + (1.0 - low) * numbers.unit()) as f32,
    };
    let mut of = |zeros: f64, low: f64| (0..rank).map(|_| one(zeros, low)).collect();
    match style {
        0 => vec![0.0; rank],
        1 => vec![1.0; rank],
        2 => of(0.9, 0.0),
        3 => of(0.3, 0.0),
        4 => of(0.1, 0.0),
        // Raw gates, before any clamp.
        5 => of(0.2, -1.0),
        // Few different values, so that ties are common.
        _ => of(0.2, 0.0)
            .into_iter()
            .map(|gate: f32| (gate * 3.0).round() / 3.0)
            .collect(),
    }
}

/// New gates for every rank: mostly all adapters in one style, sometimes each in its own.
fn draw_gates(adapters: &mut [AdapterGates], numbers: &mut Numbers) {
    let (common, mixed) = (numbers.whole(0, 6), numbers.unit() < 0.5);
    for adapter in adapters {
        let style = if mixed { numbers.whole(0, 6) } else { common };
        adapter.gates = gates(style, adapter.gates.len(), numbers);
    }
}

/// The adapters after `plan`, all gates one.
fn carry_out(adapters: &mut [AdapterGates], plan: &RankPlan) {
    for (adapter, rank) in adapters.iter_mut().zip(plan.ranks()) {
        adapter.gates = vec![1.0; rank];
    }
}

fn held(adapters: &[AdapterGates], plan: &RankPlan, rules: &PlanRules) -> usize {
    adapters
        .iter()
        .zip(plan.ranks())
        .map(|(a, rank)| rank * rules.price(a))
        .sum()
}

/// What holds for every plan of every policy.
fn check_form(adapters: &[AdapterGates], plan: &RankPlan) -> Result<(), TestCaseError> {
    prop_assert_eq!(plan.changes.len(), adapters.len());
    prop_assert_eq!(plan.min_values.len(), adapters.len());
    let mut added = vec![0; adapters.len()];
    plan.grown.iter().for_each(|index| added[*index] += 1);
    for ((adapter, change), added) in adapters.iter().zip(&plan.changes).zip(added) {
        prop_assert_eq!(&change.path, &adapter.path);
        prop_assert_eq!(change.before, adapter.gates.len());
        prop_assert!(change.pruned.is_sorted_by(|a, b| a < b), "{:?}", change);
        prop_assert!(
            change.pruned.iter().all(|index| *index < change.before),
            "{:?}",
            change
        );
        prop_assert_eq!(change.added, added);
        let mut all = [change.kept(), change.pruned.clone()].concat();
        all.sort_unstable();
        prop_assert_eq!(all, (0..change.before).collect::<Vec<_>>());
    }
    let pruned: usize = plan.changes.iter().map(|change| change.pruned.len()).sum();
    prop_assert_eq!(plan.spare, pruned);
    Ok(())
}

/// What holds for every plan of the l1ra policy, whatever the budget counts.
fn check_l1ra(
    adapters: &[AdapterGates],
    plan: &RankPlan,
    rules: &PlanRules,
) -> Result<(), TestCaseError> {
    check_form(adapters, plan)?;
    prop_assert!(!plan.restart_optimizer);
    let room = |index: usize| plan.changes[index].after() < rules.capacity(&adapters[index]);
    for (adapter, change) in adapters.iter().zip(&plan.changes) {
        prop_assert!(change.after() <= rules.capacity(adapter), "{:?}", change);
        if !rules.allow_zero_rank {
            prop_assert!(change.after() >= 1, "{:?}", change);
        }
        let dead = adapter.gates.iter().filter(|gate| **gate <= 0.0).count();
        let stays = usize::from(!rules.allow_zero_rank && dead == change.before && dead > 0);
        prop_assert_eq!(change.pruned.len(), dead - stays);
        prop_assert!(
            change
                .pruned
                .iter()
                .all(|index| adapter.gates[*index] <= 0.0)
        );
    }
    if rules.exclude_pruned && rules.unit == BudgetUnit::Ranks {
        // An adapter that lost a rank is served only when every other one is full.
        let served = plan
            .excluded
            .iter()
            .any(|index| plan.changes[*index].added > 0);
        let waiting = (0..adapters.len())
            .filter(|index| !plan.excluded.contains(index) && !adapters[*index].gates.is_empty());
        prop_assert!(!served || waiting.into_iter().all(|index| !room(index)));
    }
    Ok(())
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(4000))]

    #[test]
    fn in_ranks_the_budget_is_kept_by_every_plan(run in runs(Policy::Lasso, BudgetUnit::Ranks)) {
        let Run { mut adapters, config, seed } = run;
        let rules = PlanRules::new(&config, &adapters);
        let mut numbers = Numbers::new(seed);
        for _ in 0..5 {
            draw_gates(&mut adapters, &mut numbers);
            let plan = plan(&adapters, &rules).unwrap();
            check_l1ra(&adapters, &plan, &rules)?;
            prop_assert_eq!(plan.ranks().iter().sum::<usize>(), rules.budget);
            carry_out(&mut adapters, &plan);
        }
    }

    #[test]
    fn in_parameters_the_budget_is_never_passed_nor_wasted(
        run in runs(Policy::Lasso, BudgetUnit::Parameters)
    ) {
        let Run { mut adapters, config, seed } = run;
        let rules = PlanRules::new(&config, &adapters);
        let mut numbers = Numbers::new(seed);
        for _ in 0..5 {
            draw_gates(&mut adapters, &mut numbers);
            let plan = plan(&adapters, &rules).unwrap();
            check_l1ra(&adapters, &plan, &rules)?;
            let held = held(&adapters, &plan, &rules);
            prop_assert!(held <= rules.budget, "{} of {}", held, rules.budget);
            let cheapest = adapters
                .iter()
                .zip(plan.ranks())
                .filter(|(adapter, rank)| *rank < rules.capacity(adapter))
                .map(|(adapter, _)| rules.price(adapter))
                .min();
            if let Some(cheapest) = cheapest {
                prop_assert!(rules.budget - held < cheapest, "{} of {}", held, rules.budget);
            }
            carry_out(&mut adapters, &plan);
        }
    }
}

proptest! {
    #![proptest_config(config(1500))]

    #[test]
    fn the_order_of_the_adapters_does_not_matter(
        run in prop_oneof![
            runs(Policy::Lasso, BudgetUnit::Ranks),
            runs(Policy::Lasso, BudgetUnit::Parameters),
        ]
    ) {
        let Run { mut adapters, config, seed } = run;
        let rules = PlanRules::new(&config, &adapters);
        let mut numbers = Numbers::new(seed);
        for _ in 0..3 {
            draw_gates(&mut adapters, &mut numbers);
            let here = plan(&adapters, &rules).unwrap();
            let mut shuffled = adapters.clone();
            numbers.shuffle(&mut shuffled);
            let there = plan(&shuffled, &rules).unwrap();
            let by_path = |plan: &RankPlan| -> BTreeMap<String, _> {
                plan.changes.iter().map(|change| (change.path.clone(), change.clone())).collect()
            };
            let paths = |plan: &RankPlan, which: &[usize]| -> Vec<String> {
                which.iter().map(|index| plan.changes[*index].path.clone()).collect()
            };
            prop_assert_eq!(by_path(&here), by_path(&there));
            prop_assert_eq!(paths(&here, &here.grown), paths(&there, &there.grown));
            prop_assert_eq!(paths(&here, &here.order), paths(&there, &there.order));
            carry_out(&mut adapters, &here);
        }
    }

    #[test]
    fn without_reassignment_the_total_only_shrinks(run in runs(Policy::Lasso, BudgetUnit::Ranks)) {
        let Run { mut adapters, config, seed } = run;
        let config = L1raConfig { reassign: false, ..config };
        let rules = PlanRules::new(&config, &adapters);
        let mut numbers = Numbers::new(seed);
        for _ in 0..3 {
            draw_gates(&mut adapters, &mut numbers);
            let plan = plan(&adapters, &rules).unwrap();
            check_l1ra(&adapters, &plan, &rules)?;
            prop_assert!(plan.grown.is_empty());
            carry_out(&mut adapters, &plan);
        }
    }

    #[test]
    fn the_reference_conserves_unless_every_adapter_is_excluded(
        run in runs(Policy::Reference, BudgetUnit::Ranks)
    ) {
        let Run { mut adapters, config, seed } = run;
        let rules = PlanRules::new(&config, &adapters);
        let mut numbers = Numbers::new(seed);
        for _ in 0..5 {
            draw_gates(&mut adapters, &mut numbers);
            let before: usize = adapters.iter().map(|adapter| adapter.gates.len()).sum();
            let plan = plan(&adapters, &rules).unwrap();
            check_form(&adapters, &plan)?;
            let after: usize = plan.ranks().iter().sum();
            let lost = rules.exclude_pruned && plan.excluded.len() == adapters.len();
            prop_assert_eq!(after, if lost { before - plan.spare } else { before });
            prop_assert!(plan.ranks().iter().all(|rank| *rank >= 1));
            prop_assert_eq!(plan.restart_optimizer, plan.spare > 0);
            for (index, adapter) in adapters.iter().enumerate() {
                let under = adapter.gates.iter().filter(|gate| **gate < 1e-10).count();
                prop_assert_eq!(plan.excluded.contains(&index), under > 0);
                let all = under == adapter.gates.len();
                let change = &plan.changes[index];
                prop_assert_eq!(change.pruned.len(), under - usize::from(all));
                if all {
                    prop_assert_eq!(change.kept(), [change.before - 1]);
                }
            }
            carry_out(&mut adapters, &plan);
        }
    }

    #[test]
    fn the_fixed_policy_never_moves_a_rank(run in runs(Policy::Fixed, BudgetUnit::Ranks)) {
        let Run { mut adapters, config, seed } = run;
        let rules = PlanRules::new(&config, &adapters);
        draw_gates(&mut adapters, &mut Numbers::new(seed));
        let plan = plan(&adapters, &rules).unwrap();
        check_form(&adapters, &plan)?;
        prop_assert!(!plan.is_change() && !plan.restart_optimizer);
    }
}

#[test]
fn a_gate_that_is_no_number_is_refused_by_name() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for policy in [Policy::Lasso, Policy::Reference, Policy::Fixed] {
            let adapter = |path: &str, gates: Vec<f32>| AdapterGates {
                path: path.into(),
                d_in: 4,
                d_out: 4,
                initial_rank: 2,
                gates,
                importance: Vec::new(),
            };
            let adapters = [adapter("a", vec![1.0, 0.0]), adapter("b", vec![1.0, bad])];
            let rules = PlanRules::new(
                &L1raConfig {
                    policy,
                    ..Default::default()
                },
                &adapters,
            );
            let message = plan(&adapters, &rules).unwrap_err().to_string();
            let want = format!("adapter `b`: gate 1 is {bad}; a gate must be a finite number");
            assert!(message.starts_with(&want), "{message}");
        }
    }
}

/// Values of A, c, B and of both moments of each, `[rank][..]`: everything that one rank owns.
struct Owned {
    parts: Vec<Vec<Vec<u32>>>,
}

/// Slices of a row-major `[rows, columns]` array: its columns, or its rows.
fn slices(values: &[f32], columns: usize, by_column: bool) -> Vec<Vec<u32>> {
    if by_column {
        (0..columns)
            .map(|k| {
                values
                    .iter()
                    .skip(k)
                    .step_by(columns)
                    .map(|v| v.to_bits())
                    .collect()
            })
            .collect()
    } else {
        values.chunks(columns).map(bits).collect()
    }
}

/// A named f32 array of the optimizer's record.
type Moments = HashMap<(ParamId, &'static str), Vec<f32>>;

/// Both moments of every parameter, read from the record's bytes.
fn moments(optimizer: &ModuleOptimizer) -> Moments {
    let reader = Reader::from_bytes(optimizer.to_record().into_bytes().unwrap()).unwrap();
    let mut moments = HashMap::new();
    for tensor in reader.into_tensors().unwrap() {
        let (name, _, _, id, bytes) = tensor.into_parts().unwrap();
        let id = ParamId::from(id.unwrap());
        let Some(which) = ["moment_1", "moment_2", "age"]
            .into_iter()
            .find(|m| name.ends_with(m))
        else {
            continue;
        };
        let values = bytes
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
            .collect();
        moments.insert((id, which), values);
    }
    moments
}

fn owned(view: &AdapterView, moments: &Moments) -> Owned {
    let (r, d_out) = (view.rank(), view.dims()[1]);
    let [a, c, b] = view.ids;
    let mut parts = vec![
        slices(&values(&view.a), r, true),
        slices(&values(&view.c), 1, false),
        slices(&values(&view.b), d_out, false),
    ];
    for which in ["moment_1", "moment_2"] {
        parts.push(slices(&moments[&(a, which)], r, true));
        parts.push(slices(&moments[&(c, which)], 1, false));
        parts.push(slices(&moments[&(b, which)], d_out, false));
    }
    for id in [a, c, b] {
        parts.push(slices(&moments[&(id, "age")], 1, false));
    }
    Owned { parts }
}

/// Random ranks, two steps of random gradients, random gates, one plan.
#[test]
fn a_plan_carried_out_keeps_the_bits_of_what_survives() {
    for (name, device) in devices() {
        for seed in 0..40 {
            let mut n = Numbers::new(seed);
            let device = device.clone().autodiff();
            let ranks = [n.whole(1, 4), n.whole(1, 4), n.whole(1, 4)];
            let (mut module, config) = Small::trained(seed, ranks, &device);
            let config = L1raConfig {
                allow_zero_rank: seed % 3 == 0,
                exclude_pruned: seed % 2 == 0,
                ..config
            };
            let mut optimizer = adapter_optimizer(&config, &AdamEConfig::default());
            for _ in 0..2 {
                let mut grads = GradientsParams::new();
                for view in walk::adapters(&module) {
                    let ([a, c, b], inner) = (view.ids, device.clone().inner());
                    grads.register(a, random_like(&view.a, &mut n, &inner));
                    grads.register(c, random_like(&view.c, &mut n, &inner));
                    grads.register(b, random_like(&view.b, &mut n, &inner));
                }
                module = optimizer.step(0.05, module, grads);
            }
            let views = walk::adapters(&module);
            let adapters: Vec<AdapterGates> = views
                .iter()
                .map(|view| AdapterGates {
                    path: view.path.clone(),
                    d_in: view.dims()[0],
                    d_out: view.dims()[1],
                    initial_rank: view.rank(),
                    gates: view.gates().unwrap(),
                    importance: Vec::new(),
                })
                .collect();
            let plan = plan(&adapters, &PlanRules::new(&config, &adapters)).unwrap();
            let before = moments(&optimizer);
            let initial = views
                .iter()
                .map(|view| (view.path.clone(), view.rank()))
                .collect();
            let optimizer = surgery::apply_to_optimizer(&optimizer, &module, &plan).unwrap();
            let mut noise = SeededNoise::new(seed);
            let module =
                surgery::apply_to_module(module, &plan, &initial, &mut noise, Init::Gaussian, 0)
                    .unwrap();
            let after = moments(&optimizer);
            assert_eq!(before.len(), after.len());
            for ((old, new), change) in views
                .iter()
                .zip(&walk::adapters(&module))
                .zip(&plan.changes)
            {
                let what = format!("{name} seed {seed} {change:?}");
                assert_eq!(new.ids, old.ids, "{what}");
                assert_eq!(new.rank(), change.after().max(1), "{what}");
                assert_eq!(
                    bits(&values(&new.scale)),
                    bits(&values(&old.scale)),
                    "{what}"
                );
                let (old, owned) = (owned(old, &before), owned(new, &after));
                for (part, (old, new)) in old.parts.iter().zip(&owned.parts).enumerate() {
                    let want: Vec<&Vec<u32>> = change.kept().iter().map(|k| &old[*k]).collect();
                    let got: Vec<&Vec<u32>> = new.iter().take(want.len()).collect();
                    assert_eq!(got, want, "{what} part {part}");
                }
                let zero = |part: usize, k: usize| owned.parts[part][k].iter().all(|v| *v == 0);
                for k in change.kept().len()..new.rank() {
                    let gate = if change.after() == 0 { 0.0_f32 } else { 1.0 };
                    assert_eq!(owned.parts[1][k], [gate.to_bits()], "{what}");
                    assert!((2..12).all(|part| zero(part, k)), "{what} rank {k}");
                    assert_eq!(zero(0, k), change.after() == 0, "{what}: a new column of A");
                }
            }
            for (linear, old) in module.layers.iter().zip(&Small::new(seed, &device).layers) {
                assert_eq!(
                    bits(&values(&linear.weight.val())),
                    bits(&values(&old.weight.val()))
                );
            }
            let adapter = module.head.adapter.as_ref().unwrap();
            assert!(
                adapter.lora_a.val().is_require_grad() && adapter.lora_c.val().is_require_grad()
            );
            assert!(adapter.lora_b.val().is_require_grad());
            assert!(!adapter.lora_scale.val().is_require_grad());
        }
    }
}

fn random_like<const D: usize>(
    like: &Tensor<D>,
    numbers: &mut Numbers,
    device: &burn::tensor::Device,
) -> Tensor<D> {
    let shape = like.dims();
    tensor(&numbers.signed(shape.iter().product()), shape, device)
}

/// A whole run with its allocator: gates die under a strong penalty, ranks move, and neither the
/// budget nor any output changes when they do.
#[test]
fn a_run_keeps_its_budget_and_an_update_changes_no_output() {
    let mut moved = 0;
    for (seed, unit, zero) in [
        (1, BudgetUnit::Ranks, false),
        (2, BudgetUnit::Ranks, true),
        (3, BudgetUnit::Parameters, false),
        (4, BudgetUnit::Parameters, true),
    ] {
        let device = flex().autodiff();
        let (mut module, config) = Small::trained(seed, [4, 3, 4], &device);
        let config = L1raConfig {
            budget: Some(unit),
            allow_zero_rank: zero,
            lambda: 2.0,
            update_ratio: 0.1,
            ..config
        };
        let adam = AdamEConfig::default();
        let mut optimizer = adapter_optimizer(&config, &adam);
        let mut allocator = RankAllocator::new(&module, &config, &adam, 50, 3).unwrap();
        let cost = |module: &Small, asleep: bool| -> usize {
            walk::adapters(module)
                .iter()
                .filter(|view| asleep || view.gates().unwrap().iter().any(|gate| *gate != 0.0))
                .map(|view| match unit {
                    BudgetUnit::Ranks => view.rank(),
                    BudgetUnit::Parameters => view.rank() * (view.dims().iter().sum::<usize>() + 1),
                })
                .sum()
        };
        assert_eq!(allocator.budget(), cost(&module, true));
        let mut numbers = Numbers::new(seed);
        let x = tensor(&numbers.signed(6 * 5), [6, 5], &device);
        let goal = tensor(&numbers.signed(6 * 4), [6, 4], &device);
        for step in 1..=50 {
            let loss = (module.forward(x.clone()) - goal.clone()).square().mean();
            let grads = GradientsParams::from_grads(loss.backward(), &module);
            module = optimizer.step(0.02, module, grads);
            let before = values(&module.forward(x.clone()));
            let (next, outcome) = allocator
                .after_step(module, &mut optimizer)
                .map_err(|(_, error)| error)
                .unwrap();
            module = next;
            let due = [5, 10, 15, 20, 25, 30, 35, 40].contains(&step);
            assert_eq!((outcome.step, outcome.plan.is_some()), (step, due));
            assert_close("output", &values(&module.forward(x.clone())), &before, 1e-6);
            if let Some(plan) = outcome.plan {
                moved += plan.spare;
                assert!(cost(&module, false) <= allocator.budget());
                if unit == BudgetUnit::Ranks {
                    assert_eq!(plan.ranks().iter().sum::<usize>(), allocator.budget());
                }
            }
        }
    }
    assert!(moved > 20, "only {moved} ranks were pruned");
}

#[test]
fn a_failed_update_leaves_module_and_optimizer_as_they_were() {
    let device = flex().autodiff();
    let (mut module, config) = Small::trained(5, [2, 2, 2], &device);
    let adam = AdamEConfig::default();
    let mut optimizer = adapter_optimizer(&config, &adam);
    let mut allocator = RankAllocator::new(&module, &config, &adam, 20, 0).unwrap();
    let gates = &mut module.head.adapter.as_mut().unwrap().lora_c;
    *gates = common::set(gates.clone(), &[0.5, f32::NAN]);
    let (next, _) = allocator
        .after_step(module, &mut optimizer)
        .map_err(|(_, e)| e)
        .unwrap();
    let (module, error) = allocator.after_step(next, &mut optimizer).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("adapter `head`: gate 1 is NaN"),
        "{error}"
    );
    assert_eq!(walk::adapters(&module).len(), 3);
}
