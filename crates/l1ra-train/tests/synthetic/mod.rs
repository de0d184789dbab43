//! A run that never was: every call that an observer gets, with the time of each.

use std::time::Duration;

use l1ra_core::{BudgetUnit, RankPlan, allocation::RankChange};
use l1ra_train::{
    TrainError,
    callback::RankUpdate,
    eval::EvalResult,
    observe::{AdapterInfo, Observer, RunStart, StepMetrics, live::LiveState},
    ranks::{RankEntry, RankTable},
    run::RunReport,
};

/// Modules of a Llama layer: path, inputs, outputs, and the ranks that an update deals it.
const MODULES: [(&str, usize, usize, i64); 7] = [
    ("self_attn.q_proj", 576, 576, -1),
    ("self_attn.k_proj", 576, 192, -1),
    ("self_attn.v_proj", 576, 192, -2),
    ("self_attn.o_proj", 576, 576, 0),
    ("mlp.gate_proj", 576, 1536, 2),
    ("mlp.up_proj", 576, 1536, 1),
    ("mlp.down_proj", 1536, 576, 1),
];

/// A call of an observer.
#[derive(Clone, Debug)]
pub(crate) enum Call {
    Started(RunStart),
    Step(StepMetrics),
    Evaluating(usize, usize, usize),
    Evaluated(usize, EvalResult),
    RanksMoved(RankUpdate),
    Finished(Box<RunReport>),
}

impl Call {
    pub(crate) fn tell(&self, observer: &mut dyn Observer) -> Result<(), TrainError> {
        match self {
            Self::Started(start) => observer.started(start),
            Self::Step(metrics) => observer.step(metrics),
            Self::Evaluating(step, done, total) => observer.evaluating(*step, *done, *total),
            Self::Evaluated(step, result) => observer.evaluated(*step, result),
            Self::RanksMoved(update) => observer.ranks_moved(update),
            Self::Finished(report) => observer.finished(report),
        }
    }

    pub(crate) fn apply(&self, state: &mut LiveState, now: Duration) {
        match self {
            Self::Started(start) => state.started(start, now),
            Self::Step(metrics) => state.step(metrics, now),
            Self::Evaluating(_, done, total) => state.evaluating(*done, *total, now),
            Self::Evaluated(step, result) => state.evaluated(*step, result, now),
            Self::RanksMoved(update) => state.ranks_moved(update, now),
            Self::Finished(report) => state.finished(report, now),
        }
    }
}

/// Adapters of a model of `layers` layers and the first `modules` modules.
pub(crate) fn adapters(layers: usize, modules: usize, rank: usize) -> Vec<AdapterInfo> {
    let adapter = |layer: usize, module: usize| AdapterInfo {
        path: format!("model.layers.{layer}.{}", MODULES[module].0),
        d_in: MODULES[module].1,
        d_out: MODULES[module].2,
        rank,
    };
    (0..layers)
        .flat_map(|layer| (0..modules).map(move |module| adapter(layer, module)))
        .collect()
}

/// The update that takes `ranks` to `after`.
pub(crate) fn update(step: usize, ranks: &[usize], after: &[usize]) -> RankUpdate {
    let change = |(before, after): (&usize, &usize)| RankChange {
        path: String::new(),
        before: *before,
        pruned: (0..before.saturating_sub(*after)).collect(),
        added: after.saturating_sub(*before),
    };
    let changes: Vec<RankChange> = ranks.iter().zip(after).map(change).collect();
    let grown = changes.iter().enumerate();
    let grown = grown.flat_map(|(index, change)| std::iter::repeat_n(index, change.added));
    RankUpdate {
        step,
        plan: RankPlan {
            min_values: vec![0.5; ranks.len()],
            excluded: Vec::new(),
            order: Vec::new(),
            grown: grown.collect(),
            spare: changes.iter().map(|change| change.pruned.len()).sum(),
            restart_optimizer: false,
            marked: Vec::new(),
            changes,
        },
        gates: ranks.iter().map(|rank| vec![0.5; *rank]).collect(),
    }
}

