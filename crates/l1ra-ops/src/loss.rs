//! The last matrix product and the cross-entropy as one operation.
//!
//! ```text
//! loss = Σ (log Σ e^z − z[target])     z = h·W        dh = (softmax(z) − 1[target])·Wᵀ
//! ```
//!
//! Logits exist for a part at a time: of the rows, and with kernels of the vocabulary too. The gradient of the
//! hidden states is made from them in the forward pass, as the head is frozen, so the product is not done
//! again in the backward. That holds on every device: with kernels where the backend has them, by Burn's own
//! operations elsewhere.

use burn::{
    backend::{
        Backend, TensorMetadata,
        autodiff::{
            checkpoint::{base::Checkpointer, strategy::NoCheckpointing},
            grads::Gradients,
            ops::{Backward, Ops, OpsKind},
        },
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{DType, Int, Tensor, activation::log_softmax},
};

use crate::{
    linear::{Products, product, product_type, product_within},
    route::GraphTensor,
    rows,
};

/// Rows whose logits exist at once on devices without [`LossKernels`]. Every chunk reads the head twice;
/// more rows would read it less often and hold more logits.
pub const CHUNK: usize = 512;

/// A backend with kernels for the operation.
pub trait LossKernels: Backend {
    /// The loss `[1]`, and `dh [n, d]` where `gradient` is set.
    fn sum(
        hidden: &FloatTensor<Self>,
        head: (&FloatTensor<Self>, Products),
        targets: &IntTensor<Self>,
        gradient: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>);
}

#[derive(Debug)]
struct LossBackward;

impl<B: LossKernels> Backward<B, 1> for LossBackward {
    type State = Option<FloatTensor<B>>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let dy = grads.consume::<B>(&ops.node); // [1]
        if let ([Some(node)], Some(dh)) = (ops.parents, ops.state) {
            let dy = B::float_reshape(dy, [1, 1].into());
            grads.register::<B>(node.id, B::float_mul(dh, dy));
        }
    }
}

#[cfg_attr(not(feature = "flex"), allow(dead_code))]
fn in_graph<B: LossKernels>(
    hidden: GraphTensor<B>,
    head: (&FloatTensor<B>, Products),
    targets: &IntTensor<B>,
) -> GraphTensor<B> {
    let prepared = Backward::<B, 1>::prepare::<NoCheckpointing>(LossBackward, [hidden.node()]);
    let hidden = hidden.into_primitive();
    debug_assert_eq!(hidden.dtype(), DType::F32);
    match prepared.compute_bound().stateful() {
        OpsKind::Tracked(prepared) => {
            let (loss, dh) = B::sum(&hidden, head, targets, true);
            prepared.finish(dh, loss)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(B::sum(&hidden, head, targets, false).0),
    }
}

/// Cross-entropy of `hidden·head` against `targets`, summed over rows: `[1]`, for `hidden [n, d]`,
/// `head [d, vocabulary]` (a transposed view will do) and `targets [n]`, each an id of the
/// vocabulary. The head is multiplied in `products`.
///
/// One operation where the backend has [`LossKernels`] and the head is frozen; [`in_chunks`] on other
/// devices. With a head that is trained, [`composed`], which makes all logits.
pub fn linear_cross_entropy(
    hidden: Tensor<2>,
    (head, products): (&Tensor<2>, Products),
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    #[cfg(feature = "flex")]
    if let Some(head) = crate::route::constant(head).filter(|head| {
        matches!(head.dtype(), DType::F32 | DType::BF16 | DType::F16)
            && crate::route::is_ready(&hidden)
    }) && let Ok(targets) = targets
        .clone()
        .inner()
        .try_into_primitive::<burn::backend::Flex>()
    {
        use burn::backend::Flex;
        let head = crate::flex::primitive(head);
        let head = (&head, products);
        return crate::flex::run(
            hidden,
            |hidden| <Flex as LossKernels>::sum(&hidden, head, &targets, false).0,
            |hidden| in_graph::<Flex>(hidden, head, &targets),
        );
    }
    match crate::route::constant(head) {
        Some(head) => in_chunks(hidden, (&head, products), targets),
        None => composed(hidden, (head, products), targets),
    }
}

/// The same by Burn's own operations for a frozen `head` outside any graph, [`CHUNK`] rows at a time.
///
/// The gradient is made beside the loss, as `dh = (softmax(z) − 1[target])·Wᵀ`, and brought into the graph
/// by `(h·dh − the value of that) + loss`, whose first part is zero and has the gradient `dh`.
pub fn in_chunks(
    hidden: Tensor<2>,
    (head, products): (&Tensor<2>, Products),
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    let dtype = product_type(head, products);
    let [rows, width] = hidden.dims();
    let (plain, targets) = (hidden.clone().inner(), targets.inner());
    let mut loss = Tensor::<1>::zeros([1], &plain.device());
    let mut gradients = Vec::new();
    for start in (0..rows).step_by(CHUNK) {
        let length = CHUNK.min(rows - start);
        let part = plain.clone().narrow(0, start, length);
        let targets = targets.clone().narrow(0, start, length);
        let logits = product_within(part, head.clone(), dtype);
        let (losses, slopes) = rows::cross_entropy(logits, targets, hidden.is_tracked());
        loss = loss + losses.sum();
        let pulled = |slopes| product(slopes, head.clone().transpose(), dtype); // [length, d]
        gradients.extend(slopes.map(pulled));
    }
    if gradients.is_empty() {
        return match hidden.gradient_checkpointing_strategy() {
            Some(strategy) => {
                Tensor::from_inner(loss).with_gradient_checkpointing_strategy(strategy)
            }
            None => loss,
        };
    }
    // Tensors outside a graph are constants in it, whatever its way of keeping activations.
    let gradient = Tensor::cat(gradients, 0).reshape([rows, width]);
    let carrier = (hidden * gradient).sum();
    let value = carrier.clone().inner();
    carrier - value + loss
}

/// The same by Burn's own operations, with Burn's own backward: the reference.
pub fn composed(
    hidden: Tensor<2>,
    (head, products): (&Tensor<2>, Products),
    targets: Tensor<1, Int>,
) -> Tensor<1> {
    let logits = product(hidden, head.clone(), product_type(head, products));
    cross_entropy_sum(logits, targets)
}

/// Sum of `−log softmax(logits)[target]` over the rows of `logits [n, vocabulary]`, for
/// `targets [n]`: `[1]`.
pub fn cross_entropy_sum(logits: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
    log_softmax(logits, 1)
        .gather(1, targets.unsqueeze_dim(1))
        .sum()
        .neg()
}
