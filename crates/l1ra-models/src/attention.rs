//! Causal self-attention with grouped query heads and an optional sliding window.

use burn::{
    module::Module,
    nn::RmsNorm,
    tensor::{Device, FloatDType, Tensor},
};
use l1ra_core::{AdaptedLinear, Output, Prologue, forward_together};
use l1ra_ops::{
    attention::{SCORES, attention, attention_cached, attention_in_parts},
    has_kernels,
};

use crate::{
    block::normed,
    cache::KvCache,
    config::ModelConfig,
    positions::{Positions, Tables},
};

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

    /// Attention output for the normed `x [batch, length, hidden]`, the same shape.
    pub fn forward(
        &self,
        x: Tensor<3>,
        norm: &RmsNorm,
        positions: &Positions,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        let qkv = [&self.q_proj, &self.k_proj, &self.v_proj];
        let output = Output::values(positions.activations());
        let qkv = forward_together(qkv, x, &normed(norm), output);
        let y = self.attend(qkv, positions, cache);
        let output = Output::values(FloatDType::F32);
        forward_together([&self.o_proj], y, &Prologue::Nothing, output)
    }

    /// Attention `[batch, length, heads · head_dim]` on projections side by side.
    fn attend(
        &self,
        qkv: Tensor<3>,
        positions: &Positions,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        if !has_kernels(&qkv.device()) {
            return self.composed(self.apart(qkv), positions, cache);
        }
        let (shape, rotary) = (positions.shape(), positions.rotary());
        match cache {
            None => attention(qkv, shape, rotary)
                .unwrap_or_else(|qkv| self.composed(self.apart(qkv), positions, None)),
            Some((cache, layer)) => {
                let room = cache.capacity();
                let host = cache.host(layer);
                host.reserve(qkv.dims()[0], room, shape);
                attention_cached(qkv, host, shape, rotary).unwrap_or_else(|qkv| {
                    self.composed(self.apart(qkv), positions, Some((cache, layer)))
                })
            }
        }
    }

    /// What a device without kernels of ours takes products in: two bytes where the base has them.
    fn product_type(&self, device: &Device) -> FloatDType {
        match has_kernels(device) {
            true => FloatDType::F32,
            false => self.q_proj.dtype(),
        }
    }

    fn apart(&self, qkv: Tensor<3>) -> [Tensor<3>; 3] {
        let (q, kv) = (self.heads * self.head_dim, self.kv_heads * self.head_dim);
        [(0, q), (q, kv), (q + kv, kv)].map(|(start, length)| qkv.clone().narrow(2, start, length))
    }

    /// By Burn's own operations: `[batch, length, heads · head_dim]`. Keys and values are never repeated;
    /// products are taken in the type of the base, rotation and softmax in f32.
    fn composed(
        &self,
        [q, k, v]: [Tensor<3>; 3],
        positions: &Positions,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        let [batch, length, _] = q.dims();
        let (heads, kv_heads, d) = (self.heads, self.kv_heads, self.head_dim);
        let Tables { rope, mask } = positions.tables();
        let split = |y: Tensor<3>, heads: usize| {
            y.reshape([batch, length, heads, d]).swap_dims(1, 2) // [batch, heads, length, d]
        };
        let given = FloatDType::from(q.dtype());
        let rotated = |y, heads| rope.rotate(split(y, heads).cast(FloatDType::F32));
        let q = rotated(q, heads)
            .mul_scalar(1.0 / (d as f64).sqrt())
            .cast(given);
        let k = rotated(k, kv_heads).cast(given);
        let v = split(v, kv_heads);
        let (k, v) = match cache {
            Some((cache, layer)) => cache.extend(layer, k, v),
            None => (k, v),
        };
        let dtype = self.product_type(&q.device());
        let y = attention_in_parts([q, k, v], mask.as_ref(), dtype, SCORES);
        y.swap_dims(1, 2).reshape([batch, length, heads * d])
    }
}
