//! Kernels on Burn's CPU backend.

mod halves;

use std::borrow::Cow;

use burn::{
    backend::{
        Autodiff, Flex,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Bytes, DType, Element, Shape, Tensor},
};
use burn_flex::{FlexTensor, Layout};
use half::{bf16, f16};
use l1ra_kernels::{
    attention,
    element::Activation,
    gemm::{self, Left, Right, Term, Values, sum_of_products, sum_of_products_in_bf16},
    loss::linear_cross_entropy,
    norm,
    rope::Rotary,
    rows, swiglu,
};

use crate::{
    attention::AttentionKernels,
    linear::{
        Adapter, AdapterGradients, Before, Gradients, LinearKernels, Output, Part, Products, Wanted,
    },
    loss::LossKernels,
    norm::NormKernels,
    route::GraphTensor,
    swiglu::SwigluKernels,
};

/// Runs an operation on a tensor that [`is_ready`](crate::route::is_ready) said yes to.
#[allow(clippy::expect_used)]
pub(crate) fn run<const D: usize, const E: usize>(
    x: Tensor<D>,
    plain: impl FnOnce(FlexTensor) -> FlexTensor,
    graph: impl FnOnce(GraphTensor<Flex>) -> GraphTensor<Flex>,
) -> Tensor<E> {
    const READY: &str = "device and graph were looked at before";
    if x.is_autodiff() {
        let x = x.try_into_primitive::<Autodiff<Flex>>().expect(READY);
        return Tensor::from_primitive::<Autodiff<Flex>>(graph(x));
    }
    let x = x.try_into_primitive::<Flex>().expect(READY);
    Tensor::from_primitive::<Flex>(plain(x))
}

/// The primitive of a tensor without a graph on the CPU backend.
#[allow(clippy::expect_used)]
pub(crate) fn primitive<const D: usize>(tensor: Tensor<D>) -> FlexTensor {
    tensor
        .inner()
        .try_into_primitive::<Flex>()
        .expect("operands of one operation share a device")
}

/// The primitive of an operand of an operation on an autodiff tensor.
#[allow(clippy::expect_used)]
pub(crate) fn graph_primitive<const D: usize>(tensor: Tensor<D>) -> GraphTensor<Flex> {
    tensor
        .try_into_primitive::<Autodiff<Flex>>()
        .expect("operands of one operation share a device")
}

/// Values in order.
fn values<T: Number>(tensor: &FlexTensor) -> Cow<'_, [T]> {
    match tensor.as_slice::<T>() {
        Some(values) => Cow::Borrowed(values),
        None => {
            let tensor = tensor.to_contiguous();
            Cow::Owned(tensor.storage::<T>().to_vec())
        }
    }
}

/// A number that activations are kept in.
trait Number: Activation + Element + bytemuck::Pod {
    const DTYPE: DType;

