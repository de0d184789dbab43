//! Attention, norm, MLP gate and loss against plain code in f64, values and gradients.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, missing_docs)]

use std::ops::Range;

use l1ra_kernels::{
    attention::{self, Cache, Shape},
    gemm::{Products, Right},
    loss::{COLUMNS, ROWS, linear_cross_entropy},
    norm,
    rope::Rotary,
    swiglu,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn draw(seed: u64, n: usize) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..n).map(|_| rng.random_range(-1.0..1.0)).collect()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

fn close(seen: &[f32], exact: &[f64], tolerance: f64) {
    assert_eq!(seen.len(), exact.len());
    let scale = exact.iter().fold(1e-3_f64, |m, v| m.max(v.abs()));
    for (i, (s, e)) in seen.iter().zip(exact).enumerate() {
        assert!(
            (f64::from(*s) - e).abs() <= tolerance * scale,
            "{i}: {s} {e} (scale {scale})"
        );
    }
}

/// Slope of `f` along `direction`, by central differences in f64.
fn slope(f: impl Fn(&[f64]) -> f64, x: &[f64], direction: &[f64]) -> f64 {
    let step = 1e-5;
    let at = |s: f64| {
        f(&x.iter()
            .zip(direction)
            .map(|(x, d)| x + s * d)
            .collect::<Vec<_>>())
    };
    (at(step) - at(-step)) / (2.0 * step)
}

