//! [`bench()`]: what a training step, a forward or a token costs on this machine.
//!
//! The keys of [`BenchResult`] are those that the same measurement of other programs prints, so that
//! lines can be compared: `median_step_s`, `tokens_per_s`, `peak_rss_mb`, …

use std::time::Instant;

use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::{Module, ModuleMapper, Param},
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{Device, Int, Tensor, TensorData},
    train::TrainStep,
};
use l1ra_core::{
    L1raConfig, RankAllocator, attach_adapters,
    device::DeviceFailure,
    optim::{AdamEConfig, adapter_optimizer},
    walk::{AdapterView, adapter_parameters, adapters},
};
use l1ra_models::{CausalLm, Generation, ModelConfig, Sampling, weights::linear_dims};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    activations::Activations,
    clip::scale_and_clip,
    data::{Origin, TokenBatch},
    error::TrainError,
    memory::{device_bytes, peak_resident_bytes, resident_bytes},
    model::FineTune,
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// A training step of gated adapters whose ranks may move.
    L1ra,
    /// A training step of the same adapters without gates.
    Lora,
    /// A forward without a graph, all logits.
    Forward,
    /// Tokens one by one after a prompt, with a cache.
    Generate,
}

impl std::str::FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "l1ra" => Ok(Self::L1ra),
            "lora" => Ok(Self::Lora),
            "forward" => Ok(Self::Forward),
            "generate" => Ok(Self::Generate),
            other => Err(format!("`{other}`: l1ra, lora, forward or generate")),
        }
    }
}

/// How it is measured.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// What.
    pub method: Method,
    /// Tokens of a row; of the prompt, when generating.
    pub length: usize,
    /// Rows.
    pub rows: usize,
    /// Steps that count; tokens, when generating.
    pub steps: usize,
    /// Steps before them.
    pub warmup: usize,
    /// Rank of every adapter, on all linear layers; alpha is the same.
    pub rank: usize,
    /// Share of the tokens that are targets.
    pub targets: f64,
    /// Activations of blocks are made again in the backward.
    pub recompute: bool,
    /// What activations within blocks are kept in.
    pub activations: Activations,
}

/// Seconds of the parts of one step, measured apart from the steps that count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Breakdown {
    /// Forward up to the final norm; with recompute, forward, loss and backward together.
    pub forward: f64,
    /// Head and loss, with the gradient of the hidden states.
    pub loss: f64,
    /// Backward.
    pub backward: f64,
    /// Clipping and the optimizer.
    pub optimizer: f64,
    /// A rank update of all adapters: decision, parameters, moments.
    pub reallocation: f64,
}

/// What came out.
#[derive(Clone, Debug, Serialize)]
pub struct BenchResult {
    /// Program and version.
    #[serde(rename = "impl")]
    pub program: String,
    /// What was measured.
    pub method: Method,
    /// Tokens of a row.
    pub seq: usize,
    /// Rows.
    pub batch: usize,
    /// Threads of the pool that kernels use.
    pub threads: usize,
    /// Rank of the adapters.
    pub r: usize,
    /// Whether activations were made again.
    pub checkpointing: bool,
    /// What activations within blocks were kept in; where it matters, in training.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub activations: Option<String>,
    /// Share of the tokens that were targets.
    pub target_share: f64,
    /// Steps that count.
    pub steps: usize,
    /// Trainable parameters.
    pub trainable: usize,
    /// Seconds of a step.
    pub median_step_s: f64,
    /// The fastest.
    pub min_step_s: f64,
    /// The slowest.
    pub max_step_s: f64,
    /// Tokens in a second, at the median.
    pub tokens_per_s: f64,
    /// Resident memory after loading, in units of 2²⁰ bytes.
    pub rss_after_load_mb: u64,
    /// Peak of resident memory, in units of 2²⁰ bytes.
    pub peak_rss_mb: u64,
    /// What Burn holds of a GPU's memory after the last step, its free pages counted, in the same units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_mb: Option<u64>,
    /// Seconds from loaded weights to the first step: adapters, optimizer, its batch.
    pub setup_s: f64,
    /// Seconds of the first step, warm-up included.
    pub first_step_s: f64,
    /// Loss of the last step.
    pub loss: Option<f64>,
    /// Parts of a step.
    pub breakdown: Option<Breakdown>,
}

