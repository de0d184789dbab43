//! Every operation against the composition of Burn's own, values and gradients.
// `ndarray`, as long as Burn has it.
#![allow(clippy::unwrap_used, missing_docs, deprecated)]

use std::sync::Arc;

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData, activation::softmax};
use l1ra_kernels::gemm::bf16_instructions;
use l1ra_ops::{
    AttentionCache, AttentionShape, LOSS_PART_COLUMNS, LOSS_PART_ROWS, LOSS_ROWS, Rotary,
    attention::attention_in_parts,
    attention::{attention, attention_cached},
    linear::{self, Linear, Output, Products, Prologue, linears},
    loss, norm, swiglu,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rstest::rstest;

struct Draw(ChaCha8Rng, Device);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed), Device::flex().autodiff())
    }

    fn values(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.0.random_range(-1.0..1.0)).collect()
    }

    /// A constant on the training device.
    fn tensor<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        let data = TensorData::new(self.values(shape.iter().product()), shape);
        Tensor::from_inner(Tensor::from_data(data, &self.1.clone().inner()))
    }

    fn trained<const D: usize>(&mut self, shape: [usize; D]) -> Tensor<D> {
        self.tensor(shape).require_grad()
    }
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let tensor = tensor.inner().cast(FloatDType::F32);
    tensor.into_data().try_into_vec::<f32>().unwrap()
}

fn close(name: &str, seen: &[f32], exact: &[f32]) {
    within(1e-4, name, seen, exact);
}

/// What activations rounded to bf16 may change, where the machine multiplies in bf16.
fn bound(stored: FloatDType) -> f32 {
    if stored == FloatDType::BF16 && bf16_instructions().is_some() {
        1e-2
    } else {
        1e-4
    }
}

/// What products in a type may change.
fn rounding(dtype: FloatDType) -> f32 {
    match dtype {
        FloatDType::BF16 => 2e-2,
        FloatDType::F16 => 2e-3,
        _ => 1e-4,
    }
}

fn within(bound: f32, name: &str, seen: &[f32], exact: &[f32]) {
    assert_eq!(seen.len(), exact.len(), "{name}");
    let scale = exact.iter().fold(1e-6_f32, |m, v| m.max(v.abs()));
    for (i, (s, e)) in seen.iter().zip(exact).enumerate() {
        assert!(
            (s - e).abs() <= bound * scale,
            "{name} {i}: {s} {e} (scale {scale})"
        );
    }
}

/// Gradients of `leaves` for a fixed random slope of `y`.
fn gradients<const D: usize>(y: Tensor<D>, leaves: &[&dyn Leaf]) -> Vec<Vec<f32>> {
    let slope = Draw::new(99).tensor(y.dims());
    let grads = (y * slope).sum().backward();
    leaves.iter().map(|leaf| leaf.gradient(&grads)).collect()
}

trait Leaf {
    fn gradient(&self, grads: &burn::tensor::Gradients) -> Vec<f32>;
}

impl<const D: usize> Leaf for Tensor<D> {
    fn gradient(&self, grads: &burn::tensor::Gradients) -> Vec<f32> {
        numbers(self.grad(grads).unwrap())
    }
}

fn same(name: &str, seen: &[Vec<f32>], exact: &[Vec<f32>]) {
    same_within(1e-4, name, seen, exact);
}

fn same_within(bound: f32, name: &str, seen: &[Vec<f32>], exact: &[Vec<f32>]) {
    for (i, (seen, exact)) in seen.iter().zip(exact).enumerate() {
        within(bound, &format!("{name}, gradient {i}"), seen, exact);
    }
}