fn eval(loss: f64) -> EvalResult {
    EvalResult {
        loss,
        perplexity: loss.exp(),
        tokens: 4000,
    }
}

fn metrics(step: usize, draw: &mut u64) -> StepMetrics {
    *draw = draw
        .wrapping_mul(6364136223846793005)
        .wrapping_add(1442695040888963407);
    let noise = (*draw >> 40) as f64 / (1 << 24) as f64 - 0.5;
    StepMetrics {
        step,
        loss: 2.3 + 1.2 * (-(step as f64) / 60.0).exp() + 0.3 * noise,
        grad_norm: 0.9 + 0.4 * noise,
        lr: 1e-4 * (1.0 - step as f64 / 440.0),
        targets: 300,
        tokens: 400 + (100.0 * noise) as usize,
        seconds: step as f64 * 1.9,
        resident_bytes: 1_480_000_000 + 200_000 * step as u64,
    }
}

/// The ranks after the `round`th update: attention gives to the MLP, the last layers most, until
/// one of its adapters has two ranks left.
fn deal(layers: usize, ranks: &[usize], round: usize) -> Vec<usize> {
    let after = |(index, rank): (usize, &usize)| {
        let (layer, module) = (index / 7, index % 7);
        let turn = 1 + (layers - layer) * 3 / layers;
        let moves = round.is_multiple_of(turn) && ranks[layer * 7 + 2] > 2;
        let by = if moves { MODULES[module].3 } else { 0 };
        (*rank as i64 + by) as usize
    };
    ranks.iter().enumerate().map(after).collect()
}

/// A run of 400 steps on a model of `layers` layers of seven modules, ranks of 16 that move every
/// 40 steps, an evaluation every 100.
pub(crate) fn run(layers: usize) -> Vec<(Duration, Call)> {
    let steps = 400;
    let start = RunStart {
        steps,
        update_steps: (1..=9).map(|round| round * 40).collect(),
        adapters: adapters(layers, 7, 16),
        budget: layers * 7 * 16,
        unit: BudgetUnit::Ranks,
    };
    let mut ranks = vec![16; layers * 7];
    let mut calls = vec![(Duration::ZERO, Call::Started(start.clone()))];
    let (mut now, mut draw) = (0.0, 7);
    let mut losses = Vec::new();
    let mut updates = Vec::new();
    for step in 0..=steps {
        let mut say = |seconds: f64, call| {
            now += seconds;
            calls.push((Duration::from_secs_f64(now), call));
        };
        if step > 0 {
            let metrics = metrics(step, &mut draw);
            losses.push(metrics.loss);
            say(1.9, Call::Step(metrics));
        }
        if start.update_steps.contains(&step) {
            let after = deal(layers, &ranks, step / 40);
            let update = update(step, &ranks, &after);
            ranks = after;
            updates.push(update.clone());
            say(0.01, Call::RanksMoved(update));
        }
        if step.is_multiple_of(100) {
            (1..=10).for_each(|done| say(0.5, Call::Evaluating(step, done, 10)));
            let loss = 2.4 + 1.1 * (-(step as f64) / 60.0).exp();
            say(0.0, Call::Evaluated(step, eval(loss)));
        }
    }
    let entry = |(adapter, after): (&AdapterInfo, &usize)| RankEntry {
        path: adapter.path.clone(),
        before: adapter.rank,
        after: *after,
    };
    let report = RunReport {
        before: eval(3.5),
        after: eval(2.4014),
        losses,
        ranks: RankTable {
            entries: start.adapters.iter().zip(&ranks).map(entry).collect(),
        },
        updates,
        gates: ranks.iter().map(|rank| vec![0.5; *rank]).collect(),
        parameters: [
            start.parameters(&vec![16; ranks.len()]),
            start.parameters(&ranks),
        ],
        tokens: 160_000,
        seconds: 760.0,
        peak_bytes: 1_560_000_000,
    };
    calls.push((
        Duration::from_secs_f64(now),
        Call::Finished(Box::new(report)),
    ));
    calls
}
