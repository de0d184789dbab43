//! RMS norm (Zhang and Sennrich, arXiv 1910.07467).
//!
//! ```text
//! i = 1 / √(mean(x²) + ε)       y = x · i ∘ w
//! dx = i · (w∘dy) − x · i³ · mean(w ∘ dy ∘ x)
//! ```

use crate::{
    element::Activation,
    math::sum_pairs,
    rows::{each_block, each_block_of},
    vector::vectorized,
};

/// `y [n, d]` and the inverse root `i [n]` for `x [n, d]`, `w [d]`.
///
/// # Panics
/// If a length does not fit.
pub fn forward<T: Activation>(
    y: &mut [T],
    inverse: &mut [f32],
    x: &[f32],
    w: &[f32],
    epsilon: f32,
) {
    let d = w.len();
    assert!(
        y.len() == x.len() && inverse.len() * d == x.len(),
        "lengths"
    );
    each_block((y, d), (inverse, 1), |first, y, inverse| {
        let x = &x[first * d..][..y.len()];
        forward_rows(y, inverse, x, w, epsilon);
    });
}

vectorized! {
    fn forward_rows<T: Activation>(y: &mut [T], inverse: &mut [f32], x: &[f32], w: &[f32], epsilon: f32) {
        let d = w.len();
        for ((y, x), inverse) in y.chunks_exact_mut(d).zip(x.chunks_exact(d)).zip(inverse) {
            let mean = sum_pairs(x, x, |a, b| a * b) / d as f32;
            *inverse = 1.0 / (mean + epsilon).sqrt();
            for ((y, x), w) in y.iter_mut().zip(x).zip(w) {
                *y = T::narrow(x * *inverse * w);
            }
        }
    }
}

/// `dx [n, d]` for `dy [n, d]`.
///
/// # Panics
/// If a length does not fit.
pub fn backward(dx: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], inverse: &[f32]) {
    let d = w.len();
    assert!(
        dx.len() == x.len() && dy.len() == x.len() && inverse.len() * d == x.len(),
        "lengths"
    );
    each_block_of(dx, d, |first, dx| {
        let part = first * d..first * d + dx.len();
        let (x, dy) = (&x[part.clone()], &dy[part]);
        backward_rows(dx, dy, x, w, &inverse[first..]);
    });
}

vectorized! {
    fn backward_rows(dx: &mut [f32], dy: &[f32], x: &[f32], w: &[f32], inverse: &[f32]) {
        let d = w.len();
        let lines = dx
            .chunks_exact_mut(d)
            .zip(x.chunks_exact(d))
            .zip(dy.chunks_exact(d));
        for (((dx, x), dy), inverse) in lines.zip(inverse) {
            for ((dx, dy), w) in dx.iter_mut().zip(dy).zip(w) {
                *dx = dy * w;
            }
            let mean = sum_pairs(dx, x, |a, b| a * b) / d as f32;
            let slope = mean * inverse * inverse * inverse;
            for (dx, x) in dx.iter_mut().zip(x) {
                *dx = *dx * inverse - x * slope;
            }
        }
    }
}
