//! The backward of one key/value head.

use std::ops::Range;

use super::{
    Shape,
    head::{Buffers, Head},
};
use crate::{
    element::Activation, gemm::Left, math, rope::Rotary, rows, share::Disjoint, vector::vectorized,
};

/// What the forward left, and the gradient that comes in.
pub(super) struct Saved<'a, T> {
    pub(super) d_out: &'a [T],
    pub(super) out: &'a [T],
    pub(super) lse: &'a [f32],
    pub(super) stride: usize,
}

/// Gradients of keys and of values, `[length, d]`: a task's part of the sum over query heads.
pub(super) struct Gradients {
    keys: Vec<f32>,
    values: Vec<f32>,
}

impl Gradients {
    pub(super) fn add(&mut self, other: &Self) {
        let pairs = [
            (&mut self.keys, &other.keys),
            (&mut self.values, &other.values),
        ];
        for (sum, part) in pairs {
            sum.iter_mut()
                .zip(part)
                .for_each(|(sum, part)| *sum += part);
        }
    }
}

impl<T: Activation> Head<'_, T> {
    /// Writes the gradient of the queries, and gives those of keys, rotated, and values.
    pub(super) fn backward(
        &self,
        d_qkv: Disjoint<'_, T>,
        saved: &Saved<'_, T>,
        buffers: &mut Buffers,
    ) -> Gradients {
        let (d, length) = (self.shape.head_dim, self.length());
        let keys_over_features = self.panels_over_features(&self.keys);
        let keys_over_tokens = self.panels_over_tokens(&self.keys);
        let values_over_features = self.panels_over_features(&self.values);
        let mut d_keys = vec![0.0_f32; length * d];
        let mut d_values = vec![0.0_f32; length * d];
        let mut d_head = vec![0.0_f32; length * d];
        let mut d_scores = Vec::new();
        let place = Place {
            shape: self.shape,
            rotary: self.rotary,
            sequence: self.sequence.start,
        };
        for head in self.query_heads.clone() {
            self.gather_queries(head, &mut buffers.queries);
            self.gather(saved.d_out, head, &mut d_head);
            let queries_over_tokens = self.panels_over_tokens(&buffers.queries);
            let d_head_over_tokens = self.panels_over_tokens(&d_head);
            let products = self.dots(saved, head);
            let lse = &saved.lse[head * saved.stride + self.sequence.start..][..length];
            for block in self.large_blocks() {
                let Buffers {
                    queries,
                    scores,
                    result,
                } = &mut *buffers;
                result.clear();
                result.resize(block.len() * d, 0.0);
                for keys in self.chunks(self.visible(&block)) {
                    self.scores(scores, queries, &block, &keys_over_features, &keys);
                    self.scores(&mut d_scores, &d_head, &block, &values_over_features, &keys);
                    self.slopes(scores, &mut d_scores, &block, &keys, [lse, &products]);
                    let shape = [keys.len(), d];
                    let part = keys.start * d..keys.end * d;
                    let d_values = &mut d_values[part.clone()];
                    let left = Left::transposed(scores, keys.len());
                    d_head_over_tokens.multiply_part(d_values, left, &block, shape, true);
                    let left = Left::transposed(&d_scores, keys.len());
                    queries_over_tokens.multiply_part(&mut d_keys[part], left, &block, shape, true);
                    let left = Left::rows(&d_scores, keys.len());
                    keys_over_tokens.multiply_part(result, left, &keys, [block.len(), d], true);
                }
                place.scatter(
                    d_qkv,
                    result,
                    block.start,
                    head,
                    Some(1.0 / (d as f32).sqrt()),
                );
            }
        }
        Gradients {
            keys: d_keys,
            values: d_values,
        }
    }

    /// A head's part of `[tokens, heads·d]`, as `[length, d]`.
    fn gather(&self, matrix: &[T], head: usize, out: &mut [f32]) {
        let (d, width) = (self.shape.head_dim, self.shape.output_width());
        for (token, out) in self.sequence.clone().zip(out.chunks_exact_mut(d)) {
            rows::widen(out, &matrix[token * width + head * d..][..d]);
        }
    }

    /// `Σ do∘o` of every query.
    fn dots(&self, saved: &Saved<'_, T>, head: usize) -> Vec<f32> {
        let (d, width) = (self.shape.head_dim, self.shape.output_width());
        let dot = |token: usize| {
            let at = token * width + head * d..token * width + (head + 1) * d;
            dot_row(&saved.out[at.clone()], &saved.d_out[at])
        };
        self.sequence.clone().map(dot).collect()
    }

    /// Scores become probabilities, `d_scores` (which hold `dP`) become `P∘(dP − D)`.
    fn slopes(
        &self,
        scores: &mut [f32],
        d_scores: &mut [f32],
        block: &Range<usize>,
        keys: &Range<usize>,
        [lse, products]: [&[f32]; 2],
    ) {
        let lines = scores
            .chunks_exact_mut(keys.len())
            .zip(d_scores.chunks_exact_mut(keys.len()));
        for (query, (p, ds)) in block.clone().zip(lines) {
            let seen = self.seen(query, keys);
            for line in [&mut *p, &mut *ds] {
                line[..seen.start].fill(0.0);
                line[seen.end..].fill(0.0);
            }
            slope_row(
                &mut p[seen.clone()],
                &mut ds[seen],
                lse[query],
                products[query],
            );
        }
    }
}