#[rstest]
fn layers_with_adapters(
    #[values(0, 1, 2)] prologue: usize,
    #[values(FloatDType::F32, FloatDType::BF16, FloatDType::F16)] stored: FloatDType,
    #[values(false, true)] turned: bool,
    #[values(false, true)] tracked: bool,
) {
    let (rows, length, d_in) = (2, 7, 24);
    let mut draw = Draw::new(1);
    let width = if prologue == 2 { 2 * d_in } else { d_in };
    let prologue = match prologue {
        0 => Prologue::Nothing,
        1 => Prologue::Norm(draw.tensor([d_in]), 1e-5),
        _ => Prologue::Swiglu,
    };
    for (ranks, d_outs) in [
        (vec![Some(4)], vec![16]),
        (vec![None, Some(17)], vec![5, 32]),
        (vec![Some(1), None, Some(13)], vec![16, 16, 9]),
    ] {
        let x = if tracked {
            draw.trained([rows, length, width])
        } else {
            draw.tensor([rows, length, width])
        };
        let layers: Vec<Linear> = ranks
            .iter()
            .zip(&d_outs)
            .map(|(rank, d_out)| {
                let weight = if turned {
                    draw.tensor([*d_out, d_in]).transpose()
                } else {
                    draw.tensor([d_in, *d_out])
                };
                Linear {
                    weight: weight.cast(stored),
                    products: Products::Stored,
                    adapter: rank.map(|r| {
                        (
                            draw.trained([d_in, r]),
                            draw.trained([r]),
                            draw.trained([r, *d_out]),
                        )
                    }),
                }
            })
            .collect();
        // The composition multiplies in the weight's type; the reference widens it first, as kernels do.
        let wide: Vec<Linear> = layers
            .iter()
            .map(|layer| Linear {
                weight: layer.weight.clone().cast(FloatDType::F32),
                products: Products::Stored,
                adapter: layer.adapter.clone(),
            })
            .collect();
        let exact = linear::composed(x.clone(), &prologue, &wide, FloatDType::F32);
        let seen = linears(
            x.clone(),
            &prologue,
            &layers,
            Output::values(FloatDType::F32),
        );
        within(
            bound(stored),
            "values",
            &numbers(seen.clone()),
            &numbers(exact.clone()),
        );
        let unread = linears(
            x.clone(),
            &prologue,
            &layers,
            Output::unread(FloatDType::F32),
        );
        let mut leaves: Vec<&dyn Leaf> = Vec::new();
        if tracked {
            leaves.push(&x);
        }
        for (a, g, b) in layers.iter().filter_map(|layer| layer.adapter.as_ref()) {
            leaves.extend([a as &dyn Leaf, g, b]);
        }
        let exact = gradients(exact, &leaves);
        same_within(
            bound(stored),
            "values",
            &gradients(seen.clone(), &leaves),
            &exact,
        );
        same_within(bound(stored), "unread", &gradients(unread, &leaves), &exact);
        // On other devices: products in the weight's type.
        let steps = linear::in_steps(x.clone(), &prologue, &layers, FloatDType::F32);
        let bound = rounding(stored);
        within(
            bound,
            "steps",
            &numbers(steps.clone()),
            &numbers(seen.clone()),
        );
        same_within(bound, "steps", &gradients(steps, &leaves), &exact);
        let plain: Vec<Linear> = layers
            .iter()
            .map(|layer| Linear {
                weight: layer.weight.clone().inner(),
                products: Products::Stored,
                adapter: layer
                    .adapter
                    .clone()
                    .map(|(a, g, b)| (a.inner(), g.inner(), b.inner())),
            })
            .collect();
        let plain_prologue = match &prologue {
            Prologue::Norm(weight, epsilon) => Prologue::Norm(weight.clone().inner(), *epsilon),
            other => other.clone(),
        };
        let alone = linears(
            x.clone().inner(),
            &plain_prologue,
            &plain,
            Output::values(FloatDType::F32),
        );
        let inside = linears(x, &prologue, &layers, Output::values(FloatDType::F32));
        assert_eq!(
            alone.into_data(),
            inside.inner().into_data(),
            "in a graph and out of one"
        );
    }
}

