//! The gate of the MLP: `silu(gate) ∘ up` (Shazeer, arXiv 2002.05202).
//!
//! ```text
//! σ = 1 / (1 + e^−g)     y = g·σ·u
//! dg = dy · u · σ · (1 + g·(1 − σ))      du = dy · g · σ
//! ```

use crate::{element::Activation, math::sigmoid, rows::each_block_of, vector::vectorized};

/// `y [n, d]` for `gate_up [n, 2d]`, whose rows hold `g` and then `u`.
///
/// # Panics
/// If a length does not fit.
pub fn forward<T: Activation>(y: &mut [T], gate_up: &[T], d: usize) {
    assert!(
        gate_up.len() == 2 * y.len() && y.len().is_multiple_of(d.max(1)),
        "lengths"
    );
    each_block_of(y, d, |first, y| {
        forward_rows(y, &gate_up[2 * d * first..], d);
    });
}

vectorized! {
    fn forward_rows<T: Activation>(y: &mut [T], gate_up: &[T], d: usize) {
        for (y, gate_up) in y.chunks_exact_mut(d).zip(gate_up.chunks_exact(2 * d)) {
            let (gate, up) = gate_up.split_at(d);
            for ((y, g), u) in y.iter_mut().zip(gate).zip(up) {
                let g = g.widen();
                *y = T::narrow(g * sigmoid(g) * u.widen());
            }
        }
    }
}

/// Gradient of `gate_up [n, 2d]` for `dy [n, d]`.
///
/// # Panics
/// If a length does not fit.
pub fn backward<T: Activation>(d_gate_up: &mut [T], dy: &[T], gate_up: &[T], d: usize) {
    let fits = d_gate_up.len() == gate_up.len() && gate_up.len() == 2 * dy.len();
    assert!(fits && dy.len().is_multiple_of(d.max(1)), "lengths");
    each_block_of(d_gate_up, 2 * d, |first, out| {
        backward_rows(out, &dy[d * first..], &gate_up[2 * d * first..], d);
    });
}

vectorized! {
    fn backward_rows<T: Activation>(out: &mut [T], dy: &[T], gate_up: &[T], d: usize) {
        let lines = out
            .chunks_exact_mut(2 * d)
            .zip(gate_up.chunks_exact(2 * d))
            .zip(dy.chunks_exact(d));
        for ((out, gate_up), dy) in lines {
            let (gate, up) = gate_up.split_at(d);
            let (d_gate, d_up) = out.split_at_mut(d);
            let inputs = gate.iter().zip(up).zip(dy);
            for ((d_gate, d_up), ((g, u), dy)) in d_gate.iter_mut().zip(d_up).zip(inputs) {
                let (g, u, dy) = (g.widen(), u.widen(), dy.widen());
                let sigma = sigmoid(g);
                *d_gate = T::narrow(dy * u * sigma * (1.0 + g * (1.0 - sigma)));
                *d_up = T::narrow(dy * g * sigma);
            }
        }
    }
}
