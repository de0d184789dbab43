//! Attention by Burn's own operations, for devices without [`AttentionKernels`](super::AttentionKernels): a
//! part of the queries at a time, with a backward that makes the scores again.
//!
//! ```text
//! P = softmax(Q·Kᵀ + mask)      Y = P·V
//!
//! dV = Pᵀ·dY      dP = dY·Vᵀ      dS = P ∘ (dP − rowsum(P ∘ dP))      dQ = dS·K      dK = dSᵀ·Q
//! ```
//!
//! Kept are Q, K and V. Burn's own backward would keep `P` and two more arrays of its size. A part of the
//! queries meets the keys up to its own last one, so about half of the products is left out.

use std::ops::Range;

use burn::tensor::{FloatDType, Tensor};

use crate::{
    by_hand::ByHand,
    linear::{product, product_within},
    rows,
};

/// Scores that exist at once, unless a query alone has more: 128 MiB of f32.
pub const SCORES: usize = 1 << 25;

/// Queries that are taken at once, of `length`, when `batch · heads` of them meet `keys` keys.
pub fn queries_at_once(length: usize, [batch, heads, keys]: [usize; 3], scores: usize) -> usize {
    let most = (scores / (batch * heads * keys).max(1)).clamp(1, length.max(1));
    length.div_ceil(length.div_ceil(most).max(1)).max(1)
}

/// Attention output `[batch, heads, length, d]` for rotated and scaled queries of that shape, and keys and
/// values `[batch, kv_heads, total, d]`.
///
/// `mask [1 or batch, 1, length, total]` is added to the scores: −∞ where a query does not see a key. With a
/// mask, the last key is the last query's own, and the mask has to hide keys after `total − length + i` from
/// query `i`: they are left out. Without one, every query sees every key. Products are taken in `dtype`,
/// softmax in f32; the output has the queries' type. At most `scores` scores exist at once, if that is one
/// query's at least.
///
/// # Panics
/// If shapes do not fit each other.
pub fn attention_in_parts(
    inputs: [Tensor<4>; 3],
    mask: Option<&Tensor<4>>,
    dtype: FloatDType,
    scores: usize,
) -> Tensor<4> {
    let attention = ByHand { forward, backward };
    let mask = mask.map(|mask| mask.clone().inner());
    let given = Given {
        mask,
        dtype,
        scores,
    };
    attention.run(inputs, given)
}

/// What is not trained.
#[derive(Clone, Debug)]
struct Given {
    mask: Option<Tensor<4>>,
    dtype: FloatDType,
    scores: usize,
}

/// A part of the queries, and how many keys it meets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Part {
    queries: Range<usize>,
    keys: usize,
}

/// The parts, in order; the last one meets all keys.
fn parts(q: &Tensor<4>, k: &Tensor<4>, given: &Given) -> Vec<Part> {
    let ([batch, heads, length, _], [_, _, total, _]) = (q.dims(), k.dims());
    let step = queries_at_once(length, [batch, heads, total], given.scores);
    let masked = given.mask.is_some();
    let part = |start: usize| {
        let end = (start + step).min(length);
        let keys = if masked { total - length + end } else { total };
        Part {
            queries: start..end,
            keys,
        }
    };
    (0..length).step_by(step).map(part).collect()
}

impl Part {
    /// The part's rows of `x [batch, heads, length, d]`: `[batch, kv_heads, heads / kv_heads · queries, d]`, so
    /// that heads which share keys are rows of one product.
    fn rows(&self, x: &Tensor<4>, kv_heads: usize) -> Tensor<4> {
        let [batch, heads, _, d] = x.dims();
        let rows = heads / kv_heads * self.queries.len();
        self.queries_of(x).reshape([batch, kv_heads, rows, d])
    }

    fn queries_of(&self, x: &Tensor<4>) -> Tensor<4> {
        x.clone().narrow(2, self.queries.start, self.queries.len())
    }

    /// The keys or values that it meets.
    fn seen(&self, x: &Tensor<4>) -> Tensor<4> {
        x.clone().narrow(2, 0, self.keys)
    }

