//! Attention of new tokens to all before them, whose keys and values were kept.

use rayon::prelude::*;

use super::Shape;
use crate::{math, rope::Rotary, share::Disjoint, vector::vectorized};

/// Keys and values of one block of a model, for a number of rows.
///
/// Room is made once, by [`reserve`](Self::reserve), and doubled where that was too little.
#[derive(Clone, Debug, Default)]
pub struct Cache {
    /// `[rows, kv_heads, capacity, d]`, keys rotated.
    keys: Vec<f32>,
    values: Vec<f32>,
    rows: usize,
    kv_heads: usize,
    head_dim: usize,
    capacity: usize,
    length: usize,
}

impl Cache {
    /// Tokens kept of every row.
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Keeps the first `length` tokens.
    pub fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    /// Makes room for `tokens` of `rows` rows.
    pub fn reserve(&mut self, rows: usize, tokens: usize, shape: &Shape) {
        let fresh =
            [rows, shape.kv_heads, shape.head_dim] != [self.rows, self.kv_heads, self.head_dim];
        if fresh {
            *self = Self {
                rows,
                kv_heads: shape.kv_heads,
                head_dim: shape.head_dim,
                ..Self::default()
            };
        }
        if tokens <= self.capacity {
            return;
        }
        let grown = |old: &[f32]| {
            let (from, to) = (self.capacity * self.head_dim, tokens * self.head_dim);
            let mut new = vec![0.0; rows * self.kv_heads * to];
            if from > 0 {
                for (old, new) in old.chunks_exact(from).zip(new.chunks_exact_mut(to)) {
                    new[..from].copy_from_slice(old);
                }
            }
            new
        };
        (self.keys, self.values) = (grown(&self.keys), grown(&self.values));
        self.capacity = tokens;
    }

    /// Keeps keys and values of `length` new tokens of every row, `qkv [rows, length, width]`, and
    /// writes what the new queries see: `out [rows, length, heads·d]`.
    ///
    /// `rotary` holds the new positions, beginning with the first new token's.
    ///
    /// # Panics
    /// If a length does not fit, or the cache was begun with another shape.
    pub fn attend(
        &mut self,
        out: &mut [f32],
        qkv: &[f32],
        [rows, length]: [usize; 2],
        shape: &Shape,
        rotary: &Rotary,
    ) {
        let width = shape.input_width();
        assert!(qkv.len() == rows * length * width, "input");
        assert!(out.len() == rows * length * shape.output_width(), "output");
        assert!(
            rotary.positions() >= length && 2 * rotary.half == shape.head_dim,
            "rotary tables"
        );
        let total = self.length + length;
        if total > self.capacity {
            self.reserve(rows, total.max(2 * self.capacity), shape);
        }
        assert!(
            self.rows == rows && self.kv_heads == shape.kv_heads,
            "another cache's rows"
        );
        let (first, capacity, d) = (self.length, self.capacity, self.head_dim);
        let out = Disjoint::new(out);
        let part = capacity * d;
        self.keys
            .par_chunks_exact_mut(part)
            .zip(self.values.par_chunks_exact_mut(part))
            .enumerate()
            .for_each(|(index, (keys, values))| {
                let (row, kv_head) = (index / shape.kv_heads, index % shape.kv_heads);
                let step = Step {
                    shape,
                    rotary,
                    qkv: &qkv[row * length * width..(row + 1) * length * width],
                    kv_head,
                    first,
                    length,
                };
                run(
                    &step,
                    keys,
                    values,
                    out,
                    row * length * shape.output_width(),
                );
            });
        self.length = total;
    }
}

vectorized! {
    fn run(step: &Step<'_>, keys: &mut [f32], values: &mut [f32], out: Disjoint<'_>, start: usize) {
        step.keep(keys, values);
        step.attend(keys, values, out, start);
    }
}

/// One key/value head of one row.
struct Step<'a> {
    shape: &'a Shape,
    rotary: &'a Rotary,
    qkv: &'a [f32],
    kv_head: usize,
    first: usize,
    length: usize,
}

impl Step<'_> {
    #[inline(always)]
    fn keep(&self, keys: &mut [f32], values: &mut [f32]) {
        let d = self.shape.head_dim;
        let at = (self.shape.heads + self.kv_head) * d;
        for (i, line) in self.qkv.chunks_exact(self.shape.input_width()).enumerate() {
            let place = (self.first + i) * d..(self.first + i + 1) * d;
            self.rotary
                .rotate(&mut keys[place.clone()], &line[at..at + d], i, 1.0);
            let at = at + self.shape.kv_heads * d;
            values[place].copy_from_slice(&line[at..at + d]);
        }
    }

    #[inline(always)]
    fn attend(&self, keys: &[f32], values: &[f32], out: Disjoint<'_>, start: usize) {
        let d = self.shape.head_dim;
        let group = self.shape.heads / self.shape.kv_heads;
        let scale = 1.0 / (d as f32).sqrt();
        let mut query = vec![0.0; d];
        let mut scores = vec![0.0; self.first + self.length];
        for (i, line) in self.qkv.chunks_exact(self.shape.input_width()).enumerate() {
            let position = self.first + i;
            let from = self
                .shape
                .window
                .map_or(0, |window| (position + 1).saturating_sub(window));
            let seen = from * d..(position + 1) * d;
            for head in self.kv_head * group..(self.kv_head + 1) * group {
                self.rotary
                    .rotate(&mut query, &line[head * d..(head + 1) * d], i, scale);
                let scores = &mut scores[..=position - from];
                for (score, key) in scores.iter_mut().zip(keys[seen.clone()].chunks_exact(d)) {
                    *score = math::sum_pairs(&query, key, |q, k| q * k);
                }
                let max = math::max(scores);
                let sum = math::map_sum(scores, |s| math::exp(s - max));
                let at = start + i * self.shape.output_width() + head * d;
                // SAFETY: every head of every row has columns of its own.
                let out = unsafe { out.slice(at, d) };
                out.fill(0.0);
                for (score, value) in scores.iter().zip(values[seen.clone()].chunks_exact(d)) {
                    let weight = score / sum;
                    for (out, value) in out.iter_mut().zip(value) {
                        *out += weight * value;
                    }
                }
            }
        }
    }
}
