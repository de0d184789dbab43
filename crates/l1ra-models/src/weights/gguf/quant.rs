//! ggml's number types, dequantised. Source: `ggml-quants.c`.

use half::f16;

use super::GgufDType;

/// A ggml number type that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)] // ggml's names.
pub enum GgmlType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 16-bit brain float.
    BF16,
    /// 32 values of 4 bits: `d·(q − 8)`.
    Q4_0,
    /// 32 values of 4 bits: `d·q + m`.
    Q4_1,
    /// 32 values of 5 bits: `d·(q − 16)`.
    Q5_0,
    /// 32 values of 5 bits: `d·q + m`.
    Q5_1,
    /// 32 values of 8 bits: `d·q`.
    Q8_0,
    /// 256 values of 4 bits, a scale `s` and a minimum `t` of 6 bits per 32: `(d·s)·q − m·t`.
    Q4_K,
    /// 256 values of 5 bits, scales and minima as [`Q4_K`](Self::Q4_K).
    Q5_K,
    /// 256 values of 6 bits, a scale `s` of 8 bits per 16: `(d·s)·(q − 32)`.
    Q6_K,
}

/// Values in a block of the small types.
const BLOCK: usize = 32;
/// Values in a block of the K types.
const SUPER: usize = 256;

impl GgmlType {
    pub(super) const SUPPORTED: &'static str =
        "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

    pub(super) fn from_id(id: u32) -> Option<Self> {
        Some(match id {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4_K,
            13 => Self::Q5_K,
            14 => Self::Q6_K,
            30 => Self::BF16,
            _ => return None,
        })
    }

    /// Values that are stored together.
    pub(super) fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => SUPER,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => BLOCK,
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
            Self::Q4_K => 4 + 12 + 128,
            Self::Q5_K => 4 + 12 + 32 + 128,
            Self::Q6_K => 128 + 64 + 16 + 2,
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
        // The decoded size must be expressible too.
        values.checked_mul(4)?;
        (values / self.block()).checked_mul(self.block_bytes())
    }
}

/// Name of a type id, for messages.
pub(super) fn type_name(id: u32) -> String {
    let name = match id {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        other => return format!("ggml type {other}"),
    };
    name.into()
}

/// The type that [`decode`] gives.
pub(super) fn decoded_type(kind: GgmlType) -> GgufDType {
    match kind {
        GgmlType::F16 => GgufDType::F16,
        GgmlType::BF16 => GgufDType::BF16,
        _ => GgufDType::F32,
    }
}

/// Floats as they are, blocks as f32.
pub(super) fn decode(kind: GgmlType, bytes: &[u8]) -> (GgufDType, Vec<u8>) {
    let decoded = match kind {
        GgmlType::F32 => return (GgufDType::F32, bytes.to_vec()),
        GgmlType::F16 => return (GgufDType::F16, bytes.to_vec()),
        GgmlType::BF16 => return (GgufDType::BF16, bytes.to_vec()),
        GgmlType::Q4_0 => blocks(bytes, q4_0),
        GgmlType::Q4_1 => blocks(bytes, q4_1),
        GgmlType::Q5_0 => blocks(bytes, q5_0),
        GgmlType::Q5_1 => blocks(bytes, q5_1),
        GgmlType::Q8_0 => blocks(bytes, q8_0),
        GgmlType::Q4_K => blocks(bytes, q4_k),
        GgmlType::Q5_K => blocks(bytes, q5_k),
        GgmlType::Q6_K => blocks(bytes, q6_k),
    };
    (GgufDType::F32, decoded)
}

/// Decodes `SIZE` bytes to `VALUES` numbers at a time; sizes are constants so that the loops of a
/// block unroll.
fn blocks<const SIZE: usize, const VALUES: usize>(
    bytes: &[u8],
    decode: impl Fn(&[u8; SIZE]) -> [f32; VALUES],
) -> Vec<u8> {
    let (blocks, _) = bytes.as_chunks::<SIZE>();
    let mut decoded = vec![0; blocks.len() * VALUES * 4];
    let (numbers, _) = decoded.as_chunks_mut::<4>();
    for (block, numbers) in blocks.iter().zip(numbers.chunks_exact_mut(VALUES)) {
        for (number, value) in numbers.iter_mut().zip(decode(block)) {
            *number = value.to_le_bytes();
        }
    }
    decoded
}