    /// `out ← Σ A·B`, rows `row` apart.
    fn products(out: &mut [Self], row: usize, shape: [usize; 2], terms: &[Term<'_>]);
}

impl Number for f32 {
    const DTYPE: DType = DType::F32;

    fn products(out: &mut [Self], row: usize, shape: [usize; 2], terms: &[Term<'_>]) {
        sum_of_products(out, row, shape, terms, gemm::Before::Drop);
    }
}

impl Number for bf16 {
    const DTYPE: DType = DType::BF16;

    fn products(out: &mut [Self], row: usize, shape: [usize; 2], terms: &[Term<'_>]) {
        sum_of_products_in_bf16(out, row, shape, terms);
    }
}

/// Calls a function for the type of activations of a tensor.
macro_rules! in_type_of {
    ($dtype:expr, $call:ident ($($argument:expr),* $(,)?)) => {
        match $dtype {
            DType::BF16 => $call::<bf16>($($argument),*),
            _ => $call::<f32>($($argument),*),
        }
    };
}

fn tensor<T: Number>(values: Vec<T>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        T::DTYPE,
    )
}

/// Room for `n` values that an operation writes before anybody reads them.
#[allow(unsafe_code, clippy::uninit_vec)]
fn room<T: Number>(n: usize) -> Vec<T> {
    let mut values = Vec::with_capacity(n);
    // SAFETY: every caller hands the slice to a kernel that writes all of it; zeroing it first costs
    // as much as a tenth of a matrix product.
    unsafe { values.set_len(n) };
    values
}

/// Rows, and values of a row.
fn rows_of(tensor: &FlexTensor) -> [usize; 2] {
    let shape = tensor.layout().shape();
    let width = shape[shape.num_dims() - 1];
    [shape.num_elements() / width.max(1), width]
}

fn with_width(tensor: &FlexTensor, width: usize) -> Shape {
    let mut shape = tensor.layout().shape().clone();
    let last = shape.num_dims() - 1;
    shape[last] = width;
    shape
}

/// A stored matrix as the right side of a product, whatever its strides.
#[allow(clippy::panic)]
fn right(weight: &FlexTensor) -> Right<'_> {
    let layout = weight.layout();
    let start = layout.start_offset();
    let values = match weight.dtype() {
        DType::F32 => Values::F32(&weight.storage::<f32>()[start..]),
        DType::BF16 => Values::Bf16(&weight.storage::<bf16>()[start..]),
        DType::F16 => Values::F16(&weight.storage::<f16>()[start..]),
        other => panic!("weights of type {other:?} were sent elsewhere"),
    };
    assert!(layout.has_positive_strides(), "a flipped weight");
    let stride = |axis: usize| layout.strides()[axis].unsigned_abs();
    Right {
        values,
        row: stride(0),
        column: stride(1),
    }
}

fn width(weight: &FlexTensor, axis: usize) -> usize {
    weight.layout().shape()[axis]
}

/// `h ∘ g` for `h [n, r]`, `g [r]`.
fn gated(h: &[f32], g: &[f32]) -> Vec<f32> {
    let mut out = room(h.len());
    rows::scale_columns(&mut out, h, g);
    out
}

/// Activations in order, of either type.
#[derive(Debug)]
enum Numbers<'a> {
    F32(Cow<'a, [f32]>),
    Bf16(Cow<'a, [bf16]>),
}

impl<'a> Numbers<'a> {
    fn of(tensor: &'a FlexTensor) -> Self {
        match tensor.dtype() {
            DType::BF16 => Self::Bf16(values(tensor)),
            _ => Self::F32(values(tensor)),
        }
    }

    fn values(&self) -> Values<'_> {
        match self {
            Self::F32(values) => Values::F32(values),
            Self::Bf16(values) => Values::Bf16(values),
        }
    }

    /// Rows that are `row` apart, from column `at` on.
    fn left(&self, row: usize, at: usize) -> Left<'_> {
        let Right {
            values,
            row,
            column,
        } = self.right(row, at);
        Left {
            values,
            row,
            column,
        }
    }

    /// As [`left`](Self::left), for the other side.
    fn right(&self, row: usize, at: usize) -> Right<'_> {
        let values = self.values();
        Right {
            values: values.skip(at.min(values.len())),
            row,
            column: 1,
        }
    }
}

/// What a prologue makes of an input, `[n, d_in]`, and the inverse roots where it is a norm.
struct Prepared<'a> {
    numbers: Numbers<'a>,
    inverse: Vec<f32>,
    shape: [usize; 2],
}

