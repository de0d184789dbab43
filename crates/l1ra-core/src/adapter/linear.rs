//! [`AdaptedLinear`]: a frozen linear layer, perhaps with an adapter.

use burn::{
    module::{Module, Param},
    nn,
    tensor::{FloatDType, Tensor},
};
use l1ra_ops::linear::{Linear, Output, Products, Prologue, linears, product_type};

use crate::adapter::GatedLora;

/// A frozen linear layer, perhaps with a [`GatedLora`] beside it: the one type that model code
/// calls, adapted or not.
///
/// ```text
/// y = x·W + b  [+ s · ((dropout(x)·A) ∘ c)·B]        W [d_in, d_out]   b [d_out]
/// ```
///
/// `W` and `b` carry no gradient. `W` may be stored in bf16 or f16 while `x` and the adapter are
/// f32. The product is taken in the weight's type where the device multiplies in it, and cast back; with
/// [`Products::F32`] it is taken in f32, the weight being widened as it is read.
#[derive(Module, Debug)]
pub struct AdaptedLinear {
    /// Frozen `W`, `[d_in, d_out]`.
    pub weight: Param<Tensor<2>>,
    /// Frozen bias, `[d_out]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// The adapter, if the layer has one.
    pub adapter: Option<GatedLora>,
    #[module(skip)]
    products: Products,
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
            products: Products::Stored,
        }
    }

    /// The layer with its weight multiplied so. [`Products::F32`] is for an f32 weight whose values need no more
    /// than 16 bits, which are then all that is kept of it.
    pub fn taken_in(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// What the weight is multiplied in.
    pub fn products(&self) -> Products {
        self.products
    }

    /// The type of the layer: that of its products, which is the weight's but for [`Products::F32`].
    pub fn dtype(&self) -> FloatDType {
        product_type(&self.weight.val(), self.products)
    }

    /// Freezes a Burn layer; adapters are put on with
    /// [`attach_adapters`](crate::attach_adapters).
    pub fn from_linear(linear: nn::Linear) -> Self {
        Self {
            weight: linear.weight.set_require_grad(false),
            bias: linear.bias.map(|bias| bias.set_require_grad(false)),
            adapter: None,
            products: Products::Stored,
        }
    }

    /// `[d_in, d_out]`.
    pub fn dims(&self) -> [usize; 2] {
        self.weight.val().dims()
    }

    /// `y [.., d_out]` for `x [.., d_in]`.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let output = Output::values(FloatDType::from(x.dtype()));
        forward_together([self], x, &Prologue::Nothing, output)
    }

    /// The layer without its bias, as an operand of [`linears`]; without its adapter too where that
    /// looks at another input than the weight does.
    fn operand(&self, dropped: bool) -> Linear {
        let adapter = self.adapter.as_ref().filter(|_| !dropped);
        Linear {
            weight: self.weight.val(),
            products: self.products,
            adapter: adapter.map(GatedLora::operand),
        }
    }

    /// What the operation left out of `y`, added.
    fn finish<const D: usize>(&self, y: Tensor<D>, x: &Tensor<D>, dropped: bool) -> Tensor<D> {
        let dtype = FloatDType::from(y.dtype());
        let mut y = y;
        if let Some(bias) = &self.bias {
            y = y + bias.val().cast(dtype).unsqueeze();
        }
        if let Some(adapter) = self.adapter.as_ref().filter(|_| dropped) {
            let [d_in, _] = self.dims();
            let x = x.clone().cast(FloatDType::F32);
            let side = adapter.forward(x.reshape([-1, d_in as isize]));
            let shape = y.dims();
            y = y + side.cast(dtype).reshape(shape);
        }
        y
    }

    /// Folds the adapter into the weight, `W ← W + ΔW`, summed in f32 and stored in the [layer's
    /// type](Self::dtype). Returns `None` where there is no adapter.
    pub fn merge(&mut self) -> Option<Unmerge> {
        let adapter = self.adapter.take()?;
        let delta = adapter.delta_weight();
        let weight = self.weight.clone();
        let dtype = self.dtype();
        self.weight = weight.clone().map(|base| {
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

impl From<nn::Linear> for AdaptedLinear {
    fn from(linear: nn::Linear) -> Self {
        Self::from_linear(linear)
    }
}

/// The outputs of layers that share their input, side by side: `[.., Σ d_out]` for what `prologue`
/// makes of `x`, `[.., d_in]`.
///
/// One operation, which keeps x once (see [`l1ra_ops::linear`]). With dropout the adapters see another
/// x than the weights, and are operations of their own.
pub fn forward_together<const D: usize, const N: usize>(
    layers: [&AdaptedLinear; N],
    x: Tensor<D>,
    prologue: &Prologue,
    output: Output,
) -> Tensor<D> {
    let drops = |layer: &AdaptedLinear| {
        let adapter = layer.adapter.as_ref();
        adapter.is_some_and(|adapter| adapter.dropout.prob > 0.0) && x.is_autodiff()
    };
    let dropped = layers.map(drops);
    let operands: Vec<Linear> = layers
        .iter()
        .zip(dropped)
        .map(|(layer, dropped)| layer.operand(dropped))
        .collect();
    let plain = layers
        .iter()
        .zip(dropped)
        .all(|(layer, dropped)| layer.bias.is_none() && !dropped);
    if plain {
        return linears(x, prologue, &operands, output);
    }
    let x = prologue.apply(x);
    let each = |((layer, operand), dropped): ((&&AdaptedLinear, &Linear), bool)| {
        let y = linears(
            x.clone(),
            &Prologue::Nothing,
            std::slice::from_ref(operand),
            output,
        );
        layer.finish(y, &x, dropped)
    };
    let outputs: Vec<Tensor<D>> = layers
        .iter()
        .zip(&operands)
        .zip(dropped)
        .map(each)
        .collect();
    Tensor::cat(outputs, D - 1)
}