/// Activations in bf16 against the composition in f32, with kernels and by Burn's own operations.
#[rstest]
fn linears_with_activations_in_bf16(
    #[values(0, 1, 2)] prologue: usize,
    #[values(FloatDType::F32, FloatDType::BF16)] stored: FloatDType,
    #[values(false, true)] narrow_input: bool,
) {
    if narrow_input && prologue == 1 {
        return; // The residual stream is f32.
    }
    let d_in = 24;
    let mut draw = Draw::new(21);
    let width = if prologue == 2 { 2 * d_in } else { d_in };
    let prologue = match prologue {
        0 => Prologue::Nothing,
        1 => Prologue::Norm(draw.tensor([d_in]), 1e-5),
        _ => Prologue::Swiglu,
    };
    let x: Tensor<3> = draw.tensor([2, 37, width]).cast(FloatDType::BF16);
    let x = match narrow_input {
        true => x,
        false => x.cast(FloatDType::F32),
    };
    let x = x.require_grad();
    let mut layer = |d_out: usize, adapted: bool| Linear {
        weight: draw.tensor([d_in, d_out]).cast(stored),
        products: Products::Stored,
        adapter: adapted.then(|| {
            (
                draw.trained([d_in, 5]),
                draw.trained([5]),
                draw.trained([5, d_out]),
            )
        }),
    };
    let layers = [layer(40, true), layer(9, false), layer(16, true)];
    let exact = linear::composed(x.clone(), &prologue, &layers, FloatDType::F32);
    let mut leaves: Vec<&dyn Leaf> = vec![&x];
    for (a, g, b) in layers.iter().filter_map(|layer| layer.adapter.as_ref()) {
        leaves.extend([a as &dyn Leaf, g, b]);
    }
    let exact_gradients = gradients(exact.clone(), &leaves);
    for dtype in [FloatDType::BF16, FloatDType::F32] {
        let kernels = linears(x.clone(), &prologue, &layers, Output::values(dtype));
        let steps = linear::in_steps(x.clone(), &prologue, &layers, dtype);
        for (name, seen) in [("kernels", kernels), ("steps", steps)] {
            assert_eq!(FloatDType::from(seen.dtype()), dtype);
            let seen = seen.cast(FloatDType::F32);
            within(2e-2, name, &numbers(seen.clone()), &numbers(exact.clone()));
            same_within(2e-2, name, &gradients(seen, &leaves), &exact_gradients);
        }
    }
}

#[test]
fn gate_and_attention_in_bf16() {
    let mut draw = Draw::new(22);
    let x: Tensor<3> = draw
        .tensor([3, 14, 12])
        .cast(FloatDType::BF16)
        .require_grad();
    let exact = swiglu::composed(x.clone().cast(FloatDType::F32));
    let exact_gradients = gradients(exact.clone(), &[&x]);
    for seen in [swiglu::swiglu(x.clone()), swiglu::in_steps(x.clone())] {
        assert_eq!(FloatDType::from(seen.dtype()), FloatDType::BF16);
        let seen = seen.cast(FloatDType::F32);
        within(
            1e-2,
            "gate",
            &numbers(seen.clone()),
            &numbers(exact.clone()),
        );
        same_within(1e-2, "gate", &gradients(seen, &[&x]), &exact_gradients);
    }

    let (heads, kv_heads, d, length) = (4, 2, 8, 29);
    let shape = Arc::new(AttentionShape {
        heads,
        kv_heads,
        head_dim: d,
        window: Some(11),
        sequences: vec![0..length, length..2 * length],
    });
    let rotary = Arc::new(Rotary::new(&[1.0, 0.3, 0.1, 0.03], 0, length));
    let width = (heads + 2 * kv_heads) * d;
    let qkv: Tensor<3> = draw
        .tensor([2, length, width])
        .cast(FloatDType::BF16)
        .require_grad();
    let exact = attention(qkv.clone().cast(FloatDType::F32), &shape, &rotary).unwrap();
    let seen = attention(qkv.clone(), &shape, &rotary).unwrap();
    assert_eq!(FloatDType::from(seen.dtype()), FloatDType::BF16);
    let seen = seen.cast(FloatDType::F32);
    within(
        1e-2,
        "attention",
        &numbers(seen.clone()),
        &numbers(exact.clone()),
    );
    let exact = gradients(exact, &[&qkv]);
    same_within(1e-2, "attention", &gradients(seen, &[&qkv]), &exact);
}

