//! [`AdaptedLinear`]: a frozen linear layer, perhaps with an adapter.

use burn::{
    module::{Module, Param},
    nn::Linear,
    tensor::{DType, FloatDType, Tensor},
};

use crate::adapter::GatedLora;

/// A frozen linear layer, perhaps with a [`GatedLora`] beside it: the one type that model code
/// calls, adapted or not.
///
/// ```text
/// y = x·W + b  [+ s · ((dropout(x)·A) ∘ c)·B]        W [d_in, d_out]   b [d_out]
/// ```
///
/// `W` and `b` carry no gradient. `W` may be stored in bf16 or f16 while `x` and the adapter are
/// f32: the product is then taken in the weight's type and cast back.
#[derive(Module, Debug)]
pub struct AdaptedLinear {
    /// Frozen `W`, `[d_in, d_out]`.
    pub weight: Param<Tensor<2>>,
    /// Frozen bias, `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter, if the layer has one.
    pub adapter: Option<GatedLora>,
}

/// What [`AdaptedLinear::unmerge`] needs: the weight from before, and the adapter.
#[derive(Debug)]
pub struct Unmerge {
    weight: Param<Tensor<2>>,
    adapter: GatedLora,
}

impl AdaptedLinear {
    /// A frozen layer without an adapter, from `weight [d_in, d_out]` and `bias [d_out]`.
    pub fn new(weight: Tensor<2>, bias: Option<Tensor<1>>) -> Self {
        Self {
            weight: Param::from_tensor(weight).set_require_grad(false),
            bias: bias.map(|bias| Param::from_tensor(bias).set_require_grad(false)),
            adapter: None,
        }
    }

    /// Freezes a Burn layer; adapters are put on with
    /// [`attach_adapters`](crate::attach_adapters).
    pub fn from_linear(linear: Linear) -> Self {
        Self {
            weight: linear.weight.set_require_grad(false),
            bias: linear.bias.map(|bias| bias.set_require_grad(false)),
            adapter: None,
        }
    }

    /// `[d_in, d_out]`.
    pub fn dims(&self) -> [usize; 2] {
        self.weight.val().dims()
    }

    /// `y [.., d_out]` for `x [.., d_in]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let [d_in, d_out] = self.dims();
        let mut shape = x.dims();
        let x = x.reshape([-1, d_in as isize]); // [tokens, d_in]
        let mut y = frozen_matmul(x.clone(), self.weight.val()); // [tokens, d_out]
        if let Some(bias) = &self.bias {
            y = y + bias.val().cast(FloatDType::from(x.dtype())).unsqueeze();
        }
        if let Some(adapter) = &self.adapter {
            y = y + adapter.forward(x);
        }
        shape[D - 1] = d_out;
        y.reshape(shape)
    }

    /// Folds the adapter into the weight, `W ← W + ΔW`, summed in f32 and stored in the weight's
    /// type. Returns `None` where there is no adapter.
    pub fn merge(&mut self) -> Option<Unmerge> {
        let adapter = self.adapter.take()?;
        let delta = adapter.delta_weight();
        let weight = self.weight.clone();
        self.weight = weight.clone().map(|base| {
            let dtype = FloatDType::from(base.dtype());
            let sum = base.inner().cast(FloatDType::F32) + delta;
            Tensor::from_inner(sum.cast(dtype))
        });
        Some(Unmerge { weight, adapter })
    }

    /// Takes a [`merge`](Self::merge) back: the weight is the very tensor from before.
    pub fn unmerge(&mut self, undo: Unmerge) {
        self.weight = undo.weight;
        self.adapter = Some(undo.adapter);
    }
}

impl From<Linear> for AdaptedLinear {
    fn from(linear: Linear) -> Self {
        Self::from_linear(linear)
    }
}

/// `x·W` in the weight's type, the result in `x`'s.
fn frozen_matmul(x: Tensor<2>, weight: Tensor<2>) -> Tensor<2> {
    let dtype: DType = x.dtype();
    if dtype == weight.dtype() {
        return x.matmul(weight);
    }
    x.cast(FloatDType::from(weight.dtype()))
        .matmul(weight)
        .cast(FloatDType::from(dtype))
}
