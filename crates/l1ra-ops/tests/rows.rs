//! What is done to rows, on `flex` or where `L1RA_TEST_DEVICE` says, against the formulas in f64.
#![allow(clippy::unwrap_used, missing_docs)]

use burn::tensor::{Device, FloatDType, Int, Tensor, TensorData};
use l1ra_core::parse_device;
use l1ra_ops::rows;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn device() -> Device {
    let name = std::env::var("L1RA_TEST_DEVICE");
    parse_device(name.as_deref().unwrap_or("flex")).unwrap()
}

/// The types that the device computes in, with what rounding to them may change.
fn types(device: &Device) -> Vec<(FloatDType, f64)> {
    let all = [
        (FloatDType::F32, 2e-5),
        (FloatDType::F16, 2e-3),
        (FloatDType::BF16, 1.6e-2),
    ];
    let able = |(dtype, _): &(FloatDType, f64)| device.supports_dtype(*dtype);
    all.into_iter().filter(able).collect()
}

/// Rows and columns: fewer columns than units, as many, more, no power of two, and more rows than a grid has
/// along one axis.
const SIZES: [(usize, usize); 6] = [(1, 1), (3, 5), (70, 33), (2, 576), (5, 1500), (65_539, 2)];

struct Draw(ChaCha8Rng, Device);

impl Draw {
    fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed), device())
    }

    /// A tensor of a type, and its values as that type has them.
    fn tensor<const D: usize>(
        &mut self,
        shape: [usize; D],
        dtype: FloatDType,
    ) -> (Tensor<D>, Vec<f64>) {
        let n = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| self.0.random_range(-3.0..3.0)).collect();
        let tensor = Tensor::<D>::from_data(TensorData::new(values, shape), &self.1).cast(dtype);
        let values = numbers(tensor.clone());
        (tensor, values)
    }
}

fn numbers<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    let data = tensor.cast(FloatDType::F32).into_data();
    let values = data.try_into_vec::<f32>().unwrap();
    values.into_iter().map(f64::from).collect()
}

fn close(name: &str, bound: f64, seen: &[f64], exact: &[f64]) {
    assert_eq!(seen.len(), exact.len(), "{name}");
    let scale = exact.iter().fold(1e-3_f64, |m, v| m.max(v.abs()));
    for (i, (s, e)) in seen.iter().zip(exact).enumerate() {
        assert!(
            (s - e).abs() <= bound * scale,
            "{name} {i}: {s} {e} (scale {scale})"
        );
    }
}

#[test]
fn norm_with_its_gradient() {
    let mut draw = Draw::new(1);
    let epsilon = 1e-2;
    for (n, d) in SIZES {
        let f32 = FloatDType::F32;
        let (x, values) = draw.tensor([n, d], f32);
        let (dy, slopes) = draw.tensor([n, d], f32);
        let (weight, scales) = draw.tensor([d], f32);
        let (mut y, mut dx) = (Vec::new(), Vec::new());
        for (x, dy) in values.chunks(d).zip(slopes.chunks(d)) {
            let mean = |values: &dyn Fn(usize) -> f64| (0..d).map(values).sum::<f64>() / d as f64;
            let inverse = (mean(&|i| x[i] * x[i]) + epsilon).sqrt().recip();
            let pulled = mean(&|i| scales[i] * dy[i] * x[i]) * inverse.powi(3);
            y.extend((0..d).map(|i| x[i] * inverse * scales[i]));
            dx.extend((0..d).map(|i| inverse * scales[i] * dy[i] - x[i] * pulled));
        }
        let name = format!("norm of {n} × {d}");
        let seen = rows::rms_norm(x.clone(), &weight, epsilon);
        close(&name, 2e-5, &numbers(seen), &y);
        let seen = rows::rms_norm_backward(dy.clone(), x.clone(), &weight, epsilon);
        close(&format!("slope of {name}"), 2e-5, &numbers(seen), &dx);
        // What others hold is as it was; what nobody holds gives the same.
        assert_eq!(numbers(x.clone()), values);
        assert_eq!(numbers(dy.clone()), slopes);
        let seen = numbers(rows::rms_norm_backward(dy, x.clone(), &weight, epsilon));
        close(&format!("slope of {name}, in place"), 2e-5, &seen, &dx);
        let seen = numbers(rows::rms_norm(x, &weight, epsilon));
        close(&format!("{name}, in place"), 2e-5, &seen, &y);
    }
}

#[test]
fn gate_with_its_gradient() {
    let mut draw = Draw::new(2);
    for (dtype, bound) in types(&device()) {
        for (n, d) in SIZES {
            let (gate_up, values) = draw.tensor([1, n, 2 * d], dtype);
            let (dy, slopes) = draw.tensor([1, n, d], FloatDType::F32);
            let (mut y, mut exact) = (Vec::new(), Vec::new());
            for (row, dy) in values.chunks(2 * d).zip(slopes.chunks(d)) {
                let (gate, up) = row.split_at(d);
                let s = |i: usize| 1.0 / (1.0 + (-gate[i]).exp());
                y.extend((0..d).map(|i| gate[i] * s(i) * up[i]));
                let d_gate = |i| dy[i] * up[i] * s(i) * (1.0 + gate[i] * (1.0 - s(i)));
                exact.extend((0..d).map(d_gate));
                exact.extend((0..d).map(|i| dy[i] * gate[i] * s(i)));
            }
            let name = format!("gate of {n} × {d} in {dtype:?}");
            let seen = rows::swiglu(gate_up.clone(), FloatDType::F32);
            assert_eq!(FloatDType::from(seen.dtype()), FloatDType::F32);
            close(&name, 2e-5, &numbers(seen), &y);
            let seen = rows::swiglu(gate_up.clone(), dtype);
            assert_eq!(FloatDType::from(seen.dtype()), dtype);
            close(&name, bound, &numbers(seen), &y);
            let seen = rows::swiglu_backward(dy, &gate_up);
            assert_eq!(FloatDType::from(seen.dtype()), dtype);
            close(&format!("slope of {name}"), bound, &numbers(seen), &exact);
        }
    }
}

