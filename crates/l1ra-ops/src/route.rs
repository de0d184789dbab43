//! Which tensors kernels of ours can take.

use burn::{
    backend::{
        Autodiff, Backend,
        autodiff::{
            checkpoint::strategy::NoCheckpointing,
            ops::{Backward, OpsKind},
        },
        tensor::FloatTensor,
    },
    tensor::{DType, Device, GradientCheckpointingStrategy, Tensor},
};

/// A tensor of the backend `B` that may be in a graph.
pub(crate) type GraphTensor<B> = FloatTensor<Autodiff<B>>;

/// The output of an operation on one tensor, with what `run` keeps for its backward in the graph.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) fn in_graph<B: Backend, O: Backward<B, 1>>(
    operation: O,
    x: GraphTensor<B>,
    run: impl FnOnce(FloatTensor<B>) -> (O::State, FloatTensor<B>),
) -> GraphTensor<B> {
    let prepared = operation.prepare::<NoCheckpointing>([x.node()]);
    let (state, y) = run(x.into_primitive());
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => prepared.finish(state, y),
        OpsKind::UnTracked(prepared) => prepared.finish(y),
    }
}

/// Whether this build has kernels of ours for `device`.
pub fn has_kernels(device: &Device) -> bool {
    use burn::backend::DispatchDevice;
    match device.clone().inner().as_dispatch() {
        #[cfg(feature = "flex")]
        DispatchDevice::Flex(_) => true,
        #[allow(unreachable_patterns)]
        _ => false,
    }
}

/// Whether kernels can take a tensor: f32, on a device that has them, and in no graph that keeps
/// activations in Burn's own way of recomputing them.
pub(crate) fn is_ready<const D: usize>(tensor: &Tensor<D>) -> bool {
    tensor.dtype() == DType::F32 && is_ready_in_bf16(tensor)
}

/// The same for kernels that take bf16 as well.
pub(crate) fn is_ready_in_bf16<const D: usize>(tensor: &Tensor<D>) -> bool {
    let device = tensor.device();
    let known = matches!(tensor.dtype(), DType::F32 | DType::BF16);
    known && has_kernels(&device) && takes_own_backward(&device)
}

/// Whether a graph on `device` takes an operation of ours: not where it keeps activations in Burn's own way of
/// recomputing them.
pub(crate) fn takes_own_backward(device: &Device) -> bool {
    device.gradient_checkpointing_strategy() != Some(GradientCheckpointingStrategy::Balanced)
}

/// A tensor that is not trained, out of any graph; `None` where it is trained.
pub(crate) fn constant<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    (!tensor.is_tracked()).then(|| tensor.clone().inner())
}

/// As [`constant`], for a tensor that kernels read in f32.
pub(crate) fn constant_f32<const D: usize>(tensor: &Tensor<D>) -> Option<Tensor<D>> {
    constant(tensor).filter(|tensor| tensor.dtype() == DType::F32)
}

/// Whether a kernel for rows can take the tensors: on a GPU, out of any graph, not empty, and not longer than 32 bits count.
#[cfg(feature = "cube")]
pub(crate) fn on_gpu<const D: usize>(tensors: &[&Tensor<D>]) -> bool {
    use burn::backend::DispatchDevice;
    tensors.iter().all(|tensor| {
        let known = matches!(tensor.dtype(), DType::F32 | DType::BF16 | DType::F16);
        let values = tensor.dims().iter().product::<usize>();
        let counted = (1..u32::MAX as usize).contains(&values);
        let cube = matches!(tensor.device().as_dispatch(), DispatchDevice::Cube(_));
        known && counted && cube && !tensor.is_autodiff()
    })
}

/// Whether a kernel for rows that takes f32 alone can take the tensors.
#[cfg(feature = "cube")]
pub(crate) fn on_gpu_in_f32<const D: usize>(tensors: &[&Tensor<D>]) -> bool {
    let single = |tensor: &&Tensor<D>| tensor.dtype() == DType::F32;
    tensors.iter().all(single) && on_gpu(tensors)
}
