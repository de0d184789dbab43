//! Small things done to the rows of a matrix, shared among threads.

use half::bf16;
use rayon::prelude::*;

use crate::{
    element::{Activation, Element},
    vector::vectorized,
};

/// Values that a task takes at least.
const TASK: usize = 1 << 14;

/// Rows of a task when a row has `width` values.
pub(crate) fn per_task(width: usize) -> usize {
    (TASK / width.max(1)).max(1)
}

/// Calls `act` with blocks of rows of `a` and `b` and the index of the first.
pub(crate) fn each_block<T: Send>(
    (a, a_width): (&mut [T], usize),
    (b, b_width): (&mut [f32], usize),
    act: impl Fn(usize, &mut [T], &mut [f32]) + Sync,
) {
    let rows = per_task(a_width.max(b_width));
    a.par_chunks_mut((rows * a_width).max(1))
        .zip(b.par_chunks_mut((rows * b_width).max(1)))
        .enumerate()
        .for_each(|(index, (a, b))| act(index * rows, a, b));
}

/// Calls `act` with blocks of rows of `out` and the index of the first.
pub(crate) fn each_block_of<T: Send>(
    out: &mut [T],
    width: usize,
    act: impl Fn(usize, &mut [T]) + Sync,
) {
    let rows = per_task(width);
    out.par_chunks_mut((rows * width).max(1))
        .enumerate()
        .for_each(|(index, out)| act(index * rows, out));
}

vectorized! {
    /// `out = x`, in f32.
    pub(crate) fn widen<T: Element>(out: &mut [f32], x: &[T]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = x.widen());
    }
}

vectorized! {
    /// `out = x`, rounded.
    pub(crate) fn narrow<T: Activation>(out: &mut [T], x: &[f32]) {
        out.iter_mut().zip(x).for_each(|(out, x)| *out = T::narrow(*x));
    }
}

/// `x` in two parts: `high`, which is x rounded, and `low`, what is missing from it, rounded.
///
/// # Panics
/// If a length does not fit.
pub fn split(high: &mut [bf16], low: &mut [bf16], x: &[f32]) {
    assert!(high.len() == x.len() && low.len() == x.len(), "lengths");
    split_values(high, low, x);
}

vectorized! {
    fn split_values(high: &mut [bf16], low: &mut [bf16], x: &[f32]) {
        for ((high, low), x) in high.iter_mut().zip(low).zip(x) {
            *high = bf16::narrow(*x);
            *low = bf16::narrow(*x - high.widen());
        }
    }
}

/// `out[i, j] = x[i, j] · g[j]`.
///
/// # Panics
/// If a length does not fit.
pub fn scale_columns(out: &mut [f32], x: &[f32], g: &[f32]) {
    let d = g.len();
    assert!(
        out.len() == x.len() && x.len().is_multiple_of(d.max(1)),
        "lengths"
    );
    each_block_of(out, d, |first, out| scale_rows(out, &x[first * d..], g));
}

vectorized! {
    fn scale_rows(out: &mut [f32], x: &[f32], g: &[f32]) {
        let d = g.len();
        for (out, x) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
            for ((out, x), g) in out.iter_mut().zip(x).zip(g) {
                *out = x * g;
            }
        }
    }
}

/// `Σᵢ a[i, j]·b[i, j]` of every column, in order.
///
/// # Panics
/// If a length does not fit.
pub fn column_dots(a: &[f32], b: &[f32], d: usize) -> Vec<f32> {
    assert!(
        a.len() == b.len() && a.len().is_multiple_of(d.max(1)),
        "lengths"
    );
    let mut sums = vec![0.0; d];
    if d > 0 {
        add_products(&mut sums, a, b);
    }
    sums
}

vectorized! {
    fn add_products(sums: &mut [f32], a: &[f32], b: &[f32]) {
        let d = sums.len();
        for (a, b) in a.chunks_exact(d).zip(b.chunks_exact(d)) {
            for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
                *sum += a * b;
            }
        }
    }
}

/// `out [d, n] = xᵀ` for `x [n, d]`.
///
/// # Panics
/// If a length does not fit.
pub fn transpose(out: &mut [f32], x: &[f32], d: usize) {
    assert!(
        out.len() == x.len() && x.len().is_multiple_of(d.max(1)),
        "lengths"
    );
    let n = x.len() / d.max(1);
    for (j, out) in out.chunks_exact_mut(n.max(1)).enumerate() {
        for (i, out) in out.iter_mut().enumerate() {
            *out = x[i * d + j];
        }
    }
}
