//! Kernels on Burn's CPU backend.

use std::borrow::Cow;

use burn::{
    backend::{
        Autodiff, Flex,
        tensor::{FloatTensor, IntTensor},
    },
    tensor::{Bytes, DType, Shape, Tensor},
};
use burn_flex::{FlexTensor, Layout};
use half::{bf16, f16};
use l1ra_kernels::{
    attention,
    gemm::{self, Left, Right, Term, Values, sum_of_products},
    loss::linear_cross_entropy,
    norm,
    rope::Rotary,
    rows, swiglu,
};

use crate::{
    attention::AttentionKernels,
    linear::{Adapter, AdapterGradients, Before, Gradients, LinearKernels, Output, Part, Wanted},
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
fn values(tensor: &FlexTensor) -> Cow<'_, [f32]> {
    match tensor.as_slice::<f32>() {
        Some(values) => Cow::Borrowed(values),
        None => {
            let tensor = tensor.to_contiguous();
            Cow::Owned(tensor.storage::<f32>().to_vec())
        }
    }
}

fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::new(
        Bytes::from_elems(values),
        Layout::contiguous(shape.into()),
        DType::F32,
    )
}

/// Room for `n` values that an operation writes before anybody reads them.
#[allow(unsafe_code, clippy::uninit_vec)]
fn room(n: usize) -> Vec<f32> {
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

/// What a prologue makes of an input, `[n, d_in]`, and the inverse roots where it is a norm.
struct Prepared<'a> {
    values: Cow<'a, [f32]>,
    inverse: Vec<f32>,
    shape: [usize; 2],
}

fn prepare<'a>(x: &'a FlexTensor, before: &Before<Flex>) -> Prepared<'a> {
    let [n, width] = rows_of(x);
    let input = values(x);
    match before {
        Before::Nothing => Prepared {
            values: input,
            inverse: Vec::new(),
            shape: [n, width],
        },
        Before::Norm { weight, epsilon } => {
            let (mut normed, mut inverse) = (room(n * width), room(n));
            norm::forward(&mut normed, &mut inverse, &input, &values(weight), *epsilon);
            Prepared {
                values: Cow::Owned(normed),
                inverse,
                shape: [n, width],
            }
        }
        Before::Swiglu => {
            let mut gated = room(n * width / 2);
            swiglu::forward(&mut gated, &input, width / 2);
            Prepared {
                values: Cow::Owned(gated),
                inverse: Vec::new(),
                shape: [n, width / 2],
            }
        }
    }
}

/// The gradient of an input from that of what its prologue made.
fn prologue_backward(
    dy: Vec<f32>,
    x: &FlexTensor,
    before: &Before<Flex>,
    inverse: &[f32],
) -> Vec<f32> {
    let mut dx = match before {
        Before::Nothing => return dy,
        _ => room(x.layout().num_elements()),
    };
    match before {
        Before::Nothing => {}
        Before::Norm { weight, .. } => {
            norm::backward(&mut dx, &dy, &values(x), &values(weight), inverse);
        }
        Before::Swiglu => swiglu::backward(&mut dx, &dy, &values(x), rows_of(x)[1] / 2),
    }
    dx
}

impl LinearKernels for Flex {
    fn forward(
        x: &FlexTensor,
        before: &Before<Self>,
        parts: &[Part<Self>],
        output: Output,
    ) -> (FlexTensor, Vec<Option<FlexTensor>>) {
        let prepared = prepare(x, before);
        let ([n, d_in], x_values) = (prepared.shape, &prepared.values);
        let total: usize = parts.iter().map(|part| width(&part.weight, 1)).sum();
        let mut y = match output.read {
            true => room(n * total),
            false => vec![0.0; n * total],
        };
        let mut low = Vec::new();
        let mut at = 0;
        for part in parts {
            let d_out = width(&part.weight, 1);
            let left = Left::rows(x_values, d_in);
            let base = Term::new(left, right(&part.weight), d_in);
            let out = &mut y[at.min(n * total)..];
            match &part.adapter {
                None => {
                    if output.read {
                        sum_of_products(out, total, [n, d_out], &[base], gemm::Before::Drop);
                    }
                    low.push(None);
                }
                Some(Adapter { a, g, b }) => {
                    let r = width(b, 0);
                    let mut h = room(n * r);
                    sum_of_products(
                        &mut h,
                        r,
                        [n, r],
                        &[Term::new(left, right(a), d_in)],
                        gemm::Before::Drop,
                    );
                    if output.read {
                        let scaled = gated(&h, &values(g));
                        let side = Term::new(Left::rows(&scaled, r), right(b), r);
                        let terms = [base, side];
                        sum_of_products(out, total, [n, d_out], &terms, gemm::Before::Drop);
                    }
                    low.push(Some(tensor(h, [n, r])));
                }
            }
            at += d_out;
        }
        (tensor(y, with_width(x, total)), low)
    }

