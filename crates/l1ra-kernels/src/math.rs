//! Functions that the compiler turns into vector code: no branch, no call.
//!
//! Products and sums are written apart, so that every machine rounds alike.

/// Values that a reduction takes at once; sums are made in this many parts on every machine.
pub(crate) const LANES: usize = 16;

/// `eˣ` to about 1.5e-7 relative for x up to 88; below −87.3 it stays at e^−87.3.
///
/// x = n·ln 2 + f with |f| ≤ ln 2 / 2; e^f by a polynomial (Cephes' `expf`), 2ⁿ by its exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const TO_INTEGER: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to an integer.
    let x = if x < -87.3 { -87.3 } else { x };
    let x = if x > 88.3 { 88.3 } else { x };
    let shifted = x * std::f32::consts::LOG2_E + TO_INTEGER;
    let n = shifted - TO_INTEGER;
    // ln 2 in two parts, the first of few digits: n times it is exact.
    let f = x - n * (355.0 / 512.0) - n * -2.121_944_4e-4;
    let mut p = 1.987_569_2e-4;
    for coefficient in [
        1.398_199_9e-3,
        8.333_452e-3,
        4.166_579_6e-2,
        1.666_666_5e-1,
        0.5,
    ] {
        p = p * f + coefficient;
    }
    let p = p * f * f + f + 1.0;
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(0x3f80_0000));
    p * power
}

/// `1 / (1 + e^−x)`.
#[inline(always)]
pub(crate) fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + exp(-x))
}

/// The largest of `values`; NaN is passed over.
#[inline(always)]
pub(crate) fn max(values: &[f32]) -> f32 {
    let larger = |a: f32, b: f32| if b > a { b } else { a };
    let mut lanes = [f32::NEG_INFINITY; LANES];
    let chunks = values.chunks_exact(LANES);
    let rest = chunks.remainder();
    for chunk in chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *lane = larger(*lane, *value);
        }
    }
    lanes
        .iter()
        .chain(rest)
        .copied()
        .fold(f32::NEG_INFINITY, larger)
}

/// Sum over pairs of `term`.
#[inline(always)]
pub(crate) fn sum_pairs<A: Copy, B: Copy>(a: &[A], b: &[B], term: impl Fn(A, B) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let (a_chunks, b_chunks) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a_chunks.remainder().iter().zip(b_chunks.remainder());
    let rest: f32 = rest.map(|(a, b)| term(*a, *b)).sum();
    for (a, b) in a_chunks.zip(b_chunks) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += term(*a, *b);
        }
    }
    total(lanes) + rest
}

/// Replaces every value by `map` of it and returns the sum of the new ones.
#[inline(always)]
pub(crate) fn map_sum(values: &mut [f32], map: impl Fn(f32) -> f32) -> f32 {
    let mut lanes = [0.0_f32; LANES];
    let mut chunks = values.chunks_exact_mut(LANES);
    for chunk in &mut chunks {
        for (lane, value) in lanes.iter_mut().zip(chunk) {
            *value = map(*value);
            *lane += *value;
        }
    }
    let mut rest = 0.0;
    for value in chunks.into_remainder() {
        *value = map(*value);
        rest += *value;
    }
    total(lanes) + rest
}

/// Sum of the parts of a sum.
#[inline(always)]
pub(crate) fn total(mut lanes: [f32; LANES]) -> f32 {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
        half /= 2;
    }
    lanes[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        for i in -8730..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) - exact).abs() / exact;
            assert!(error < 2e-7, "{x}: {error}");
        }
        assert_eq!(exp(0.0), 1.0);
        assert!(exp(f32::NAN).is_nan());
        assert!(exp(f32::NEG_INFINITY) < 2e-38);
        assert!(exp(-1e30) < 2e-38);
    }

    #[test]
    fn reductions_take_every_value() {
        let mut values: Vec<f32> = (0..37).map(|i| i as f32).collect();
        assert_eq!(max(&values), 36.0);
        assert_eq!(max(&[]), f32::NEG_INFINITY);
        assert_eq!(sum_pairs(&values, &values, |a, b| a + b), 36.0 * 37.0);
        assert_eq!(map_sum(&mut values, |v| 2.0 * v), 36.0 * 37.0);
        assert_eq!(values[36], 72.0);
    }
}
