//! The layers by Burn's own operations, on any device: with a backward of our own, and with Burn's.

use burn::tensor::{FloatDType, Tensor};

use super::{Linear, Products, Prologue, low_rank, product, product_type};
use crate::{by_hand::ByHand, norm, route, rows, swiglu};

/// The layers' outputs side by side, by Burn's own operations, with the backward of [this module's
/// formulas](super). It keeps what goes in, and makes the rest again: what the prologue gives, and every `h`.
///
/// [`composed`] where a weight is trained and where there are more than three layers.
pub fn in_steps<const D: usize>(
    x: Tensor<D>,
    prologue: &Prologue,
    layers: &[Linear],
    dtype: FloatDType,
) -> Tensor<D> {
    let frozen = |layer: &Linear| Some(Matrix::of(layer, route::constant(&layer.weight)?));
    let weights: Option<Vec<_>> = layers.iter().map(frozen).collect();
    let (Some(weights), Some(prologue), 1..=3) = (weights, constant(prologue), layers.len()) else {
        return composed(x, prologue, layers, dtype);
    };
    let (x, shape) = flat(x);
    let adapted = layers.iter().map(|layer| layer.adapter.is_some());
    let given = Given {
        prologue,
        weights,
        adapted: adapted.collect(),
        dtype,
    };
    let y = match layers.len() {
        1 => by_hand::<4>(x, layers, given),
        2 => by_hand::<7>(x, layers, given),
        _ => by_hand::<10>(x, layers, given),
    };
    unflat(y, shape)
}

/// The same with Burn's own backward: the reference.
pub fn composed<const D: usize>(
    x: Tensor<D>,
    prologue: &Prologue,
    layers: &[Linear],
    dtype: FloatDType,
) -> Tensor<D> {
    let (x, shape) = flat(x);
    let x = prologue.composed(x.cast(FloatDType::F32));
    let weights = layers
        .iter()
        .map(|layer| Matrix::of(layer, layer.weight.clone()));
    let weights: Vec<_> = weights.collect();
    let adapters = layers.iter().map(|layer| {
        let (a, g, b) = layer.adapter.clone()?;
        Some([a, g.unsqueeze_dim(0), b])
    });
    let adapters: Vec<_> = adapters.collect();
    unflat(side_by_side(x, &weights, &adapters, dtype), shape)
}

/// Rows of `x`, and the shape they came in.
fn flat<const D: usize>(x: Tensor<D>) -> (Tensor<2>, [usize; D]) {
    let shape = x.dims();
    (x.reshape([-1, shape[D - 1] as isize]), shape)
}

fn unflat<const D: usize>(y: Tensor<2>, mut shape: [usize; D]) -> Tensor<D> {
    shape[D - 1] = y.dims()[1];
    y.reshape(shape)
}

/// A, g `[1, r]` and B of a layer.
type Adapter = [Tensor<2>; 3];

/// A matrix and what it is multiplied in.
#[derive(Clone, Debug)]
struct Matrix {
    values: Tensor<2>,
    products: Products,
}

impl Matrix {
    fn of(layer: &Linear, values: Tensor<2>) -> Self {
        Self {
            values,
            products: layer.products,
        }
    }

    fn product_type(&self) -> FloatDType {
        product_type(&self.values, self.products)
    }
}

/// What is not trained.
#[derive(Clone, Debug)]
struct Given {
    prologue: Prologue,
    weights: Vec<Matrix>,
    adapted: Vec<bool>,
    dtype: FloatDType,
}

/// A prologue out of any graph; `None` where its weight is trained.
fn constant(prologue: &Prologue) -> Option<Prologue> {
    Some(match prologue {
        Prologue::Norm(weight, epsilon) => Prologue::Norm(route::constant(weight)?, *epsilon),
        other => other.clone(),
    })
}

/// The operation on x and then A, g, B of every layer; a layer without an adapter has x in their places.
fn by_hand<const N: usize>(x: Tensor<2>, layers: &[Linear], given: Given) -> Tensor<2> {
    let inputs: [_; N] = std::array::from_fn(|i| {
        let layer = i.checked_sub(1).and_then(|i| layers.get(i / 3));
        match layer.and_then(|layer| layer.adapter.clone()) {
            None => x.clone(),
            Some((a, g, b)) => match (i - 1) % 3 {
                0 => a,
                1 => g.unsqueeze_dim(0),
                _ => b,
            },
        }
    });
    let operation = ByHand {
        forward: |inputs: &[_; N], given: &Given| {
            let x = given.input(&inputs[0]);
            side_by_side(
                x,
                &given.weights,
                &given.adapters(&inputs[1..]),
                given.dtype,
            )
        },
        backward: |dy, inputs, given, wanted| backward(&dy, inputs, given, wanted),
    };
    operation.run(inputs, given)
}

