//! Full runs of the authors' algorithm, recorded with PyTorch, replayed step by step through
//! Burn's `Learner` with the policy `reference`.
//!
//! Replays every `trace_*.json` with its `.safetensors` in `L1RA_TRACE_DIR`, on the models in
//! `L1RA_TRACE_MODELS`; both default to the repository's copies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
    train::Learner,
};
use l1ra_core::{
    AdaptedModule, GatedLora, Init, L1raConfig, Policy, RankAllocator,
    init::Noise,
    optim::{AdamEConfig, adapter_optimizer},
    parse_device, walk,
};
use l1ra_models::{ModelConfig, weights};
use l1ra_train::{
    FineTune, RankCallback,
    clip::scale_and_clip,
    data::{Origin, TokenBatch},
    schedule::{GateSchedule, Shape, WarmupSchedule, adapter_schedule},
};
use safetensors::SafeTensors;
use serde::Deserialize;

#[derive(Deserialize)]
struct Trace {
    name: String,
    model: String,
    hyper: Hyper,
    adapters: Vec<Adapter>,
    steps: Vec<Step>,
}

#[derive(Deserialize)]
struct Hyper {
    r: usize,
    alpha: f64,
    dropout: f64,
    l1ra_lambda: f64,
    eta_c: f64,
    rank_update_ratio: f64,
    prune_threshold: f64,
    reassign: bool,
    exclude_pruned: bool,
    total_steps: usize,
    lr: f64,
    schedule: String,
    warmup_steps: usize,
    weight_decay: f64,
    max_grad_norm: f64,
    betas: [f64; 2],
    eps: f64,
    gate_lr_quirk: bool,
}

#[derive(Deserialize)]
struct Adapter {
    name: String,
    in_features: usize,
    out_features: usize,
}

#[derive(Deserialize)]
struct Step {
    loss: f64,
    grad_norm: f64,
    ranks: Vec<usize>,
    gates_raw_after_step: Vec<Vec<f64>>,
    report: Option<Report>,
}

#[derive(Deserialize)]
struct Report {
    before: Vec<usize>,
    after: Vec<usize>,
    pruned: Vec<Vec<usize>>,
    excluded: Vec<usize>,
    order: Vec<usize>,
    grown: Vec<usize>,
    spare: usize,
    changed: bool,
}

/// Largest deviations of a replay.
#[derive(Default)]
struct Largest {
    loss: f64,
    norm: f64,
    gates: f64,
    matrices: f64,
    delta: f64,
    logits: f64,
}

/// Growth columns as they were recorded.
struct Bank {
    values: Vec<f32>,
    width: usize,
}

impl Noise for Bank {
    fn column(&mut self, _path: &str, count: usize, d_in: usize, _init: Init) -> Vec<f32> {
        self.values[count * self.width..count * self.width + d_in].to_vec()
    }
}

struct Tensors<'a>(SafeTensors<'a>);

impl Tensors<'_> {
    fn floats(&self, name: &str) -> Vec<f32> {
        let view = self
            .0
            .tensor(name)
            .unwrap_or_else(|_| panic!("tensor {name}"));
        view.data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    }

    fn data(&self, name: &str) -> TensorData {
        TensorData::new(
            self.floats(name),
            self.0.tensor(name).unwrap().shape().to_vec(),
        )
    }

    /// The batches of all steps.
    fn input_ids(&self) -> (Vec<i64>, [usize; 3]) {
        let view = self.0.tensor("input_ids").unwrap();
        let ids = view
            .data()
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
        let shape = view.shape();
        (ids.collect(), [shape[0], shape[1], shape[2]])
    }
}

fn difference(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| f64::from((a - b).abs()))
        .fold(0.0, f64::max)
}

fn folder(variable: &str, default: &str) -> PathBuf {
    std::env::var_os(variable).map_or_else(
        || {
            Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("../../tests/fixtures")
                .join(default)
        },
        PathBuf::from,
    )
}

#[test]
fn traces_replay() {
    let dir = folder("L1RA_TRACE_DIR", "golden");
    let models = folder("L1RA_TRACE_MODELS", "");
    let mut traces: Vec<PathBuf> = std::fs::read_dir(&dir)
        .unwrap_or_else(|error| panic!("{}: {error}", dir.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_string_lossy();
            name.starts_with("trace_") && name.ends_with(".json")
        })
        .collect();
    traces.sort();
    assert!(!traces.is_empty(), "no trace_*.json in {}", dir.display());
    for path in traces {
        replay(&path, &models);
    }
}

/// `flex`, or what `L1RA_TEST_DEVICE` says.
fn device() -> Device {
    let name = std::env::var("L1RA_TEST_DEVICE");
    parse_device(name.as_deref().unwrap_or("flex")).unwrap()
}

