//! Causal self-attention with grouped query heads and an optional sliding window.

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData, activation::softmax},
};
use l1ra_core::AdaptedLinear;

use crate::{cache::KvCache, config::ModelConfig, rope::RopeTables, segments::Segments};

/// Multi-head attention of one block. Weights are Hugging Face's, transposed.
#[derive(Module, Debug)]
pub struct Attention {
    /// Queries, `[hidden, heads · head_dim]`.
    pub q_proj: AdaptedLinear,
    /// Keys, `[hidden, kv_heads · head_dim]`.
    pub k_proj: AdaptedLinear,
    /// Values, `[hidden, kv_heads · head_dim]`.
    pub v_proj: AdaptedLinear,
    /// Output, `[heads · head_dim, hidden]`.
    pub o_proj: AdaptedLinear,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
}

/// What all blocks of one forward share.
#[derive(Clone, Debug)]
pub struct Positions {
    /// Rotary tables of the new tokens.
    pub rope: RopeTables,
    /// Added to the scores: 0 where a query sees a key, −∞ elsewhere; `[1, 1, new, all]`, or
    /// `[batch, 1, length, length]` for packed rows.
    pub mask: Option<Tensor<4>>,
}

impl Positions {
    /// For `length` new tokens after `start` cached ones.
    pub fn new(
        inverse: &[f32],
        window: Option<usize>,
        start: usize,
        length: usize,
        device: &Device,
    ) -> Self {
        Self {
            rope: RopeTables::new(inverse, start, length, device),
            mask: mask(window, start, length, device),
        }
    }

    /// For packed rows: a token sees its own text only, and positions begin at 0 in every text.
    pub fn packed(
        inverse: &[f32],
        window: Option<usize>,
        segments: &Segments,
        device: &Device,
    ) -> Self {
        let [batch, length] = segments.dims();
        let mask = TensorData::new(segments.mask(window), [batch, 1, length, length]);
        Self {
            rope: RopeTables::packed(inverse, segments, device),
            mask: Some(Tensor::from_data(mask, device)),
        }
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

impl Attention {
    /// Attention from its four projections.
    pub fn new(projections: [AdaptedLinear; 4], config: &ModelConfig) -> Self {
        let [q_proj, k_proj, v_proj, o_proj] = projections;
        Self {
            q_proj,
            k_proj,
            v_proj,
            o_proj,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
        }
    }

    /// Attention output for `x [batch, length, hidden]`, the same shape.
    ///
    /// Query heads that share a key/value head are taken together as rows of one product, so keys
    /// and values are never repeated.
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: &Positions,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        let [batch, length, _] = x.dims();
        let (heads, kv_heads, d) = (self.heads, self.kv_heads, self.head_dim);
        let split = |y: Tensor<3>, heads: usize| {
            y.reshape([batch, length, heads, d]).swap_dims(1, 2) // [batch, heads, length, d]
        };
        let q = positions
            .rope
            .rotate(split(self.q_proj.forward(x.clone()), heads));
        let k = positions
            .rope
            .rotate(split(self.k_proj.forward(x.clone()), kv_heads));
        let v = split(self.v_proj.forward(x), kv_heads);
        let (k, v) = match cache {
            Some((cache, layer)) => cache.extend(layer, k, v),
            None => (k, v),
        };
        let total = k.dims()[2];
        let rows = heads / kv_heads * length;

        let q = q
            .mul_scalar(1.0 / (d as f64).sqrt())
            .reshape([batch, kv_heads, rows, d]);
        let scores = q.matmul(k.swap_dims(2, 3)); // [batch, kv_heads, rows, total]
        let mut scores = scores.reshape([batch, heads, length, total]);
        if let Some(mask) = &positions.mask {
            scores = scores + mask.clone();
        }
        let weights = softmax(scores, 3).reshape([batch, kv_heads, rows, total]);
        let y = weights.matmul(v).reshape([batch, heads, length, d]);
        self.o_proj
            .forward(y.swap_dims(1, 2).reshape([batch, length, heads * d]))
    }
}
