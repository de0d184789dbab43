//! ggml's number types, dequantised. Source: `ggml-quants.c`.

use half::f16;

use super::GgufDType;

/// A ggml number type that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types, missing_docs)] // ggml's names.
pub enum GgmlType {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
}

/// Values in a quantised block.
const BLOCK: usize = 32;

impl GgmlType {
    pub(super) const SUPPORTED: &'static str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0";

    pub(super) fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// The number of a type that cannot be read, with its name where ggml has one.
    pub(super) fn describe(id: u32) -> String {
        let name = match id {
            9 => "Q8_1",
            10 => "Q2_K",
            11 => "Q3_K",
            12 => "Q4_K",
            13 => "Q5_K",
            14 => "Q6_K",
            15 => "Q8_K",
            16..=23 | 29 => "IQ",
            24..=28 => "an integer or f64",
            34 | 35 => "TQ",
            39 => "MXFP4",
            _ => return id.to_string(),
        };
        format!("{id} ({name})")
    }

    /// Values that are stored together.
    pub(super) fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            _ => BLOCK,
        }
    }

    /// Bytes of a block.
    fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
        }
    }

    /// Bytes of a tensor, or `None` where its rows are no whole blocks or the product overflows.
    pub(super) fn byte_len(self, shape: &[usize]) -> Option<usize> {
        let row = shape.last()?;
        if !row.is_multiple_of(self.block()) {
            return None;
        }
        let values = shape
            .iter()
            .try_fold(1_usize, |product, length| product.checked_mul(*length))?;
        (values / self.block()).checked_mul(self.block_bytes())
    }
}

/// Floats as they are, blocks as f32.
pub(super) fn decode(kind: GgmlType, bytes: &[u8]) -> (GgufDType, Vec<u8>) {
    match kind {
        GgmlType::F32 => (GgufDType::F32, bytes.to_vec()),
        GgmlType::F16 => (GgufDType::F16, bytes.to_vec()),
        GgmlType::BF16 => (GgufDType::BF16, bytes.to_vec()),
        _ => {
            let blocks = bytes.chunks_exact(kind.block_bytes());
            let mut decoded = Vec::with_capacity(blocks.len() * BLOCK * 4);
            for block in blocks {
                for value in dequantize(kind, block) {
                    decoded.extend_from_slice(&value.to_le_bytes());
                }
            }
            (GgufDType::F32, decoded)
        }
    }
}

/// One block: `d·(q − offset)` or `d·q + m`.
fn dequantize(kind: GgmlType, block: &[u8]) -> [f32; BLOCK] {
    let half = |at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
    let d = half(0);
    let mut values = [0.0; BLOCK];
    match kind {
        GgmlType::Q8_0 => {
            for (value, byte) in values.iter_mut().zip(&block[2..]) {
                *value = f32::from(i8::from_le_bytes([*byte])) * d;
            }
        }
        GgmlType::Q4_0 => nibbles(&block[2..], 0, |i, q| values[i] = (q as f32 - 8.0) * d),
        GgmlType::Q4_1 => {
            let m = half(2);
            nibbles(&block[4..], 0, |i, q| values[i] = q as f32 * d + m);
        }
        GgmlType::Q5_0 => {
            nibbles(&block[6..], high(&block[2..6]), |i, q| {
                values[i] = (q as f32 - 16.0) * d;
            });
        }
        GgmlType::Q5_1 => {
            let m = half(2);
            nibbles(&block[8..], high(&block[4..8]), |i, q| {
                values[i] = q as f32 * d + m;
            });
        }
        GgmlType::F32 | GgmlType::F16 | GgmlType::BF16 => {}
    }
    values
}

fn high(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// The 32 quants of 16 bytes: low nibbles first, a fifth bit from `high`.
fn nibbles(bytes: &[u8], high: u32, mut put: impl FnMut(usize, u32)) {
    for (i, byte) in bytes.iter().enumerate() {
        let fifth = |at: usize| ((high >> at) & 1) << 4;
        put(i, u32::from(byte & 0x0f) | fifth(i));
        put(i + 16, u32::from(byte >> 4) | fifth(i + 16));
    }
}
