//! The gate of the MLP: `silu(gate) ∘ up` (Shazeer, arXiv 2002.05202).
//!
//! ```text
//! σ = 1 / (1 + e^−g)     y = g·σ·u
//! dg = dy · u · σ · (1 + g·(1 − σ))      du = dy · g · σ
//! ```

use crate::{math::sigmoid, rows::each_block_of, vector::vectorized};

/// `y [n, d]` for `gate_up [n, 2d]`, whose rows hold `g` and then `u`.
///
/// # Panics
/// If a length does not fit.
pub fn forward(y: &mut [f32], gate_up: &[f32], d: usize) {
    assert!(
        gate_up.len() == 2 * y.len() && y.len().is_multiple_of(d.max(1)),
        "lengths"
    );
    each_block_of(y, d, |first, y| {
        forward_rows(y, &gate_up[2 * d * first..], d);
    });
}

vectorized! {
    fn forward_rows(y: &mut [f32], gate_up: &[f32], d: usize) {
        for (y, gate_up) in y.chunks_exact_mut(d).zip(gate_up.chunks_exact(2 * d)) {
            let (gate, up) = gate_up.split_at(d);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                *y = g * sigmoid(*g) * u;
            }
        }
    }
}

/// Gradient of `gate_up [n, 2d]` for `dy [n, d]`.
///
/// # Panics
/// If a length does not fit.
pub fn backward(d_gate_up: &mut [f32], dy: &[f32], gate_up: &[f32], d: usize) {
    let fits = d_gate_up.len() == gate_up.len() && gate_up.len() == 2 * dy.len();
    assert!(fits && dy.len().is_multiple_of(d.max(1)), "lengths");
    each_block_of(d_gate_up, 2 * d, |first, out| {
        backward_rows(out, &dy[d * first..], &gate_up[2 * d * first..], d);
    });
}

vectorized! {
    fn backward_rows(out: &mut [f32], dy: &[f32], gate_up: &[f32], d: usize) {
        let lines = out
            .chunks_exact_mut(2 * d)
            .zip(gate_up.chunks_exact(2 * d))
            .zip(dy.chunks_exact(d));
        for ((out, gate_up), dy) in lines {
            let (gate, up) = gate_up.split_at(d);
            let (d_gate, d_up) = out.split_at_mut(d);
            let inputs = gate.iter().zip(up).zip(dy);
            for ((d_gate, d_up), ((g, u), dy)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
                let sigma = sigmoid(*g);
                *d_gate = dy * u * sigma * (1.0 + g * (1.0 - sigma));
                *d_up = dy * g * sigma;
            }
        }
    }
}