/// Checks a gradient along random directions.
fn check_gradient(gradient: &[f32], x: &[f32], f: impl Fn(&[f64]) -> f64) {
    for seed in 0..4 {
        let direction = wide(&draw(900 + seed, x.len()));
        let along: f64 = gradient
            .iter()
            .zip(&direction)
            .map(|(g, d)| f64::from(*g) * d)
            .sum();
        let exact = slope(&f, &wide(x), &direction);
        let size: f64 = gradient
            .iter()
            .map(|g| f64::from(*g).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(
            (along - exact).abs() <= 2e-5 * size + 1e-6,
            "{along} {exact} ({size})"
        );
    }
}

/// The naive form: a matrix of scores for every head.
fn attend(qkv: &[f64], shape: &Shape, inverse: &[f32]) -> Vec<f64> {
    let (d, width) = (shape.head_dim, shape.input_width());
    let tokens = shape.sequences.last().map_or(0, |s| s.end);
    let mut out = vec![0.0; tokens * shape.output_width()];
    let turn = |token: usize, position: usize, at: usize| -> Vec<f64> {
        let x = &qkv[token * width + at..][..d];
        (0..d)
            .map(|i| {
                let angle = f64::from(position as f32 * inverse[i % (d / 2)]);
                let other = if i < d / 2 {
                    -x[i + d / 2]
                } else {
                    x[i - d / 2]
                };
                x[i] * angle.cos() + other * angle.sin()
            })
            .collect()
    };
    for sequence in &shape.sequences {
        for head in 0..shape.heads {
            let kv = head / (shape.heads / shape.kv_heads);
            for i in 0..sequence.len() {
                let q = turn(sequence.start + i, i, head * d);
                let first = shape.window.map_or(0, |w| (i + 1).saturating_sub(w));
                let scores: Vec<f64> = (first..=i)
                    .map(|j| {
                        let k = turn(sequence.start + j, j, (shape.heads + kv) * d);
                        q.iter().zip(&k).map(|(q, k)| q * k).sum::<f64>() / (d as f64).sqrt()
                    })
                    .collect();
                let sum: f64 = scores.iter().map(|s| s.exp()).sum();
                for (j, score) in (first..=i).zip(&scores) {
                    let v = &qkv
                        [(sequence.start + j) * width + (shape.heads + shape.kv_heads + kv) * d..]
                        [..d];
                    let o = &mut out[(sequence.start + i) * shape.output_width() + head * d..][..d];
                    o.iter_mut()
                        .zip(v)
                        .for_each(|(o, v)| *o += score.exp() / sum * v);
                }
            }
        }
    }
    out
}

fn check_attention(
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    window: Option<usize>,
    sequences: Vec<Range<usize>>,
) {
    let shape = Shape {
        heads,
        kv_heads,
        head_dim,
        window,
        sequences,
    };
    let tokens = shape.sequences.last().unwrap().end;
    let longest = shape
        .sequences
        .iter()
        .map(ExactSizeIterator::len)
        .max()
        .unwrap();
    let inverse: Vec<f32> = (0..head_dim / 2).map(|i| 0.3_f32.powi(i as i32)).collect();
    let rotary = Rotary::new(&inverse, 0, longest);
    let qkv: Vec<f32> = draw(1, tokens * shape.input_width())
        .iter()
        .map(|v| 2.0 * v)
        .collect();
    let mut out = vec![0.0; tokens * shape.output_width()];
    let mut lse = vec![0.0; tokens * heads];
    attention::forward(&mut out, &mut lse, &qkv, &shape, &rotary);
    close(&out, &attend(&wide(&qkv), &shape, &inverse), 1e-5);
    let d_out = draw(2, out.len());
    let mut d_qkv = vec![f32::NAN; qkv.len()];
    attention::backward(&mut d_qkv, &d_out, &qkv, &out, &lse, &shape, &rotary);
    check_gradient(&d_qkv, &qkv, |qkv| {
        attend(qkv, &shape, &inverse)
            .iter()
            .zip(&d_out)
            .map(|(o, d)| o * f64::from(*d))
            .sum()
    });
}

#[test]
fn attention_of_grouped_heads() {
    check_attention(6, 2, 8, None, vec![0..5, 5..10]);
    check_attention(3, 1, 16, None, vec![0..37]);
}

#[test]
fn attention_longer_than_a_block_of_queries() {
    check_attention(2, 1, 4, None, vec![0..130]);
    check_attention(1, 1, 6, Some(33), vec![0..130]);
}

#[test]
fn attention_longer_than_a_chunk_of_keys() {
    check_attention(2, 1, 2, None, vec![0..700]);
    check_attention(1, 1, 2, Some(560), vec![0..700]);
}

#[test]
fn attention_of_so_many_heads_that_they_stay_together() {
    check_attention(4, 2, 4, None, (0..9).map(|i| 3 * i..3 * i + 3).collect());
}

#[test]
fn attention_in_a_window_and_in_packed_rows() {
    check_attention(4, 4, 8, Some(4), vec![0..20]);
    check_attention(4, 2, 8, Some(1), vec![0..9]);
    check_attention(4, 2, 8, Some(16), vec![0..1, 1..24, 24..40, 40..43]);
}

#[test]
fn a_cache_gives_what_the_whole_gives() {
    for window in [None, Some(5)] {
        let (rows, tokens) = (2, 19);
        let sequences = vec![0..tokens, tokens..2 * tokens];
        let shape = Shape {
            heads: 4,
            kv_heads: 2,
            head_dim: 8,
            window,
            sequences,
        };
        let inverse: Vec<f32> = (0..4).map(|i| 0.3_f32.powi(i)).collect();
        let (width, out_width) = (shape.input_width(), shape.output_width());
        let qkv = draw(11, rows * tokens * width);
        let mut whole = vec![0.0; rows * tokens * out_width];
        let mut lse = vec![0.0; rows * tokens * 4];
        attention::forward(
            &mut whole,
            &mut lse,
            &qkv,
            &shape,
            &Rotary::new(&inverse, 0, tokens),
        );
        let mut cache = Cache::default();
        for (start, length) in [(0, 7), (7, 1), (8, 1), (9, 10)] {
            let part: Vec<f32> = (0..rows)
                .flat_map(|row| {
                    qkv[(row * tokens + start) * width..(row * tokens + start + length) * width]
                        .to_vec()
                })
                .collect();
            let mut out = vec![0.0; rows * length * out_width];
            cache.attend(
                &mut out,
                &part,
                [rows, length],
                &shape,
                &Rotary::new(&inverse, start, length),
            );
            for row in 0..rows {
                let exact = &whole[(row * tokens + start) * out_width
                    ..(row * tokens + start + length) * out_width];
                close(
                    &out[row * length * out_width..(row + 1) * length * out_width],
                    &wide(exact),
                    1e-5,
                );
            }
        }
        cache.truncate(3);
        let mut out = vec![0.0; rows * out_width];
        let part: Vec<f32> = (0..rows)
            .flat_map(|row| qkv[(row * tokens + 3) * width..(row * tokens + 4) * width].to_vec())
            .collect();
        cache.attend(
            &mut out,
            &part,
            [rows, 1],
            &shape,
            &Rotary::new(&inverse, 3, 1),
        );
        close(
            &out[..out_width],
            &wide(&whole[3 * out_width..4 * out_width]),
            1e-5,
        );
        assert_eq!(cache.len(), 4);
    }
}

#[test]
fn norm_and_its_gradient() {
    for (n, d) in [(1, 3), (7, 64), (300, 100)] {
        let (x, w, dy) = (draw(3, n * d), draw(4, d), draw(5, n * d));
        let exact = |x: &[f64]| -> Vec<f64> {
            x.chunks(d)
                .flat_map(|line| {
                    let mean = line.iter().map(|v| v * v).sum::<f64>() / d as f64;
                    let inverse = 1.0 / (mean + 1e-5).sqrt();
                    line.iter()
                        .zip(&w)
                        .map(|(v, w)| v * inverse * f64::from(*w))
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let (mut y, mut inverse, mut dx) = (vec![0.0; n * d], vec![0.0; n], vec![0.0; n * d]);
        norm::forward(&mut y, &mut inverse, &x, &w, 1e-5);
        close(&y, &exact(&wide(&x)), 1e-6);
        norm::backward(&mut dx, &dy, &x, &w, &inverse);
        check_gradient(&dx, &x, |x| {
            exact(x)
                .iter()
                .zip(&dy)
                .map(|(y, d)| y * f64::from(*d))
                .sum()
        });
    }
}

#[test]
fn gate_and_its_gradient() {
    for (n, d) in [(1, 5), (50, 96)] {
        let x: Vec<f32> = draw(6, 2 * n * d).iter().map(|v| 8.0 * v).collect();
        let dy = draw(7, n * d);
        let exact = |x: &[f64]| -> Vec<f64> {
            x.chunks(2 * d)
                .flat_map(|line| {
                    let (gate, up) = line.split_at(d);
                    gate.iter()
                        .zip(up)
                        .map(|(g, u)| g / (1.0 + (-g).exp()) * u)
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        let (mut y, mut dx) = (vec![0.0; n * d], vec![0.0; 2 * n * d]);
        swiglu::forward(&mut y, &x, d);
        close(&y, &exact(&wide(&x)), 1e-6);
        swiglu::backward(&mut dx, &dy, &x, d);
        check_gradient(&dx, &x, |x| {
            exact(x)
                .iter()
                .zip(&dy)
                .map(|(y, d)| y * f64::from(*d))
                .sum()
        });
    }
}

#[test]
fn loss_and_its_gradient() {
    for (n, d, v, tied) in [
        (1, 4, 7, false),
        (13, 8, 50, true),
        (ROWS + 9, 4, 33, true),
        (40, 4, 2 * COLUMNS + 77, true),
        (40, 4, COLUMNS + 1, false),
    ] {
        let (h, w) = (draw(8, n * d), draw(9, d * v));
        let targets: Vec<u32> = (0..n).map(|i| (i * 31 % v) as u32).collect();
        // Tied: the head is the embedding, [v, d].
        let head = if tied {
            Right::rows(&w, d).transpose()
        } else {
            Right::rows(&w, v)
        };
        let at = |i: usize, j: usize| f64::from(if tied { w[j * d + i] } else { w[i * v + j] });
        let exact = |h: &[f64]| -> f64 {
            h.chunks(d)
                .zip(&targets)
                .map(|(h, target)| {
                    let z: Vec<f64> = (0..v)
                        .map(|j| (0..d).map(|i| h[i] * at(i, j)).sum())
                        .collect();
                    z.iter().map(|z| z.exp()).sum::<f64>().ln() - z[*target as usize]
                })
                .sum()
        };
        let mut dh = vec![0.0; n * d];
        let loss = linear_cross_entropy(
            &h,
            (head, Products::Stored),
            [d, v],
            &targets,
            Some(&mut dh),
        );
        let alone = linear_cross_entropy(&h, (head, Products::Stored), [d, v], &targets, None);
        assert_eq!(loss, alone);
        assert!((loss - exact(&wide(&h))).abs() < 1e-5 * loss, "{loss}");
        check_gradient(&dh, &h, exact);
    }
}

#[test]
fn loss_of_nothing_is_zero() {
    assert_eq!(
        linear_cross_entropy(
            &[],
            (Right::rows(&[1.0; 6], 3), Products::Stored),
            [2, 3],
            &[],
            None
        ),
        0.0
    );
}

#[test]
fn loss_of_logits_far_apart_stays_finite() {
    let head = [200.0, -200.0, 0.0];
    let mut dh = [0.0];
    let loss = linear_cross_entropy(
        &[1.0],
        (Right::rows(&head, 3), Products::Stored),
        [1, 3],
        &[1],
        Some(&mut dh),
    );
    assert!((loss - 400.0).abs() < 1e-3, "{loss}");
    assert!((dh[0] - 400.0).abs() < 1e-3, "{}", dh[0]);
}
