//! Products of activations in bf16 with the narrow f32 matrices of adapters, on instructions for bf16.
//!
//! The f32 side is taken in two parts of bf16 that lie side by side, so that one product takes both:
//!
//! ```text
//! v = high + low + e      high = bf16(v)      low = bf16(v − high)      |e| ≤ 2⁻¹⁷·|v|
//! ```
//!
//! Matrices that meet the same activations lie side by side, too, and the activations are packed once.

use half::bf16;
use l1ra_kernels::{
    gemm::{Left, Right, Term, Values, bf16_instructions},
    rows,
};

use super::{room, summed};

/// Whether products with these activations go this way.
pub(super) fn apply(activations: Values<'_>) -> bool {
    matches!(activations, Values::Bf16(_)) && bf16_instructions().is_some()
}

/// Both parts of every matrix's columns, one column of `k` after the other: `[2·Σr, k]`. Matrices are
/// `[k, r]`, or `[r, k]` where they are `turned` already.
fn parts_of(matrices: &[(&[f32], usize)], k: usize, turned: bool) -> Vec<bf16> {
    let mut parts = room::<bf16>(both_ranks(matrices) * k);
    let mut rest = &mut parts[..];
    for (matrix, r) in matrices {
        let (part, after) = rest.split_at_mut(2 * r * k);
        rest = after;
        let (high, low) = part.split_at_mut(r * k);
        if turned {
            rows::split(high, low, matrix);
        } else {
            let mut columns = room::<f32>(r * k);
            rows::transpose(&mut columns, matrix, *r);
            rows::split(high, low, &columns);
        }
    }
    parts
}

fn both_ranks(matrices: &[(&[f32], usize)]) -> usize {
    2 * matrices.iter().map(|(_, r)| *r).sum::<usize>()
}

/// `x·M` for every `M [k, r]` of `matrices`, given as `Mᵀ [r, k]` where `turned`: each `[n, r]`.
pub(super) fn by_narrow(
    x: Left<'_>,
    [n, k]: [usize; 2],
    matrices: &[(&[f32], usize)],
    turned: bool,
) -> Vec<Vec<f32>> {
    let (parts, width) = (parts_of(matrices, k, turned), both_ranks(matrices));
    let right = Right {
        values: Values::Bf16(&parts),
        row: 1,
        column: k,
    };
    let both = summed::<f32>(&[Term::new(x, right, k)], [n, width]);
    let mut at = 0;
    let each = |(_, r): &(&[f32], usize)| {
        let mut sum = room::<f32>(n * r);
        for (sum, both) in sum
            .chunks_exact_mut((*r).max(1))
            .zip(both.chunks_exact(width.max(1)))
        {
            let (high, low) = both[at..at + 2 * r].split_at(*r);
            for ((sum, high), low) in sum.iter_mut().zip(high).zip(low) {
                *sum = high + low;
            }
        }
        at += 2 * r;
        sum
    };
    matrices.iter().map(each).collect()
}

/// `Mᵀ·x` for every `M [n, r]` of `matrices` and `x [n, d]`: each `[r, d]`.
pub(super) fn narrow_by(
    x: Right<'_>,
    [n, d]: [usize; 2],
    matrices: &[(&[f32], usize)],
) -> Vec<Vec<f32>> {
    let parts = parts_of(matrices, n, false);
    let term = Term::new(Left::rows(&parts, n), x, n);
    let both = summed::<f32>(&[term], [both_ranks(matrices), d]);
    let mut rest = &both[..];
    let each = |(_, r): &(&[f32], usize)| {
        let (part, after) = rest.split_at(2 * r * d);
        rest = after;
        let (high, low) = part.split_at(r * d);
        high.iter().zip(low).map(|(high, low)| high + low).collect()
    };
    matrices.iter().map(each).collect()
}