/// Its result is bf16 where the input is, or where the outputs of the layers will be: `narrow`.
fn prepare<'a>(x: &'a FlexTensor, before: &Before<Flex>, narrow: bool) -> Prepared<'a> {
    let [n, width] = rows_of(x);
    match before {
        Before::Nothing => Prepared {
            numbers: Numbers::of(x),
            inverse: Vec::new(),
            shape: [n, width],
        },
        Before::Norm { weight, epsilon } => {
            let (numbers, inverse) = if narrow {
                let (y, inverse) = normed(x, weight, *epsilon);
                (Numbers::Bf16(Cow::Owned(y)), inverse)
            } else {
                let (y, inverse) = normed(x, weight, *epsilon);
                (Numbers::F32(Cow::Owned(y)), inverse)
            };
            Prepared {
                numbers,
                inverse,
                shape: [n, width],
            }
        }
        Before::Swiglu => {
            let numbers = match Numbers::of(x) {
                Numbers::F32(x) => Numbers::F32(Cow::Owned(gate(&x, width / 2))),
                Numbers::Bf16(x) => Numbers::Bf16(Cow::Owned(gate(&x, width / 2))),
            };
            Prepared {
                numbers,
                inverse: Vec::new(),
                shape: [n, width / 2],
            }
        }
    }
}