    fn backward(
        dy: &FlexTensor,
        x: &FlexTensor,
        before: &Before<Self>,
        parts: &[Part<Self>],
        low: &[Option<FlexTensor>],
        wanted: Wanted,
    ) -> Gradients<Self> {
        let prepared = prepare(x, before);
        let ([n, d_in], x_values) = (prepared.shape, &prepared.values);
        let [_, total] = rows_of(dy);
        let dy_values = values(dy);
        let mut at = 0;
        let mut sides = Vec::new();
        for (part, h) in parts.iter().zip(low) {
            let d_out = width(&part.weight, 1);
            let dy = &dy_values[at.min(dy_values.len())..];
            at += d_out;
            let (Some(Adapter { a, g, b }), Some(h)) = (&part.adapter, h) else {
                sides.push(None);
                continue;
            };
            let r = width(b, 0);
            let (h, g) = (values(h), values(g));
            let left = Left {
                values: dy,
                row: total,
                column: 1,
            };
            let mut dh = room(n * r);
            let term = Term::new(left, right(b).transpose(), d_out);
            sum_of_products(&mut dh, r, [n, r], &[term], gemm::Before::Drop);
            let dg = rows::column_dots(&h, &dh, r);
            let d_gated = gated(&dh, &g);
            let scaled = gated(&h, &g);
            // dAᵀ, as products with few rows of output read x where it lies.
            let mut turned = room(r * d_in);
            let term = Term::new(
                Left::transposed(&d_gated, r),
                Right::rows(x_values, d_in),
                n,
            );
            sum_of_products(&mut turned, d_in, [r, d_in], &[term], gemm::Before::Drop);
            let mut da = room(d_in * r);
            rows::transpose(&mut da, &turned, d_in);
            let mut db = room(r * d_out);
            let right_dy = Right {
                values: Values::F32(dy),
                row: total,
                column: 1,
            };
            let term = Term::new(Left::transposed(&scaled, r), right_dy, n);
            sum_of_products(&mut db, d_out, [r, d_out], &[term], gemm::Before::Drop);
            let gradients = AdapterGradients {
                a: tensor(da, [d_in, r]),
                g: tensor(dg, [r]),
                b: tensor(db, [r, d_out]),
            };
            sides.push(Some((gradients, d_gated, a)));
        }
        let dx = wanted.x.then(|| {
            let mut terms = Vec::new();
            let mut at = 0;
            for (part, side) in parts.iter().zip(&sides) {
                let d_out = width(&part.weight, 1);
                let left = Left {
                    values: &dy_values[at.min(dy_values.len())..],
                    row: total,
                    column: 1,
                };
                terms.push(Term::new(left, right(&part.weight).transpose(), d_out));
                if let Some((_, d_gated, a)) = side {
                    let r = width(a, 1);
                    terms.push(Term::new(Left::rows(d_gated, r), right(a).transpose(), r));
                }
                at += d_out;
            }
            let mut dx = room(n * d_in);
            sum_of_products(&mut dx, d_in, [n, d_in], &terms, gemm::Before::Drop);
            let dx = prologue_backward(dx, x, before, &prepared.inverse);
            tensor(dx, x.layout().shape().clone())
        });
        Gradients {
            x: dx,
            adapters: sides
                .into_iter()
                .map(|side| side.map(|(gradients, ..)| gradients))
                .collect(),
        }
    }
}

impl AttentionKernels for Flex {
    fn forward(qkv: &FlexTensor, shape: &attention::Shape, rotary: &Rotary) -> [FlexTensor; 2] {
        let [n, _] = rows_of(qkv);
        let mut out = room(n * shape.output_width());
        let mut lse = room(n * shape.heads);
        attention::forward(&mut out, &mut lse, &values(qkv), shape, rotary);
        let out = tensor(out, with_width(qkv, shape.output_width()));
        [out, tensor(lse, [shape.heads, n])]
    }

    fn backward(
        dy: &FlexTensor,
        qkv: &FlexTensor,
        [out, lse]: [&FlexTensor; 2],
        shape: &attention::Shape,
        rotary: &Rotary,
    ) -> FlexTensor {
        let [n, width] = rows_of(qkv);
        let mut d_qkv = room(n * width);
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
        let [n, d] = rows_of(x);
        let (mut y, mut inverse) = (room(n * d), room(n));
        norm::forward(&mut y, &mut inverse, &values(x), &values(weight), epsilon);
        [tensor(y, x.layout().shape().clone()), tensor(inverse, [n])]
    }

    fn backward(
        dy: &FlexTensor,
        x: &FlexTensor,
        weight: &FlexTensor,
        inverse: &FlexTensor,
    ) -> FlexTensor {
        let [n, d] = rows_of(x);
        let mut dx = room(n * d);
        norm::backward(
            &mut dx,
            &values(dy),
            &values(x),
            &values(weight),
            &values(inverse),
        );
        tensor(dx, x.layout().shape().clone())
    }
}

impl SwigluKernels for Flex {
    fn forward(gate_up: &FlexTensor) -> FlexTensor {
        let [n, width] = rows_of(gate_up);
        let mut y = room(n * width / 2);
        swiglu::forward(&mut y, &values(gate_up), width / 2);
        tensor(y, with_width(gate_up, width / 2))
    }

    fn backward(dy: &FlexTensor, gate_up: &FlexTensor) -> FlexTensor {
        let [n, width] = rows_of(gate_up);
        let mut dx = room(n * width);
        swiglu::backward(&mut dx, &values(dy), &values(gate_up), width / 2);
        tensor(dx, gate_up.layout().shape().clone())
    }
}

impl LossKernels for Flex {
    fn sum(
        hidden: &FloatTensor<Self>,
        head: &FloatTensor<Self>,
        targets: &IntTensor<Self>,
        gradient: bool,
    ) -> (FloatTensor<Self>, Option<FloatTensor<Self>>) {
        let [n, d] = rows_of(hidden);
        let targets = integers(targets);
        let mut dh = gradient.then(|| room(n * d));
        let loss = linear_cross_entropy(
            &values(hidden),
            right(head),
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
