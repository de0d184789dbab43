//! Frozen linear layers that share an input, each perhaps with a gated low-rank adapter.
//!
//! ```text
//! y_j = x·W_j + ((x·A_j) ∘ g_j)·B_j                     g = s · c
//!
//! h = x·A      dh = dy·Bᵀ      dg = Σₙ h∘dh     dB = (h∘g)ᵀ·dy     dA = xᵀ·(dh∘g)
//! dx = Σ_j dy_j·W_jᵀ + (dh_j∘g_j)·A_jᵀ
//! ```
//!
//! x may be what a [`Prologue`] makes of the tensor that goes in: the norm before the layers, or the
//! MLP's gate. It is then made again in the backward, which costs a pass over it and saves keeping it.
//!
//! Between forward and backward the input is kept once for all layers, and with kernels every `h [n, r]`.
//! Nothing of the size of a weight is made or kept; weights are read as they are stored (f32, bf16, f16), and
//! [`Products`] says what they are multiplied in.
//! Prologues, adapters and sums are f32; the output has the type that is asked for.

use burn::{
    backend::{
        Backend,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads,
            ops::{Backward, Ops, OpsKind},
        },
        tensor::FloatTensor,
    },
    tensor::{DType, FloatDType, Tensor},
};

mod steps;

pub use l1ra_kernels::gemm::Products;
pub use steps::{composed, in_steps};

use crate::route::GraphTensor;

/// What is done to the input first.
#[derive(Clone, Debug)]
pub enum Before<B: Backend> {
    /// Nothing.
    Nothing,
    /// RMS norm with a frozen weight, `[d_in]`.
    Norm {
        /// The weight.
        weight: FloatTensor<B>,
        /// ε.
        epsilon: f32,
    },
    /// `silu(gate) ∘ up`, the input being `[.., 2·d_in]`.
    Swiglu,
}

/// What is asked of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its type.
    pub dtype: FloatDType,
    /// Whether anybody will read its values. Where not, only the gradient that comes back through it matters,
    /// as when a block is run again for its backward: the values may be anything.
    pub read: bool,
}

impl Output {
    /// Values of `dtype`.
    pub fn values(dtype: FloatDType) -> Self {
        Self { dtype, read: true }
    }

    /// Values that nobody reads.
    pub fn unread(dtype: FloatDType) -> Self {
        Self { dtype, read: false }
    }
}

/// One of the layers.
#[derive(Clone, Debug)]
pub struct Part<B: Backend> {
    /// Frozen `W`, `[d_in, d_out]`.
    pub weight: FloatTensor<B>,
    /// What it is multiplied in.
    pub products: Products,
    /// Its adapter.
    pub adapter: Option<Adapter<B>>,
}

/// An adapter's tensors.
#[derive(Clone, Debug)]
pub struct Adapter<B: Backend> {
    /// `A`, `[d_in, r]`.
    pub a: FloatTensor<B>,
    /// Gates times scale, `[r]`.
    pub g: FloatTensor<B>,
    /// `B`, `[r, d_out]`.
    pub b: FloatTensor<B>,
}

/// Which gradients are asked for, besides those of the adapters.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// That of the input.
    pub x: bool,
}

/// Gradients of the input and of every layer's adapter.
#[derive(Debug)]
pub struct Gradients<B: Backend> {
    /// `dx`, where it was wanted.
    pub x: Option<FloatTensor<B>>,
    /// One entry a layer.
    pub adapters: Vec<Option<AdapterGradients<B>>>,
}

/// Gradients of an adapter.
#[derive(Debug)]
pub struct AdapterGradients<B: Backend> {
    /// `dA`.
    pub a: FloatTensor<B>,
    /// `dg`.
    pub g: FloatTensor<B>,
    /// `dB`.
    pub b: FloatTensor<B>,
}

/// A backend with kernels for the operation.
pub trait LinearKernels: Backend {
    /// `[.., Σ d_out]`, the layers' outputs side by side, and every adapter's `h [n, r]`.
    fn forward(
        x: &FloatTensor<Self>,
        before: &Before<Self>,
        parts: &[Part<Self>],
        output: Output,
    ) -> (FloatTensor<Self>, Vec<Option<FloatTensor<Self>>>);

    /// Gradients for `dy [.., Σ d_out]`.
    fn backward(
        dy: &FloatTensor<Self>,
        x: &FloatTensor<Self>,
        before: &Before<Self>,
        parts: &[Part<Self>],
        low: &[Option<FloatTensor<Self>>],
        wanted: Wanted,
    ) -> Gradients<Self>;
}

#[derive(Debug)]
struct LinearBackward;

#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    x: FloatTensor<B>,
    before: Before<B>,
    parts: Vec<Part<B>>,
    low: Vec<Option<FloatTensor<B>>>,
}

