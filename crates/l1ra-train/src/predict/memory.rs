//! [`predict_memory`]: the peak of a run's memory, from shapes alone.

use std::fmt;

use l1ra_models::ops::attention::{SCORES, queries_at_once};
use serde::Serialize;

use crate::{
    memory::Bytes,
    predict::{
        head,
        kept::{F32, LayerKept, layers},
        source::WeightsFrom,
        workload::{Home, MicroBatch, Workload},
    },
};

/// Memory of a process that holds no tensor: the program, its threads and their stacks. Measured
/// with `examples/predict_check` on Linux (glibc): resident peak less heap peak is 21 to 22 MB on
/// the embedded model, up to 37 MB in one run of three.
const PROCESS: u64 = 20_000_000;
/// What the allocator holds beyond what is asked of it, as a divisor of that: 46 to 65 MB at a heap
/// of 2.3 to 3.5 GB (SmolLM2), the 20 MB above included.
const ALLOCATOR_DIVISOR: u64 = 90;
/// A tokenizer with its vocabulary: 7.3 MB for 49,152 tokens, 1.6 MB for 4,096.
const TOKENIZER: u64 = 1_000_000;
const TOKENIZER_TOKEN: u64 = 130;
/// The autodiff graph of a layer without its tensors: 2.0 MB for 30 layers.
const GRAPH_LAYER: u64 = 65_000;
/// Arrays of the MLP's width, in f32, in the backward of its gate by Burn's own operations: 6 measured on
/// `ndarray` (SmolLM2's shape, four and eight layers, a vocabulary of 512, 4 × 256 tokens).
const GATE_COPIES: u64 = 6;
/// A rank update reads the optimizer's record, edits it and loads it again: at its peak, three
/// times the adapters' parameters beyond what is there in any case (embedded model, r = 64).
const RANK_UPDATE_COPIES: u64 = 3;

/// The part of a run in which memory is at its peak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Phase {
    /// Reading weights: files are mapped, and their pages count.
    Loading,
    /// Forward and backward of a micro-batch.
    Training,
    /// Forward of a micro-batch without a graph.
    Evaluation,
    /// Moving ranks: the optimizer's state goes through its record.
    RankUpdate,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Loading => "loading",
            Self::Training => "training",
            Self::Evaluation => "evaluation",
            Self::RankUpdate => "a rank update",
        })
    }
}

/// Predicted bytes at the moment of the peak, by what they are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPrediction {
    /// The frozen model.
    pub weights: u64,
    /// Adapters at their initial ranks.
    pub adapters: u64,
    /// Moments of the optimizer.
    pub optimizer: u64,
    /// Gradients that wait for the window's other micro-batches.
    pub gradients: u64,
    /// What layers keep for the backward, or compute with.
    pub activations: u64,
    /// Logits and what the loss makes of them.
    pub logits: u64,
    /// The process itself, tokenizer, allocator, mapped files, working space.
    pub other: u64,
    /// All of them.
    pub peak_bytes: u64,
    /// When the peak is.
    pub phase: Phase,
    /// The micro-batch at the peak; empty while loading.
    pub batch: MicroBatch,
    /// What has to fit: the peak without pages of mapped files, which the system drops when memory
    /// is short. The phase that decides may be another one.
    pub needed_bytes: u64,
    /// What is added at most when all ranks that may move end in the widest layers.
    pub growth: u64,
    /// Where tensors live.
    pub home: Home,
}

impl fmt::Display for MemoryPrediction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MicroBatch {
            rows,
            length,
            targets,
            ..
        } = self.batch;
        write!(
            f,
            "peak memory {} in {}",
            Bytes(self.peak_bytes),
            self.phase
        )?;
        if rows > 0 {
            write!(f, ", {rows} × {length} tokens, {targets} targets")?;
        }
        for (name, bytes) in [
            ("weights", self.weights),
            ("adapters", self.adapters),
            ("optimizer", self.optimizer),
            ("gradients", self.gradients),
            ("activations", self.activations),
            ("logits", self.logits),
            ("other", self.other),
        ] {
            if bytes > 0 {
                write!(f, "\n  {name:<11} {:>8}", Bytes(bytes))?;
            }
        }
        if self.growth > 0 {
            let growth = Bytes(self.growth);
            write!(
                f,
                "\n  up to {growth} more if ranks move to the widest layers"
            )?;
        }
        match self.home {
            Home::Flex => Ok(()),
            Home::OtherCpu => write!(f, "\n  checked on flex only, not on this backend"),
            Home::Gpu => write!(
                f,
                "\n  memory of the GPU; checked on flex only, not on a GPU"
            ),
        }
    }
}

