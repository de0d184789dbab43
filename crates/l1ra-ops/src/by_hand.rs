//! Operations put together from Burn's own, on any device, with a backward that is not Burn's.

use std::fmt::Debug;

use burn::{
    backend::{
        Autodiff, Backend, DispatchDevice, DispatchKindConversion, DispatchTensor,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
    },
    tensor::Tensor,
};

use crate::route::{GraphTensor, takes_own_backward};

/// An operation on `N` tensors, with what is not trained as `S`.
///
/// On a device that this crate was not built for, and in a graph with Burn's own balanced checkpointing, its
/// backward is Burn's.
#[derive(Debug)]
pub(crate) struct ByHand<const D: usize, const N: usize, S> {
    /// The output for the inputs.
    pub(crate) forward: fn(&[Tensor<D>; N], &S) -> Tensor<D>,
    /// Gradients of the inputs for that of the output, each in its input's type; of the wanted ones at least.
    /// It has the inputs out of any graph.
    pub(crate) backward: Slope<D, N, S>,
}

type Slope<const D: usize, const N: usize, S> =
    fn(Tensor<D>, &[Tensor<D>; N], &S, [bool; N]) -> [Option<Tensor<D>>; N];

impl<const D: usize, const N: usize, S: Clone + Debug + Send + 'static> ByHand<D, N, S> {
    /// Does it.
    pub(crate) fn run(self, inputs: [Tensor<D>; N], given: S) -> Tensor<D> {
        let Some(tracked) = inputs.iter().find(|x| x.is_tracked()) else {
            return (self.forward)(&inputs, &given);
        };
        let device = tracked.device();
        if !takes_own_backward(&device) {
            return (self.forward)(&inputs, &given);
        }
        let inputs = inputs.map(|x| match x.is_autodiff() {
            true => x,
            false => Tensor::from_inner(x),
        });
        match device.inner().as_dispatch() {
            #[cfg(feature = "flex")]
            DispatchDevice::Flex(_) => self.tracked::<burn::backend::Flex>(inputs, given),
            #[cfg(feature = "ndarray")]
            #[allow(deprecated)]
            DispatchDevice::NdArray(_) => self.tracked::<burn::backend::NdArray>(inputs, given),
            #[cfg(feature = "cube")]
            DispatchDevice::Cube(_) => self.tracked::<burn::backend::Cube>(inputs, given),
            #[allow(unreachable_patterns)]
            _ => (self.forward)(&inputs, &given),
        }
    }

    #[cfg_attr(
        not(any(feature = "flex", feature = "ndarray", feature = "cube")),
        allow(dead_code)
    )]
    #[allow(clippy::expect_used)]
    fn tracked<B: Backend>(self, inputs: [Tensor<D>; N], given: S) -> Tensor<D>
    where
        DispatchTensor: DispatchKindConversion<B> + DispatchKindConversion<Autodiff<B>>,
    {
        let inputs = inputs.map(|x| {
            x.try_into_primitive::<Autodiff<B>>()
                .expect("the device and its strategy were looked at before")
        });
        let nodes = inputs.each_ref().map(GraphTensor::<B>::node);
        let prepared =
            Backward::<B, N>::prepare::<NoCheckpointing>(Step::<D, N, S>(self.backward), nodes);
        let inputs = inputs.map(|x| Tensor::from_primitive::<B>(x.into_primitive()));
        let y = (self.forward)(&inputs, &given);
        let y = y.try_into_primitive::<B>().expect(SAME_BACKEND);
        Tensor::from_primitive::<Autodiff<B>>(match prepared.compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish((inputs, given), y),
            OpsKind::UnTracked(prepared) => prepared.finish(y),
        })
    }
}

const SAME_BACKEND: &str = "made of tensors of this backend";

/// The step backwards.
#[derive(Debug)]
struct Step<const D: usize, const N: usize, S>(Slope<D, N, S>);

impl<B, const D: usize, const N: usize, S> Backward<B, N> for Step<D, N, S>
where
    B: Backend,
    S: Clone + Debug + Send + 'static,
    DispatchTensor: DispatchKindConversion<B>,
{
    type State = ([Tensor<D>; N], S);

    #[allow(clippy::expect_used)]
    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = Tensor::from_primitive::<B>(grads.consume::<B>(&ops.node));
        let (inputs, given) = &ops.state;
        let wanted = ops.parents.each_ref().map(Option::is_some);
        let found = (self.0)(dy, inputs, given, wanted);
        for (node, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(gradient)) = (node, gradient) {
                let gradient = gradient.try_into_primitive::<B>().expect(SAME_BACKEND);
                grads.register::<B>(node.id, gradient);
            }
        }
    }
}