/// Parents are x and then A, g, B of every layer; a layer without an adapter has x in their places.
impl<B: LinearKernels, const N: usize> Backward<B, N> for LinearBackward {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, N>,
        grads: &mut grads::Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let Saved {
            x,
            before,
            parts,
            low,
        } = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        let mut parents = ops.parents.into_iter();
        let x_node = parents.next().flatten();
        let wanted = Wanted {
            x: x_node.is_some(),
        };
        let gradients = B::backward(&dy, &x, &before, &parts, &low, wanted);
        drop(dy);
        for gradients in gradients.adapters {
            let nodes = [parents.next(), parents.next(), parents.next()].map(Option::flatten);
            let Some(AdapterGradients { a, g, b }) = gradients else {
                continue;
            };
            for (node, gradient) in nodes.into_iter().zip([a, g, b]) {
                if let Some(node) = node {
                    grads.register::<B>(node.id, gradient);
                }
            }
        }
        if let (Some(node), Some(dx)) = (x_node, gradients.x) {
            grads.register::<B>(node.id, dx);
        }
    }
}

// The method's type is not public, so a closure cannot be put as its path.
#[allow(clippy::redundant_closure_for_method_calls)]
fn into_primitive<B: Backend>(tensor: GraphTensor<B>) -> FloatTensor<B> {
    tensor.into_primitive()
}

/// A layer whose adapter may be in a graph.
struct GraphPart<B: Backend> {
    weight: FloatTensor<B>,
    products: Products,
    adapter: Option<[GraphTensor<B>; 3]>,
}

fn in_graph<B: LinearKernels, const N: usize>(
    x: GraphTensor<B>,
    before: Before<B>,
    parts: Vec<GraphPart<B>>,
    output: Output,
) -> GraphTensor<B> {
    let nodes: [_; N] = std::array::from_fn(|i| {
        let adapter = (i > 0)
            .then(|| parts[(i - 1) / 3].adapter.as_ref())
            .flatten();
        adapter.map_or_else(|| x.node(), |adapter| adapter[(i - 1) % 3].node())
    });
    let inner = |part: GraphPart<B>| Part {
        weight: part.weight,
        products: part.products,
        adapter: part.adapter.map(|adapter| {
            let [a, g, b] = adapter.map(into_primitive::<B>);
            Adapter { a, g, b }
        }),
    };
    let prepared = Backward::<B, N>::prepare::<NoCheckpointing>(LinearBackward, nodes);
    let x = x.into_primitive();
    let parts: Vec<_> = parts.into_iter().map(inner).collect();
    let (y, low) = B::forward(&x, &before, &parts, output);
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let saved = Saved {
                x,
                before,
                parts,
                low,
            };
            prepared.finish(saved, y)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}

/// One layer as tensors.
#[derive(Clone, Debug)]
pub struct Linear {
    /// `W`, `[d_in, d_out]`.
    pub weight: Tensor<2>,
    /// What it is multiplied in.
    pub products: Products,
    /// `A [d_in, r]`, gates times scale `[r]`, `B [r, d_out]`.
    pub adapter: Option<(Tensor<2>, Tensor<1>, Tensor<2>)>,
}

/// The type that products with a matrix are taken in on a device that multiplies in the matrix's own.
pub fn product_type(weight: &Tensor<2>, products: Products) -> FloatDType {
    match products {
        Products::Stored => FloatDType::from(weight.dtype()),
        Products::F32 => FloatDType::F32,
    }
}

/// What is done to the input first, as tensors.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // Lives for a call.
pub enum Prologue {
    /// Nothing.
    Nothing,
    /// [`rms_norm`](crate::norm::rms_norm) with this weight and ε.
    Norm(Tensor<1>, f64),
    /// [`swiglu`](crate::swiglu::swiglu).
    Swiglu,
}

impl Prologue {
    /// As an operation of its own, in the type of `x`.
    pub fn apply<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Self::Nothing => x,
            Self::Norm(weight, epsilon) => crate::norm::rms_norm(x, weight, *epsilon),
            Self::Swiglu => crate::swiglu::swiglu(x),
        }
    }
}

/// The outputs of layers side by side, `[.., Σ d_out]`, for what `prologue` makes of `x`, `[.., d_in]`.
///
/// Uses [`LinearKernels`] where the tensors' backend has them, there are up to three layers, the weights are
/// frozen and stored in f32, bf16 or f16, input and output are f32 or bf16 (f32 before a norm), and adapters
/// f32; [`in_steps`] elsewhere. Values and gradients are the same, except that the latter multiplies in the
/// weight's type wherever that may be.
///
/// # Panics
/// If shapes do not fit, as Burn's own operations do.
pub fn linears<const D: usize>(
    x: Tensor<D>,
    prologue: &Prologue,
    layers: &[Linear],
    output: Output,
) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if matches!(output.dtype, FloatDType::F32 | FloatDType::BF16)
        && crate::route::is_ready_in_bf16(&x)
        && !(x.dtype() == DType::BF16 && matches!(prologue, Prologue::Norm(..)))
        && (1..=3).contains(&layers.len())
    {
        let weights: Option<Vec<Tensor<2>>> =
            layers.iter().map(|layer| frozen(layer, &x)).collect();
        if let (Some(weights), Some(before)) = (weights, before(prologue)) {
            check(&x, prologue, layers);
            return on_flex(x, before, layers, weights, output);
        }
    }
    in_steps(x, prologue, layers, output.dtype)
}