/// Two heads that share keys, masks of every row or one for all, and one that is a part of a larger one.
#[test]
fn softmax_with_its_gradient() {
    let mut draw = Draw::new(3);
    for (dtype, bound) in types(&device()) {
        for (queries, keys) in [(1, 1), (3, 7), (5, 300)] {
            for masks in [1, 2] {
                let (batch, kv_heads, shared) = (2, 3, 2);
                let shape = [batch, kv_heads, shared * queries, keys];
                let (scores, values) = draw.tensor(shape, dtype);
                let (dp, slopes) = draw.tensor(shape, dtype);
                // Query i of batch b sees the keys up to i + b, and two more columns lie beside.
                let hidden = |b: usize, i: usize, k: usize| k > i + b;
                let mask = (0..masks).flat_map(|b| {
                    let row = move |i: usize| (0..keys + 2).map(move |k| (i, k));
                    (0..queries).flat_map(row).map(move |(i, k)| match k {
                        k if hidden(b, i, k) => f32::NEG_INFINITY,
                        k => k as f32 * 0.01,
                    })
                });
                let whole = [masks, 1, queries, keys + 2];
                let mask = TensorData::new(mask.collect::<Vec<f32>>(), whole);
                let mask = Tensor::<4>::from_data(mask, &device()).narrow(3, 0, keys);
                let (mut p, mut ds) = (Vec::new(), Vec::new());
                let heads = kv_heads * shared;
                for (row, (scores, dp)) in values.chunks(keys).zip(slopes.chunks(keys)).enumerate()
                {
                    let (b, i) = (row / (heads * queries) % masks, row % queries);
                    let power = |k: usize| match hidden(b, i, k) {
                        true => 0.0,
                        false => (scores[k] + k as f64 * 0.01).exp(),
                    };
                    let sum: f64 = (0..keys).map(power).sum();
                    let of_row: Vec<f64> = (0..keys).map(|k| power(k) / sum).collect();
                    let pulled: f64 = of_row.iter().zip(dp).map(|(p, dp)| p * dp).sum();
                    ds.extend(of_row.iter().zip(dp).map(|(p, dp)| p * (dp - pulled)));
                    p.extend(of_row);
                }
                let name = format!("softmax of {queries} × {keys}, {masks} masks, {dtype:?}");
                let seen = rows::masked_softmax(scores.clone(), Some(&mask));
                assert_eq!(FloatDType::from(seen.dtype()), dtype);
                close(&name, bound, &numbers(seen.clone()), &p);
                let slope = rows::softmax_backward(seen.clone(), dp.clone());
                close(
                    &format!("slope of {name}"),
                    2.0 * bound,
                    &numbers(slope),
                    &ds,
                );
                assert_eq!(
                    (numbers(scores.clone()), numbers(dp.clone())),
                    (values, slopes)
                );
                let slope = numbers(rows::softmax_backward(seen, dp));
                close(
                    &format!("slope of {name}, in place"),
                    2.0 * bound,
                    &slope,
                    &ds,
                );
                let seen = numbers(rows::masked_softmax(scores, Some(&mask)));
                close(&format!("{name}, in place"), bound, &seen, &p);
            }
        }
    }
}

#[test]
fn cross_entropy_with_its_gradient() {
    let mut draw = Draw::new(4);
    for (dtype, bound) in types(&device()) {
        for (n, vocabulary) in SIZES {
            let (logits, values) = draw.tensor([n, vocabulary], dtype);
            let targets: Vec<i64> = (0..n).map(|i| (i * 7 % vocabulary) as i64).collect();
            let ids = TensorData::new(targets.clone(), [n]);
            let ids = Tensor::<1, Int>::from_data(ids, &device());
            let (mut losses, mut slopes) = (Vec::new(), Vec::new());
            for (z, target) in values.chunks(vocabulary).zip(targets) {
                let sum: f64 = z.iter().map(|z| z.exp()).sum();
                losses.push(sum.ln() - z[target as usize]);
                let slope = |(i, z): (usize, &f64)| z.exp() / sum - f64::from(i == target as usize);
                slopes.extend(z.iter().enumerate().map(slope));
            }
            let name = format!("loss of {n} × {vocabulary} in {dtype:?}");
            let (seen, none) = rows::cross_entropy(logits.clone(), ids.clone(), false);
            close(&name, 2e-5, &numbers(seen), &losses);
            assert!(none.is_none());
            for place in ["", ", in place"] {
                let given = match place {
                    "" => logits.clone(),
                    _ => logits.clone().mul_scalar(1.0),
                };
                let (seen, slope) = rows::cross_entropy(given, ids.clone(), true);
                let slope = slope.unwrap();
                assert_eq!(FloatDType::from(slope.dtype()), dtype);
                close(&format!("{name}{place}"), 2e-5, &numbers(seen), &losses);
                let name = format!("slope of {name}{place}");
                close(&name, bound, &numbers(slope), &slopes);
            }
            assert_eq!(numbers(logits), values);
        }
    }
}
