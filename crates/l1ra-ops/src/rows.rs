//! What is done to each row of an array on its own, outside of any graph: norm, gate, softmax and cross-entropy
//! with their gradients.
//!
//! On GPUs (feature `cube`) each is one kernel of ours, which reads the array up to three times and writes it once,
//! where it lies if nobody else holds it. Elsewhere, and in a graph, it is a composition of Burn's operations.
//! Both compute in f32 and round once.
//!
//! The operations of this crate are made of them on devices without kernels for the whole operation.

use burn::tensor::{
    FloatDType, IndexingUpdateOp, Int, Tensor,
    activation::{log_softmax, sigmoid, softmax},
};

use crate::{norm, swiglu};

#[cfg(feature = "cube")]
use crate::{
    cube::RowKernels,
    route::{on_gpu, on_gpu_in_f32},
};
#[cfg(feature = "cube")]
use burn::backend::Dispatch;

/// RMS norm of the rows of `x [.., d]` with `weight [d]`, in the type of `x`:
///
/// ```text
/// y = x · i ∘ w      i = 1 / √(mean(x²) + ε)
/// ```
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, epsilon: f64) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if on_gpu_in_f32(&[&x]) && on_gpu_in_f32(&[weight]) {
        let weight = weight.clone().into_dispatch();
        return Tensor::from_dispatch(<Dispatch as RowKernels>::rms_norm(
            x.into_dispatch(),
            weight,
            epsilon as f32,
        ));
    }
    norm::composed(x, weight, epsilon)
}

/// Gradient of `x` for `dy`, both in one type:
///
/// ```text
/// dx = i · (w∘dy) − x · i³ · mean(w ∘ dy ∘ x)
/// ```
pub fn rms_norm_backward<const D: usize>(
    dy: Tensor<D>,
    x: Tensor<D>,
    weight: &Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if on_gpu_in_f32(&[&dy, &x]) && on_gpu_in_f32(&[weight]) {
        let weight = weight.clone().into_dispatch();
        return Tensor::from_dispatch(<Dispatch as RowKernels>::rms_norm_backward(
            dy.into_dispatch(),
            x.into_dispatch(),
            weight,
            epsilon as f32,
        ));
    }
    let mean = x.clone().square().mean_dim(D - 1);
    let inverse = mean.add_scalar(epsilon).sqrt().recip();
    let dy = dy * weight.clone().unsqueeze::<D>();
    let pulled = (dy.clone() * x.clone()).mean_dim(D - 1);
    let slope = pulled * inverse.clone().square() * inverse.clone();
    dy * inverse - x * slope
}

/// `silu(gate) ∘ up [.., d]` in `dtype` for `gate_up [.., 2d]`, gate first.
pub fn swiglu<const D: usize>(gate_up: Tensor<D>, dtype: FloatDType) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if on_gpu(&[&gate_up]) {
        let gate_up = gate_up.into_dispatch();
        return Tensor::from_dispatch(<Dispatch as RowKernels>::swiglu(gate_up, dtype));
    }
    swiglu::composed(gate_up.cast(FloatDType::F32)).cast(dtype)
}

/// Gradient of `gate_up`, in its type, for `dy` of any:
///
/// ```text
/// d_up = dy ∘ silu(gate)      d_gate = dy ∘ up ∘ σ(gate) ∘ (1 + gate ∘ (1 − σ(gate)))
/// ```
pub fn swiglu_backward<const D: usize>(dy: Tensor<D>, gate_up: &Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "cube")]
    if on_gpu(&[&dy, gate_up]) {
        let gate_up = gate_up.clone().into_dispatch();
        let dy = dy.into_dispatch();
        return Tensor::from_dispatch(<Dispatch as RowKernels>::swiglu_backward(dy, gate_up));
    }
    let given = FloatDType::from(gate_up.dtype());
    let [gate, up] = swiglu::halves(gate_up.clone().cast(FloatDType::F32));
    let dy = dy.cast(FloatDType::F32);
    let s = sigmoid(gate.clone());
    let slope = s.clone() * (gate.clone() * (s.clone().neg() + 1.0) + 1.0);
    let d_up = dy.clone() * gate * s;
    Tensor::cat(vec![dy * up * slope, d_up], D - 1).cast(given)
}

