//! One decoder block: attention and MLP, each behind a norm and beside the residual stream.

use burn::{module::Module, nn::RmsNorm, tensor::Tensor};

use crate::{
    attention::{Attention, Positions},
    cache::KvCache,
    mlp::Mlp,
};

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
        let attended =
            self.self_attn
                .forward(self.input_layernorm.forward(x.clone()), positions, cache);
        let x = x + attended;
        let transformed = self
            .mlp
            .forward(self.post_attention_layernorm.forward(x.clone()));
        x + transformed
    }
}
