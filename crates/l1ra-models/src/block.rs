//! One decoder block: attention and MLP, each behind a norm and beside the residual stream.

use burn::{
    module::Module,
    nn::RmsNorm,
    tensor::{FloatDType, Tensor},
};
use l1ra_core::{Output, Prologue};
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
        self.run(x, positions, cache, Output::values(FloatDType::F32))
    }

    /// The graph of [`forward`](Self::forward) for its backward alone: the values of the output may
    /// be anything, and its last product is left out where the device has kernels.
    pub fn forward_again(&self, x: Tensor<3>, positions: &Positions) -> Tensor<3> {
        self.run(x, positions, None, Output::unread(FloatDType::F32))
    }

    fn run(
        &self,
        x: Tensor<3>,
        positions: &Positions,
        cache: Option<(&mut KvCache, usize)>,
        output: Output,
    ) -> Tensor<3> {
        let attended = self
            .self_attn
            .forward(x.clone(), &self.input_layernorm, positions, cache);
        let x = x + attended;
        let norm = &self.post_attention_layernorm;
        x.clone() + self.mlp.forward(x, norm, positions.activations(), output)
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

/// A norm as the first part of the layers that follow it.
pub(crate) fn normed(norm: &RmsNorm) -> Prologue {
    Prologue::Norm(norm.gamma.val(), norm.epsilon)
}
