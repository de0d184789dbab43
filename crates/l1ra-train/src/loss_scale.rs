//! [`LossScale`]: gradients that pass through f16 without vanishing.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use burn::tensor::FloatDType;
use l1ra_models::{CausalLm, ops::has_kernels};

/// The first scale is 2 to this.
const START: u32 = 10;

/// What a loss is multiplied by before its backward, a power of two. Gradients are divided by it in f32,
/// before anything else is done with them.
///
/// In f16, numbers under 6e-5 lose digits and those under 6e-8 are zero; gradients between layers are as
/// small. Where the scaled ones overflow instead (65,504), the scale is halved and the window done again.
/// bf16 has the range of f32 and needs none of it.
///
/// Clones share one scale.
#[derive(Clone, Debug, Default)]
pub struct LossScale {
    exponent: Arc<AtomicU32>,
}

impl LossScale {
    /// The scale for a model where it is: 2¹⁰ where products are taken in f16 or activations kept in it,
    /// else 1. A device with kernels of ours widens f16 to f32.
    pub fn of(model: &CausalLm) -> Self {
        let device = model.model.embed_tokens.weight.val().device();
        let products = model.base_type() == FloatDType::F16 && !has_kernels(&device);
        let in_f16 = products || model.activations() == FloatDType::F16;
        Self::power(if in_f16 { START } else { 0 })
    }

    /// 2 to the power of `exponent`.
    pub fn power(exponent: u32) -> Self {
        let scale = Self::default();
        scale.exponent.store(exponent, Relaxed);
        scale
    }

    /// The scale now.
    pub fn value(&self) -> f64 {
        f64::from(self.exponent.load(Relaxed)).exp2()
    }

    /// Halves the scale; `false` where it is 1 already.
    pub(crate) fn lower(&self) -> bool {
        let lower = |exponent: u32| exponent.checked_sub(1);
        self.exponent.fetch_update(Relaxed, Relaxed, lower).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_halved_down_to_one() {
        let scale = LossScale::power(2);
        let shared = scale.clone();
        assert_eq!(scale.value(), 4.0);
        assert!(shared.lower() && shared.lower());
        assert_eq!(scale.value(), 1.0);
        assert!(!scale.lower());
    }
}