/// Measures `model` on `device` with random tokens.
///
/// # Errors
/// A size of zero, a rank that a layer cannot hold, a model that cannot generate.
pub fn bench(
    model: CausalLm,
    options: &BenchOptions,
    device: &Device,
) -> Result<BenchResult, TrainError> {
    options.check(model.config())?;
    let loaded = mb(resident_bytes());
    let mut run = Run {
        options,
        device: device.clone().inner(),
        vocabulary: model.config().vocab_size,
        random: ChaCha8Rng::seed_from_u64(0),
        began: Instant::now(),
    };
    let measured = match options.method {
        Method::L1ra | Method::Lora => run.train(model)?,
        Method::Forward => run.forward(&model),
        Method::Generate => run.generate(&model)?,
    };
    let on_device = device_bytes(device);
    Ok(measured.result(options, loaded, on_device))
}

impl BenchOptions {
    /// Checks every size against a model's configuration; no weight is needed.
    ///
    /// # Errors
    /// A size of zero, a row of one token, one that is longer than the model's context, a share that is
    /// none, more ranks than the narrowest layer can hold.
    pub fn check(&self, config: &ModelConfig) -> Result<(), TrainError> {
        for (field, value) in [
            ("seq", self.length),
            ("batch", self.rows),
            ("steps", self.steps),
            ("rank", self.rank),
        ] {
            if value == 0 {
                return Err(TrainError::option(field, 0, "at least 1"));
            }
        }
        if self.length < 2 {
            return Err(TrainError::option(
                "seq",
                self.length,
                "at least 2: a target follows a token",
            ));
        }
        if !(self.targets > 0.0 && self.targets <= 1.0) {
            return Err(TrainError::option(
                "targets",
                self.targets,
                "a share above 0, at most 1",
            ));
        }
        let (context, beyond) = (config.max_position_embeddings, self.length);
        let new = match self.method {
            Method::Generate => self.warmup + self.steps + 1,
            _ => 0,
        };
        if beyond + new > context {
            let expected = format!(
                "at most {}, by the model's context",
                context.saturating_sub(new)
            );
            return Err(TrainError::option("seq", beyond, expected));
        }
        let widths = linear_dims(config)
            .into_iter()
            .map(|(_, [d_in, d_out])| d_in.min(d_out));
        let most = widths.min().unwrap_or(0);
        let trains = matches!(self.method, Method::L1ra | Method::Lora);
        if trains && self.rank > most {
            let expected = format!("at most {most}, the width of the narrowest layer");
            return Err(TrainError::option("rank", self.rank, expected));
        }
        Ok(())
    }
}

struct Run<'a> {
    options: &'a BenchOptions,
    device: Device,
    vocabulary: usize,
    random: ChaCha8Rng,
    began: Instant,
}

#[derive(Default)]
struct Measured {
    seconds: Vec<f64>,
    setup: f64,
    first: f64,
    loss: Option<f64>,
    trainable: usize,
    activations: Option<String>,
    breakdown: Option<Breakdown>,
    tokens_a_step: usize,
}

