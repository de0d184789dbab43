//! The last matrix product and the cross-entropy as one operation.
//!
//! ```text
//! z = h·W      loss = Σ (log Σ e^z − z[target])      dh = (softmax(z) − 1[target])·Wᵀ
//! ```
//!
//! Rows go through in chunks of [`CHUNK`]: logits exist for one chunk at a time, whatever the batch,
//! and the gradient is made from them in place.

use rayon::prelude::*;

use crate::{
    gemm::{Before, Left, Right, Term, sum_of_products},
    math,
    vector::vectorized,
};

/// Rows whose logits exist at once.
///
/// Every chunk reads the head twice; more rows would read it less often and hold more logits.
pub const CHUNK: usize = 512;

/// The loss summed over rows for `hidden [n, d]`, `head [d, v]`, `targets [n]`, each below `v`; and,
/// where `gradient` is given, `dh [n, d]` in it.
///
/// # Panics
/// If a length does not fit or a target is not below `v`.
pub fn linear_cross_entropy(
    hidden: &[f32],
    head: Right<'_>,
    [d, v]: [usize; 2],
    targets: &[u32],
    mut gradient: Option<&mut [f32]>,
) -> f64 {
    assert!(hidden.len() == targets.len() * d, "lengths");
    assert!(
        targets.iter().all(|target| (*target as usize) < v),
        "target out of range"
    );
    let rows = targets.len().min(CHUNK);
    let mut logits = vec![0.0_f32; rows * v];
    let mut loss = 0.0;
    for (index, targets) in targets.chunks(CHUNK).enumerate() {
        let rows = targets.len();
        let part = index * CHUNK * d..(index * CHUNK + rows) * d;
        let logits = &mut logits[..rows * v];
        let term = Term::new(Left::rows(&hidden[part.clone()], d), head, d);
        sum_of_products(logits, v, [rows, v], &[term], Before::Drop);
        let losses = softmax(logits, v, targets, gradient.is_some());
        loss += losses.iter().sum::<f64>();
        if let Some(gradient) = gradient.as_deref_mut() {
            let term = Term::new(Left::rows(logits, v), head.transpose(), v);
            sum_of_products(&mut gradient[part], d, [rows, d], &[term], Before::Drop);
        }
    }
    loss
}

/// Losses of rows; with `gradient`, logits become `softmax − 1[target]`.
fn softmax(logits: &mut [f32], v: usize, targets: &[u32], gradient: bool) -> Vec<f64> {
    let line =
        |(logits, target): (&mut [f32], &u32)| softmax_row(logits, *target as usize, gradient);
    logits.par_chunks_mut(v).zip(targets).map(line).collect()
}

vectorized! {
    fn softmax_row(logits: &mut [f32], target: usize, gradient: bool) -> f64 {
        let (max, seen) = (math::max(logits), logits[target]);
        let sum = math::map_sum(logits, |z| math::exp(z - max));
        if gradient {
            let inverse = 1.0 / sum;
            logits.iter_mut().for_each(|p| *p *= inverse);
            logits[target] -= 1.0;
        }
        f64::from(sum.ln()) + f64::from(max) - f64::from(seen)
    }
}