/// Shapes that all kinds of kernels take, and some that only one does.
#[rstest]
fn products_in_f32_are_those_of_widened_weights(
    #[values([130, 192, 160], [3, 40, 24])] shape: [usize; 3],
    #[values(FloatDType::BF16, FloatDType::F16)] stored: FloatDType,
) {
    let [n, d_in, d_out] = shape;
    let mut draw = Draw::new(31);
    let x = draw.trained([n, d_in]);
    let weight: Tensor<2> = draw.tensor([d_in, d_out]).cast(stored);
    let adapter = (
        draw.trained([d_in, 5]),
        draw.trained([5]),
        draw.trained([5, d_out]),
    );
    let layer = |weight: &Tensor<2>, products| Linear {
        weight: weight.clone(),
        products,
        adapter: Some(adapter.clone()),
    };
    let wide = weight.clone().cast(FloatDType::F32);
    let (plain, dtype) = (&Prologue::Nothing, FloatDType::F32);
    let exact = linear::composed(x.clone(), plain, &[layer(&wide, Products::Stored)], dtype);
    let leaves: [&dyn Leaf; 4] = [&x, &adapter.0, &adapter.1, &adapter.2];
    let exact_gradients = gradients(exact.clone(), &leaves);
    let layers = [layer(&weight, Products::F32)];
    for (name, seen) in [
        (
            "kernels",
            linears(x.clone(), plain, &layers, Output::values(dtype)),
        ),
        ("steps", linear::in_steps(x.clone(), plain, &layers, dtype)),
        (
            "composed",
            linear::composed(x.clone(), plain, &layers, dtype),
        ),
    ] {
        within(1e-5, name, &numbers(seen.clone()), &numbers(exact.clone()));
        same_within(1e-5, name, &gradients(seen, &leaves), &exact_gradients);
    }

    let ids: Vec<i64> = (0..n).map(|i| (i * 7 % d_out) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), &draw.1);
    let head = (&weight, Products::F32);
    let exact = loss::composed(x.clone(), (&wide, Products::Stored), targets.clone());
    let exact_gradients = gradients(exact.clone(), &[&x]);
    for (name, seen) in [
        (
            "kernels",
            loss::linear_cross_entropy(x.clone(), head, targets.clone()),
        ),
        ("chunks", loss::in_chunks(x.clone(), head, targets.clone())),
        ("composed", loss::composed(x.clone(), head, targets.clone())),
    ] {
        within(1e-5, name, &numbers(seen.clone()), &numbers(exact.clone()));
        same_within(1e-5, name, &gradients(seen, &[&x]), &exact_gradients);
    }
}

#[test]
fn trained_weights_get_their_gradient() {
    let mut draw = Draw::new(2);
    let (x, weight, scale) = (draw.tensor([5, 8]), draw.trained([8, 6]), draw.trained([8]));
    let layer = Linear {
        weight: weight.clone(),
        products: Products::Stored,
        adapter: None,
    };
    let prologue = Prologue::Norm(scale.clone(), 1e-5);
    let y = linears(x, &prologue, &[layer], Output::values(FloatDType::F32));
    let found = gradients(y, &[&weight, &scale]);
    assert!(
        found
            .iter()
            .all(|gradient| gradient.iter().any(|v| *v != 0.0))
    );
}

#[test]
fn burns_own_checkpointing_goes_the_composed_way() {
    let mut draw = Draw::new(3);
    let weight = draw.tensor([8, 6]);
    let x = draw.tensor([5, 8]).inner();
    let device = Device::flex().autodiff().gradient_checkpointing();
    let on = |tensor: Tensor<2>| {
        let strategy = device.gradient_checkpointing_strategy().unwrap();
        Tensor::from_inner(tensor).with_gradient_checkpointing_strategy(strategy)
    };
    let layer = |weight| Linear {
        weight,
        products: Products::Stored,
        adapter: None,
    };
    let kept = on(x.clone()).require_grad();
    let y = linears(
        kept.clone(),
        &Prologue::Nothing,
        &[layer(on(weight.clone().inner()))],
        Output::values(FloatDType::F32),
    );
    let seen = numbers(kept.grad(&y.sum().backward()).unwrap());
    let plain = Tensor::from_inner(x).require_grad();
    let y = linears(
        plain.clone(),
        &Prologue::Nothing,
        &[layer(weight)],
        Output::values(FloatDType::F32),
    );
    close(
        "checkpointing",
        &seen,
        &numbers(plain.grad(&y.sum().backward()).unwrap()),
    );
}

