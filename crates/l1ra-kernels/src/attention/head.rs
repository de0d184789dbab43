//! One key/value head of one sequence, and the query heads that it serves.

use std::ops::Range;

use super::{Shape, Task};
use crate::{
    element::{Activation, Element},
    gemm::{
        Left, Right, Values,
        tile::{Strip, Tiles},
    },
    math, pack,
    rope::Rotary,
    rows,
    share::Disjoint,
    vector::vectorized,
};

/// Bytes of scores that exist at once.
const SCORE_BYTES: usize = 192 << 10;

/// Room for a head's matrices, kept from one to the next.
#[derive(Default)]
pub(super) struct Buffers {
    pub(super) queries: Vec<f32>,
    pub(super) scores: Vec<f32>,
    pub(super) result: Vec<f32>,
}

pub(super) struct Head<'a, T> {
    pub(super) shape: &'a Shape,
    pub(super) rotary: &'a Rotary,
    pub(super) qkv: &'a [T],
    pub(super) sequence: Range<usize>,
    pub(super) kv_head: usize,
    /// The query heads, of those that it serves, that are done here.
    pub(super) query_heads: Range<usize>,
    pub(super) tiles: Tiles,
    /// Rotated keys, `[length, d]`.
    pub(super) keys: Vec<f32>,
    /// Values, `[length, d]`.
    pub(super) values: Vec<f32>,
}

impl<'a, T: Activation> Head<'a, T> {
    pub(super) fn new(
        shape: &'a Shape,
        rotary: &'a Rotary,
        qkv: &'a [T],
        Task {
            sequence,
            kv_head,
            query_heads,
        }: Task,
        tiles: Tiles,
    ) -> Self {
        let (d, length) = (shape.head_dim, sequence.len());
        let mut keys = vec![0.0; length * d];
        let mut values = vec![0.0; length * d];
        let width = shape.input_width();
        let at = (shape.heads + kv_head) * d;
        let lines = &qkv[(sequence.start * width).min(qkv.len())..];
        rotate_rows(&mut keys, rotary, lines, [width, at, d], 1.0);
        let at = at + shape.kv_heads * d;
        for (value, line) in values.chunks_exact_mut(d).zip(lines.chunks(width)) {
            rows::widen(value, &line[at..at + d]);
        }
        Self {
            shape,
            rotary,
            qkv,
            sequence,
            kv_head,
            query_heads,
            tiles,
            keys,
            values,
        }
    }

    pub(super) fn length(&self) -> usize {
        self.sequence.len()
    }

    /// Queries of a head, rotated and scaled by 1/√d, into `queries [length, d]`.
    pub(super) fn gather_queries(&self, head: usize, queries: &mut Vec<f32>) {
        let d = self.shape.head_dim;
        queries.resize(self.length() * d, 0.0);
        let scale = 1.0 / (d as f32).sqrt();
        let width = self.shape.input_width();
        let lines = &self.qkv[(self.sequence.start * width).min(self.qkv.len())..];
        rotate_rows(queries, self.rotary, lines, [width, head * d, d], scale);
    }