fn replay(path: &Path, models: &Path) {
    let trace: Trace = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
    let tensors = Tensors(SafeTensors::deserialize(&bytes).unwrap());
    let device = device().autodiff();
    let (model, raw_gates, ranks) = learner_model(&trace, &tensors, models, &device);
    let mut learner = learner(&trace, model);
    let (ids, [steps, batch, length]) = tensors.input_ids();
    assert_eq!(steps, trace.steps.len());

    let mut largest = Largest::default();
    for (s, expected) in trace.steps.iter().enumerate() {
        let name = format!("{} step {s}", trace.name);
        let views = walk::adapters(&learner.model());
        let seen: Vec<usize> = views.iter().map(walk::AdapterView::rank).collect();
        assert_eq!(seen, expected.ranks, "{name}: ranks");
        check_report(&name, s, expected, &ranks);

        let input = batch_of(
            &ids[s * batch * length..(s + 1) * batch * length],
            batch,
            length,
            &device,
        );
        let targets = input.target_count as f64;
        learner.lr_step();
        let output = learner.train_step(input);
        let loss = output.item.sum() / targets;
        let (grads, norm) = scale_and_clip(
            &learner.model(),
            output.grads,
            1.0 / targets,
            trace.hyper.max_grad_norm,
        );
        learner.optimizer_step(grads);
        largest.loss = largest.loss.max((loss - expected.loss).abs());
        largest.norm = largest.norm.max((norm - expected.grad_norm).abs());
        let gates = raw_gates.lock().unwrap();
        for (gates, expected) in gates.iter().zip(&expected.gates_raw_after_step) {
            let expected: Vec<f32> = expected.iter().map(|gate| *gate as f32).collect();
            largest.gates = largest.gates.max(difference(gates, &expected));
        }
    }
    compare_final(
        &trace,
        &tensors,
        &learner,
        &ids[..batch * length],
        [batch, length],
        &mut largest,
    );
    println!(
        "{:<16} {} steps, {} updates; largest deviation: loss {:.1e}  grad norm {:.1e}  \
         gates {:.1e}  A, B {:.1e}  delta {:.1e}  logits {:.1e}",
        trace.name,
        steps,
        ranks.updates().len(),
        largest.loss,
        largest.norm,
        largest.gates,
        largest.matrices,
        largest.delta,
        largest.logits
    );
    assert!(largest.loss < 1e-4, "{}: losses", trace.name);
    assert!(largest.gates < 5e-4, "{}: gates", trace.name);
    assert!(largest.matrices < 5e-4, "{}: A and B", trace.name);
    assert!(
        largest.delta < 5e-4 && largest.logits < 5e-4,
        "{}: delta and logits",
        trace.name
    );
}

fn adapter_config(hyper: &Hyper) -> L1raConfig {
    L1raConfig {
        rank: hyper.r,
        alpha: hyper.alpha,
        dropout: hyper.dropout,
        policy: Policy::Reference,
        lambda: hyper.l1ra_lambda,
        eta_c: hyper.eta_c,
        update_ratio: hyper.rank_update_ratio,
        prune_threshold: hyper.prune_threshold,
        reassign: hyper.reassign,
        exclude_pruned: hyper.exclude_pruned,
        ..Default::default()
    }
}

fn optimizer_config(hyper: &Hyper) -> AdamEConfig {
    AdamEConfig {
        beta_1: hyper.betas[0],
        beta_2: hyper.betas[1],
        epsilon: hyper.eps,
        weight_decay: hyper.weight_decay,
    }
}

type RawGates = Arc<Mutex<Vec<Vec<f32>>>>;

/// The model with the recorded adapters, and a callback that draws the recorded noise.
fn learner_model(
    trace: &Trace,
    tensors: &Tensors<'_>,
    models: &Path,
    device: &Device,
) -> (FineTune, RawGates, RankCallback) {
    let dir = models.join(&trace.model);
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let files = weights::SafetensorsFiles::open(&dir).unwrap();
    let mut lm = weights::build_model(&files, &config, weights::Storage::F32, device).unwrap();
    lm.for_each_linear(&mut |path, linear| {
        let Some(adapter) = trace.adapters.iter().find(|adapter| adapter.name == path) else {
            return;
        };
        assert_eq!(linear.dims(), [adapter.in_features, adapter.out_features]);
        let part = |part: &str| tensors.data(&format!("init.{path}.lora_{part}"));
        let scale = (trace.hyper.alpha / trace.hyper.r as f64) as f32;
        let dropout = trace.hyper.dropout;
        linear.adapter = Some(GatedLora::from_data(
            part("A"),
            part("c"),
            part("B"),
            scale,
            dropout,
            device,
        ));
    });
    let names: Vec<String> = walk::adapters(&lm)
        .into_iter()
        .map(|view| view.path)
        .collect();
    let expected: Vec<&str> = trace
        .adapters
        .iter()
        .map(|adapter| adapter.name.as_str())
        .collect();
    assert_eq!(names, expected, "adapters in the trace's order");

    let (config, optimizer) = (adapter_config(&trace.hyper), optimizer_config(&trace.hyper));
    let bank = tensors.0.tensor("noise_bank").unwrap().shape()[1];
    let bank = Bank {
        values: tensors.floats("noise_bank"),
        width: bank,
    };
    let Hyper {
        total_steps,
        warmup_steps,
        ..
    } = trace.hyper;
    let allocator = RankAllocator::new(&lm, &config, &optimizer, total_steps, warmup_steps)
        .unwrap()
        .with_noise(bank);
    let raw = RawGates::default();
    let sink = raw.clone();
    let ranks = RankCallback::new(allocator).with_observer(move |_, views| {
        *sink.lock().unwrap() = views.iter().map(|view| view.gates().unwrap()).collect();
    });
    (FineTune::new(lm, Some(ranks.clone())), raw, ranks)
}