#[test]
#[should_panic(expected = "width of the input and rows of the weight")]
fn shapes_that_do_not_fit_are_refused() {
    let mut draw = Draw::new(4);
    let layer = Linear {
        weight: draw.tensor([8, 6]),
        products: Products::Stored,
        adapter: None,
    };
    linears(
        draw.tensor([5, 7]),
        &Prologue::Nothing,
        &[layer],
        Output::values(FloatDType::F32),
    );
}

#[test]
fn norm_and_gate() {
    let mut draw = Draw::new(5);
    let (x, weight) = (draw.trained([3, 4, 12]), draw.tensor([12]));
    let (seen, exact) = (
        norm::rms_norm(x.clone(), &weight, 1e-5),
        norm::composed(x.clone(), &weight, 1e-5),
    );
    close("norm", &numbers(seen.clone()), &numbers(exact.clone()));
    same("norm", &gradients(seen, &[&x]), &gradients(exact, &[&x]));
    for seen in [swiglu::swiglu(x.clone()), swiglu::in_steps(x.clone())] {
        let exact = swiglu::composed(x.clone());
        close("gate", &numbers(seen.clone()), &numbers(exact.clone()));
        same("gate", &gradients(seen, &[&x]), &gradients(exact, &[&x]));
    }
}

#[rstest]
fn loss_without_logits(
    #[values((1, 11), (20, 11), (LOSS_PART_ROWS + 3, 11), (20, 2 * LOSS_PART_COLUMNS + 5))] shape: (
        usize,
        usize,
    ),
    #[values(false, true)] tied: bool,
    #[values(FloatDType::F32, FloatDType::BF16)] stored: FloatDType,
) {
    let ((n, v), d) = (shape, 6);
    let mut draw = Draw::new(6);
    let hidden = draw.trained([n, d]);
    let head = if tied {
        draw.tensor([v, d]).transpose()
    } else {
        draw.tensor([d, v])
    };
    let head = head.cast(stored);
    let ids: Vec<i64> = (0..n).map(|i| (i * 7 % v) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), &draw.1);
    let seen =
        loss::linear_cross_entropy(hidden.clone(), (&head, Products::Stored), targets.clone());
    let exact = loss::composed(
        hidden.clone(),
        (&head.clone().cast(FloatDType::F32), Products::Stored),
        targets.clone(),
    );
    within(
        bound(stored),
        "loss",
        &numbers(seen.clone()),
        &numbers(exact.clone()),
    );
    let of = |loss: Tensor<1>| numbers(hidden.grad(&loss.mul_scalar(0.5).backward()).unwrap());
    within(bound(stored), "slope", &of(seen.clone()), &of(exact));
    let alone = loss::linear_cross_entropy(
        hidden.clone().inner(),
        (&head.inner(), Products::Stored),
        targets.inner(),
    );
    assert_eq!(alone.into_data(), seen.inner().into_data());
}

/// What devices without kernels do.
#[rstest]
fn loss_in_chunks(
    #[values(1, 20, 2 * LOSS_ROWS, 2 * LOSS_ROWS + 3)] n: usize,
    #[values(false, true)] tied: bool,
) {
    let (d, v) = (6, 11);
    let mut draw = Draw::new(6);
    let hidden = draw.trained([n, d]);
    let head = match tied {
        true => draw.tensor([v, d]).transpose(),
        false => draw.tensor([d, v]),
    };
    let ids: Vec<i64> = (0..n).map(|i| (i * 7 % v) as i64).collect();
    let targets = Tensor::<1, Int>::from_data(TensorData::new(ids, [n]), &draw.1);
    let exact = loss::composed(hidden.clone(), (&head, Products::Stored), targets.clone());
    let head = head.inner();
    let seen = loss::in_chunks(hidden.clone(), (&head, Products::Stored), targets.clone());
    close("loss", &numbers(seen.clone()), &numbers(exact.clone()));
    let of = |loss: Tensor<1>| numbers(hidden.grad(&loss.mul_scalar(0.5).backward()).unwrap());
    close("slope", &of(seen.clone()), &of(exact));
    let alone = loss::in_chunks(
        hidden.clone().inner(),
        (&head, Products::Stored),
        targets.inner(),
    );
    assert_eq!(alone.into_data(), seen.inner().into_data());
}

