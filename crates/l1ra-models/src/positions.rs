//! [`Positions`]: what all blocks of one forward share.

use std::sync::{Arc, OnceLock};

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use l1ra_ops::{AttentionShape, Rotary};

use crate::{config::ModelConfig, rope::RopeTables, segments::Segments};

/// Which positions a forward's tokens have, and which tokens they see.
#[derive(Clone, Debug)]
pub struct Positions {
    shape: Arc<AttentionShape>,
    rotary: Arc<Rotary>,
    seen: Seen,
    device: Device,
    activations: FloatDType,
    tables: OnceLock<Tables>,
}

/// The tokens that a forward is about.
#[derive(Clone, Debug)]
enum Seen {
    /// `length` new ones after `start` cached ones, in every row.
    After { start: usize, length: usize },
    /// Rows of several texts.
    Packed(Segments),
}

/// The same as tensors, for attention by Burn's own operations.
#[derive(Clone, Debug)]
pub(crate) struct Tables {
    /// Rotary tables of the new tokens.
    pub(crate) rope: RopeTables,
    /// Added to the scores: 0 where a query sees a key, −∞ elsewhere; `[1, 1, new, all]`, or
    /// `[batch, 1, length, length]` for packed rows.
    pub(crate) mask: Option<Tensor<4>>,
}

impl Positions {
    /// For `batch` rows of `length` new tokens after `start` cached ones.
    pub fn new(
        config: &ModelConfig,
        inverse: &[f32],
        start: usize,
        [batch, length]: [usize; 2],
        device: &Device,
    ) -> Self {
        let sequences = (0..batch).map(|row| row * length..(row + 1) * length);
        Self {
            shape: Arc::new(attention_shape(config, sequences.collect())),
            rotary: Arc::new(Rotary::new(inverse, start, length)),
            seen: Seen::After { start, length },
            device: device.clone(),
            activations: FloatDType::F32,
            tables: OnceLock::new(),
        }
    }

    /// For packed rows: a token sees its own text only, and positions begin at 0 in every text.
    pub fn packed(
        config: &ModelConfig,
        inverse: &[f32],
        segments: &Segments,
        device: &Device,
    ) -> Self {
        Self {
            shape: Arc::new(attention_shape(config, segments.ranges())),
            rotary: Arc::new(Rotary::new(inverse, 0, segments.longest())),
            seen: Seen::Packed(segments.clone()),
            device: device.clone(),
            activations: FloatDType::F32,
            tables: OnceLock::new(),
        }
    }

    /// The same, for a forward whose activations have this type within blocks; f32 where nothing is said.
    pub fn with_activations(self, activations: FloatDType) -> Self {
        Self {
            activations,
            ..self
        }
    }

    /// The type of what layers of a block hand on to each other. The residual stream is f32.
    pub(crate) fn activations(&self) -> FloatDType {
        self.activations
    }

    pub(crate) fn shape(&self) -> &Arc<AttentionShape> {
        &self.shape
    }

    pub(crate) fn rotary(&self) -> &Arc<Rotary> {
        &self.rotary
    }

    /// Tensors of the same, made when a block first asks.
    pub(crate) fn tables(&self) -> &Tables {
        self.tables.get_or_init(|| {
            let window = self.shape.window;
            match &self.seen {
                Seen::After { start, length } => Tables {
                    rope: RopeTables::new(&self.rotary, &self.device),
                    mask: mask(window, *start, *length, &self.device),
                },
                Seen::Packed(segments) => {
                    let [batch, length] = segments.dims();
                    let mask = TensorData::new(segments.mask(window), [batch, 1, length, length]);
                    Tables {
                        rope: RopeTables::packed(&self.rotary, segments, &self.device),
                        mask: Some(Tensor::from_data(mask, &self.device)),
                    }
                }
            }
        })
    }
}

fn attention_shape(config: &ModelConfig, sequences: Vec<std::ops::Range<usize>>) -> AttentionShape {
    AttentionShape {
        heads: config.num_attention_heads,
        kv_heads: config.num_key_value_heads,
        head_dim: config.head_dim,
        window: config.sliding_window,
        sequences,
    }
}

/// The causal mask, with the window: query `i` sees key `j` if `i − window < j ≤ i`. `None` where
/// every query sees every key.
fn mask(window: Option<usize>, start: usize, length: usize, device: &Device) -> Option<Tensor<4>> {
    let total = start + length;
    let window = window.unwrap_or(usize::MAX);
    if length == 1 && total <= window {
        return None;
    }
    let visible = |query: usize, key: usize| key <= query && query - key < window;
    let values: Vec<f32> = (start..total)
        .flat_map(|query| (0..total).map(move |key| (query, key)))
        .map(|(query, key)| {
            if visible(query, key) {
                0.0
            } else {
                f32::NEG_INFINITY
            }
        })
        .collect();
    Some(Tensor::from_data(
        TensorData::new(values, [1, 1, length, total]),
        device,
    ))
}
