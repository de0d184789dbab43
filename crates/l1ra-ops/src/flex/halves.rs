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

use super::{Number, room};

/// Whether products with these activations go this way.
pub(super) fn apply(activations: Values<'_>) -> bool {
    matches!(activations, Values::Bf16(_)) && bf16_instructions().is_some()
}

/// `x·M` for every `M [k, r]` of `matrices`, given as `Mᵀ [r, k]` where `turned`: each `[n, r]`.
pub(super) fn by_narrow(
    x: Left<'_>,
    [n, k]: [usize; 2],
    matrices: &[(&[f32], usize)],
    turned: bool,
) -> Vec<Vec<f32>> {
    let ranks: Vec<usize> = matrices.iter().map(|(_, r)| *r).collect();
    // [2·Σr, k]: the parts of every matrix's columns, one column after the other.
    let mut parts = room::<bf16>(2 * ranks.iter().sum::<usize>() * k);
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
    let width = 2 * ranks.iter().sum::<usize>();
    let right = Right {
        values: Values::Bf16(&parts),
        row: 1,
        column: k,
    };
    let mut both = room::<f32>(n * width);
    f32::products(&mut both, width, [n, width], &[Term::new(x, right, k)]);
    let mut at = 0;
    let each = |r: &usize| {
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
    ranks.iter().map(each).collect()
}

/// `Mᵀ·x` for every `M [n, r]` of `matrices` and `x [n, d]`: each `[r, d]`.
pub(super) fn narrow_by(
    x: Right<'_>,
    [n, d]: [usize; 2],
    matrices: &[(&[f32], usize)],
) -> Vec<Vec<f32>> {
    let height = 2 * matrices.iter().map(|(_, r)| *r).sum::<usize>();
    let mut parts = room::<bf16>(height * n);
    let mut rest = &mut parts[..];
    for (matrix, r) in matrices {
        let (part, after) = rest.split_at_mut(2 * r * n);
        rest = after;
        let (high, low) = part.split_at_mut(r * n);
        let mut lines = room::<f32>(r * n);
        rows::transpose(&mut lines, matrix, *r);
        rows::split(high, low, &lines);
    }
    let mut both = room::<f32>(height * d);
    let term = Term::new(Left::rows(&parts, n), x, n);
    f32::products(&mut both, d, [height, d], &[term]);
    let mut rest = &both[..];
    let each = |(_, r): &(&[f32], usize)| {
        let (part, after) = rest.split_at(2 * r * d);
        rest = after;
        let (high, low) = part.split_at(r * d);
        high.iter().zip(low).map(|(high, low)| high + low).collect()
    };
    matrices.iter().map(each).collect()
}
