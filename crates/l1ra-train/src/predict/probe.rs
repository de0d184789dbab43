//! [`Probe`]: parts of a step, run and timed on the device with made-up weights.

use std::{path::Path, time::Instant};

use burn::{
    module::Module,
    optim::{GradientsParams, ModuleOptimizer},
    tensor::{Device, Int, Tensor, TensorData},
};
use l1ra_core::{
    AdaptedModule,
    adapter::GatedLora,
    init::SeededNoise,
    optim::{AdamEConfig, adapter_optimizer},
    target::AdapterSpec,
};
use l1ra_models::{
    CausalLm, ModelConfig, ModelError,
    block::{Block, norm},
    positions::Positions,
    rope::inverse_frequencies,
    weights::{RandomWeights, Storage, StoredTensor, StoredType, WeightSource, build_model},
};

use crate::{
    clip::scale_and_clip,
    error::TrainError,
    predict::{time::BlockKind, workload::Workload},
};

/// A part of a step, at some size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// One decoder block.
    Block {
        kind: BlockKind,
        rows: usize,
        length: usize,
    },
    /// Final norm, output head and loss, forward and backward.
    Head {
        rows: usize,
        length: usize,
        targets: usize,
        vocabulary: usize,
    },
    /// Embedding, rotary tables and mask.
    Embedding { rows: usize, length: usize },
    /// Clipping and optimizer on one block's adapters.
    Optimizer,
}

/// Who measures a part.
pub(crate) trait Stopwatch {
    /// Seconds of one call.
    fn seconds(&mut self, part: Part) -> Result<f64, TrainError>;
}

/// A vocabulary that costs nothing, where the head is not what is measured.
const NO_VOCABULARY: usize = 16;
/// Calls of a part at least and at most, after one to warm up; the median counts.
const CALLS: [usize; 2] = [2, 5];
/// Seconds after which no further call is made.
const ENOUGH: f64 = 0.6;

/// Times parts on a device.
pub(crate) struct Probe<'a> {
    workload: &'a Workload,
    device: Device,
    block: Option<(BlockKind, Block)>,
}

impl<'a> Probe<'a> {
    /// A probe of `workload` on `device`.
    pub(crate) fn new(workload: &'a Workload, device: &Device) -> Self {
        Self {
            workload,
            device: device.clone().inner().autodiff(),
            block: None,
        }
    }

    /// The block of `kind`, made once.
    fn block(&mut self, kind: BlockKind) -> Result<Block, TrainError> {
        if let Some((made, block)) = &self.block
            && *made == kind
        {
            return Ok(block.clone());
        }
        self.block = None; // Never two in memory.
        let mut model = self.model(1, NO_VOCABULARY)?;
        if kind == BlockKind::Adapted {
            self.attach(&mut model);
        }
        let block = model.model.layers.swap_remove(0);
        self.block = Some((kind, block.clone()));
        Ok(block)
    }

    /// A model of the workload's shape with so many layers and so large a vocabulary.
    fn model(&self, layers: usize, vocabulary: usize) -> Result<CausalLm, TrainError> {
        let config = ModelConfig {
            num_hidden_layers: layers,
            vocab_size: vocabulary,
            ..self.workload.config.clone()
        };
        let storage = match (self.workload.storage, self.workload.element()) {
            (Storage::AsStored, 2) => Storage::BF16,
            (Storage::AsStored, _) => Storage::F32,
            (storage, _) => storage,
        };
        let device = self.device.clone().inner();
        let weights = MadeUp {
            like: RandomWeights::new(&config, 0, 1.0),
            in_bf16: self.workload.is_stored_in_bf16(),
        };
        let model = build_model(&weights, &config, storage, &device)?;
        Ok(model.fork(&self.device).no_grad())
    }