/// Writes gradients of keys and values, summed over the tasks of a key/value head.
pub(super) fn finish<T: Activation>(
    d_qkv: Disjoint<'_, T>,
    gradients: &Gradients,
    shape: &Shape,
    rotary: &Rotary,
    (sequence, kv_head): (usize, usize),
) {
    let place = Place {
        shape,
        rotary,
        sequence,
    };
    let at = shape.heads + kv_head;
    place.scatter(d_qkv, &gradients.keys, 0, at, Some(1.0));
    place.scatter(d_qkv, &gradients.values, 0, at + shape.kv_heads, None);
}

/// Where a sequence begins, and what its heads look like.
struct Place<'a> {
    shape: &'a Shape,
    rotary: &'a Rotary,
    sequence: usize,
}

impl Place<'_> {
    /// Writes `matrix [rows, d]` into the head `at` of the gradient, for tokens from `first`, turned
    /// back and scaled where `scale` is given.
    fn scatter<T: Activation>(
        &self,
        d_qkv: Disjoint<'_, T>,
        matrix: &[f32],
        first: usize,
        at: usize,
        scale: Option<f32>,
    ) {
        let d = self.shape.head_dim;
        for (row, line) in matrix.chunks_exact(d).enumerate() {
            let position = first + row;
            let token = self.sequence + position;
            // SAFETY: heads and sequences have tokens and columns of their own.
            let out = unsafe { d_qkv.slice(token * self.shape.input_width() + at * d, d) };
            match scale {
                Some(scale) => rotate_back(out, self.rotary, line, position, scale),
                None => rows::narrow(out, line),
            }
        }
    }
}

vectorized! {
    fn dot_row<T: Activation>(a: &[T], b: &[T]) -> f32 {
        math::sum_pairs(a, b, |a, b| a.widen() * b.widen())
    }
}

vectorized! {
    /// A query's scores become `P`, its `dP` become `P∘(dP − D)`.
    fn slope_row(p: &mut [f32], ds: &mut [f32], lse: f32, product: f32) {
        for (p, ds) in p.iter_mut().zip(ds) {
            *p = math::exp(*p - lse);
            *ds = *p * (*ds - product);
        }
    }
}

vectorized! {
    fn rotate_back<T: Activation>(out: &mut [T], rotary: &Rotary, line: &[f32], position: usize, scale: f32) {
        rotary.rotate_back(out, line, position, scale);
    }
}
