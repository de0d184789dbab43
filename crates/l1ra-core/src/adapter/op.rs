//! The adapter as one operation, generic over Burn's [`Backend`], with its backward written out.
//!
//! ```text
//! h = x·A            [n, r]
//! y = (h ∘ g)·B      [n, d_out]            g = s · c
//!
//! dB = (h ∘ g)ᵀ·dy   dh = dy·Bᵀ            dg = Σₙ h ∘ dh
//! dA = xᵀ·(dh ∘ g)   dx = (dh ∘ g)·Aᵀ
//! ```
//!
//! Between forward and backward it keeps `x`, which the caller holds anyway, and `h [n, r]`; no
//! array of the size of the output is kept.

// `NdArray` is kept because users know it; Burn drops it after 0.22.
#![allow(deprecated)]

use burn::{
    backend::{
        Autodiff, Backend, Dispatch, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        backend_extension,
        tensor::FloatTensor,
    },
    tensor::{Device, Tensor},
};

/// The gated low-rank product as an extension of a Burn backend.
///
/// The default body composes Burn operations and is right on every backend; a backend with
/// something better overrides it.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm")),
    Fusion: cfg(feature = "fusion"),
    Autodiff
)]
pub trait GatedLoraOps: Backend {
    /// `((x·A) ∘ g)·B` for `x [n, d_in]`, `A [d_in, r]`, `g [r]`, `B [r, d_out]`.
    #[fusion(default)]
    fn gated_lora(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        g: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let h = Self::float_matmul(x, a);
        Self::float_matmul(gate::<Self>(h, g), b)
    }
}

#[cfg(feature = "flex")]
impl GatedLoraOps for burn::backend::Flex {}

#[cfg(feature = "ndarray")]
impl GatedLoraOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
impl GatedLoraOps for burn_cubecl::CubeBackend {}

/// `h ∘ g` for `h [n, r]`, `g [r]`.
fn gate<B: Backend>(h: FloatTensor<B>, g: FloatTensor<B>) -> FloatTensor<B> {
    let rank = g.shape().num_elements();
    B::float_mul(h, B::float_reshape(g, [1, rank].into()))
}

#[derive(Debug)]
struct GatedLoraBackward;

#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    x: FloatTensor<B>,
    a: FloatTensor<B>,
    g: FloatTensor<B>,
    b: FloatTensor<B>,
    h: FloatTensor<B>,
}

impl<B: Backend> Backward<B, 4> for GatedLoraBackward {
    type State = Saved<B>;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        grads: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let [x_node, a_node, g_node, b_node] = ops.parents;
        let Saved { x, a, g, b, h } = ops.state;
        let dy = grads.consume::<B>(&ops.node); // [n, d_out]
        if let Some(node) = b_node {
            let gated = gate::<B>(h.clone(), g.clone());
            grads.register::<B>(
                node.id,
                B::float_matmul(B::float_transpose(gated), dy.clone()),
            );
        }
        if x_node.is_none() && a_node.is_none() && g_node.is_none() {
            return;
        }
        let dh = B::float_matmul(dy, B::float_transpose(b)); // [n, r]
        if let Some(node) = g_node {
            let rank = g.shape().num_elements();
            let dg = B::float_sum_dim(B::float_mul(h, dh.clone()), 0); // [1, r]
            grads.register::<B>(node.id, B::float_reshape(dg, [rank].into()));
        }
        let dh = gate::<B>(dh, g);
        if let Some(node) = a_node {
            let da = B::float_matmul(B::float_transpose(x), dh.clone());
            grads.register::<B>(node.id, da);
        }
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::float_matmul(dh, B::float_transpose(a)));
        }
    }
}

// The method's type is not public, so a closure has to name it.
#[allow(clippy::redundant_closure_for_method_calls)]
impl<B: Backend + GatedLoraOps, C: CheckpointStrategy> GatedLoraOps for Autodiff<B, C> {
    fn gated_lora(
        x: FloatTensor<Self>,
        a: FloatTensor<Self>,
        g: FloatTensor<Self>,
        b: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let nodes = [x.node(), a.node(), g.node(), b.node()];
        match GatedLoraBackward
            .prepare::<C>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let [x, a, g, b] = [x, a, g, b].map(|tensor| tensor.into_primitive());
                let h = B::float_matmul(x.clone(), a.clone());
                let y = B::float_matmul(gate::<B>(h.clone(), g.clone()), b.clone());
                prep.finish(Saved { x, a, g, b, h }, y)
            }
            OpsKind::UnTracked(prep) => {
                let [x, a, g, b] = [x, a, g, b].map(|tensor| tensor.into_primitive());
                prep.finish(B::gated_lora(x, a, g, b))
            }
        }
    }
}

/// `((x·A) ∘ g)·B` for `x [n, d_in]`, `A [d_in, r]`, `g [r]`, `B [r, d_out]`: `[n, d_out]`.
///
/// Uses [`GatedLoraOps`] where this build has it for the tensor's device, and the composition of
/// Burn operations elsewhere; values and gradients are the same.
pub fn gated_lora(x: Tensor<2>, a: Tensor<2>, g: Tensor<1>, b: Tensor<2>) -> Tensor<2> {
    if !is_supported(&x.device()) {
        return composed(x, a, g, b);
    }
    Tensor::from_dispatch(<Dispatch as GatedLoraOps>::gated_lora(
        x.into_dispatch(),
        a.into_dispatch(),
        g.into_dispatch(),
        b.into_dispatch(),
    ))
}

/// The same by composition of Burn operations, with Burn's own backward: the reference.
pub fn composed(x: Tensor<2>, a: Tensor<2>, g: Tensor<1>, b: Tensor<2>) -> Tensor<2> {
    l1ra_ops::linear::low_rank(x, a, g.unsqueeze_dim(0), b)
}

/// Whether this build has [`GatedLoraOps`] for `device`.
fn is_supported(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[cfg(feature = "ndarray")]
        DispatchDevice::NdArray(_) => true,
        #[cfg(any(feature = "wgpu", feature = "cuda", feature = "rocm"))]
        DispatchDevice::Cube(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}