impl Run<'_> {
    fn ids(&mut self) -> Vec<i64> {
        let tokens = self.options.rows * self.options.length;
        (0..tokens)
            .map(|_| self.random.random_range(0..self.vocabulary) as i64)
            .collect()
    }

    /// Random rows; every token but a row's last has the next as its target, or a share of them has.
    fn batch(&mut self, device: &Device) -> TokenBatch {
        let BenchOptions {
            rows,
            length,
            targets,
            ..
        } = *self.options;
        let ids = self.ids();
        let wanted = |token: usize| {
            let next = token % length + 1;
            next < length && (next as f64 * targets).floor() > ((next - 1) as f64 * targets).floor()
        };
        let places: Vec<usize> = (0..rows * length).filter(|token| wanted(*token)).collect();
        let vector = |values: Vec<i64>| {
            let length = values.len();
            Tensor::<1, Int>::from_data(TensorData::new(values, [length]), device)
        };
        TokenBatch {
            rows: Some(vector(places.iter().map(|place| *place as i64).collect())),
            targets: Some(vector(places.iter().map(|place| ids[place + 1]).collect())),
            target_count: places.len(),
            token_count: ids.len(),
            ids: Tensor::from_data(TensorData::new(ids, [rows, length]), device),
            segments: None,
            origin: Origin::default(),
        }
    }

    fn train(&mut self, model: CausalLm) -> Result<Measured, TrainError> {
        let BenchOptions {
            rank,
            warmup,
            steps,
            recompute,
            method,
            ..
        } = *self.options;
        let device = self.device.clone().autodiff();
        let config = L1raConfig {
            rank,
            alpha: rank as f64,
            ..Default::default()
        };
        let mut model = model.fork(&device).no_grad();
        attach_adapters(&mut model, &config, &device)?;
        if method == Method::Lora {
            model = model.map(&mut WithoutGates);
        }
        let adam = AdamEConfig::default();
        let mut optimizer = adapter_optimizer(&config, &adam);
        let gates: usize = match method {
            Method::Lora => adapters(&model).iter().map(AdapterView::rank).sum(),
            _ => 0,
        };
        let mut measured = Measured {
            trainable: adapter_parameters(&model) - gates,
            tokens_a_step: self.options.rows * self.options.length,
            ..Default::default()
        };
        self.options.activations.set(&mut model);
        measured.activations = Some(format!("{:?}", model.activations()).to_lowercase());
        let mut model = FineTune::new(model, None);
        if recompute {
            model = model.with_block_recompute();
        }
        for step in 0..warmup + steps {
            let batch = self.batch(&device);
            if step == 0 {
                measured.setup = self.began.elapsed().as_secs_f64();
            }
            let began = Instant::now();
            let targets = batch.target_count;
            let output = TrainStep::step(&model, batch);
            measured.loss = Some(output.item.sum() / targets.max(1) as f64);
            model = optimize(model, &mut optimizer, output.grads, targets);
            self.synchronise()?;
            let seconds = began.elapsed().as_secs_f64();
            if step == 0 {
                measured.first = seconds;
            }
            if step >= warmup {
                measured.seconds.push(seconds);
            }
        }
        measured.breakdown = Some(self.parts(model, optimizer, &config, &adam)?);
        Ok(measured)
    }

    /// One more step, part by part, and a rank update.
    fn parts(
        &mut self,
        model: FineTune,
        mut optimizer: ModuleOptimizer,
        config: &L1raConfig,
        adam: &AdamEConfig,
    ) -> Result<Breakdown, TrainError> {
        let device = self.device.clone().autodiff();
        let batch = self.batch(&device);
        let targets = batch.target_count;
        let mut parts = Breakdown::default();
        let mut watch = Watch::new(self.device.clone());
        let grads = if self.options.recompute {
            let output = TrainStep::step(&model, batch);
            parts.forward = watch.lap()?;
            output.grads
        } else {
            let hidden = model.lm.hidden(batch.ids, None).flatten::<2>(0, 1);
            parts.forward = watch.lap()?;
            let (Some(rows), Some(wanted)) = (batch.rows, batch.targets) else {
                return Ok(parts);
            };
            let loss = model.lm.loss_sum(hidden.select(0, rows), wanted);
            parts.loss = watch.lap()?;
            let grads = loss.backward();
            let grads = GradientsParams::from_grads(grads, &model);
            parts.backward = watch.lap()?;
            grads
        };
        let model = optimize(model, &mut optimizer, grads, targets);
        parts.optimizer = watch.lap()?;
        if self.options.method == Method::L1ra {
            parts.reallocation = reallocation(model, &mut optimizer, config, adam, &mut watch)?;
        }
        Ok(parts)
    }

    fn forward(&mut self, model: &CausalLm) -> Measured {
        let BenchOptions {
            rows,
            length,
            warmup,
            steps,
            ..
        } = *self.options;
        let mut measured = Measured {
            tokens_a_step: rows * length,
            ..Default::default()
        };
        for step in 0..warmup + steps {
            let data = TensorData::new(self.ids(), [rows, length]);
            let ids = Tensor::<2, Int>::from_data(data, &self.device);
            if step == 0 {
                measured.setup = self.began.elapsed().as_secs_f64();
            }
            let began = Instant::now();
            let logits = model.forward(ids, None);
            // What a device could not do, it says when something is read.
            let one = logits.slice([0..1, 0..1, 0..1]);
            let _: f32 = one.into_scalar();
            let seconds = began.elapsed().as_secs_f64();
            if step == 0 {
                measured.first = seconds;
            }
            if step >= warmup {
                measured.seconds.push(seconds);
            }
        }
        measured
    }

    fn generate(&mut self, model: &CausalLm) -> Result<Measured, TrainError> {
        let BenchOptions {
            length,
            warmup,
            steps,
            ..
        } = *self.options;
        let prompt: Vec<u32> = (0..length)
            .map(|_| self.random.random_range(0..self.vocabulary) as u32)
            .collect();
        let sampling = Sampling {
            max_new_tokens: warmup + steps + 1,
            temperature: 0.0,
            ..Default::default()
        };
        let mut measured = Measured {
            tokens_a_step: 1,
            ..Default::default()
        };
        let generation = Generation::new(model, &prompt, [], sampling)?;
        measured.setup = self.began.elapsed().as_secs_f64();
        let mut began = Instant::now();
        for (index, token) in generation.enumerate() {
            token?;
            let seconds = began.elapsed().as_secs_f64();
            if index == 0 {
                measured.first = seconds; // The prompt.
            } else if index > warmup {
                measured.seconds.push(seconds);
            }
            began = Instant::now();
        }
        Ok(measured)
    }

    fn synchronise(&self) -> Result<(), TrainError> {
        wait_for(&self.device)
    }
}

