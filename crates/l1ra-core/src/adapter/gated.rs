//! [`GatedLora`]: the side path of an adapted layer.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::{Device, Tensor, TensorData},
};

use crate::{adapter::op, config::Init, init::SeededNoise, target::AdapterSpec};

/// A low-rank side path with one gate per rank (L1RA, arXiv 2509.04884, eq. 2):
///
/// ```text
/// Δy = s · ((dropout(x)·A) ∘ c)·B      A [d_in, r]   c [r]   B [r, d_out]   s = alpha / r0
/// ```
///
/// The scale `s` belongs to the *initial* rank `r0` and never follows the current one: a rank that
/// arrives or leaves must not change what the others do.
///
/// The optimizer keeps the gates in `[0, 1]`; the forward takes them as they are.
#[derive(Module, Debug)]
pub struct GatedLora {
    /// `A`, `[d_in, r]`.
    pub lora_a: Param<Tensor<2>>,
    /// Gates `c`, `[r]`.
    pub lora_c: Param<Tensor<1>>,
    /// `B`, `[r, d_out]`.
    pub lora_b: Param<Tensor<2>>,
    /// Scale `s`, `[1]`, never trained. A parameter, so that a walk and a record can see it.
    pub lora_scale: Param<Tensor<1>>,
    /// Dropout on the input, active on autodiff devices only.
    pub dropout: Dropout,
}

impl GatedLora {
    /// An adapter at its start: A drawn as `init` says, `c = 1`, `B = 0`. One of rank 0 holds a slot with
    /// `c = 0`, which adds nothing.
    ///
    /// `A` comes from `noise`, that is from a CPU generator: the same on every backend.
    pub fn init(
        spec: &AdapterSpec,
        d_in: usize,
        d_out: usize,
        (dropout, init): (f64, Init),
        noise: &SeededNoise,
        device: &Device,
    ) -> Self {
        let slots = spec.rank.max(1);
        let mut a = noise.matrix(&spec.path, d_in, slots, init);
        let unit = init.scale(d_in, spec.initial_rank);
        a.iter_mut().for_each(|value| *value *= unit);
        let gate = if spec.rank == 0 { 0.0 } else { 1.0 };
        Self::from_data(
            TensorData::new(a, [d_in, slots]),
            TensorData::new(vec![gate; slots], [slots]),
            TensorData::new(vec![0.0_f32; slots * d_out], [slots, d_out]),
            (spec.alpha / spec.initial_rank as f64) as f32,
            dropout,
            device,
        )
    }

    /// An adapter from its values: `a [d_in, r]`, `c [r]`, `b [r, d_out]`, all f32.
    ///
    /// The caller has checked that the shapes agree.
    pub fn from_data(
        a: TensorData,
        c: TensorData,
        b: TensorData,
        scale: f32,
        dropout: f64,
        device: &Device,
    ) -> Self {
        Self {
            lora_a: Param::from_data(a, device),
            lora_c: Param::from_data(c, device),
            lora_b: Param::from_data(b, device),
            lora_scale: Param::from_data(TensorData::from([scale]), device).set_require_grad(false),
            dropout: DropoutConfig::new(dropout).init(),
        }
    }

    /// The same with gates that get a gradient, or are constants.
    pub(crate) fn with_trained_gates(self, trained: bool) -> Self {
        Self {
            lora_c: self.lora_c.set_require_grad(trained),
            ..self
        }
    }

    /// Current rank.
    pub fn rank(&self) -> usize {
        self.lora_c.val().dims()[0]
    }

    /// A, gates times scale, and B: the adapter's part of [`l1ra_ops::linear`].
    ///
    /// The scale is folded into the gates, which costs `r` products in place of `tokens · d_out`.
    pub(crate) fn operand(&self) -> (Tensor<2>, Tensor<1>, Tensor<2>) {
        let gates = self.lora_c.val() * self.lora_scale.val(); // [r]
        (self.lora_a.val(), gates, self.lora_b.val())
    }

    /// Side path for `x [tokens, d_in]`: `[tokens, d_out]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let (a, gates, b) = self.operand();
        op::gated_lora(self.dropout.forward(x), a, gates, b)
    }

    /// Dense update `ΔW = s · (A ∘ c)·B`, `[d_in, d_out]`, outside the autodiff graph.
    pub fn delta_weight(&self) -> Tensor<2> {
        let inner = |tensor: Tensor<2>| tensor.inner();
        let gates = (self.lora_c.val() * self.lora_scale.val())
            .inner()
            .unsqueeze_dim::<2>(0);
        (inner(self.lora_a.val()) * gates).matmul(inner(self.lora_b.val()))
    }
}