/// RMS norm of the rows of `x`, and the inverse roots.
fn normed<T: Number>(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> (Vec<T>, Vec<f32>) {
    let [n, d] = rows_of(x);
    let (mut y, mut inverse) = (room(n * d), room(n));
    norm::forward(&mut y, &mut inverse, &values(x), &values(weight), epsilon);
    (y, inverse)
}

/// The gradient of a norm's input.
fn through_norm(dy: &[f32], x: &FlexTensor, weight: &FlexTensor, inverse: &[f32]) -> FlexTensor {
    let mut dx = room::<f32>(dy.len());
    norm::backward(&mut dx, dy, &values(x), &values(weight), inverse);
    tensor(dx, x.layout().shape().clone())
}

/// The gradient of a gate's input.
fn through_gate<T: Number>(dy: &[T], gate_up: &FlexTensor) -> FlexTensor {
    let mut dx = room::<T>(2 * dy.len());
    swiglu::backward(&mut dx, dy, &values(gate_up), rows_of(gate_up)[1] / 2);
    tensor(dx, gate_up.layout().shape().clone())
}

/// `silu(gate) ∘ up`, rows of `d`.
fn gate<T: Number>(gate_up: &[T], d: usize) -> Vec<T> {
    let mut gated = room(gate_up.len() / 2);
    swiglu::forward(&mut gated, gate_up, d);
    gated
}

/// `x·A` of every layer with an adapter.
fn lows(prepared: &Prepared<'_>, parts: &[Part<Flex>]) -> Vec<Option<Vec<f32>>> {
    let ([n, d_in], x) = (prepared.shape, &prepared.numbers);
    let adapters = parts.iter().map(|part| part.adapter.as_ref());
    if halves::apply(x.values()) {
        let matrices: Vec<_> = adapters
            .clone()
            .flatten()
            .map(|Adapter { a, .. }| (values(a), width(a, 1)))
            .collect();
        let matrices: Vec<_> = matrices.iter().map(|(a, r)| (&**a, *r)).collect();
        let mut found = halves::by_narrow(x.left(d_in, 0), [n, d_in], &matrices, false).into_iter();
        return adapters
            .map(|adapter| adapter.and_then(|_| found.next()))
            .collect();
    }
    let each = |Adapter { a, .. }: &Adapter<Flex>| {
        let term = Term::new(x.left(d_in, 0), right(a), d_in);
        summed(&[term], [n, width(a, 1)])
    };
    adapters.map(|adapter| adapter.map(each)).collect()
}

/// `dy·Bᵀ`, for `dy` in rows that are `total` apart and from column `at` on.
fn slopes_of_low(dy: &Numbers<'_>, [total, at]: [usize; 2], b: &FlexTensor, n: usize) -> Vec<f32> {
    let [r, d_out] = [0, 1].map(|axis| width(b, axis));
    if halves::apply(dy.values()) {
        let matrix = values(b);
        let mut found = halves::by_narrow(dy.left(total, at), [n, d_out], &[(&matrix, r)], true);
        return found.swap_remove(0);
    }
    let term = Term::new(dy.left(total, at), right(b).transpose(), d_out);
    summed(&[term], [n, r])
}

/// `Mᵀ·x` for every `M [n, r]` and rows of `d` that are `row` apart, from column `at` on: each `[r, d]`.
fn turned_products(
    matrices: &[(&[f32], usize)],
    x: &Numbers<'_>,
    [row, at]: [usize; 2],
    [n, d]: [usize; 2],
) -> Vec<Vec<f32>> {
    if halves::apply(x.values()) {
        return halves::narrow_by(x.right(row, at), [n, d], matrices);
    }
    // Products with few rows of output read x where it lies.
    let each = |(matrix, r): &(&[f32], usize)| {
        let term = Term::new(Left::transposed(matrix, *r), x.right(row, at), n);
        summed(&[term], [*r, d])
    };
    matrices.iter().map(each).collect()
}

/// The layers' outputs side by side.
fn outputs<T: Number>(
    prepared: &Prepared<'_>,
    parts: &[Part<Flex>],
    read: bool,
    shape: Shape,
) -> (FlexTensor, Vec<Option<FlexTensor>>) {
    let [n, d_in] = prepared.shape;
    let total: usize = parts.iter().map(|part| width(&part.weight, 1)).sum();
    let mut y: Vec<T> = match read {
        true => room(n * total),
        false => vec![T::default(); n * total],
    };
    let left = prepared.numbers.left(d_in, 0);
    let lows = lows(prepared, parts);
    let mut low = Vec::new();
    let mut at = 0;
    for (part, h) in parts.iter().zip(lows) {
        let d_out = width(&part.weight, 1);
        let base = Term::new(left, right(&part.weight), d_in).taken_in(part.products);
        let out = &mut y[at.min(n * total)..];
        match part.adapter.as_ref().zip(h) {
            None => {
                if read {
                    T::products(out, total, [n, d_out], &[base]);
                }
                low.push(None);
            }
            Some((Adapter { g, b, .. }, h)) => {
                let r = width(b, 0);
                if read {
                    let scaled = gated(&h, &values(g));
                    let side = Term::new(Left::rows(&scaled, r), right(b), r);
                    T::products(out, total, [n, d_out], &[base, side]);
                }
                low.push(Some(tensor(h, [n, r])));
            }
        }
        at += d_out;
    }
    (tensor(y, shape), low)
}

impl LinearKernels for Flex {
    fn forward(
        x: &FlexTensor,
        before: &Before<Self>,
        parts: &[Part<Self>],
        output: Output,
    ) -> (FlexTensor, Vec<Option<FlexTensor>>) {
        let dtype = DType::from(output.dtype);
        let prepared = prepare(x, before, dtype == DType::BF16);
        let total: usize = parts.iter().map(|part| width(&part.weight, 1)).sum();
        let shape = with_width(x, total);
        in_type_of!(dtype, outputs(&prepared, parts, output.read, shape))
    }

    fn backward(
        dy: &FlexTensor,
        x: &FlexTensor,
        before: &Before<Self>,
        parts: &[Part<Self>],
        low: &[Option<FlexTensor>],
        wanted: Wanted,
    ) -> Gradients<Self> {
        let prepared = prepare(x, before, dy.dtype() == DType::BF16);
        let ([n, d_in], x_numbers) = (prepared.shape, &prepared.numbers);
        let [_, total] = rows_of(dy);
        let dy = Numbers::of(dy);
        let mut at = 0;
        let mut sides = Vec::new();
        for (part, h) in parts.iter().zip(low) {
            let d_out = width(&part.weight, 1);
            let place = [total, at];
            at += d_out;
            let (Some(Adapter { a, g, b }), Some(h)) = (&part.adapter, h) else {
                sides.push(None);
                continue;
            };
            let r = width(b, 0);
            let (h, g) = (values(h), values(g));
            let dh = slopes_of_low(&dy, place, b, n);
            let dg = rows::column_dots(&h, &dh, r);
            let scaled = gated(&h, &g);
            let mut db = turned_products(&[(&scaled, r)], &dy, place, [n, d_out]);
            sides.push(Some(Side {
                a,
                d_gated: gated(&dh, &g),
                g: tensor(dg, [r]),
                b: tensor(db.swap_remove(0), [r, d_out]),
            }));
        }
        let dx = wanted.x.then(|| {
            let mut terms = Vec::new();
            let mut at = 0;
            for (part, side) in parts.iter().zip(&sides) {
                let d_out = width(&part.weight, 1);
                let left = dy.left(total, at);
                let base = Term::new(left, right(&part.weight).transpose(), d_out);
                terms.push(base.taken_in(part.products));
                if let Some(Side { a, d_gated, .. }) = side {
                    let r = width(a, 1);
                    terms.push(Term::new(Left::rows(d_gated, r), right(a).transpose(), r));
                }
                at += d_out;
            }
            in_type_of!(x.dtype(), gradient_of(x, before, &prepared, &terms))
        });
        let matrices: Vec<_> = sides
            .iter()
            .flatten()
            .map(|side| (side.d_gated.as_slice(), width(side.a, 1)))
            .collect();
        let turned = turned_products(&matrices, x_numbers, [d_in, 0], [n, d_in]);
        let mut turned = turned.into_iter();
        let mut finished = |side: Side<'_>| {
            let turned = turned.next()?;
            let mut da = room(turned.len());
            rows::transpose(&mut da, &turned, d_in);
            Some(AdapterGradients {
                a: tensor(da, [d_in, width(side.a, 1)]),
                g: side.g,
                b: side.b,
            })
        };
        let adapters = sides.into_iter().map(|side| side.and_then(&mut finished));
        Gradients {
            x: dx,
            adapters: adapters.collect(),
        }
    }
}

