//! The gated MLP: `down(silu(gate(x)) ∘ up(x))` (SwiGLU, arXiv 2002.05202).

use burn::{
    module::Module,
    nn::RmsNorm,
    tensor::{FloatDType, Tensor},
};
use l1ra_core::{AdaptedLinear, Output, Prologue, forward_together};

use crate::block::normed;

/// MLP of one block.
#[derive(Module, Debug)]
pub struct Mlp {
    /// `[hidden, intermediate]`.
    pub gate_proj: AdaptedLinear,
    /// `[hidden, intermediate]`.
    pub up_proj: AdaptedLinear,
    /// `[intermediate, hidden]`.
    pub down_proj: AdaptedLinear,
}

impl Mlp {
    /// Output for the normed `x [batch, length, hidden]`, the same shape; gate and up are kept in `activations`.
    pub fn forward(
        &self,
        x: Tensor<3>,
        norm: &RmsNorm,
        activations: FloatDType,
        output: Output,
    ) -> Tensor<3> {
        let gate_up = [&self.gate_proj, &self.up_proj];
        let gate_up = forward_together(gate_up, x, &normed(norm), Output::values(activations)); // [.., 2·intermediate]
        forward_together([&self.down_proj], gate_up, &Prologue::Swiglu, output)
    }
}
