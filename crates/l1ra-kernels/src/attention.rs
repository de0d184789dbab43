//! Causal attention of grouped heads with rotary positions, and its backward.
//!
//! ```text
//! S = q·kᵀ/√d       P = softmax(S)       o = P·v
//! D = Σ do∘o        dP = do·vᵀ           dS = P∘(dP − D)
//! dq = dS·k/√d      dk = dSᵀ·q/√d        dv = Pᵀ·do
//! ```
//!
//! q, k, v come as one projection gives them, `[tokens, (heads + 2·kv_heads)·d]`, unrotated, and
//! their gradients go back in the same form. Scores exist for a block of queries at a time, so no
//! memory grows with length²; between forward and backward the input, the output and `log Σ e^S` of
//! every query are kept.
//! A query sees the keys of its own sequence, up to itself, in the last `window` at most.

mod backward;
mod cached;
mod head;

use std::ops::Range;

use rayon::prelude::*;

use crate::{element::Activation, gemm::tile::Tiles, rope::Rotary, share::Disjoint};
pub use cached::Cache;
use head::{Buffers, Head};

/// Key/value heads of all sequences below which their query heads are apart: with fewer, threads wait for
/// the last of them.
const FEW_HEADS: usize = 16;

/// What is done apart from the rest.
struct Task {
    sequence: Range<usize>,
    kv_head: usize,
    query_heads: Range<usize>,
}

/// What attention needs to know besides its input.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; each serves `heads / kv_heads` query heads.
    pub kv_heads: usize,
    /// Features of a head.
    pub head_dim: usize,
    /// Keys that a query sees at most, itself among them.
    pub window: Option<usize>,
    /// Tokens of every sequence, one after the other in the input; positions begin at 0 in each.
    pub sequences: Vec<Range<usize>>,
}

impl Shape {
    /// Width of the input, `(heads + 2·kv_heads)·d`.
    pub fn input_width(&self) -> usize {
        (self.heads + 2 * self.kv_heads) * self.head_dim
    }

    /// Width of the output, `heads·d`.
    pub fn output_width(&self) -> usize {
        self.heads * self.head_dim
    }

    fn tokens(&self) -> usize {
        self.sequences
            .iter()
            .map(|sequence| sequence.end)
            .max()
            .unwrap_or(0)
    }

    /// Tasks of a key/value head of a sequence: one, or, where there are few such heads, one for each of
    /// its query heads. That depends on sizes only, so that threads change no sum.
    fn tasks_of_head(&self) -> usize {
        match self.sequences.len() * self.kv_heads < FEW_HEADS {
            true => self.heads / self.kv_heads,
            false => 1,
        }
    }

    /// What is done apart. Tasks of one key/value head are neighbours.
    fn tasks(&self) -> Vec<Task> {
        let group = self.heads / self.kv_heads;
        let heads = group / self.tasks_of_head();
        let each = |sequence: &Range<usize>| {
            let sequence = sequence.clone();
            (0..self.heads).step_by(heads).map(move |first| Task {
                sequence: sequence.clone(),
                kv_head: first / group,
                query_heads: first..first + heads,
            })
        };
        self.sequences.iter().flat_map(each).collect()
    }

    fn check(&self, rotary: &Rotary) {
        let longest = self
            .sequences
            .iter()
            .map(ExactSizeIterator::len)
            .max()
            .unwrap_or(0);
        assert!(
            rotary.positions() >= longest && 2 * rotary.half == self.head_dim,
            "rotary tables"
        );
        assert!(
            self.kv_heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "heads"
        );
        let apart = self
            .sequences
            .windows(2)
            .all(|pair| pair[0].end <= pair[1].start);
        assert!(apart, "sequences overlap");
    }
}

/// `o [tokens, heads·d]` and `log Σ e^S [heads, tokens]` for `qkv [tokens, (heads + 2·kv_heads)·d]`.
///
/// # Panics
/// If a length does not fit.
pub fn forward<T: Activation>(
    out: &mut [T],
    lse: &mut [f32],
    qkv: &[T],
    shape: &Shape,
    rotary: &Rotary,
) {
    shape.check(rotary);
    let tokens = shape.tokens();
    assert!(qkv.len() >= tokens * shape.input_width(), "input too short");
    assert!(
        out.len() >= tokens * shape.output_width(),
        "output too short"
    );
    assert!(lse.len() >= tokens * shape.heads, "lse too short");
    let stride = lse.len() / shape.heads;
    let (out, lse) = (Disjoint::new(out), Disjoint::new(lse));
    each_head(shape, rotary, qkv, |head, buffers| {
        head.forward(out, lse, stride, buffers);
    });
}

/// Gradient of `qkv` for `d_out`, from what the forward gave.
///
/// # Panics
/// If a length does not fit.
pub fn backward<T: Activation>(
    d_qkv: &mut [T],
    d_out: &[T],
    qkv: &[T],
    out: &[T],
    lse: &[f32],
    shape: &Shape,
    rotary: &Rotary,
) {
    shape.check(rotary);
    let tokens = shape.tokens();
    assert!(
        qkv.len() >= tokens * shape.input_width() && d_qkv.len() == qkv.len(),
        "input"
    );
    assert!(
        out.len() >= tokens * shape.output_width() && d_out.len() == out.len(),
        "output"
    );
    assert!(lse.len() >= tokens * shape.heads, "lse too short");
    let stride = lse.len() / shape.heads;
    let d_qkv = Disjoint::new(d_qkv);
    let saved = backward::Saved {
        d_out,
        out,
        lse,
        stride,
    };
    let mut gradients = each_head(shape, rotary, qkv, |head, buffers| {
        let place = (head.sequence.start, head.kv_head);
        (place, head.backward(d_qkv, &saved, buffers))
    });
    let heads = gradients.par_chunks_mut(shape.tasks_of_head());
    heads.for_each(|parts| {
        if let [(place, sum), others @ ..] = parts {
            others.iter().for_each(|(_, part)| sum.add(part));
            backward::finish(d_qkv, sum, shape, rotary, *place);
        }
    });
}

/// Calls `act` with every task, shared among threads. Results are in their order.
fn each_head<T: Activation, R: Send>(
    shape: &Shape,
    rotary: &Rotary,
    qkv: &[T],
    act: impl Fn(&Head<'_, T>, &mut Buffers) -> R + Sync,
) -> Vec<R> {
    let tiles = Tiles::detect();
    shape
        .tasks()
        .into_par_iter()
        .map(|task| {
            let head = Head::new(shape, rotary, qkv, task, tiles);
            act(&head, &mut Buffers::default())
        })
        .collect()
}
