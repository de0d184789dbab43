//! The inner loop of whole tiles with AVX-512, written out: a compiler keeps twelve pointers and two dozen
//! sums on the stack where registers would do, and half of the time goes there.

use std::{
    arch::{
        asm,
        x86_64::{
            __m512, __mmask16, _mm512_add_ps, _mm512_mask_storeu_ps, _mm512_maskz_loadu_ps,
            _mm512_setzero_ps,
        },
    },
    array,
};

use super::Strip;

/// Rows of a tile.
pub(super) const ROWS: usize = 12;
/// Columns of a tile: two vectors.
const COLUMNS: usize = 2 * LANES;
const LANES: usize = 16;

/// `out ← [out +] Σ left·right` for 12 rows, `row` apart, and `n` columns.
///
/// # Safety
/// The machine has AVX-512F; else as for [`Tiles::run`](super::Tiles::run), with left sides that begin
/// with the first of the rows.
#[target_feature(enable = "avx512f")]
pub(super) unsafe fn rows(
    out: *mut f32,
    row: usize,
    n: usize,
    strips: &[Strip],
    skip: usize,
    add: bool,
) {
    for (index, j) in (0..n).step_by(COLUMNS).enumerate() {
        let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
        for strip in strips {
            // SAFETY: the strip has these rows, and this panel.
            unsafe {
                let start = strip.start.add(skip * strip.row);
                let lines = strip.lines.add(index * strip.panel);
                if n - j > LANES {
                    accumulate(&mut sums, start, strip, lines);
                } else {
                    accumulate_one(&mut sums, start, strip, lines);
                }
            }
        }
        let masks: [__mmask16; 2] = array::from_fn(|half| {
            let columns = (n - j).saturating_sub(half * LANES).min(LANES);
            ((1_u32 << columns) - 1) as __mmask16
        });
        for (r, sums) in sums.into_iter().enumerate() {
            for ((half, sum), mask) in sums.into_iter().enumerate().zip(masks) {
                // SAFETY: the mask keeps to the columns of the output.
                unsafe {
                    let at = out.wrapping_add(r * row + j + half * LANES);
                    let sum = if add {
                        _mm512_add_ps(_mm512_maskz_loadu_ps(mask, at), sum)
                    } else {
                        sum
                    };
                    _mm512_mask_storeu_ps(at, mask, sum);
                }
            }
        }
    }
}

/// Runs instructions for every `k` of a strip, which is not empty: `p` is where the first row's number lies,
/// `b` the row of the right side. Rows lie at multiples of their distance, of which the odd ones are held
/// (`s1` to `s11`) and the others are scaled from them.
macro_rules! over_k {
    ($strip:ident, $start:ident, $lines:ident; $($instruction:literal,)*; $($registers:tt)*) => {
        asm!(
            "2:",
            $($instruction,)*
            "add {p}, {column}",
            "add {b}, {line}",
            "dec {k}",
            "jnz 2b",
            p = inout(reg) $start => _,
            b = inout(reg) $lines => _,
            k = inout(reg) $strip.len => _,
            s1 = in(reg) size_of::<f32>() * $strip.row,
            s3 = in(reg) 3 * size_of::<f32>() * $strip.row,
            s5 = in(reg) 5 * size_of::<f32>() * $strip.row,
            s7 = in(reg) 7 * size_of::<f32>() * $strip.row,
            s9 = in(reg) 9 * size_of::<f32>() * $strip.row,
            s11 = in(reg) 11 * size_of::<f32>() * $strip.row,
            column = in(reg) size_of::<f32>() * $strip.column,
            line = in(reg) size_of::<f32>() * $strip.line,
            $($registers)*
            options(nostack, readonly),
        )
    };
}