/// Attention by Burn's own operations on one sequence of one row, `[length, width]`.
fn attend(qkv: Tensor<2>, shape: &AttentionShape, inverse: &[f32]) -> Tensor<2> {
    let [length, _] = qkv.dims();
    let (d, device) = (shape.head_dim, qkv.device());
    let constant = |values: Vec<f32>, dims: [usize; 2]| {
        Tensor::<2>::from_inner(Tensor::from_data(
            TensorData::new(values, dims),
            &device.clone().inner(),
        ))
    };
    let table = |f: fn(f32) -> f32| {
        let values = (0..length).flat_map(|p| (0..d).map(move |i| (p, i % (d / 2))));
        constant(
            values.map(|(p, i)| f(p as f32 * inverse[i])).collect(),
            [length, d],
        )
    };
    let (cos, sin) = (table(f32::cos), table(f32::sin));
    let turn = |x: Tensor<2>| {
        let (a, b) = (
            x.clone().narrow(1, 0, d / 2),
            x.clone().narrow(1, d / 2, d / 2),
        );
        x * cos.clone() + Tensor::cat(vec![b.neg(), a], 1) * sin.clone()
    };
    let window = shape.window.unwrap_or(usize::MAX);
    let places = (0..length).flat_map(|i| (0..length).map(move |j| (i, j)));
    let mask = places.map(|(i, j)| {
        if j <= i && i - j < window {
            0.0
        } else {
            f32::NEG_INFINITY
        }
    });
    let mask = constant(mask.collect(), [length, length]);
    let head = |index: usize| qkv.clone().narrow(1, index * d, d);
    let outputs = (0..shape.heads).map(|h| {
        let kv = h / (shape.heads / shape.kv_heads);
        let (q, k) = (turn(head(h)), turn(head(shape.heads + kv)));
        let scores = q.matmul(k.transpose()).div_scalar((d as f64).sqrt()) + mask.clone();
        softmax(scores, 1).matmul(head(shape.heads + shape.kv_heads + kv))
    });
    Tensor::cat(outputs.collect(), 1)
}

#[rstest]
fn attention_in_one_operation(#[values(None, Some(5))] window: Option<usize>) {
    let sequences = vec![0..9, 9..10, 10..30];
    let shape = Arc::new(AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        window,
        sequences: sequences.clone(),
    });
    let inverse = [1.0, 0.3, 0.1, 0.03];
    let rotary = Arc::new(Rotary::new(&inverse, 0, 20));
    let mut draw = Draw::new(7);
    let qkv = draw.trained([30, shape.input_width()]);
    let seen = attention(qkv.clone(), &shape, &rotary).unwrap();
    let parts = sequences.iter().map(|range| {
        attend(
            qkv.clone().narrow(0, range.start, range.len()),
            &shape,
            &inverse,
        )
    });
    let exact = Tensor::cat(parts.collect(), 0);
    close("attention", &numbers(seen.clone()), &numbers(exact.clone()));
    same(
        "attention",
        &gradients(seen, &[&qkv]),
        &gradients(exact, &[&qkv]),
    );
}

#[test]
fn a_cache_step_by_step() {
    let shape = Arc::new(AttentionShape {
        heads: 4,
        kv_heads: 2,
        head_dim: 8,
        window: None,
        sequences: vec![0..12, 12..24],
    });
    let inverse = [1.0, 0.3, 0.1, 0.03];
    let qkv = Draw::new(8).tensor([2, 12, shape.input_width()]).inner();
    let whole = attention(qkv.clone(), &shape, &Arc::new(Rotary::new(&inverse, 0, 12))).unwrap();
    let mut cache = AttentionCache::default();
    for (start, length) in [(0, 5), (5, 1), (6, 6)] {
        let rotary = Rotary::new(&inverse, start, length);
        let part = qkv.clone().narrow(1, start, length);
        let seen = attention_cached(part, &mut cache, &shape, &rotary).unwrap();
        close(
            "cache",
            &numbers(seen),
            &numbers(whole.clone().narrow(1, start, length)),
        );
    }
}