/// `softmax(scores + mask)` in the type of `scores [batch, kv_heads, rows, keys]`.
///
/// `mask [1 or batch, 1, queries, keys]` is f32 and holds for every head: `rows` are the queries of one head
/// after the other. It is −∞ where a query does not see a key; every query has to see one.
pub fn masked_softmax(scores: Tensor<4>, mask: Option<&Tensor<4>>) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if let Some(mask) = mask
        && on_gpu(&[&scores])
        && on_gpu_in_f32(&[mask])
    {
        let mask = mask.clone().into_dispatch();
        let scores = scores.into_dispatch();
        return Tensor::from_dispatch(<Dispatch as RowKernels>::masked_softmax(scores, mask));
    }
    let given = FloatDType::from(scores.dtype());
    let scores = scores.cast(FloatDType::F32);
    let Some(mask) = mask else {
        return softmax(scores, 3).cast(given);
    };
    let shape @ [batch, kv_heads, rows, keys] = scores.dims();
    let queries = mask.dims()[2];
    let scores = scores.reshape([batch, kv_heads * rows / queries, queries, keys]);
    softmax(scores + mask.clone(), 3).reshape(shape).cast(given)
}

/// Gradient of the scores for that of `p`, their softmax: `p ∘ (dp − rowsum(p ∘ dp))`, in the type of both.
pub fn softmax_backward(p: Tensor<4>, dp: Tensor<4>) -> Tensor<4> {
    #[cfg(feature = "cube")]
    if p.dtype() == dp.dtype() && on_gpu(&[&p, &dp]) {
        let (p, dp) = (p.into_dispatch(), dp.into_dispatch());
        return Tensor::from_dispatch(<Dispatch as RowKernels>::softmax_backward(p, dp));
    }
    let given = FloatDType::from(dp.dtype());
    let [p, dp] = [p, dp].map(|x| x.cast(FloatDType::F32));
    let pulled = (p.clone() * dp.clone()).sum_dim(3);
    (p * (dp - pulled)).cast(given)
}

/// Cross-entropy `log Σ e^z − z[target]` of every row of `logits [n, vocabulary]`, `[n]` in f32, for
/// `targets [n]`, each an id of the vocabulary; and, if `slope` is set, the gradient of their sum in the type of
/// the logits: `softmax(z) − 1[target]`.
pub fn cross_entropy(
    logits: Tensor<2>,
    targets: Tensor<1, Int>,
    slope: bool,
) -> (Tensor<1>, Option<Tensor<2>>) {
    #[cfg(feature = "cube")]
    if on_gpu(&[&logits]) {
        let (losses, slopes) = <Dispatch as RowKernels>::cross_entropy(
            logits.into_dispatch(),
            targets.into_dispatch(),
            slope,
        );
        let slopes = slope.then(|| Tensor::from_dispatch(slopes));
        return (Tensor::from_dispatch(losses), slopes);
    }
    let given = FloatDType::from(logits.dtype());
    let logs = log_softmax(logits.cast(FloatDType::F32), 1);
    let targets = targets.unsqueeze_dim(1);
    let losses = logs.clone().gather(1, targets.clone()).squeeze_dim(1).neg();
    let slopes = slope.then(|| {
        let minus_one = Tensor::full(targets.dims(), -1.0, &logs.device());
        let slopes = logs.exp();
        let slopes = slopes.scatter(1, targets, minus_one, IndexingUpdateOp::Add);
        slopes.cast(given)
    });
    (losses, slopes)
}