    /// `softmax(Q·Kᵀ + mask)` of rows of queries, in the type of products: `[batch, kv_heads, rows, keys]`.
    fn weights(&self, rows: Tensor<4>, keys: Tensor<4>, given: &Given) -> Tensor<4> {
        let scores = product_within(rows, keys.swap_dims(2, 3), given.dtype);
        let of_part = |mask| self.queries_of(mask).narrow(3, 0, self.keys);
        rows::masked_softmax(scores, given.mask.as_ref().map(of_part).as_ref())
    }
}

fn forward([q, k, v]: &[Tensor<4>; 3], given: &Given) -> Tensor<4> {
    let ([batch, heads, _, d], kv_heads) = (q.dims(), k.dims()[1]);
    let attend = |part: &Part| {
        let weights = part.weights(part.rows(q, kv_heads), part.seen(k), given);
        let y = product(weights, part.seen(v), given.dtype);
        let y = y.reshape([batch, heads, part.queries.len(), d]);
        y.cast(FloatDType::from(q.dtype()))
    };
    joined(parts(q, k, given).iter().map(attend).collect())
}

/// Gradients of q, k and v.
fn backward(
    dy: Tensor<4>,
    [q, k, v]: &[Tensor<4>; 3],
    given: &Given,
    _: [bool; 3],
) -> [Option<Tensor<4>>; 3] {
    let ([batch, heads, _, d], kv_heads) = (q.dims(), k.dims()[1]);
    let mut dq = Vec::new();
    let mut dkv: Option<[Tensor<4>; 2]> = None;
    // From the part that meets all keys.
    for part in parts(q, k, given).iter().rev() {
        let of = |x: &Tensor<4>| part.rows(x, kv_heads);
        let (rows, dy) = (of(q), of(&dy));
        let p = part.weights(rows.clone(), part.seen(k), given);
        let dv = product(p.clone().swap_dims(2, 3), dy.clone(), given.dtype);
        let dp = product_within(dy, part.seen(v).swap_dims(2, 3), given.dtype);
        let ds = rows::softmax_backward(p, dp);
        let dk = product(ds.clone().swap_dims(2, 3), rows, given.dtype);
        let pushed = product(ds, part.seen(k), given.dtype);
        dq.push(pushed.reshape([batch, heads, part.queries.len(), d]));
        dkv = Some(match dkv {
            None => [dk, dv],
            Some([all_k, all_v]) => [add_to_first(all_k, dk), add_to_first(all_v, dv)],
        });
    }
    dq.reverse();
    let [dk, dv] = dkv.unwrap_or_else(|| [k.zeros_like(), v.zeros_like()]);
    let typed = |gradient: Tensor<4>, input: &Tensor<4>| {
        Some(gradient.cast(FloatDType::from(input.dtype())))
    };
    [typed(joined(dq), q), typed(dk, k), typed(dv, v)]
}

/// `all` with `part` added to as many of its first positions as that has.
fn add_to_first(all: Tensor<4>, part: Tensor<4>) -> Tensor<4> {
    let ([_, _, total, _], [_, _, keys, _]) = (all.dims(), part.dims());
    let first = all.clone().narrow(2, 0, keys) + part;
    match total - keys {
        0 => first,
        rest => Tensor::cat(vec![first, all.narrow(2, keys, rest)], 2),
    }
}

/// Parts of the queries side by side.
fn joined(mut parts: Vec<Tensor<4>>) -> Tensor<4> {
    match parts.len() {
        1 => parts.swap_remove(0),
        _ => Tensor::cat(parts, 2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_even_and_within_the_bound() {
        assert_eq!(queries_at_once(1024, [4, 32, 1024], SCORES), 256);
        assert_eq!(queries_at_once(512, [16, 9, 512], SCORES), 256);
        assert_eq!(queries_at_once(512, [1, 9, 512], SCORES), 512);
        assert_eq!(queries_at_once(10, [1, 1, 10], 40), 4);
        // One query at least.
        assert_eq!(queries_at_once(10, [1, 1, 10], 3), 1);
        assert_eq!(queries_at_once(0, [1, 1, 0], 3), 1);
    }
}