    /// Queries whose scores exist at once, in order, where each is scored against all keys.
    pub(super) fn query_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (length, rows) = (self.length(), self.tiles.rows());
        let most = SCORE_BYTES / 4 / length.max(1);
        let block = (most / rows * rows).clamp(rows, 8 * rows);
        (0..length)
            .step_by(block)
            .map(move |start| start..(start + block).min(length))
    }

    /// Queries whose scores exist at once, in order, where keys go by in chunks.
    pub(super) fn large_blocks(&self) -> impl Iterator<Item = Range<usize>> + use<T> {
        let (length, block) = (self.length(), 8 * self.tiles.rows());
        (0..length)
            .step_by(block)
            .map(move |start| start..(start + block).min(length))
    }

    /// Keys whose scores exist at once, for a block of queries that sees `keys`.
    pub(super) fn chunks(&self, keys: Range<usize>) -> impl Iterator<Item = Range<usize>> + use<T> {
        let width = self.tiles.columns();
        let most = SCORE_BYTES / 2 / 4 / (8 * self.tiles.rows());
        let chunk = (most / width * width).max(width);
        keys.clone()
            .step_by(chunk)
            .map(move |start| start..(start + chunk).min(keys.end))
    }

    /// Keys that a block of queries sees, begun at a whole panel.
    pub(super) fn visible(&self, block: &Range<usize>) -> Range<usize> {
        let first = match self.shape.window {
            Some(window) => (block.start + 1).saturating_sub(window),
            None => 0,
        };
        let width = self.tiles.columns();
        first / width * width..block.end
    }

    /// Those of `keys` that one query sees, counted from the first of them.
    pub(super) fn seen(&self, query: usize, keys: &Range<usize>) -> Range<usize> {
        let first = match self.shape.window {
            Some(window) => (query + 1).saturating_sub(window),
            None => 0,
        };
        let first = first.clamp(keys.start, keys.end);
        let end = (query + 1).clamp(first, keys.end);
        first - keys.start..end - keys.start
    }

    /// `matrix [length, d]` as the right side of a product that sums over features: `[d, length]`.
    pub(super) fn panels_over_features(&self, matrix: &[f32]) -> Panels {
        let d = self.shape.head_dim;
        Panels::new(
            self.tiles,
            Right::rows(matrix, d).transpose(),
            [d, self.length()],
        )
    }

    /// `matrix [length, d]` as the right side of a product that sums over tokens.
    pub(super) fn panels_over_tokens(&self, matrix: &[f32]) -> Panels {
        let d = self.shape.head_dim;
        Panels::new(self.tiles, Right::rows(matrix, d), [self.length(), d])
    }

    /// Scores of a block of queries against `keys`: `[block, keys]`, rows `keys.len()` apart.
    pub(super) fn scores(
        &self,
        scores: &mut Vec<f32>,
        left: &[f32],
        block: &Range<usize>,
        right: &Panels,
        keys: &Range<usize>,
    ) {
        let d = self.shape.head_dim;
        scores.resize(block.len() * keys.len(), 0.0);
        let left = Left::rows(&left[block.start * d..block.end * d], d);
        right.multiply_columns(scores, keys, block.len(), left);
    }

    pub(super) fn forward(
        &self,
        out: Disjoint<'_, T>,
        lse: Disjoint<'_>,
        stride: usize,
        buffers: &mut Buffers,
    ) {
        let d = self.shape.head_dim;
        let keys_panels = self.panels_over_features(&self.keys);
        let value_panels = self.panels_over_tokens(&self.values);
        for head in self.query_heads.clone() {
            self.gather_queries(head, &mut buffers.queries);
            for block in self.query_blocks() {
                let keys = self.visible(&block);
                let Buffers {
                    queries,
                    scores,
                    result,
                } = &mut *buffers;
                self.scores(scores, queries, &block, &keys_panels, &keys);
                // SAFETY: heads and sequences have tokens and columns of their own.
                let lse = unsafe {
                    lse.slice(
                        head * stride + self.sequence.start + block.start,
                        block.len(),
                    )
                };
                self.softmax(scores, &block, &keys, lse);
                result.resize(block.len() * d, 0.0);
                value_panels.multiply_rows(result, scores, &keys, [block.len(), d]);
                for (query, line) in block.zip(result.chunks_exact(d)) {
                    let token = self.sequence.start + query;
                    // SAFETY: as above.
                    let out = unsafe { out.slice(token * self.shape.output_width() + head * d, d) };
                    rows::narrow(out, line);
                }
            }
        }
    }

    /// Scores become probabilities; `lse` gets `log Σ e^S` of every query.
    fn softmax(
        &self,
        scores: &mut [f32],
        block: &Range<usize>,
        keys: &Range<usize>,
        lse: &mut [f32],
    ) {
        let lines = scores.chunks_exact_mut(keys.len());
        for ((query, line), lse) in block.clone().zip(lines).zip(lse) {
            let seen = self.seen(query, keys);
            line[..seen.start].fill(0.0);
            line[seen.end..].fill(0.0);
            *lse = softmax_row(&mut line[seen]);
        }
    }
}