/// `sums ← sums + left·lines` over the strip's `k`: two vectors of the right side and one number of each
/// row at a time.
#[target_feature(enable = "avx512f")]
unsafe fn accumulate(
    sums: &mut [[__m512; 2]; ROWS],
    start: *const f32,
    strip: &Strip,
    lines: *const f32,
) {
    if strip.len == 0 {
        return;
    }
    let [
        [a0, b0],
        [a1, b1],
        [a2, b2],
        [a3, b3],
        [a4, b4],
        [a5, b5],
        [a6, b6],
        [a7, b7],
        [a8, b8],
        [a9, b9],
        [a10, b10],
        [a11, b11],
    ] = sums;
    // SAFETY: reads what the strip holds; registers are named.
    unsafe {
        over_k!(
            strip, start, lines;
            "vmovups zmm24, [{b}]",
            "vmovups zmm25, [{b} + 64]",
            "vbroadcastss zmm26, [{p}]",
            "vbroadcastss zmm27, [{p} + {s1}]",
            "vbroadcastss zmm28, [{p} + 2*{s1}]",
            "vbroadcastss zmm29, [{p} + {s3}]",
            "prefetcht0 [{b} + 1024]",
            "vfmadd231ps zmm0, zmm24, zmm26",
            "vfmadd231ps zmm1, zmm25, zmm26",
            "vfmadd231ps zmm2, zmm24, zmm27",
            "vfmadd231ps zmm3, zmm25, zmm27",
            "vbroadcastss zmm26, [{p} + 4*{s1}]",
            "vbroadcastss zmm27, [{p} + {s5}]",
            "vfmadd231ps zmm4, zmm24, zmm28",
            "vfmadd231ps zmm5, zmm25, zmm28",
            "vfmadd231ps zmm6, zmm24, zmm29",
            "vfmadd231ps zmm7, zmm25, zmm29",
            "vbroadcastss zmm28, [{p} + 2*{s3}]",
            "vbroadcastss zmm29, [{p} + {s7}]",
            "prefetcht0 [{b} + 1088]",
            "vfmadd231ps zmm8, zmm24, zmm26",
            "vfmadd231ps zmm9, zmm25, zmm26",
            "vfmadd231ps zmm10, zmm24, zmm27",
            "vfmadd231ps zmm11, zmm25, zmm27",
            "vbroadcastss zmm26, [{p} + 8*{s1}]",
            "vbroadcastss zmm27, [{p} + {s9}]",
            "vfmadd231ps zmm12, zmm24, zmm28",
            "vfmadd231ps zmm13, zmm25, zmm28",
            "vfmadd231ps zmm14, zmm24, zmm29",
            "vfmadd231ps zmm15, zmm25, zmm29",
            "vbroadcastss zmm28, [{p} + 2*{s5}]",
            "vbroadcastss zmm29, [{p} + {s11}]",
            "vfmadd231ps zmm16, zmm24, zmm26",
            "vfmadd231ps zmm17, zmm25, zmm26",
            "vfmadd231ps zmm18, zmm24, zmm27",
            "vfmadd231ps zmm19, zmm25, zmm27",
            "vfmadd231ps zmm20, zmm24, zmm28",
            "vfmadd231ps zmm21, zmm25, zmm28",
            "vfmadd231ps zmm22, zmm24, zmm29",
            "vfmadd231ps zmm23, zmm25, zmm29",
            ;
            inout("zmm0") *a0, inout("zmm1") *b0, inout("zmm2") *a1, inout("zmm3") *b1,
            inout("zmm4") *a2, inout("zmm5") *b2, inout("zmm6") *a3, inout("zmm7") *b3,
            inout("zmm8") *a4, inout("zmm9") *b4, inout("zmm10") *a5, inout("zmm11") *b5,
            inout("zmm12") *a6, inout("zmm13") *b6, inout("zmm14") *a7, inout("zmm15") *b7,
            inout("zmm16") *a8, inout("zmm17") *b8, inout("zmm18") *a9, inout("zmm19") *b9,
            inout("zmm20") *a10, inout("zmm21") *b10, inout("zmm22") *a11, inout("zmm23") *b11,
            out("zmm24") _, out("zmm25") _, out("zmm26") _,
            out("zmm27") _, out("zmm28") _, out("zmm29") _,
        );
    }
}

/// As [`accumulate`] for the first vector of a panel: columns of an adapter's rank are often no more.
#[target_feature(enable = "avx512f")]
unsafe fn accumulate_one(
    sums: &mut [[__m512; 2]; ROWS],
    start: *const f32,
    strip: &Strip,
    lines: *const f32,
) {
    if strip.len == 0 {
        return;
    }
    let [
        [a0, _],
        [a1, _],
        [a2, _],
        [a3, _],
        [a4, _],
        [a5, _],
        [a6, _],
        [a7, _],
        [a8, _],
        [a9, _],
        [a10, _],
        [a11, _],
    ] = sums;
    // SAFETY: reads what the strip holds; registers are named.
    unsafe {
        over_k!(
            strip, start, lines;
            "vmovups zmm24, [{b}]",
            "vfmadd231ps zmm0, zmm24, dword ptr [{p}]{{1to16}}",
            "vfmadd231ps zmm1, zmm24, dword ptr [{p} + {s1}]{{1to16}}",
            "vfmadd231ps zmm2, zmm24, dword ptr [{p} + 2*{s1}]{{1to16}}",
            "vfmadd231ps zmm3, zmm24, dword ptr [{p} + {s3}]{{1to16}}",
            "vfmadd231ps zmm4, zmm24, dword ptr [{p} + 4*{s1}]{{1to16}}",
            "vfmadd231ps zmm5, zmm24, dword ptr [{p} + {s5}]{{1to16}}",
            "vfmadd231ps zmm6, zmm24, dword ptr [{p} + 2*{s3}]{{1to16}}",
            "vfmadd231ps zmm7, zmm24, dword ptr [{p} + {s7}]{{1to16}}",
            "vfmadd231ps zmm8, zmm24, dword ptr [{p} + 8*{s1}]{{1to16}}",
            "vfmadd231ps zmm9, zmm24, dword ptr [{p} + {s9}]{{1to16}}",
            "vfmadd231ps zmm10, zmm24, dword ptr [{p} + 2*{s5}]{{1to16}}",
            "vfmadd231ps zmm11, zmm24, dword ptr [{p} + {s11}]{{1to16}}",
            ;
            inout("zmm0") *a0, inout("zmm1") *a1, inout("zmm2") *a2, inout("zmm3") *a3,
            inout("zmm4") *a4, inout("zmm5") *a5, inout("zmm6") *a6, inout("zmm7") *a7,
            inout("zmm8") *a8, inout("zmm9") *a9, inout("zmm10") *a10, inout("zmm11") *a11,
            out("zmm24") _,
        );
    }
}