    /// Puts adapters on, of the mean rank that the workload's layers have.
    fn attach(&self, model: &mut CausalLm) {
        let noise = SeededNoise::new(0);
        model.for_each_linear(&mut |path, linear| {
            let rank = self.mean_rank(path);
            if rank > 0 {
                let spec = AdapterSpec {
                    path: path.into(),
                    rank,
                    initial_rank: rank,
                    alpha: 1.0,
                };
                let [d_in, d_out] = linear.dims();
                let options = &self.workload.options;
                let start = (options.dropout, options.initial_values());
                let adapter = GatedLora::init(&spec, d_in, d_out, start, &noise, &self.device);
                linear.adapter = Some(adapter);
            }
        });
    }

    /// The mean rank of this layer's like; 0 where fewer than half of the adapted blocks have one.
    fn mean_rank(&self, path: &str) -> usize {
        let Some(name) = path.strip_prefix("model.layers.0.") else {
            return self.workload.rank(path);
        };
        let ranks = (0..self.workload.config.num_hidden_layers)
            .map(|layer| self.workload.rank(&format!("model.layers.{layer}.{name}")))
            .filter(|rank| *rank > 0);
        let (count, sum) = ranks.fold((0, 0), |(count, sum), rank| (count + 1, sum + rank));
        let blocks = self.workload.adapted_layers();
        if count * 2 < blocks || count == 0 {
            return 0;
        }
        (sum + count / 2) / count
    }

    fn positions(&self, rows: usize, length: usize) -> Positions {
        let config = &self.workload.config;
        let inverse = inverse_frequencies(config);
        let within = self.workload.activation_type();
        Positions::new(config, &inverse, 0, [rows, length], &self.device).with_activations(within)
    }

    fn activations(&self, rows: usize, length: usize) -> Tensor<3> {
        let hidden = self.workload.config.hidden_size;
        let values = numbers(rows * length * hidden);
        let device = self.device.clone().inner();
        Tensor::from_inner(Tensor::from_data(
            TensorData::new(values, [rows, length, hidden]),
            &device,
        ))
    }

    /// The median of a few calls, the first one left out.
    fn median(&self, mut call: impl FnMut()) -> Result<f64, TrainError> {
        let mut timed = || -> Result<f64, TrainError> {
            let started = Instant::now();
            call();
            self.synchronise()?;
            Ok(started.elapsed().as_secs_f64())
        };
        timed()?;
        let [least, most] = CALLS;
        let (mut seconds, mut sum) = (Vec::with_capacity(most), 0.0);
        while seconds.len() < least || (seconds.len() < most && sum < ENOUGH) {
            let second = timed()?;
            sum += second;
            seconds.push(second);
        }
        seconds.sort_unstable_by(f64::total_cmp);
        Ok(seconds[seconds.len() / 2])
    }

    fn synchronise(&self) -> Result<(), TrainError> {
        self.device.sync().map_err(|error| TrainError::Stopped {
            step: 0,
            detail: format!("the device could not be measured: {error}"),
        })
    }

    fn time_block(
        &mut self,
        kind: BlockKind,
        rows: usize,
        length: usize,
    ) -> Result<f64, TrainError> {
        let block = self.block(kind)?;
        let positions = self.positions(rows, length);
        let x = self.activations(rows, length);
        self.median(|| {
            if kind == BlockKind::Frozen {
                block.forward(x.clone(), &positions, None);
                return;
            }
            let input = x.clone().detach().require_grad();
            let y = if self.workload.recompute {
                block
                    .clone()
                    .valid()
                    .forward(x.clone().inner(), &positions, None);
                block.forward_again(input, &positions)
            } else {
                block.forward(input, &positions, None)
            };
            GradientsParams::from_grads(y.sum().backward(), &block);
        })
    }

