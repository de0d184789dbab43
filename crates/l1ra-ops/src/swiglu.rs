//! The gate of the MLP: `silu(gate) ∘ up` for one tensor that holds both.

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
    tensor::{FloatDType, Tensor, activation::silu},
};

use crate::{
    by_hand::ByHand,
    route::{self, GraphTensor},
    rows,
};

/// A backend with kernels for the operation.
pub trait SwigluKernels: Backend {
    /// `[.., d]` for `gate_up [.., 2d]`.
    fn forward(gate_up: &FloatTensor<Self>) -> FloatTensor<Self>;

    /// Gradient of `gate_up`.
    fn backward(dy: &FloatTensor<Self>, gate_up: &FloatTensor<Self>) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: SwigluKernels> Backward<B, 1> for SwigluBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::backward(&dy, &ops.state));
        }
    }
}

#[cfg_attr(not(feature = "flex"), allow(dead_code))]
fn in_graph<B: SwigluKernels>(gate_up: GraphTensor<B>) -> GraphTensor<B> {
    route::in_graph(SwigluBackward, gate_up, |gate_up| {
        let y = B::forward(&gate_up);
        (gate_up, y)
    })
}

/// `silu(gate) ∘ up [.., d]` for `gate_up [.., 2d]`, gate first.
///
/// One operation where the backend has [`SwigluKernels`]; elsewhere put together from Burn's, with a backward
/// that keeps `gate_up` alone.
pub fn swiglu<const D: usize>(gate_up: Tensor<D>) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if route::is_ready_in_bf16(&gate_up) {
        use burn::backend::Flex;
        return crate::flex::run(
            gate_up,
            |gate_up| <Flex as SwigluKernels>::forward(&gate_up),
            in_graph::<Flex>,
        );
    }
    in_steps(gate_up)
}

/// The same on any device: [`rows::swiglu`] with its gradient.
pub fn in_steps<const D: usize>(gate_up: Tensor<D>) -> Tensor<D> {
    let swiglu = ByHand {
        forward: |[gate_up]: &[Tensor<D>; 1], ()| {
            rows::swiglu(gate_up.clone(), FloatDType::from(gate_up.dtype()))
        },
        backward: |dy, [gate_up], (), _| [Some(rows::swiglu_backward(dy, gate_up))],
    };
    swiglu.run([gate_up], ())
}

/// The same by Burn's own operations, with Burn's own backward: the reference. Computed in f32, given back in
/// the input's type.
pub fn composed<const D: usize>(gate_up: Tensor<D>) -> Tensor<D> {
    let given = FloatDType::from(gate_up.dtype());
    let [gate, up] = halves(gate_up.cast(FloatDType::F32));
    (silu(gate) * up).cast(given)
}

/// Gate and up.
pub(crate) fn halves<const D: usize>(gate_up: Tensor<D>) -> [Tensor<D>; 2] {
    let d = gate_up.dims()[D - 1] / 2;
    [0, d].map(|start| gate_up.clone().narrow(D - 1, start, d))
}