vectorized! {
    /// `out [n, d]`: features `at .. at + d` of every line, `width` long, turned by its position.
    fn rotate_rows<T: Element>(
        out: &mut [f32],
        rotary: &Rotary,
        lines: &[T],
        part: [usize; 3],
        scale: f32,
    ) {
        let [width, at, d] = part;
        for (position, (out, line)) in out.chunks_exact_mut(d).zip(lines.chunks(width)).enumerate() {
            rotary.rotate(out, &line[at..at + d], position, scale);
        }
    }
}

vectorized! {
    /// Scores become probabilities. Gives `log Σ e^S`.
    fn softmax_row(line: &mut [f32]) -> f32 {
        let max = math::max(line);
        let sum = math::map_sum(line, |s| math::exp(s - max));
        let inverse = 1.0 / sum;
        line.iter_mut().for_each(|p| *p *= inverse);
        max + sum.ln()
    }
}

/// A packed right side.
pub(super) struct Panels {
    tiles: Tiles,
    values: Vec<f32>,
    depth: usize,
}

impl Panels {
    fn new(tiles: Tiles, right: Right<'_>, [depth, n]: [usize; 2]) -> Self {
        let width = tiles.columns();
        let mut values = vec![0.0; n.div_ceil(width) * width * depth];
        pack::panels(&mut values, width, [depth, 0, depth], right, 0, n);
        Self {
            tiles,
            values,
            depth,
        }
    }

    /// `out [rows, columns]`: the left side by the columns `columns`, which begin at a panel.
    pub(super) fn multiply_columns(
        &self,
        out: &mut [f32],
        columns: &Range<usize>,
        rows: usize,
        left: Left<'_>,
    ) {
        let n = columns.len();
        assert!(out.len() >= rows * n, "output too short");
        let strip = self.strip(left, self.depth, columns.start * self.depth);
        // SAFETY: checked here and in `strip`; the left side is the caller's.
        unsafe {
            self.tiles
                .run(out.as_mut_ptr(), n, [rows, n], &[strip], false);
        }
    }

    /// `out [rows, n]`: `left [rows, among]` by the rows `among` of the right side.
    pub(super) fn multiply_rows(
        &self,
        out: &mut [f32],
        left: &[f32],
        among: &Range<usize>,
        [rows, n]: [usize; 2],
    ) {
        assert!(left.len() >= rows * among.len(), "left side too short");
        let left = Left::rows(left, among.len());
        self.multiply_part(out, left, among, [rows, n], false);
    }

    /// As [`multiply_rows`](Self::multiply_rows) for any left side, added to what is there.
    pub(super) fn multiply_part(
        &self,
        out: &mut [f32],
        left: Left<'_>,
        among: &Range<usize>,
        [rows, n]: [usize; 2],
        add: bool,
    ) {
        assert!(out.len() >= rows * n && among.end <= self.depth, "lengths");
        let strip = self.strip(left, among.len(), among.start * self.tiles.columns());
        // SAFETY: as above.
        unsafe {
            self.tiles
                .run(out.as_mut_ptr(), n, [rows, n], &[strip], add);
        }
    }

    fn strip(&self, left: Left<'_>, len: usize, first: usize) -> Strip {
        let width = self.tiles.columns();
        let Values::F32(values) = left.values else {
            unreachable!("a head's matrices are f32");
        };
        Strip {
            start: values.as_ptr(),
            row: left.row,
            column: left.column,
            len,
            lines: self.values[first..].as_ptr(),
            line: width,
            panel: self.depth * width,
        }
    }
}