/// What a layer's adapter has found for its gradients so far.
struct Side<'a> {
    a: &'a FlexTensor,
    /// `dh ∘ g`.
    d_gated: Vec<f32>,
    g: FlexTensor,
    b: FlexTensor,
}

/// The gradient of an input of type `T`: the sum of `terms`, which is that of what the prologue made of it,
/// through the prologue.
fn gradient_of<T: Number>(
    x: &FlexTensor,
    before: &Before<Flex>,
    prepared: &Prepared<'_>,
    terms: &[Term<'_>],
) -> FlexTensor {
    let [n, d_in] = prepared.shape;
    match before {
        Before::Nothing => tensor(summed::<T>(terms, [n, d_in]), x.layout().shape().clone()),
        Before::Norm { weight, .. } => {
            through_norm(&summed(terms, [n, d_in]), x, weight, &prepared.inverse)
        }
        Before::Swiglu => through_gate(&summed::<T>(terms, [n, d_in]), x),
    }
}

/// A sum of products, `[n, d]`.
fn summed<T: Number>(terms: &[Term<'_>], [n, d]: [usize; 2]) -> Vec<T> {
    let mut sum = room(n * d);
    T::products(&mut sum, d, [n, d], terms);
    sum
}

impl AttentionKernels for Flex {
    fn forward(qkv: &FlexTensor, shape: &attention::Shape, rotary: &Rotary) -> [FlexTensor; 2] {
        in_type_of!(qkv.dtype(), attend(qkv, shape, rotary))
    }

    fn backward(
        dy: &FlexTensor,
        qkv: &FlexTensor,
        forward: [&FlexTensor; 2],
        shape: &attention::Shape,
        rotary: &Rotary,
    ) -> FlexTensor {
        in_type_of!(
            qkv.dtype(),
            attend_backward(dy, qkv, forward, shape, rotary)
        )
    }
}

fn attend<T: Number>(
    qkv: &FlexTensor,
    shape: &attention::Shape,
    rotary: &Rotary,
) -> [FlexTensor; 2] {
    let [n, _] = rows_of(qkv);
    let mut out = room::<T>(n * shape.output_width());
    let mut lse = room(n * shape.heads);
    attention::forward(&mut out, &mut lse, &values(qkv), shape, rotary);
    let out = tensor(out, with_width(qkv, shape.output_width()));
    [out, tensor(lse, [shape.heads, n])]
}

fn attend_backward<T: Number>(
    dy: &FlexTensor,
    qkv: &FlexTensor,
    [out, lse]: [&FlexTensor; 2],
    shape: &attention::Shape,
    rotary: &Rotary,
) -> FlexTensor {
    let [n, width] = rows_of(qkv);
    let mut d_qkv = room::<T>(n * width);
    attention::backward(
        &mut d_qkv,
        &values(dy),
        &values(qkv),
        &values(out),
        &values(lse),
        shape,
        rotary,
    );
    tensor(d_qkv, qkv.layout().shape().clone())
}

/// [`attention_cached`](crate::attention::attention_cached) on this backend.
pub(crate) fn attend_cached(
    qkv: Tensor<3>,
    cache: &mut attention::Cache,
    shape: &attention::Shape,
    rotary: &Rotary,
) -> Tensor<3> {
    let [rows, length, _] = qkv.dims();
    let qkv = primitive(qkv);
    let mut out = room(rows * length * shape.output_width());
    cache.attend(&mut out, &values(&qkv), [rows, length], shape, rotary);
    Tensor::from_primitive::<Flex>(tensor(out, with_width(&qkv, shape.output_width())))
}

impl NormKernels for Flex {
    fn forward(x: &FlexTensor, weight: &FlexTensor, epsilon: f32) -> [FlexTensor; 2] {
        let (y, inverse) = normed::<f32>(x, weight, epsilon);
        let n = inverse.len();
        [tensor(y, x.layout().shape().clone()), tensor(inverse, [n])]
    }

    fn backward(
        dy: &FlexTensor,
        x: &FlexTensor,
        weight: &FlexTensor,
        inverse: &FlexTensor,
    ) -> FlexTensor {
        through_norm(&values(dy), x, weight, &values(inverse))
    }
}

impl SwigluKernels for Flex {
    fn forward(gate_up: &FlexTensor) -> FlexTensor {
        in_type_of!(gate_up.dtype(), gate_tensor(gate_up))
    }

    fn backward(dy: &FlexTensor, gate_up: &FlexTensor) -> FlexTensor {
        in_type_of!(gate_up.dtype(), gate_backward(dy, gate_up))
    }
}

fn gate_tensor<T: Number>(gate_up: &FlexTensor) -> FlexTensor {
    let d = rows_of(gate_up)[1] / 2;
    tensor(gate::<T>(&values(gate_up), d), with_width(gate_up, d))
}

fn gate_backward<T: Number>(dy: &FlexTensor, gate_up: &FlexTensor) -> FlexTensor {
    through_gate::<T>(&values(dy), gate_up)
}

impl LossKernels for Flex {
    fn sum(
        hidden: &FloatTensor<Self>,
        (head, products): (&FloatTensor<Self>, Products),
        targets: &IntTensor<Self>,
        gradient: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let [n, d] = rows_of(hidden);
        let targets = integers(targets);
        let mut dh = gradient.then(|| room(n * d));
        let loss = linear_cross_entropy(
            &values(hidden),
            (right(head), products),
            [d, width(head, 1)],
            &targets,
            dh.as_deref_mut(),
        );
        let dh = dh.map(|dh| tensor(dh, [n, d]));
        (tensor(vec![loss as f32], [1]), dh)
    }
}

/// Token ids, of whatever type the device keeps integers in.
#[allow(clippy::cast_sign_loss, clippy::panic)]
fn integers(tensor: &FlexTensor) -> Vec<u32> {
    let tensor = tensor.to_contiguous();
    match tensor.dtype() {
        DType::I64 => tensor
            .storage::<i64>()
            .iter()
            .map(|id| *id as u32)
            .collect(),
        DType::I32 => tensor
            .storage::<i32>()
            .iter()
            .map(|id| *id as u32)
            .collect(),
        DType::U32 => tensor.storage::<u32>().to_vec(),
        DType::U64 => tensor
            .storage::<u64>()
            .iter()
            .map(|id| *id as u32)
            .collect(),
        other => panic!("token ids of type {other:?}"),
    }
}