/// Predicts the peak of memory in a run of `workload`: the most that loading, training on the
/// largest micro-batch, evaluating or moving ranks will take.
///
/// On `flex` that is the peak of the process's resident memory. On a GPU it is what the device
/// holds, without whatever the backend's allocator keeps in reserve, and was never compared with a
/// measurement.
pub fn predict_memory(workload: &Workload) -> MemoryPrediction {
    let base = Base::of(workload);
    let training = workload.train.iter().map(|batch| base.training(batch));
    let evaluation = workload.eval.iter().map(|batch| base.evaluation(batch));
    let fixed = [base.rank_update(), base.loading()];
    let all: Vec<MemoryPrediction> = training.chain(evaluation).chain(fixed).collect();
    let needed = all.iter().map(|one| one.needed_bytes).max().unwrap_or(0);
    let mut largest = base.loading();
    for one in all {
        if one.peak_bytes > largest.peak_bytes {
            largest = one;
        }
    }
    largest.needed_bytes = needed;
    largest
}

/// What is there in every phase.
struct Base<'a> {
    workload: &'a Workload,
    weights: u64,
    adapters: u64,
    growth: u64,
}

/// What a phase adds.
#[derive(Clone, Copy, Debug, Default)]
struct Extra {
    gradients: u64,
    activations: u64,
    logits: u64,
    other: u64,
    mapped: u64,
}

impl<'a> Base<'a> {
    fn of(workload: &'a Workload) -> Self {
        let weight = |shape: &Vec<usize>| {
            let numbers: usize = shape.iter().product();
            let element = if shape.len() > 1 {
                workload.element()
            } else {
                F32
            };
            element * numbers as u64
        };
        let now = workload.adapter_parameters() as u64;
        let most = workload.adapter_parameters_at_most() as u64;
        Self {
            workload,
            weights: workload.shapes().iter().map(weight).sum(),
            adapters: F32 * now,
            // The parameters and two moments.
            growth: 3 * F32 * (most - now),
        }
    }

    fn loading(&self) -> MemoryPrediction {
        let mapped = match (self.workload.source, self.workload.home) {
            (WeightsFrom::Files { bytes, .. }, Home::Flex | Home::OtherCpu) if cfg!(unix) => {
                bytes.min(self.largest())
            }
            (WeightsFrom::Files { bytes, .. }, Home::Flex | Home::OtherCpu) => bytes,
            _ => 0,
        };
        let extra = Extra {
            mapped,
            ..Extra::default()
        };
        let bare = Self {
            adapters: 0,
            ..*self
        };
        bare.with(Phase::Loading, MicroBatch::default(), extra)
    }

    /// Bytes of the largest tensor in f32: pages are given back tensor by tensor.
    fn largest(&self) -> u64 {
        let numbers = |shape: &Vec<usize>| shape.iter().product::<usize>() as u64;
        let shapes = self.workload.shapes();
        F32 * shapes.iter().map(numbers).max().unwrap_or(0)
    }

    fn training(&self, batch: &MicroBatch) -> MemoryPrediction {
        let layers = layers(self.workload, batch);
        let last = layers.last().copied().unwrap_or_default();
        let head = head::backward(self.workload, batch);
        let layer = self.layer_backward(batch, last);
        let activations = if self.workload.recompute {
            // The input of every layer; then what one layer keeps, and needs.
            let stream = (batch.positions() * self.workload.config.hidden_size) as u64;
            let inputs = F32 * stream * (layers.len() as u64 + 1);
            let one = layers.iter().map(|layer| layer.total()).max().unwrap_or(0);
            inputs + (one + layer).saturating_sub(head)
        } else {
            let kept: u64 = layers.iter().map(|layer| layer.total()).sum();
            let normed = (batch.positions() * (self.workload.config.hidden_size + 2)) as u64;
            kept + F32 * normed + layer.saturating_sub(head)
        };
        let waiting = self.workload.accumulation > 1;
        let beside = self.workload.side_by_side();
        let extra = Extra {
            gradients: if waiting { self.adapters * beside } else { 0 },
            activations: beside * (activations + self.shared(batch, self.workload.packed)),
            logits: beside * head,
            other: GRAPH_LAYER * self.workload.config.num_hidden_layers as u64,
            mapped: 0,
        };
        self.with(Phase::Training, *batch, extra)
    }

