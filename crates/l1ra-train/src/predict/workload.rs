//! [`Workload`]: what a run will ask of the machine, known before any weight is loaded.

use burn::{
    backend::DispatchDevice,
    tensor::{Device, FloatDType},
};
use l1ra_core::{
    L1raConfig,
    config::{BudgetUnit, Policy},
    target::{AdapterSpec, adapter_specs},
};
use l1ra_models::{
    ModelConfig,
    weights::{RandomWeights, Storage, StoredType, WeightSource, linear_paths},
};
use serde::Serialize;

use crate::{activations::Activations, error::TrainError, predict::source::WeightsFrom};

/// Where tensors live.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub enum Home {
    /// In this process, on the `flex` backend: what the constants were measured on.
    #[default]
    Flex,
    /// In this process, on another backend.
    OtherCpu,
    /// In the memory of a GPU.
    Gpu,
}

impl Home {
    /// The home of `device`.
    pub fn of(device: &Device) -> Self {
        match device.clone().inner().as_dispatch() {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => Self::Flex,
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            // Kept because users know it; Burn will drop it after 0.22.
            DispatchDevice::NdArray(_) => Self::OtherCpu,
            #[allow(unreachable_patterns)]
            _ => Self::Gpu,
        }
    }
}

/// Shape of a micro-batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MicroBatch {
    /// Rows.
    pub rows: usize,
    /// Tokens of each row, padding counted.
    pub length: usize,
    /// Tokens with a target, in all rows together: logits are made for these.
    pub targets: usize,
    /// Tokens of all rows, padding not counted.
    pub tokens: usize,
}

/// Shape of a data row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowShape {
    /// Tokens.
    pub length: usize,
    /// Targets among them.
    pub targets: usize,
}

impl MicroBatch {
    /// `rows` full rows of `length` tokens, with `targets` targets in all.
    pub fn full(rows: usize, length: usize, targets: usize) -> Self {
        Self {
            rows,
            length,
            targets,
            tokens: rows * length,
        }
    }

    /// The rows put together, padded to the longest.
    pub fn of(rows: &[RowShape]) -> Self {
        Self {
            rows: rows.len(),
            length: rows.iter().map(|row| row.length).max().unwrap_or(0),
            targets: rows.iter().map(|row| row.targets).sum(),
            tokens: rows.iter().map(|row| row.length).sum(),
        }
    }

    /// The micro-batches of `rows` in their order: those of an evaluation.
    pub fn in_order(rows: &[RowShape], batch_size: usize) -> Vec<Self> {
        rows.chunks(batch_size.max(1)).map(Self::of).collect()
    }

    /// Positions that are computed, padding counted.
    pub fn positions(&self) -> usize {
        self.rows * self.length
    }
}

/// What a run will ask of the machine.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The model.
    pub config: ModelConfig,
    /// What matrices are kept in.
    pub storage: Storage,
    /// Where they come from.
    pub source: WeightsFrom,
    /// The adapters, as they start.
    pub adapters: Vec<AdapterSpec>,
    /// Their options.
    pub options: L1raConfig,
    /// Micro-batches of an optimizer step.
    pub accumulation: usize,
    /// Devices that a step's micro-batches are dealt out to: GPUs, each with memory of its own, or the
    /// same CPU under several names.
    pub devices: usize,
    /// Micro-batches that training will see, all of them or a sample.
    pub train: Vec<MicroBatch>,
    /// Whether training rows hold several texts: each row then has a mask of its own. Rows of an
    /// evaluation are never packed.
    pub packed: bool,
    /// Whether activations of blocks are made again in the backward.
    pub recompute: bool,
    /// What activations within blocks are kept in.
    pub activations: Activations,
    /// Micro-batches of an evaluation; none: nothing is evaluated.
    pub eval: Vec<MicroBatch>,
    /// Where tensors will live.
    pub home: Home,
}

impl Workload {
    /// A workload of `batches`, not packed, nothing evaluated, weights in memory, on `flex`.
    ///
    /// # Errors
    /// A target that matches no layer, or a pattern that cannot be used.
    pub fn new(
        config: ModelConfig,
        options: &L1raConfig,
        batches: Vec<MicroBatch>,
    ) -> Result<Self, TrainError> {
        let adapters = adapter_specs(options, &linear_paths(&config))?;
        Ok(Self {
            config,
            storage: Storage::default(),
            source: WeightsFrom::default(),
            adapters,
            options: options.clone(),
            accumulation: 1,
            devices: 1,
            train: batches,
            packed: false,
            recompute: false,
            activations: Activations::default(),
            eval: Vec::new(),
            home: Home::default(),
        })
    }

    /// Micro-batches that are at work in one memory at the same time.
    pub(crate) fn side_by_side(&self) -> u64 {
        match self.home {
            Home::Gpu => 1,
            Home::Flex | Home::OtherCpu => self.devices.max(1) as u64,
        }
    }

    /// Micro-batches of a step that follow each other.
    pub(crate) fn in_turn(&self) -> usize {
        match self.home {
            Home::Gpu => self.accumulation.div_ceil(self.devices.max(1)).max(1),
            Home::Flex | Home::OtherCpu => self.accumulation.max(1), // They share the cores.
        }
    }