    fn time_head(
        &mut self,
        [rows, length]: [usize; 2],
        targets: usize,
        vocabulary: usize,
    ) -> Result<f64, TrainError> {
        let mut model = self.model(0, vocabulary)?;
        self.attach(&mut model);
        let x = self.activations(rows, length);
        let tokens = rows * length;
        let spread = |count: usize| {
            (0..targets)
                .map(move |i| (i * 7919 % count) as i64)
                .collect()
        };
        let indices = |values: Vec<i64>| {
            Tensor::<1, Int>::from_data(TensorData::new(values, [targets]), &self.device)
        };
        let (picked, wanted) = (indices(spread(tokens)), indices(spread(vocabulary)));
        self.median(|| {
            let x = x.clone().detach().require_grad();
            let hidden = norm(&model.model.norm, x).flatten::<2>(0, 1);
            let loss = model.loss_sum(hidden.select(0, picked.clone()), wanted.clone());
            loss.backward();
        })
    }

    fn time_embedding(&mut self, rows: usize, length: usize) -> Result<f64, TrainError> {
        let model = self.model(0, NO_VOCABULARY)?;
        let ids: Vec<i64> = (0..rows * length)
            .map(|i| (i % NO_VOCABULARY) as i64)
            .collect();
        self.median(|| {
            let data = TensorData::new(ids.clone(), [rows, length]);
            model.hidden(Tensor::from_data(data, &self.device), None);
        })
    }

    fn time_optimizer(&mut self) -> Result<f64, TrainError> {
        let mut block = Some(self.block(BlockKind::Adapted)?);
        let mut optimizer: ModuleOptimizer =
            adapter_optimizer(&self.workload.options, &AdamEConfig::default());
        let (x, positions) = (self.activations(1, 1), self.positions(1, 1));
        let grads = |block: &Block| {
            let grads = block.forward(x.clone(), &positions, None).sum().backward();
            GradientsParams::from_grads(grads, block)
        };
        self.median(|| {
            if let Some(adapted) = block.take() {
                let (grads, _) = scale_and_clip(&adapted, grads(&adapted), 0.5, 1.0);
                block = Some(optimizer.step(1e-6, adapted, grads));
            }
        })
    }
}

impl Stopwatch for Probe<'_> {
    fn seconds(&mut self, part: Part) -> Result<f64, TrainError> {
        match part {
            Part::Block { kind, rows, length } => self.time_block(kind, rows, length),
            Part::Head {
                rows,
                length,
                targets,
                vocabulary,
            } => self.time_head([rows, length], targets, vocabulary),
            Part::Embedding { rows, length } => self.time_embedding(rows, length),
            Part::Optimizer => self.time_optimizer(),
        }
    }
}

/// Weights that are quick to make, and bf16 where the file's are: a product may be quicker for it, whatever
/// they are kept in.
struct MadeUp {
    like: RandomWeights,
    in_bf16: bool,
}

impl WeightSource for MadeUp {
    fn path(&self) -> &Path {
        Path::new("(made up)")
    }

    fn names(&self) -> Vec<String> {
        self.like.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.like.shape(name)
    }

    fn read(&self, name: &str) -> Result<StoredTensor, ModelError> {
        let shape = self
            .like
            .shape(name)
            .ok_or_else(|| ModelError::MissingTensor {
                path: self.path().into(),
                name: name.into(),
                hint: String::new(),
            })?;
        let values = numbers(shape.iter().product()).into_iter();
        // The high half of an f32 is a bf16.
        let (dtype, bytes) = match self.in_bf16 {
            true => (
                StoredType::BF16,
                values
                    .flat_map(|value| [2, 3].map(|at| value.to_le_bytes()[at]))
                    .collect(),
            ),
            false => (StoredType::F32, values.flat_map(f32::to_le_bytes).collect()),
        };
        Ok(StoredTensor {
            shape,
            dtype,
            bytes,
        })
    }
}

/// Numbers within ±0.05, none of them subnormal, which would be slow.
fn numbers(count: usize) -> Vec<f32> {
    let mut state = 1_u32;
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / 1.678e8 - 0.05
        })
        .collect()
}

#[cfg(test)]
mod tests;
