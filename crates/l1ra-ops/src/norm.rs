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

use crate::route::{self, GraphTensor};

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
/// One operation where the backend has [`NormKernels`] and the weight is frozen; [`composed`]
/// elsewhere.
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
    composed(x, weight, epsilon)
}

/// The same by Burn's own operations.
pub fn composed<const D: usize>(x: Tensor<D>, weight: &Tensor<1>, epsilon: f64) -> Tensor<D> {
    let mean = x.clone().square().mean_dim(D - 1);
    x / mean.add_scalar(epsilon).sqrt() * weight.clone().unsqueeze::<D>()
}

/// Gradient of `x` for `dy`, by Burn's own operations:
///
/// ```text
/// dx = i · (w∘dy) − x · i³ · mean(w ∘ dy ∘ x)      i = 1 / √(mean(x²) + ε)
/// ```
pub(crate) fn backward<const D: usize>(
    dy: Tensor<D>,
    x: Tensor<D>,
    weight: &Tensor<1>,
    epsilon: f64,
) -> Tensor<D> {
    let mean = x.clone().square().mean_dim(D - 1);
    let inverse = mean.add_scalar(epsilon).sqrt().recip();
    let dy = dy * weight.clone().unsqueeze::<D>();
    let pulled = (dy.clone() * x.clone()).mean_dim(D - 1);
    let slope = pulled * inverse.clone().square() * inverse.clone();
    dy * inverse - x * slope
}
