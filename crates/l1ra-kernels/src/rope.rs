//! Rotary position embedding in Hugging Face's lay-out: feature `i` turns with `i + d/2`.

use crate::element::{Activation, Element};

/// Cosines and sines of every position: `[positions, d/2]` each.
#[derive(Clone, Debug, PartialEq)]
pub struct Rotary {
    /// Cosines.
    pub cos: Vec<f32>,
    /// Sines.
    pub sin: Vec<f32>,
    /// `d/2`.
    pub half: usize,
}

impl Rotary {
    /// Tables for positions `start .. start + length` with these inverse frequencies.
    pub fn new(inverse: &[f32], start: usize, length: usize) -> Self {
        let angles = (start..start + length)
            .flat_map(|position| inverse.iter().map(move |f| position as f32 * f));
        let (cos, sin) = angles.map(|angle| (angle.cos(), angle.sin())).unzip();
        Self {
            cos,
            sin,
            half: inverse.len(),
        }
    }

    /// Positions that the tables hold.
    pub fn positions(&self) -> usize {
        self.cos.len() / self.half.max(1)
    }

    /// `out ← scale · rotate(x)` for a head's features at `position`.
    #[inline(always)]
    pub(crate) fn rotate<T: Element>(&self, out: &mut [f32], x: &[T], position: usize, scale: f32) {
        self.turn(out, x, position, scale, 1.0);
    }

    /// The opposite turn, which is the transpose: gradients of the input from those of the output.
    #[inline(always)]
    pub(crate) fn rotate_back<T: Activation>(
        &self,
        out: &mut [T],
        x: &[f32],
        position: usize,
        scale: f32,
    ) {
        self.turn(out, x, position, scale, -1.0);
    }

    #[inline(always)]
    fn turn<T: Element, U: Activation>(
        &self,
        out: &mut [U],
        x: &[T],
        position: usize,
        scale: f32,
        sign: f32,
    ) {
        let table = position * self.half..(position + 1) * self.half;
        let (cos, sin) = (&self.cos[table.clone()], &self.sin[table]);
        let (first, second) = x.split_at(self.half);
        let (out_first, out_second) = out.split_at_mut(self.half);
        let outs = out_first.iter_mut().zip(out_second);
        for (((out, (a, b)), cos), sin) in outs.zip(first.iter().zip(second)).zip(cos).zip(sin) {
            let (cos, sin) = (cos * scale, sin * scale * sign);
            let (a, b) = (a.widen(), b.widen());
            *out.0 = U::narrow(a * cos - b * sin);
            *out.1 = U::narrow(b * cos + a * sin);
        }
    }
}
