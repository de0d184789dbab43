//! RMS norm with a frozen weight: `y = x / √(mean(x²) + ε) ∘ w`.
//!
//! Its backward keeps x, which the residual stream holds anyway, and one number a row.

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

use crate::{
    by_hand::ByHand,
    route::{self, GraphTensor},
    rows,
};

/// A backend with kernels for the operation.
pub trait NormKernels: Backend {
    /// `y` and the inverse roots, `[n]`.
    fn forward(
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        epsilon: f32,
    ) -> [FloatTensor<Self>; 2];

    /// `dx` for `dy`.
    fn backward(
        dy: &FloatTensor<Self>,
        x: &FloatTensor<Self>,
        weight: &FloatTensor<Self>,
        inverse: &FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

#[derive(Debug)]
struct NormBackward;

impl<B: NormKernels> Backward<B, 1> for NormBackward {
    type State = [FloatTensor<B>; 3];

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let [x, weight, inverse] = ops.state;
        let dy = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::backward(&dy, &x, &weight, &inverse));
        }
    }
}

#[cfg_attr(not(feature = "flex"), allow(dead_code))]
fn in_graph<B: NormKernels>(
    x: GraphTensor<B>,
    weight: FloatTensor<B>,
    epsilon: f32,
) -> GraphTensor<B> {
    route::in_graph(NormBackward, x, |x| {
        let [y, inverse] = B::forward(&x, &weight, epsilon);
        ([x, weight, inverse], y)
    })
}

/// RMS norm of the rows of `x [.., d]` with `weight [d]`.
///
/// One operation where the backend has [`NormKernels`] and the weight is frozen; elsewhere put together from
/// Burn's, with a backward that keeps x alone. [`composed`] with a weight that is trained.
pub fn rms_norm<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, epsilon: f64) -> Tensor<D> {
    #[cfg(feature = "flex")]
    if let Some(weight) = route::constant_f32(weight).filter(|_| route::is_ready(&x)) {
        use burn::backend::Flex;
        let weight = crate::flex::primitive(weight);
        let epsilon = epsilon as f32;
        return crate::flex::run(
            x,
            |x| {
                let [y, _] = <Flex as NormKernels>::forward(&x, &weight, epsilon);
                y
            },
            |x| in_graph::<Flex>(x, weight.clone(), epsilon),
        );
    }
    match route::constant(weight) {
        Some(weight) => in_steps(x, weight, epsilon),
        None => composed(x, weight, epsilon),
    }
}

/// The same for a frozen `weight` outside any graph, on any device: [`rows::rms_norm`] with its gradient.
pub fn in_steps<const D: usize>(x: Tensor<D>, weight: Tensor<1>, epsilon: f64) -> Tensor<D> {
    let norm = ByHand {
        forward: |[x]: &[_; 1], (weight, epsilon)| rows::rms_norm(x.clone(), weight, *epsilon),
        backward: |dy, [x], (weight, epsilon), _| {
            [Some(rows::rms_norm_backward(
                dy,
                x.clone(),
                weight,
                *epsilon,
            ))]
        },
    };
    norm.run([x], (weight, epsilon))
}

/// The same by Burn's own operations, with Burn's own backward: the reference.
pub fn composed<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, epsilon: f64) -> Tensor<D> {
    let mean = x.clone().square().mean_dim(D - 1);
    x / mean.add_scalar(epsilon).sqrt() * weight.clone().unsqueeze::<D>()
}
