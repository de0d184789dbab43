//! One decoder block: attention and MLP, each behind a norm and beside the residual stream.

use burn::{module::Module, nn::RmsNorm, tensor::Tensor};
use l1ra_ops::norm::rms_norm;

use crate::{attention::Attention, cache::KvCache, mlp::Mlp, positions::Positions};

/// A decoder block.
#[derive(Module, Debug)]
pub struct Block {
    /// Attention.
    pub self_attn: Attention,
    /// MLP.
    pub mlp: Mlp,
    /// Norm before attention.
    pub input_layernorm: RmsNorm,
    /// Norm before the MLP.
    pub post_attention_layernorm: RmsNorm,
}

impl Block {
    /// Output for `x [batch, length, hidden]`, the same shape.
    pub fn forward(
        &self,
        x: Tensor<3>,
        positions: &Positions,
        cache: Option<(&mut KvCache, usize)>,
    ) -> Tensor<3> {
        let normed = norm(&self.input_layernorm, x.clone());
        let x = x + self.self_attn.forward(normed, positions, cache);
        let normed = norm(&self.post_attention_layernorm, x.clone());
        x + self.mlp.forward(normed)
    }

    /// Whether an adapter drops parts of its input in training.
    pub fn has_dropout(&self) -> bool {
        let (attention, mlp) = (&self.self_attn, &self.mlp);
        let layers = [
            &attention.q_proj,
            &attention.k_proj,
            &attention.v_proj,
            &attention.o_proj,
            &mlp.gate_proj,
            &mlp.up_proj,
            &mlp.down_proj,
        ];
        let adapters = layers.iter().filter_map(|layer| layer.adapter.as_ref());
        adapters
            .into_iter()
            .any(|adapter| adapter.dropout.prob > 0.0)
    }
}

/// A norm of the model, as one operation where the device has kernels (`l1ra_ops::norm`).
pub fn norm<const D: usize>(norm: &RmsNorm, x: Tensor<D>) -> Tensor<D> {
    rms_norm(x, &norm.gamma.val(), norm.epsilon)
}
