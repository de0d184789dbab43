//! [`StoredType`]: the number types of stored tensors, and values in and out of their bytes.

use std::{fmt, str::FromStr};

use burn::tensor::FloatDType;
use half::{bf16, f16};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Number type of a stored tensor.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum StoredType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 16-bit brain float.
    BF16,
}

impl StoredType {
    /// Every type.
    pub const ALL: [Self; 3] = [Self::F32, Self::F16, Self::BF16];

    /// Bytes of a value.
    pub fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
        }
    }

    /// The name in `config.json`: `float32`, `float16` or `bfloat16`.
    pub fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::BF16 => "bfloat16",
        }
    }

    /// The name in a safetensors header.
    pub(crate) fn safetensors_name(self) -> &'static str {
        match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::BF16 => "BF16",
        }
    }

    /// Values of little-endian bytes; a rest that is no whole value is left out.
    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        let word = |bytes: &[u8; 2]| u16::from_le_bytes(*bytes);
        match self {
            Self::F32 => {
                let (words, _) = bytes.as_chunks::<4>();
                words
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes))
                    .collect()
            }
            Self::F16 => {
                let (words, _) = bytes.as_chunks::<2>();
                let value = |bytes| f16::from_bits(word(bytes)).to_f32();
                words.iter().map(value).collect()
            }
            Self::BF16 => {
                let (words, _) = bytes.as_chunks::<2>();
                let value = |bytes| bf16::from_bits(word(bytes)).to_f32();
                words.iter().map(value).collect()
            }
        }
    }

    /// Little-endian bytes of values, each rounded to the nearest, ties to even.
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        match self {
            Self::F32 => values
                .iter()
                .flat_map(|value| value.to_le_bytes())
                .collect(),
            Self::F16 => values
                .iter()
                .flat_map(|value| f16::from_f32(*value).to_le_bytes())
                .collect(),
            Self::BF16 => values
                .iter()
                .flat_map(|value| bf16::from_f32(*value).to_le_bytes())
                .collect(),
        }
    }
}

impl From<StoredType> for FloatDType {
    fn from(stored: StoredType) -> Self {
        match stored {
            StoredType::F32 => Self::F32,
            StoredType::F16 => Self::F16,
            StoredType::BF16 => Self::BF16,
        }
    }
}

impl fmt::Display for StoredType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::BF16 => "bf16",
        })
    }
}

impl FromStr for StoredType {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|kind| kind.to_string() == text);
        known.ok_or_else(|| format!("type `{text}` is unknown; known: f32, bf16, f16"))
    }
}