fn learner(trace: &Trace, model: FineTune) -> Learner<FineTune> {
    let hyper = &trace.hyper;
    let shape: Shape = hyper.schedule.parse().unwrap();
    let rate = WarmupSchedule::new(hyper.lr, hyper.total_steps, hyper.warmup_steps, shape);
    let mut gates = GateSchedule::constant(hyper.eta_c);
    if hyper.gate_lr_quirk {
        let first = hyper.eta_c * rate.at(0) / hyper.lr;
        gates = gates.with_first(first);
    }
    let optimizer = adapter_optimizer(&adapter_config(hyper), &optimizer_config(hyper));
    Learner::new(model, optimizer, adapter_schedule(rate, gates))
}

/// Every token but a row's first is a target.
fn batch_of(ids: &[i64], batch: usize, length: usize, device: &Device) -> TokenBatch {
    let (mut rows, mut targets) = (Vec::new(), Vec::new());
    for position in (0..batch * length).filter(|position| (position + 1) % length != 0) {
        rows.push(position as i64);
        targets.push(ids[position + 1]);
    }
    let count = rows.len();
    let vector = |values| {
        Some(Tensor::from_data(
            TensorData::new::<i64, _>(values, [count]),
            device,
        ))
    };
    TokenBatch {
        ids: Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), [batch, length]), device),
        rows: vector(rows),
        targets: vector(targets),
        target_count: count,
        token_count: batch * length,
        segments: None,
        origin: Origin::default(),
    }
}

fn check_report(name: &str, step: usize, expected: &Step, ranks: &RankCallback) {
    let updates = ranks.updates();
    let update = updates.iter().find(|update| update.step == step);
    let (Some(update), Some(report)) = (update, &expected.report) else {
        assert_eq!(
            update.is_some(),
            expected.report.is_some(),
            "{name}: an update"
        );
        return;
    };
    let plan = &update.plan;
    let before: Vec<usize> = plan.changes.iter().map(|change| change.before).collect();
    let pruned: Vec<Vec<usize>> = plan.changes.iter().map(|c| c.pruned.clone()).collect();
    assert_eq!(before, report.before, "{name}: ranks before");
    assert_eq!(plan.ranks(), report.after, "{name}: ranks after");
    assert_eq!(pruned, report.pruned, "{name}: pruned");
    assert_eq!(plan.excluded, report.excluded, "{name}: excluded");
    assert_eq!(plan.order, report.order, "{name}: order");
    assert_eq!(plan.grown, report.grown, "{name}: grown");
    assert_eq!(plan.spare, report.spare, "{name}: spare");
    assert_eq!(plan.restart_optimizer, report.changed, "{name}: changed");
}

fn compare_final(
    trace: &Trace,
    tensors: &Tensors<'_>,
    learner: &Learner<FineTune>,
    ids: &[i64],
    shape: [usize; 2],
    largest: &mut Largest,
) {
    let mut lm = learner.model().lm.valid();
    for view in walk::adapters(&lm) {
        let data = view.data().unwrap();
        let path = &view.path;
        let pair = [
            (&data.a, "lora_A"),
            (&data.b, "lora_B"),
            (&data.c, "lora_c"),
        ];
        for (values, part) in pair {
            let seen = difference(values, &tensors.floats(&format!("final.{path}.{part}")));
            let slot = if part == "lora_c" {
                &mut largest.gates
            } else {
                &mut largest.matrices
            };
            *slot = slot.max(seen);
        }
    }
    lm.for_each_linear(&mut |path, linear| {
        if let Some(adapter) = &linear.adapter {
            // Recorded as [d_out, d_in].
            let delta = adapter
                .delta_weight()
                .transpose()
                .into_data()
                .try_into_vec()
                .unwrap();
            let seen = difference(&delta, &tensors.floats(&format!("final.{path}.delta")));
            largest.delta = largest.delta.max(seen);
        }
    });
    let device = device();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids.to_vec(), shape), &device);
    let logits = lm
        .forward(ids, None)
        .into_data()
        .try_into_vec::<f32>()
        .unwrap();
    largest.logits = difference(&logits, &tensors.floats("final_logits"));
    assert_eq!(trace.adapters.len(), walk::adapters(&lm).len());
}
