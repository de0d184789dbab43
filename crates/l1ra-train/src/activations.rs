//! The type of activations within blocks.

use burn::tensor::FloatDType;
use l1ra_models::CausalLm;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What activations within blocks are kept in: queries, keys, values, the output of attention, gate and up, and
/// their gradients. The residual stream, norms, softmax, adapters, sums and the loss are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Activations {
    /// bf16 where the frozen matrices are, f32 otherwise.
    #[default]
    Auto,
    /// f32.
    F32,
    /// The type of the frozen matrices; with f16, what exceeds 65,504 becomes infinite.
    Base,
}

impl Activations {
    /// The type for a model whose matrices are stored as `base`.
    pub fn of_base(self, base: FloatDType) -> FloatDType {
        match (self, base) {
            (Self::Auto, FloatDType::BF16) | (Self::Base, _) => base,
            _ => FloatDType::F32,
        }
    }

    /// Makes `model` keep its activations so.
    pub fn set(self, model: &mut CausalLm) {
        model.set_activations(self.of_base(model.base_type()));
    }
}

impl std::fmt::Display for Activations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Base => "base",
        })
    }
}

impl std::str::FromStr for Activations {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "base" => Ok(Self::Base),
            other => Err(format!("`{other}`: auto, f32 or base")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_bytes_only_where_the_base_has_them() {
        let [f32, bf16, f16] = [FloatDType::F32, FloatDType::BF16, FloatDType::F16];
        let seen = |chosen: Activations| [f32, bf16, f16].map(|base| chosen.of_base(base));
        assert_eq!(seen(Activations::Auto), [f32, bf16, f32]);
        assert_eq!(seen(Activations::F32), [f32, f32, f32]);
        assert_eq!(seen(Activations::Base), [f32, bf16, f16]);
    }
}
