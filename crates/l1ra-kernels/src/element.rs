//! Stored types of a matrix: f32, bf16, f16; types of activations: f32, bf16.

use half::{bf16, f16};

use crate::gemm::Values;

/// A number as it is stored, widened to f32 when it is used.
pub trait Element: Copy + Send + Sync + 'static {
    /// The value in f32, exact.
    fn widen(self) -> f32;
}

/// A number that kernels compute in f32 and then round.
pub trait Activation: Element + Default {
    /// The nearest value, ties to even; NaN stays NaN.
    fn narrow(value: f32) -> Self;

    /// A slice of them as one of its kinds.
    fn values(slice: &[Self]) -> Values<'_>;
}

impl Activation for f32 {
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        value
    }

    fn values(slice: &[Self]) -> Values<'_> {
        Values::F32(slice)
    }
}

impl Activation for bf16 {
    /// Without a branch, so that a loop over it becomes vector code.
    #[inline(always)]
    fn narrow(value: f32) -> Self {
        let bits = value.to_bits();
        let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
        let quiet = (bits >> 16) | 0x40;
        let is_nan = bits & 0x7fff_ffff > 0x7f80_0000;
        Self::from_bits((if is_nan { quiet } else { rounded }) as u16)
    }

    fn values(slice: &[Self]) -> Values<'_> {
        Values::Bf16(slice)
    }
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl Element for f16 {
    /// Without a branch, so that a loop over it becomes vector code: the exponent is moved by a
    /// multiplication, which is exact for subnormal numbers too; infinities and NaN are put right.
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        let magnitude = (bits & 0x7fff) << 13;
        let scaled = f32::from_bits(magnitude) * f32::from_bits(0x7780_0000); // 2^112
        let special = if magnitude >= 0x0f80_0000 {
            0x7f80_0000
        } else {
            0
        };
        f32::from_bits(scaled.to_bits() | special | ((bits & 0x8000) << 16))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounding_is_that_of_half() {
        for bits in (0..=u32::MAX).step_by(1013) {
            let value = f32::from_bits(bits);
            let (seen, exact) = (<bf16 as Activation>::narrow(value), bf16::from_f32(value));
            assert!(
                seen.to_bits() == exact.to_bits() || seen.is_nan() && exact.is_nan(),
                "{value:e}"
            );
        }
    }

    #[test]
    fn every_f16_and_bf16_is_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (half, brain) = (f16::from_bits(bits), bf16::from_bits(bits));
            if half.is_nan() {
                assert!(half.widen().is_nan());
            } else {
                assert_eq!(half.widen().to_bits(), half.to_f32().to_bits());
            }
            if !brain.is_nan() {
                assert_eq!(brain.widen().to_bits(), brain.to_f32().to_bits());
            }
        }
    }
}
