//! The last matrix product and the cross-entropy as one operation.
//!
//! ```text
//! z = h·W      loss = Σ (log Σ e^z − z[target])      dh = (softmax(z) − 1[target])·Wᵀ
//! ```
//!
//! Logits exist for [`ROWS`] rows and [`COLUMNS`] words of the vocabulary at a time, whatever the batch
//! and the vocabulary are. Each row keeps the largest logit so far, `m`, and two sums, which are scaled
//! anew when `m` grows; what the last part of the vocabulary leaves is the loss and its gradient:
//!
//! ```text
//! s = Σ e^(z − m)     a = Σ e^(z − m)·Wᵀ     loss = m + log s − z[target]     dh = a/s − W[:, target]ᵀ
//! ```

use rayon::prelude::*;

use crate::{
    gemm::{Before, Left, Products, Right, Term, sum_of_products},
    math,
    vector::vectorized,
};

/// Rows whose logits exist at once. The head is read twice for every so many rows.
pub const ROWS: usize = 2048;

/// Words of the vocabulary whose logits exist at once.
pub const COLUMNS: usize = 1024;

/// The loss summed over rows for `hidden [n, d]`, `head [d, v]`, `targets [n]`, each below `v`; and,
/// where `gradient` is given, `dh [n, d]` in it. Products with the head are taken in `products`.
///
/// # Panics
/// If a length does not fit or a target is not below `v`.
pub fn linear_cross_entropy(
    hidden: &[f32],
    head: (Right<'_>, Products),
    [d, v]: [usize; 2],
    targets: &[u32],
    mut gradient: Option<&mut [f32]>,
) -> f64 {
    assert!(hidden.len() == targets.len() * d, "lengths");
    assert!(
        targets.iter().all(|target| (*target as usize) < v),
        "target out of range"
    );
    let mut logits = vec![0.0_f32; targets.len().min(ROWS) * v.min(COLUMNS)];
    let mut loss = 0.0;
    for (index, targets) in targets.chunks(ROWS).enumerate() {
        let part = index * ROWS * d..(index * ROWS + targets.len()) * d;
        let gradient = gradient.as_deref_mut().map(|dh| &mut dh[part.clone()]);
        loss += rows(&hidden[part], head, [d, v], targets, gradient, &mut logits);
    }
    loss
}

/// The same for so few rows that `logits` has room for a part of the vocabulary.
fn rows(
    hidden: &[f32],
    (head, products): (Right<'_>, Products),
    [d, v]: [usize; 2],
    targets: &[u32],
    mut gradient: Option<&mut [f32]>,
    logits: &mut [f32],
) -> f64 {
    let n = targets.len();
    let mut sums = vec![Sum::default(); n];
    let mut before = Before::Drop;
    for first in (0..v).step_by(COLUMNS) {
        let width = COLUMNS.min(v - first);
        let logits = &mut logits[..n * width];
        let words = head.skip_columns(first);
        let term = Term::new(Left::rows(hidden, d), words, d).taken_in(products);
        sum_of_products(logits, width, [n, width], &[term], Before::Drop);
        let lines = logits.par_chunks_mut(width).zip(targets);
        sums.par_iter_mut().zip(lines).for_each(|(sum, line)| {
            let (logits, target) = line;
            let seen = logits.get((*target as usize).wrapping_sub(first));
            sum.seen = seen.copied().unwrap_or(sum.seen);
            add_exponentials(sum, logits);
        });
        if let Some(gradient) = gradient.as_deref_mut() {
            if before == Before::Add {
                let lines = gradient.par_chunks_mut(d).zip(&sums);
                lines.for_each(|(line, sum)| scale(line, sum.shrunk));
            }
            let term = Term::new(Left::rows(logits, width), words.transpose(), width);
            let term = term.taken_in(products);
            sum_of_products(gradient, d, [n, d], &[term], before);
            before = Before::Add;
        }
    }
    if let Some(gradient) = gradient {
        let lines = gradient.par_chunks_mut(d).zip(&sums).zip(targets);
        lines.for_each(|((line, sum), target)| {
            scale(line, 1.0 / sum.sum);
            let word = head.skip_columns(*target as usize);
            for (i, value) in line.iter_mut().enumerate() {
                *value -= word.values.get(i * word.row);
            }
        });
    }
    sums.iter().map(Sum::loss).sum()
}

/// What a row keeps from one part of the vocabulary to the next.
#[derive(Clone, Copy)]
struct Sum {
    /// The largest logit.
    max: f32,
    /// `Σ e^(z − max)`.
    sum: f32,
    /// What sums made before the last part were scaled by.
    shrunk: f32,
    /// The target's logit.
    seen: f32,
}

impl Default for Sum {
    fn default() -> Self {
        Self {
            max: f32::NEG_INFINITY,
            sum: 0.0,
            shrunk: 1.0,
            seen: 0.0,
        }
    }
}

impl Sum {
    fn loss(&self) -> f64 {
        f64::from(self.sum.ln()) + f64::from(self.max) - f64::from(self.seen)
    }
}

vectorized! {
    /// Turns logits into `e^(z − max)` and adds them to the sum.
    fn add_exponentials(sum: &mut Sum, logits: &mut [f32]) {
        let max = sum.max.max(math::max(logits));
        sum.shrunk = if max > sum.max { (sum.max - max).exp() } else { 1.0 };
        sum.max = max;
        sum.sum = sum.sum * sum.shrunk + math::map_sum(logits, |z| math::exp(z - max));
    }
}

vectorized! {
    fn scale(values: &mut [f32], by: f32) {
        if by != 1.0 {
            values.iter_mut().for_each(|value| *value *= by);
        }
    }
}