    /// What matrices will be multiplied in, where the device can.
    pub(crate) fn base(&self) -> FloatDType {
        let base = self.storage.stored_type().unwrap_or(self.stored());
        base.into()
    }

    /// What the files hold; f32 where nothing is read.
    fn stored(&self) -> StoredType {
        match self.source {
            WeightsFrom::Files { stored, .. } => stored,
            WeightsFrom::Memory => StoredType::F32,
        }
    }

    /// Whether the files hold bf16, whatever matrices are kept in.
    pub(crate) fn is_stored_in_bf16(&self) -> bool {
        self.stored() == StoredType::BF16
    }

    /// Bytes of one number of a matrix, as it is kept.
    pub(crate) fn element(&self) -> u64 {
        let kept = self.storage.kept(self.stored(), self.home == Home::Flex);
        kept.size() as u64
    }

    /// Bytes of a product of matrices on a device that gives it back in the type of its factors.
    pub(crate) fn product_bytes(&self) -> u64 {
        bytes_of(self.base())
    }

    /// The type of activations within a block.
    pub(crate) fn activation_type(&self) -> FloatDType {
        self.activations.of_base(self.base())
    }

    /// Bytes of one of them.
    pub(crate) fn activation_bytes(&self) -> u64 {
        bytes_of(self.activation_type())
    }

    /// Shapes of all weights.
    pub(crate) fn shapes(&self) -> Vec<Vec<usize>> {
        let weights = RandomWeights::new(&self.config, 0, 1.0);
        let names = weights.names();
        names
            .iter()
            .filter_map(|name| weights.shape(name))
            .collect()
    }

    /// Inputs and outputs of a linear layer, by the last part of its path.
    pub(crate) fn dims(&self, path: &str) -> [usize; 2] {
        let config = &self.config;
        let hidden = config.hidden_size;
        let queries = config.num_attention_heads * config.head_dim;
        let keys = config.num_key_value_heads * config.head_dim;
        match path.rsplit('.').next() {
            Some("q_proj") => [hidden, queries],
            Some("k_proj" | "v_proj") => [hidden, keys],
            Some("o_proj") => [queries, hidden],
            Some("gate_proj" | "up_proj") => [hidden, config.intermediate_size],
            Some("down_proj") => [config.intermediate_size, hidden],
            _ => [hidden, config.vocab_size],
        }
    }

    /// The rank of an adapter, or 0 where the layer has none.
    pub(crate) fn rank(&self, path: &str) -> usize {
        let spec = self.adapters.iter().find(|spec| spec.path == path);
        spec.map_or(0, |spec| spec.rank)
    }

    /// Layers with an adapter.
    pub(crate) fn adapted_layers(&self) -> usize {
        let layers = 0..self.config.num_hidden_layers;
        layers.filter(|layer| self.is_adapted(*layer)).count()
    }

    /// Whether a layer has an adapter.
    pub(crate) fn is_adapted(&self, layer: usize) -> bool {
        let prefix = format!("model.layers.{layer}.");
        self.adapters
            .iter()
            .any(|spec| spec.path.starts_with(&prefix))
    }

    /// Parameters in adapters.
    pub fn adapter_parameters(&self) -> usize {
        let cost = |spec: &AdapterSpec| {
            let [d_in, d_out] = self.dims(&spec.path);
            spec.rank * (d_in + d_out + 1)
        };
        self.adapters.iter().map(cost).sum()
    }

    /// Parameters in adapters when every rank that can move has moved to where it costs most.
    pub fn adapter_parameters_at_most(&self) -> usize {
        let now = self.adapter_parameters();
        let options = &self.options;
        if options.budget_unit() == BudgetUnit::Parameters
            || !options.reassign
            || !matches!(options.policy, Policy::Lasso | Policy::Reference)
        {
            return now;
        }
        let kept = usize::from(!options.allow_zero_rank || options.policy == Policy::Reference);
        let mut seats: Vec<(usize, usize)> = Vec::new(); // cost of a rank, most ranks
        let (mut free, mut parameters) = (0, 0);
        for spec in &self.adapters {
            let [d_in, d_out] = self.dims(&spec.path);
            let cost = d_in + d_out + 1;
            let most = match options.policy {
                Policy::Reference => usize::MAX,
                _ => options
                    .max_rank
                    .unwrap_or(4 * spec.rank)
                    .min(d_in.min(d_out)),
            };
            let kept = kept.min(spec.rank);
            parameters += kept * cost;
            free += spec.rank - kept;
            seats.push((cost, most.saturating_sub(kept)));
        }
        seats.sort_unstable_by(|one, other| other.cmp(one));
        for (cost, most) in seats {
            let taken = free.min(most);
            parameters += taken * cost;
            free -= taken;
        }
        parameters.max(now)
    }
}

fn bytes_of(dtype: FloatDType) -> u64 {
    match dtype {
        FloatDType::F32 => 4,
        _ => 2,
    }
}

#[cfg(test)]
mod tests;