/// The f16 at `at`.
fn half<const SIZE: usize>(block: &[u8; SIZE], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

fn q4_0(block: &[u8; 18]) -> [f32; BLOCK] {
    let d = half(block, 0);
    quants(&block[2..], 0).map(|q| d * (f32::from(q) - 8.0))
}

fn q4_1(block: &[u8; 20]) -> [f32; BLOCK] {
    let (d, m) = (half(block, 0), half(block, 2));
    quants(&block[4..], 0).map(|q| d * f32::from(q) + m)
}

fn q5_0(block: &[u8; 22]) -> [f32; BLOCK] {
    let d = half(block, 0);
    let high = u32::from_le_bytes([block[2], block[3], block[4], block[5]]);
    quants(&block[6..], high).map(|q| d * (f32::from(q) - 16.0))
}

fn q5_1(block: &[u8; 24]) -> [f32; BLOCK] {
    let (d, m) = (half(block, 0), half(block, 2));
    let high = u32::from_le_bytes([block[4], block[5], block[6], block[7]]);
    quants(&block[8..], high).map(|q| d * f32::from(q) + m)
}

fn q8_0(block: &[u8; 34]) -> [f32; BLOCK] {
    let d = half(block, 0);
    let mut values = [0.0; BLOCK];
    for (value, byte) in values.iter_mut().zip(&block[2..]) {
        *value = d * f32::from(i8::from_le_bytes([*byte]));
    }
    values
}

/// The 32 quants of 16 bytes: low nibbles first, a fifth bit from `high`.
fn quants(nibbles: &[u8], high: u32) -> [u8; BLOCK] {
    let mut quants = [0; BLOCK];
    for (i, byte) in nibbles.iter().take(BLOCK / 2).enumerate() {
        quants[i] = byte & 0x0f | bit(high, i);
        quants[i + 16] = byte >> 4 | bit(high, i + 16);
    }
    quants
}

fn bit(high: u32, at: usize) -> u8 {
    (((high >> at) & 1) as u8) << 4
}

/// Scale and minimum of the `j`th 32 values: eight pairs of 6-bit numbers in 12 bytes, the upper
/// two bits of the last four pairs in those of the first four.
fn scale_min(packed: &[u8], j: usize) -> (f32, f32) {
    let (scale, min) = if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        let low = packed[j + 4];
        (
            low & 0x0f | packed[j - 4] >> 6 << 4,
            low >> 4 | packed[j] >> 6 << 4,
        )
    };
    (f32::from(scale), f32::from(min))
}

fn q4_k(block: &[u8; 144]) -> [f32; SUPER] {
    scaled(
        half(block, 0),
        half(block, 2),
        &block[4..16],
        &[0; 32],
        &block[16..],
    )
}

fn q5_k(block: &[u8; 176]) -> [f32; SUPER] {
    scaled(
        half(block, 0),
        half(block, 2),
        &block[4..16],
        &block[16..48],
        &block[48..],
    )
}

/// Q4_K and Q5_K: 64 values in 32 bytes of nibbles, low nibbles first; bit `j` of `high` is the
/// fifth bit of the `j`th 32 values.
fn scaled(d: f32, m: f32, packed: &[u8], high: &[u8], nibbles: &[u8]) -> [f32; SUPER] {
    let mut values = [0.0; SUPER];
    for (j, values) in values.chunks_exact_mut(BLOCK).enumerate() {
        let (scale, min) = scale_min(packed, j);
        let (scale, min) = (d * scale, m * min);
        let shift = j % 2 * 4;
        let bytes = nibbles[j / 2 * 32..].iter().zip(high);
        for (value, (low, high)) in values.iter_mut().zip(bytes) {
            let quant = (low >> shift) & 0x0f | ((high >> j) & 1) << 4;
            *value = scale * f32::from(quant) - min;
        }
    }
    values
}

/// Q6_K: two halves of 128 values; four low bits from 64 bytes, two high bits from 32.
fn q6_k(block: &[u8; 210]) -> [f32; SUPER] {
    let d = half(block, 208);
    let mut values = [0.0; SUPER];
    for (j, values) in values.chunks_exact_mut(BLOCK).enumerate() {
        let (half, quarter) = (j / 4, j % 4);
        let low = &block[half * 64 + quarter % 2 * 32..];
        let high = &block[128 + half * 32..];
        let scales = &block[192 + j * 2..];
        for (i, value) in values.iter_mut().enumerate() {
            let low = (low[i] >> (quarter / 2 * 4)) & 0x0f;
            let quant = low | ((high[i] >> (quarter * 2)) & 3) << 4;
            let scale = f32::from(i8::from_le_bytes([scales[i / 16]]));
            *value = d * scale * (f32::from(quant) - 32.0);
        }
    }
    values
}