/// Grouped heads on `device`, by parts and whole with Burn's own backward.
fn attend_in_parts(device: &Device, scores: usize, window: Option<usize>, past: usize) {
    let (batch, heads, kv_heads, length, d) = (2, 4, 2, 7, 4);
    let total = length + past;
    let mut random = Draw::new(9);
    let mut draw = |dims: [usize; 4]| {
        let values = random.values(dims.iter().product());
        let tensor = Tensor::<4>::from_data(TensorData::new(values, dims), device);
        Tensor::from_inner(tensor).require_grad()
    };
    let q = draw([batch, heads, length, d]);
    let [k, v] = [
        draw([batch, kv_heads, total, d]),
        draw([batch, kv_heads, total, d]),
    ];
    let window = window.unwrap_or(usize::MAX);
    let places = (past..total).flat_map(|i| (0..total).map(move |j| (i, j)));
    let seen = |(i, j): (usize, usize)| {
        if j <= i && i - j < window {
            0.0
        } else {
            f32::NEG_INFINITY
        }
    };
    let mask = TensorData::new(
        places.map(seen).collect::<Vec<f32>>(),
        [1, 1, length, total],
    );
    let mask = Tensor::<4>::from_data(mask, device);

    let given = [q.clone(), k.clone(), v.clone()];
    let y = attention_in_parts(given, Some(&mask), FloatDType::F32, scores);
    let for_each_head = |x: &Tensor<4>| {
        let x = x.clone().reshape([batch, kv_heads, 1, total * d]);
        x.repeat_dim(2, heads / kv_heads)
            .reshape([batch, heads, total, d])
    };
    let weights =
        q.clone().matmul(for_each_head(&k).swap_dims(2, 3)) + Tensor::from_inner(mask.clone());
    let exact = softmax(weights, 3).matmul(for_each_head(&v));
    close("attention", &numbers(y.clone()), &numbers(exact.clone()));
    let wanted = exact.clone().inner() * 3.0 - 1.0;
    let slopes = |y: Tensor<4>| {
        let gradients = (y * Tensor::from_inner(wanted.clone())).sum().backward();
        [&q, &k, &v].map(|x| numbers(x.grad(&gradients).unwrap()))
    };
    for ((name, seen), exact) in ["q", "k", "v"]
        .iter()
        .zip(slopes(y.clone()))
        .zip(slopes(exact))
    {
        close(name, &seen, &exact);
    }
    let alone = [&q, &k, &v].map(|x| x.clone().inner());
    let alone = attention_in_parts(alone, Some(&mask), FloatDType::F32, scores);
    assert_eq!(alone.into_data(), y.inner().into_data());
}

#[rstest]
fn attention_by_parts(
    #[values(1, 2 * 4 * 7 * 3, usize::MAX)] scores: usize,
    #[values(None, Some(3))] window: Option<usize>,
    #[values(0, 5)] past: usize,
) {
    attend_in_parts(&Device::flex(), scores, window, past);
    #[cfg(feature = "ndarray")]
    attend_in_parts(&Device::ndarray(), scores, window, past);
}

/// Without a mask every query sees every key, whatever the parts are.
#[test]
fn attention_without_a_mask() {
    let mut random = Draw::new(10);
    let device = Device::flex();
    let mut draw = || {
        let values = random.values(2 * 5 * 4);
        Tensor::<4>::from_data(TensorData::new(values, [1, 2, 5, 4]), &device)
    };
    let given = [draw(), draw(), draw()];
    let of = |scores| {
        let y = attention_in_parts(given.clone(), None, FloatDType::F32, scores);
        numbers(y)
    };
    close("no mask", &of(1), &of(usize::MAX));
}
