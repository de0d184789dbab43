//! Kernels of ours for GPUs, in CubeCL: one for each of [`rows`](crate::rows), where a composition of Burn's
//! operations reads and writes the array many times.
//!
//! Matrix products stay Burn's, which chooses among its own for the device.
//!
//! With Burn's fusion they are operations that it orders with its own and does not look into.

mod kernels;
mod launch;

use burn::{
    backend::{
        Backend, backend_extension,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{FloatDType, Shape},
};

/// What is done to rows, outside of any graph; see [`rows`](crate::rows) for the formulas.
#[backend_extension(Cube, Fusion: cfg(feature = "fusion"))]
pub(crate) trait RowKernels: Backend {
    /// `[.., d]` in f32 for `x [.., d]` in f32.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm(x: FloatTensor<Self>, weight: FloatTensor<Self>, epsilon: f32)
    -> FloatTensor<Self>;

    /// `dx` in f32 for `dy` and `x` in f32.
    #[fusion(dtype = x, shape = x)]
    fn rms_norm_backward(
        dy: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self>;

    /// `[.., d]` in `dtype` for `gate_up [.., 2d]`.
    #[fusion(dtype = burn::tensor::DType::from(*dtype), shape = half_as_wide(gate_up))]
    fn swiglu(gate_up: FloatTensor<Self>, dtype: FloatDType) -> FloatTensor<Self>;

    /// The gradient of `gate_up`, in its type.
    #[fusion(dtype = gate_up, shape = gate_up)]
    fn swiglu_backward(dy: FloatTensor<Self>, gate_up: FloatTensor<Self>) -> FloatTensor<Self>;

    /// `softmax(scores + mask)` in the type of `scores [batch, kv_heads, rows, keys]`, whose rows are those of
    /// `mask [1 or batch, 1, queries, keys]` again and again.
    #[fusion(dtype = scores, shape = scores)]
    fn masked_softmax(scores: FloatTensor<Self>, mask: FloatTensor<Self>) -> FloatTensor<Self>;

    /// The gradient of the scores, in the type of both.
    #[fusion(dtype = dp, shape = dp)]
    fn softmax_backward(p: FloatTensor<Self>, dp: FloatTensor<Self>) -> FloatTensor<Self>;

    /// Losses `[n]` in f32 and, if `slope` is set, their gradients in the type of `logits [n, vocabulary]`.
    #[fusion(meta = |logits: &Spec, _: &Spec, _: &bool| (row_losses(logits), logits.clone()))]
    fn cross_entropy(
        logits: FloatTensor<Self>,
        targets: IntTensor<Self>,
        slope: bool,
    ) -> (FloatTensor<Self>, FloatTensor<Self>);
}

#[cfg(feature = "fusion")]
use burn::backend::fusion::custom::TensorSpec as Spec;

#[cfg(feature = "fusion")]
fn row_losses(logits: &Spec) -> Spec {
    let mut losses = logits.clone();
    losses.dtype = burn::tensor::DType::F32;
    losses.shape = Shape::new([logits.shape[0]]);
    losses
}

/// The shape with half as many columns.
fn half_as_wide(shape: &Shape) -> Shape {
    let mut shape = shape.clone();
    let last = shape.num_dims() - 1;
    shape[last] /= 2;
    shape
}
