//! Products with very few rows of output, as in generation: the right side is read in the order in
//! which it lies, once a row, and nothing is copied.

mod dots;

use rayon::prelude::*;

use super::{Before, Left, Right, Term, Values};
use crate::{element::Element, math::LANES, share::Disjoint, vector::vectorized};
use dots::Dots;

/// Rows of output up to which this is the better way.
pub(super) const ROWS: usize = 4;
/// Columns of a task at most: their sums stay in the first cache.
const COLUMNS: usize = 512;
/// Multiplications of a task at least.
const TASK: usize = 1 << 14;

/// `out ← [out +] Σ A·B`, every column by one task and in the order of the terms.
pub(super) fn run(
    out: Disjoint<'_>,
    row: usize,
    [m, n]: [usize; 2],
    terms: &[Term<'_>],
    before: Before,
) {
    // Widened once; there are a few rows of them.
    let wide: Vec<Vec<f32>> = terms
        .iter()
        .map(|term| term.left.widened(m, term.k))
        .collect();
    let terms: Vec<Term<'_>> = terms
        .iter()
        .zip(&wide)
        .map(|(term, wide)| match wide.is_empty() {
            true => *term,
            false => Term::new(Left::rows(wide, term.k), term.right, term.k),
        })
        .collect();
    // Every column is one task's alone, so where they are cut changes no sum.
    let depth: usize = terms.iter().map(|term| term.k).sum();
    let parts = n
        .div_ceil(COLUMNS)
        .next_multiple_of(rayon::current_num_threads())
        .min((n * depth / TASK).max(1));
    let columns = n.div_ceil(parts).next_multiple_of(LANES).min(COLUMNS);
    let task = |index: usize| {
        let first = index * columns;
        let columns = columns.min(n - first);
        for i in 0..m {
            // SAFETY: tasks have columns of their own.
            let out = unsafe { out.slice(i * row + first, columns) };
            if before == Before::Drop {
                out.fill(0.0);
            }
            for term in terms.iter().filter(|term| term.k > 0) {
                let right = term.right.skip_columns(first);
                let Values::F32(left) = term.left.values else {
                    unreachable!("widened above");
                };
                if right.row == 1 && right.column != 1 && term.left.column == 1 {
                    let (x, stride) = (&left[i * term.left.row..][..term.k], right.column);
                    match right.values {
                        Values::F32(values) => Dots {
                            out,
                            x,
                            values,
                            stride,
                        }
                        .add(),
                        Values::Bf16(values) => Dots {
                            out,
                            x,
                            values,
                            stride,
                        }
                        .add(),
                        Values::F16(values) => Dots {
                            out,
                            x,
                            values,
                            stride,
                        }
                        .add(),
                    }
                    continue;
                }
                match right.values {
                    Values::F32(values) => add(out, term, left, i, right, values),
                    Values::Bf16(values) => add(out, term, left, i, right, values),
                    Values::F16(values) => add(out, term, left, i, right, values),
                }
            }
        }
    };
    let tasks = n.div_ceil(columns);
    if tasks == 1 {
        task(0);
    } else {
        (0..tasks).into_par_iter().for_each(task);
    }
}

vectorized! {
    /// Adds row `i` of a term.
    fn add<T: Element>(
        out: &mut [f32],
        term: &Term<'_>,
        left: &[f32],
        i: usize,
        right: Right<'_>,
        values: &[T],
    ) {
        let left = |k: usize| left[i * term.left.row + k * term.left.column];
        if right.column == 1 {
            rows(out, term.k, left, right.row, values);
        } else {
            for (j, out) in out.iter_mut().enumerate() {
                let value = |k: usize| values[k * right.row + j * right.column].widen();
                *out += (0..term.k).map(|k| left(k) * value(k)).sum::<f32>();
            }
        }
    }
}

/// `out += Σₖ left(k) · values[k, ..]`, four rows at a time.
#[inline(always)]
fn rows<T: Element>(
    out: &mut [f32],
    k: usize,
    left: impl Fn(usize) -> f32,
    stride: usize,
    values: &[T],
) {
    let n = out.len();
    let whole = k / 4 * 4;
    for k in (0..whole).step_by(4) {
        let line = |offset: usize| &values[(k + offset) * stride..][..n];
        let (a, b, c, d) = (line(0), line(1), line(2), line(3));
        let [x, y, z, w] = [left(k), left(k + 1), left(k + 2), left(k + 3)];
        for ((((out, a), b), c), d) in out.iter_mut().zip(a).zip(b).zip(c).zip(d) {
            *out += x * a.widen() + y * b.widen() + (z * c.widen() + w * d.widen());
        }
    }
    for k in whole..k {
        let x = left(k);
        for (out, value) in out.iter_mut().zip(&values[k * stride..][..n]) {
            *out += x * value.widen();
        }
    }
}
