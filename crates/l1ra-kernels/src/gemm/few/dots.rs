//! Scalar products of one row with many columns that lie in order, four at a time: as many streams of
//! memory, and sums that do not wait for each other.

use half::{bf16, f16};
use pulp::{Arch, Simd, WithSimd};

use crate::{
    element::Element,
    math::{self, LANES},
};

/// Columns at a time.
const COLUMNS: usize = 4;

/// `out[j] += x · column j`; columns are `stride` apart.
pub(super) struct Dots<'a, T> {
    pub(super) out: &'a mut [f32],
    pub(super) x: &'a [f32],
    pub(super) values: &'a [T],
    pub(super) stride: usize,
}

impl<'a, T> Dots<'a, T>
where
    Self: WithSimd<Output = ()>,
{
    pub(super) fn add(self) {
        Arch::new().dispatch(self);
    }
}

impl<T> Dots<'_, T> {
    /// Hands out columns by fours. What is left is done by as many, some of them twice: what a sum is
    /// must not depend on its neighbours.
    #[inline(always)]
    fn by_fours(self, dots: impl Fn([&[T]; COLUMNS]) -> [f32; COLUMNS]) {
        let column = |j: usize| &self.values[j * self.stride..][..self.x.len()];
        let last = self.out.len().saturating_sub(1);
        for (index, out) in self.out.chunks_mut(COLUMNS).enumerate() {
            let first = COLUMNS * index;
            let at = |c: usize| column((first + c).min(last));
            let sums = dots([at(0), at(1), at(2), at(3)]);
            out.iter_mut().zip(sums).for_each(|(out, sum)| *out += sum);
        }
    }
}

impl WithSimd for Dots<'_, f32> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (x, x_rest) = S::as_simd_f32s(self.x);
        self.by_fours(|columns| {
            let [(a, a_rest), (b, b_rest), (c, c_rest), (d, d_rest)] =
                columns.map(|column| S::as_simd_f32s(column));
            let [mut p, mut q, mut r, mut s] = [simd.splat_f32s(0.0); COLUMNS];
            for ((((x, a), b), c), d) in x.iter().zip(a).zip(b).zip(c).zip(d) {
                p = simd.mul_add_e_f32s(*x, *a, p);
                q = simd.mul_add_e_f32s(*x, *b, q);
                r = simd.mul_add_e_f32s(*x, *c, r);
                s = simd.mul_add_e_f32s(*x, *d, s);
            }
            let sum = |lanes, rest| simd.reduce_sum_f32s(lanes) + products(x_rest, rest);
            [
                sum(p, a_rest),
                sum(q, b_rest),
                sum(r, c_rest),
                sum(s, d_rest),
            ]
        });
    }
}

impl WithSimd for Dots<'_, bf16> {
    type Output = ();

    /// Two values are read as one integer: the first is its low half, the second its high half, and
    /// either half is the upper half of an f32.
    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let pairs = self.x.len() / 2;
        let whole = pairs / S::F32_LANES * S::F32_LANES;
        let even: Vec<f32> = self.x.iter().step_by(2).copied().collect();
        let odd: Vec<f32> = self.x.iter().skip(1).step_by(2).copied().collect();
        let (even, odd) = (
            S::as_simd_f32s(&even[..whole]).0,
            S::as_simd_f32s(&odd[..whole]).0,
        );
        let x_rest = &self.x[2 * whole..];
        let half = simd.splat_u32s(16);
        let upper = simd.splat_u32s(0xffff_0000);
        self.by_fours(|columns| {
            let [mut p, mut q, mut r, mut s] = [simd.splat_f32s(0.0); COLUMNS];
            let [a, b, c, d] = columns.map(|column| column.as_ptr().cast::<S::u32s>());
            let step = |sum: S::f32s, at: *const S::u32s, even: S::f32s, odd: S::f32s| {
                // SAFETY: `whole` pairs lie there, a vector for each of `even`.
                let read = unsafe { at.read_unaligned() };
                let low = simd.wrapping_dyn_shl_u32s(read, half);
                let high = simd.and_u32s(read, upper);
                let [low, high] = [low, high].map(|bits| simd.transmute_f32s_u32s(bits));
                simd.mul_add_e_f32s(odd, high, simd.mul_add_e_f32s(even, low, sum))
            };
            for (index, (even, odd)) in even.iter().zip(odd).enumerate() {
                p = step(p, a.wrapping_add(index), *even, *odd);
                q = step(q, b.wrapping_add(index), *even, *odd);
                r = step(r, c.wrapping_add(index), *even, *odd);
                s = step(s, d.wrapping_add(index), *even, *odd);
            }
            let sum = |lanes, column: &[bf16]| {
                simd.reduce_sum_f32s(lanes) + products(x_rest, &column[2 * whole..])
            };
            let [a, b, c, d] = columns;
            [sum(p, a), sum(q, b), sum(r, c), sum(s, d)]
        });
    }
}

impl WithSimd for Dots<'_, f16> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let x = self.x;
        self.by_fours(|columns| columns.map(|column| dot(x, column)));
    }
}

#[inline(always)]
fn dot(x: &[f32], column: &[f16]) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let ((x, x_rest), (column, rest)) = (x.as_chunks::<LANES>(), column.as_chunks::<LANES>());
    for (x, column) in x.iter().zip(column) {
        for ((lane, x), value) in lanes.iter_mut().zip(x).zip(column) {
            *lane += x * value.widen();
        }
    }
    math::total(lanes) + products(x_rest, rest)
}

/// Sum of what does not fill a vector.
#[inline(always)]
fn products<T: Element>(x: &[f32], values: &[T]) -> f32 {
    x.iter()
        .zip(values)
        .map(|(x, value)| x * value.widen())
        .sum()
}

#[cfg(not(target_endian = "little"))]
compile_error!("two bf16 are read as one integer, whose low half is the first of them");
