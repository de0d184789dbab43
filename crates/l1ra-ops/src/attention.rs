//! Rotary positions and causal attention as one operation on `[.., (heads + 2·kv_heads)·d]`, the
//! projections side by side.
//!
//! Between forward and backward it keeps its input, its output and `log Σ e^S` of every query;
//! nothing of size length² (see [`l1ra_kernels::attention`] for the formulas). Other devices have
//! [`attention_in_parts`], on queries, keys and values that are rotated already.

mod parts;

use std::sync::Arc;

use burn::{
    backend::{
        Backend,
        autodiff::{
            checkpoint::base::Checkpointer,
            grads::Gradients,
            ops::{Backward, Ops},
        },
        tensor::FloatTensor,
    },
    tensor::Tensor,
};
use l1ra_kernels::{
    attention::{Cache, Shape},
    rope::Rotary,
};

use crate::route::{self, GraphTensor};

pub use parts::{SCORES, attention_in_parts, queries_at_once};

/// A backend with kernels for the operation.
pub trait AttentionKernels: Backend {
    /// Output `[.., heads·d]` and `log Σ e^S [heads, tokens]`.
    fn forward(qkv: &FloatTensor<Self>, shape: &Shape, rotary: &Rotary) -> [FloatTensor<Self>; 2];

    /// Gradient of `qkv` for `dy`, given what the forward returned.
    fn backward(
        dy: &FloatTensor<Self>,
        qkv: &FloatTensor<Self>,
        forward: [&FloatTensor<Self>; 2],
        shape: &Shape,
        rotary: &Rotary,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct AttentionBackward;

#[derive(Clone, Debug)]
struct Saved<B: Backend> {
    qkv: FloatTensor<B>,
    out: FloatTensor<B>,
    lse: FloatTensor<B>,
    shape: Arc<Shape>,
    rotary: Arc<Rotary>,
}

impl<B: AttentionKernels> Backward<B, 1> for AttentionBackward {
    type State = Saved<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let Saved {
            qkv,
            out,
            lse,
            shape,
            rotary,
        } = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            let d_qkv = B::backward(&dy, &qkv, [&out, &lse], &shape, &rotary);
            grads.register::<B>(node.id, d_qkv);
        }
    }
}

#[cfg_attr(not(feature = "flex"), allow(dead_code))]
fn in_graph<B: AttentionKernels>(
    qkv: GraphTensor<B>,
    shape: &Arc<Shape>,
    rotary: &Arc<Rotary>,
) -> GraphTensor<B> {
    route::in_graph(AttentionBackward, qkv, |qkv| {
        let [out, lse] = B::forward(&qkv, shape, rotary);
        let saved = Saved {
            qkv,
            out: out.clone(),
            lse,
            shape: shape.clone(),
            rotary: rotary.clone(),
        };
        (saved, out)
    })
}

/// Attention output `[.., heads·d]` for `qkv [.., (heads + 2·kv_heads)·d]`, or the input back where
/// the backend has no [`AttentionKernels`].
///
/// # Errors
/// The input, untouched.
///
/// # Panics
/// If `shape` or `rotary` do not fit the input.
// The error is the input, which the caller goes on with.
#[allow(clippy::result_large_err)]
pub fn attention<const D: usize>(
    qkv: Tensor<D>,
    shape: &Arc<Shape>,
    rotary: &Arc<Rotary>,
) -> Result<Tensor<D>, Tensor<D>> {
    #[cfg(feature = "flex")]
    if route::is_ready_in_bf16(&qkv) {
        use burn::backend::Flex;
        return Ok(crate::flex::run(
            qkv,
            |qkv| {
                let [out, _] = <Flex as AttentionKernels>::forward(&qkv, shape, rotary);
                out
            },
            |qkv| in_graph::<Flex>(qkv, shape, rotary),
        ));
    }
    let _ = (shape, rotary);
    Err(qkv)
}

/// Attention of new tokens, `qkv [rows, length, (heads + 2·kv_heads)·d]`, to themselves and to those
/// in `cache`, which then holds them too. Outside of any graph.
///
/// # Errors
/// The input, untouched, where the backend has no kernels.
///
/// # Panics
/// If `shape` or `rotary` do not fit the input, or the cache was begun with other rows.
#[allow(clippy::result_large_err)] // As above.
pub fn attention_cached(
    qkv: Tensor<3>,
    cache: &mut Cache,
    shape: &Shape,
    rotary: &Rotary,
) -> Result<Tensor<3>, Tensor<3>> {
    // Its graph is left behind, whatever it keeps.
    #[cfg(feature = "flex")]
    if qkv.dtype() == burn::tensor::DType::F32 && route::has_kernels(&qkv.device()) {
        let qkv = qkv.inner();
        return Ok(crate::flex::attend_cached(qkv, cache, shape, rotary));
    }
    let _ = (cache, shape, rotary);
    Err(qkv)
}