/// A prologue that kernels can take.
#[cfg(feature = "flex")]
fn before(prologue: &Prologue) -> Option<Before<burn::backend::Flex>> {
    Some(match prologue {
        Prologue::Nothing => Before::Nothing,
        Prologue::Norm(weight, epsilon) => Before::Norm {
            weight: crate::flex::primitive(crate::route::constant_f32(weight)?),
            epsilon: *epsilon as f32,
        },
        Prologue::Swiglu => Before::Swiglu,
    })
}

/// The weight of a layer that kernels can take.
#[cfg(feature = "flex")]
fn frozen<const D: usize>(layer: &Linear, x: &Tensor<D>) -> Option<Tensor<2>> {
    let weight = crate::route::constant(&layer.weight)?;
    let stored = matches!(weight.dtype(), DType::F32 | DType::BF16 | DType::F16);
    let adapter = layer.adapter.as_ref();
    let single =
        adapter.is_none_or(|(a, g, b)| [a.dtype(), g.dtype(), b.dtype()] == [DType::F32; 3]);
    // A tracked adapter on an untracked device's input, or the other way round, is for Burn to mix.
    let together = adapter.is_none_or(|(a, g, b)| {
        let graphs = [a.is_autodiff(), g.is_autodiff(), b.is_autodiff()];
        let tracked = a.is_tracked() || g.is_tracked() || b.is_tracked();
        graphs == [x.is_autodiff(); 3] || !(x.is_autodiff() || tracked)
    });
    (stored && single && together).then_some(weight)
}

#[cfg(feature = "flex")]
fn check<const D: usize>(x: &Tensor<D>, prologue: &Prologue, layers: &[Linear]) {
    let width = x.dims()[D - 1];
    let d_in = match prologue {
        Prologue::Swiglu => width / 2,
        _ => width,
    };
    for layer in layers {
        let [rows, d_out] = layer.weight.dims();
        assert_eq!(rows, d_in, "width of the input and rows of the weight");
        if let Some((a, g, b)) = &layer.adapter {
            let rank = g.dims()[0];
            assert_eq!(
                (a.dims(), b.dims()),
                ([d_in, rank], [rank, d_out]),
                "adapter's shapes"
            );
        }
    }
}

#[cfg(feature = "flex")]
fn on_flex<const D: usize>(
    x: Tensor<D>,
    before: Before<burn::backend::Flex>,
    layers: &[Linear],
    weights: Vec<Tensor<2>>,
    output: Output,
) -> Tensor<D> {
    use crate::flex::{graph_primitive, primitive, run};
    use burn::backend::Flex;

    let device = x.device();
    let weights: Vec<_> = weights.into_iter().map(primitive).collect();
    let plain = |x| {
        let part = |(layer, weight): (&Linear, _)| Part {
            weight,
            products: layer.products,
            adapter: layer.adapter.clone().map(|(a, g, b)| Adapter {
                a: primitive(a),
                g: primitive(g),
                b: primitive(b),
            }),
        };
        let parts: Vec<Part<Flex>> = layers.iter().zip(weights.clone()).map(part).collect();
        <Flex as LinearKernels>::forward(&x, &before, &parts, output).0
    };
    let graph = |x| {
        let part = |(layer, weight): (&Linear, _)| GraphPart {
            weight,
            products: layer.products,
            adapter: layer.adapter.clone().map(|(a, g, b)| {
                let device = &device;
                [
                    graph_primitive(a.to_device(device)),
                    graph_primitive(g.to_device(device)),
                    graph_primitive(b.to_device(device)),
                ]
            }),
        };
        let parts: Vec<_> = layers.iter().zip(weights.clone()).map(part).collect();
        match parts.len() {
            1 => in_graph::<Flex, 4>(x, before.clone(), parts, output),
            2 => in_graph::<Flex, 7>(x, before.clone(), parts, output),
            _ => in_graph::<Flex, 10>(x, before.clone(), parts, output),
        }
    };
    run(x, plain, graph)
}

/// `((x·A) ∘ g)·B` for `x [n, d_in]` and `g [1, r]`, by Burn's own operations.
pub fn low_rank(x: Tensor<2>, a: Tensor<2>, g: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    (x.matmul(a) * g).matmul(b)
}

/// `a·b` taken in `dtype`, by Burn's own operations; the result in f32.
pub fn product<const D: usize>(a: Tensor<D>, b: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    product_within(a, b, dtype).cast(FloatDType::F32)
}

/// `a·b` taken in `dtype`, by Burn's own operations; the result in it, too.
pub(crate) fn product_within<const D: usize>(
    a: Tensor<D>,
    b: Tensor<D>,
    dtype: FloatDType,
) -> Tensor<D> {
    a.cast(dtype).matmul(b.cast(dtype))
}
