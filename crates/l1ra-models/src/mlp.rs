//! The gated MLP: `down(silu(gate(x)) ∘ up(x))` (SwiGLU, arXiv 2002.05202).

use burn::{module::Module, tensor::Tensor};
use l1ra_core::{AdaptedLinear, forward_together};
use l1ra_ops::swiglu::swiglu;

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
    /// Output for `x [batch, length, hidden]`, the same shape.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        let gate_up = forward_together([&self.gate_proj, &self.up_proj], x); // [.., 2·intermediate]
        self.down_proj.forward(swiglu(gate_up))
    }
}