    /// What the backward of the last layer needs beyond what all layers keep. By then, its own MLP
    /// is done when its attention begins.
    fn layer_backward(&self, batch: &MicroBatch, last: LayerKept) -> u64 {
        let config = &self.workload.config;
        let tokens = batch.positions() as u64;
        let stream = 2 * tokens * config.hidden_size as u64;
        let inner = tokens * config.intermediate_size as u64;
        if self.workload.home == Home::Flex {
            // Gate and up's gradient; what the gate gives, made again, with its gradient.
            return F32 * stream + 4 * self.workload.activation_bytes() * inner;
        }
        let mlp = stream + GATE_COPIES * inner;
        // Probabilities, their gradient and that of the scores, the last two in one place on a GPU; then those
        // of queries, keys and values.
        let scores = self.scores(batch)
            * match self.workload.home {
                Home::Gpu => 2 * self.workload.product_bytes(),
                Home::Flex | Home::OtherCpu => 3 * F32,
            };
        let heads = config.num_attention_heads + 2 * config.num_key_value_heads;
        let found = tokens * (heads * config.head_dim) as u64;
        let attention = F32 * (stream + found) + scores;
        let attention = attention.saturating_sub(last.mlp);
        (F32 * mlp).max(attention) + self.conversion(batch)
    }

    /// Scores that exist at once where attention goes by parts of the queries.
    fn scores(&self, batch: &MicroBatch) -> u64 {
        let heads = self.workload.config.num_attention_heads;
        let met = [batch.rows, heads, batch.length];
        let queries = queries_at_once(batch.length, met, SCORES);
        (queries * met.iter().product::<usize>()) as u64
    }

    /// One of a layer's products where its weight is converted first.
    fn conversion(&self, batch: &MicroBatch) -> u64 {
        if !head::converts(self.workload) {
            return 0;
        }
        let config = &self.workload.config;
        let (hidden, inner) = (config.hidden_size as u64, config.intermediate_size as u64);
        head::CONVERTED_BYTES * (hidden * inner + batch.positions() as u64 * inner)
    }

    fn evaluation(&self, batch: &MicroBatch) -> MemoryPrediction {
        let config = &self.workload.config;
        let tokens = batch.positions() as u64;
        let scores = match self.workload.home {
            Home::Flex => 0, // Of a few queries at a time.
            // Scores and their softmax, in one place on a GPU.
            Home::Gpu => self.workload.product_bytes() * self.scores(batch),
            Home::OtherCpu => 2 * F32 * self.scores(batch),
        };
        let (hidden, inner) = (config.hidden_size as u64, config.intermediate_size as u64);
        // Scores, or the MLP's three arrays, beside the residual stream.
        let working = F32 * 3 * tokens * hidden + scores.max(F32 * 3 * tokens * inner);
        let working = working + self.conversion(batch);
        let logits = head::forward(self.workload, batch);
        let beside = self.workload.side_by_side();
        let extra = Extra {
            activations: beside * (self.shared(batch, false) + working.saturating_sub(logits)),
            logits: beside * logits,
            ..Extra::default()
        };
        self.with(Phase::Evaluation, *batch, extra)
    }

    fn rank_update(&self) -> MemoryPrediction {
        let extra = Extra {
            other: RANK_UPDATE_COPIES * self.adapters,
            ..Extra::default()
        };
        self.with(Phase::RankUpdate, MicroBatch::default(), extra)
    }

    fn with(&self, phase: Phase, batch: MicroBatch, extra: Extra) -> MemoryPrediction {
        let optimizer = 2 * self.adapters;
        let tensors = self.weights + self.adapters + optimizer;
        let tensors = tensors + extra.gradients + extra.activations + extra.logits;
        let mut other = extra.other;
        if self.workload.home != Home::Gpu {
            let vocabulary = self.workload.config.vocab_size as u64;
            other += PROCESS + TOKENIZER + TOKENIZER_TOKEN * vocabulary;
            other += (tensors + extra.other) / ALLOCATOR_DIVISOR;
        }
        MemoryPrediction {
            weights: self.weights,
            adapters: self.adapters,
            optimizer,
            gradients: extra.gradients,
            activations: extra.activations,
            logits: extra.logits,
            other: other + extra.mapped,
            peak_bytes: tensors + other + extra.mapped,
            needed_bytes: tensors + other,
            phase,
            batch,
            growth: self.growth,
            home: self.workload.home,
        }
    }

    /// Ids and the mask, which all layers share: `[1, 1, length, length]`, or one for each row where
    /// rows are packed. The operations of `flex` have no mask.
    fn shared(&self, batch: &MicroBatch, packed: bool) -> u64 {
        let (positions, length) = (batch.positions() as u64, batch.length as u64);
        let masks = match (self.workload.home, packed) {
            (Home::Flex, _) => 0,
            (_, true) => batch.rows as u64,
            (_, false) => 1,
        };
        8 * positions + F32 * masks * length * length
    }
}

#[cfg(test)]
mod tests;