/// Waits for a device.
fn wait_for(device: &Device) -> Result<(), TrainError> {
    device.sync().map_err(|error| {
        let said = error.to_string();
        let failure = DeviceFailure::of_message(&said).unwrap_or(DeviceFailure {
            detail: said,
            out_of_memory: false,
        });
        TrainError::device_failed("in a measurement", failure)
    })
}

/// The time from one part to the next.
struct Watch {
    device: Device,
    began: Instant,
}

impl Watch {
    fn new(device: Device) -> Self {
        Self {
            device,
            began: Instant::now(),
        }
    }

    fn lap(&mut self) -> Result<f64, TrainError> {
        wait_for(&self.device)?;
        let seconds = self.began.elapsed().as_secs_f64();
        self.began = Instant::now();
        Ok(seconds)
    }
}

fn optimize(
    model: FineTune,
    optimizer: &mut ModuleOptimizer,
    grads: GradientsParams,
    targets: usize,
) -> FineTune {
    let (grads, _) = scale_and_clip(&model, grads, 1.0 / targets.max(1) as f64, 1.0);
    optimizer.step(ModuleLearningRate::from(1e-4), model, grads)
}

/// Seconds of a rank update in which every second gate of half of the adapters is gone.
fn reallocation(
    model: FineTune,
    optimizer: &mut ModuleOptimizer,
    config: &L1raConfig,
    adam: &AdamEConfig,
    watch: &mut Watch,
) -> Result<f64, TrainError> {
    let model = model.map(&mut CloseGates::default());
    let config = L1raConfig {
        update_ratio: 0.5,
        ..config.clone()
    };
    let mut allocator = RankAllocator::new(&model, &config, adam, 4, 0)?;
    let mut model = model;
    watch.lap()?;
    let mut longest = 0.0_f64;
    while allocator.step() < 4 {
        model = match allocator.after_step(model, optimizer) {
            Ok((model, _)) => model,
            Err((_, error)) => return Err(error.into()),
        };
        longest = longest.max(watch.lap()?);
    }
    Ok(longest)
}

/// Stops the training of gates.
struct WithoutGates;

impl ModuleMapper for WithoutGates {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        // Gates are the only trained vectors.
        if D == 1 {
            param.set_require_grad(false)
        } else {
            param
        }
    }
}

/// Closes every second gate of every second adapter.
#[derive(Default)]
struct CloseGates {
    seen: usize,
}

impl ModuleMapper for CloseGates {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if D != 1 || !param.val().is_require_grad() {
            return param;
        }
        self.seen += 1;
        if self.seen.is_multiple_of(2) {
            return param;
        }
        param.map(|gates| {
            let (shape, device) = (gates.dims(), gates.device());
            let values: Vec<f32> = (0..shape[0]).map(|i| (i % 2) as f32).collect();
            let gates = Tensor::from_data(TensorData::new(values, shape), &device.inner());
            Tensor::from_inner(gates).require_grad()
        })
    }
}

impl Measured {
    fn result(
        mut self,
        options: &BenchOptions,
        loaded: u64,
        on_device: Option<u64>,
    ) -> BenchResult {
        self.seconds.sort_unstable_by(f64::total_cmp);
        let at = |index: usize| self.seconds.get(index).copied().unwrap_or(f64::NAN);
        let median = at(self.seconds.len() / 2);
        BenchResult {
            program: concat!("l1ra ", env!("CARGO_PKG_VERSION")).into(),
            method: options.method,
            seq: options.length,
            batch: match options.method {
                Method::Generate => 1,
                _ => options.rows,
            },
            threads: rayon::current_num_threads(),
            r: options.rank,
            checkpointing: options.recompute,
            activations: self.activations,
            target_share: options.targets,
            steps: self.seconds.len(),
            trainable: self.trainable,
            median_step_s: median,
            min_step_s: at(0),
            max_step_s: at(self.seconds.len().saturating_sub(1)),
            tokens_per_s: self.tokens_a_step as f64 / median,
            rss_after_load_mb: loaded,
            peak_rss_mb: mb(peak_resident_bytes()),
            device_mb: on_device.map(|bytes| mb(Some(bytes))),
            setup_s: self.setup,
            first_step_s: self.first,
            loss: self.loss,
            breakdown: self.breakdown,
        }
    }
}

/// Bytes as units of 2²⁰.
fn mb(bytes: Option<u64>) -> u64 {
    bytes.unwrap_or(0) >> 20
}