impl Given {
    /// What the prologue makes of `x`, in f32.
    fn input(&self, x: &Tensor<2>) -> Tensor<2> {
        self.prologue.forward(x.clone())
    }

    fn adapters(&self, inputs: &[Tensor<2>]) -> Vec<Option<Adapter>> {
        let layers = inputs.chunks_exact(3).zip(&self.adapted);
        let each = layers.map(|(inputs, adapted)| match (adapted, inputs) {
            (true, [a, g, b]) => Some([a.clone(), g.clone(), b.clone()]),
            _ => None,
        });
        each.collect()
    }
}

impl Prologue {
    /// In f32, with a gradient of [`backward`](Self::backward).
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Nothing => x.cast(FloatDType::F32),
            Self::Norm(weight, epsilon) => {
                rows::rms_norm(x.cast(FloatDType::F32), weight, *epsilon)
            }
            Self::Swiglu => rows::swiglu(x, FloatDType::F32),
        }
    }

    /// By Burn's own operations, with Burn's own backward.
    fn composed(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Nothing => x,
            Self::Norm(weight, epsilon) => norm::composed(x, weight, *epsilon),
            Self::Swiglu => swiglu::composed(x),
        }
    }

    /// The gradient of `x`, in its type, for that of what is made of it.
    fn backward(&self, dy: Tensor<2>, x: &Tensor<2>) -> Tensor<2> {
        let given = FloatDType::from(x.dtype());
        match self {
            Self::Nothing => dy.cast(given),
            Self::Norm(weight, epsilon) => {
                let x = x.clone().cast(FloatDType::F32);
                rows::rms_norm_backward(dy, x, weight, *epsilon).cast(given)
            }
            Self::Swiglu => rows::swiglu_backward(dy, x),
        }
    }
}

/// `x·W + ((x·A) ∘ g)·B` of every layer for `x [n, d_in]` in f32, side by side and in `dtype`.
fn side_by_side(
    x: Tensor<2>,
    weights: &[Matrix],
    adapters: &[Option<Adapter>],
    dtype: FloatDType,
) -> Tensor<2> {
    // Cast once for weights of one type, which follow each other.
    let mut cast = x.clone();
    let each = |(weight, adapter): (&Matrix, &Option<Adapter>)| {
        let within = weight.product_type();
        if FloatDType::from(cast.dtype()) != within {
            cast = x.clone().cast(within);
        }
        let y = cast.clone().matmul(weight.values.clone().cast(within));
        let Some([a, g, b]) = adapter.clone() else {
            return y.cast(dtype);
        };
        let side = low_rank(x.clone(), a, g, b);
        (y.cast(FloatDType::F32) + side).cast(dtype)
    };
    let mut outputs: Vec<Tensor<2>> = weights.iter().zip(adapters).map(each).collect();
    match outputs.len() {
        1 => outputs.remove(0),
        _ => Tensor::cat(outputs, 1),
    }
}

fn backward<const N: usize>(
    dy: &Tensor<2>,
    inputs: &[Tensor<2>; N],
    given: &Given,
    wanted: [bool; N],
) -> [Option<Tensor<2>>; N] {
    let x = given.input(&inputs[0]);
    let mut found = [const { None }; N];
    let mut sum: Option<Tensor<2>> = None;
    let mut add = |term: Tensor<2>| {
        sum = Some(match sum.take() {
            None => term,
            Some(sum) => sum + term,
        });
    };
    let mut at = 0;
    let adapters = given.adapters(&inputs[1..]);
    for (layer, (weight, adapter)) in given.weights.iter().zip(adapters).enumerate() {
        let d_out = weight.values.dims()[1];
        let dy = dy.clone().narrow(1, at, d_out);
        at += d_out;
        if wanted[0] {
            let turned = weight.values.clone().transpose();
            add(product(dy.clone(), turned, weight.product_type()));
        }
        let Some([a, g, b]) = adapter else { continue };
        let dy = dy.cast(FloatDType::F32);
        let h = x.clone().matmul(a.clone());
        let dh = dy.clone().matmul(b.transpose());
        let d_gated = dh.clone() * g.clone();
        let first = 1 + 3 * layer;
        found[first] = Some(x.clone().transpose().matmul(d_gated.clone()));
        found[first + 1] = Some((h.clone() * dh).sum_dim(0));
        found[first + 2] = Some((h * g).transpose().matmul(dy));
        if wanted[0] {
            add(d_gated.matmul(a.transpose()));
        }
    }
    let dx = sum.filter(|_| wanted[0]);
    found[0] = dx.map(|dx| given.prologue.backward(dx, &inputs[0]));
    found
}
