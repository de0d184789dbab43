//! The instructions: AMX, where a tile is a register, or AVX-512's dot products of pairs.

use std::sync::OnceLock;

use super::{DEPTH, Line};

/// What this CPU multiplies bf16 with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// AMX: 16 × 32 by 32 × 16 in one instruction. Linux only, where a process has to ask for it.
    Amx,
    /// AVX512-BF16: 16 pairs in one instruction.
    Dot,
}

impl Unit {
    /// The better one of this machine, if it has any.
    pub(crate) fn detect() -> Option<Self> {
        static UNIT: OnceLock<Option<Unit>> = OnceLock::new();
        *UNIT.get_or_init(|| {
            let all = Self::all();
            // Intel's dot products take four times as long as its f32 ones; AMX is what is fast there.
            all.contains(&Self::Amx)
                .then_some(Self::Amx)
                .or_else(|| (all.contains(&Self::Dot) && is_amd()).then_some(Self::Dot))
        })
    }

    /// All of this machine.
    pub(crate) fn all() -> Vec<Self> {
        #[cfg_attr(not(target_arch = "x86_64"), allow(unused_mut))]
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // The left side is rounded by AVX512-BF16, which every CPU with AMX has.
            if dot::is_there() {
                all.push(Self::Dot);
                if amx::is_there() {
                    all.push(Self::Amx);
                }
            }
        }
        all
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Amx => "AMX",
            Self::Dot => "AVX512-BF16",
        }
    }

    /// Runs `act`, within which [`block`](Self::block) may be called, on this thread.
    pub(crate) fn with<R>(self, act: impl FnOnce() -> R) -> R {
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            let _configured = amx::Configured::new();
            return act();
        }
        act()
    }

    /// `out ← [out +] strip·panel`, 32 rows that are `row` apart by 32 columns.
    ///
    /// # Safety
    /// `out` must hold them, the strip and the panel as many tiles each; within [`with`](Self::with).
    pub(super) unsafe fn block(
        self,
        out: *mut f32,
        row: usize,
        strip: &[Line],
        panel: &[Line],
        add: bool,
    ) {
        assert_eq!(strip.len(), panel.len(), "tiles");
        #[cfg(target_arch = "x86_64")]
        match self {
            Self::Amx => unsafe { amx::block(out, row, strip, panel, add) },
            Self::Dot => unsafe { dot::block(out, row, strip, panel, add) },
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (out, row, strip, panel, add);
            unreachable!("no unit is detected on this architecture");
        }
    }

    /// The same for a strip that is three of them, one after the other: `out ← [out +] Σ strip·panel`.
    ///
    /// # Safety
    /// As for [`block`](Self::block).
    pub(in super::super) unsafe fn block_of_parts(
        self,
        out: *mut f32,
        row: usize,
        strip: &[Line],
        panel: &[Line],
        add: bool,
    ) {
        assert_eq!(strip.len(), 3 * panel.len(), "tiles");
        #[cfg(target_arch = "x86_64")]
        if self == Self::Amx {
            unsafe { amx::block_of_parts(out, row, strip, panel, add) };
            return;
        }
        for (index, part) in strip.chunks_exact(panel.len().max(1)).rev().enumerate() {
            unsafe { self.block(out, row, part, panel, add || index > 0) };
        }
    }

    /// A line of the left side: values to bf16, to the nearest, to even where two are equally near.
    /// Numbers too small for f32's full precision become zero.
    pub(super) fn round(self, line: &mut Line, values: &[f32; DEPTH]) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a unit is only there with these instructions.
        unsafe {
            dot::round(line, values);
        }
        #[cfg(not(target_arch = "x86_64"))]
        {
            let _ = (line, values);
            unreachable!("no unit is detected on this architecture");
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_amd() -> bool {
    let id = std::arch::x86_64::__cpuid(0);
    [id.ebx, id.edx, id.ecx].map(u32::to_le_bytes).concat() == b"AuthenticAMD"
}

#[cfg(not(target_arch = "x86_64"))]
fn is_amd() -> bool {
    false
}

#[cfg(target_arch = "x86_64")]
mod amx {
    use std::arch::asm;

    use super::super::{DEPTH, Line, SIDE, TILE};

    /// Whether the CPU has AMX for bf16 and the system lets this process use it.
    pub(super) fn is_there() -> bool {
        has_instructions() && is_allowed()
    }

    fn has_instructions() -> bool {
        use std::arch::x86_64::{__cpuid, __cpuid_count};
        const BF16: u32 = 1 << 22;
        const TILES: u32 = 1 << 24;
        // The system saves AVX-512's registers; of tiles it says so when asked.
        std::is_x86_feature_detected!("avx512f")
            && __cpuid(0).eax >= 7
            && __cpuid_count(7, 0).edx & (BF16 | TILES) == BF16 | TILES
    }

    /// Asks for the right to use tiles: a system call that touches no memory.
    #[cfg(target_os = "linux")]
    fn is_allowed() -> bool {
        const ARCH_PRCTL: i64 = 158;
        const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
        const TILE_DATA: i64 = 18;
        let code: i64;
        // SAFETY: the kernel answers with a number, also where it knows nothing of the call.
        unsafe {
            asm!(
                "syscall",
                inlateout("rax") ARCH_PRCTL => code,
                in("rdi") ARCH_REQ_XCOMP_PERM,
                in("rsi") TILE_DATA,
                lateout("rcx") _,
                lateout("r11") _,
                options(nostack),
            );
        }
        code == 0
    }

    #[cfg(not(target_os = "linux"))]
    fn is_allowed() -> bool {
        false
    }

    /// Shapes of the eight tile registers, as the instruction reads them.
    #[repr(C, align(64))]
    struct Shapes {
        palette: u8,
        start_row: u8,
        reserved: [u8; 14],
        bytes: [u16; 16],
        rows: [u8; 16],
    }

    /// While it lives, this thread's tiles have their shapes.
    pub(super) struct Configured(());

    impl Configured {
        pub(super) fn new() -> Self {
            let mut shapes = Shapes {
                palette: 1,
                start_row: 0,
                reserved: [0; 14],
                bytes: [0; 16],
                rows: [0; 16],
            };
            shapes.bytes[..8].fill(size_of::<Line>() as u16);
            shapes.rows[..8].fill(TILE as u8);
            // SAFETY: `is_there` was asked; the memory is as the instruction wants it.
            unsafe {
                asm!("ldtilecfg [{}]", in(reg) &raw const shapes, options(nostack, readonly));
            }
            Self(())
        }
    }

    impl Drop for Configured {
        fn drop(&mut self) {
            // SAFETY: gives the tiles back.
            unsafe { asm!("tilerelease", options(nostack, nomem)) };
        }
    }

    /// Keeps a block of the output in tiles 0 to 3 while `steps` go by, each a list of instructions that takes
    /// `left` and `right` on by two tiles of 1 KiB. Without a step nothing is done.
    macro_rules! over_steps {
        (
            [$out:expr, $row:expr, $add:expr, $steps:expr],
            [$($instruction:literal),* $(,)?],
            $($operand:tt)*
        ) => {
            const { assert!(SIDE == 32 && DEPTH == 32) };
            if $steps > 0 {
              asm!(
                "test {add}, {add}",
                "jz 2f",
                "tileloadd tmm0, [{out} + {row}]",
                "tileloadd tmm1, [{out} + {row} + 64]",
                "tileloadd tmm2, [{low} + {row}]",
                "tileloadd tmm3, [{low} + {row} + 64]",
                "jmp 3f",
                "2:",
                "tilezero tmm0",
                "tilezero tmm1",
                "tilezero tmm2",
                "tilezero tmm3",
                "3:",
                $($instruction,)*
                "dec {steps}",
                "jnz 3b",
                "tilestored [{out} + {row}], tmm0",
                "tilestored [{out} + {row} + 64], tmm1",
                "tilestored [{low} + {row}], tmm2",
                "tilestored [{low} + {row} + 64], tmm3",
                add = in(reg) u64::from($add),
                out = in(reg) $out,
                low = in(reg) $out.add(TILE * $row),
                row = in(reg) $row * size_of::<f32>(),
                line = in(reg) size_of::<Line>(),
                steps = inout(reg) $steps => _,
                $($operand)*
                out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
                out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
                options(nostack),
              )
            }
        };
    }

    /// # Safety
    /// As for [`Unit::block`](super::Unit::block).
    pub(super) unsafe fn block(
        out: *mut f32,
        row: usize,
        strip: &[Line],
        panel: &[Line],
        add: bool,
    ) {
        let steps = strip.len() / SIDE;
        // SAFETY: every step reads two tiles of each side; the output holds the block.
        unsafe {
            over_steps!(
                [out, row, add, steps],
                [
                    "tileloadd tmm4, [{left} + {line}]",
                    "tileloaddt1 tmm6, [{right} + {line}]",
                    "tileloaddt1 tmm7, [{right} + {line} + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{left} + {line} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {left}, 2048",
                    "add {right}, 2048",
                ],
                left = inout(reg) strip.as_ptr() => _,
                right = inout(reg) panel.as_ptr() => _,
            );
        }
    }

    /// # Safety
    /// As for [`Unit::block_of_parts`](super::Unit::block_of_parts).
    pub(super) unsafe fn block_of_parts(
        out: *mut f32,
        row: usize,
        strip: &[Line],
        panel: &[Line],
        add: bool,
    ) {
        let steps = panel.len() / SIDE;
        // SAFETY: every step reads two tiles of the panel and of each part; the output holds the block.
        unsafe {
            over_steps!(
                [out, row, add, steps],
                [
                    "tileloadd tmm4, [{left} + {line}]",
                    "tileloaddt1 tmm6, [{right} + {line}]",
                    "tileloaddt1 tmm7, [{right} + {line} + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tileloadd tmm5, [{left} + {line} + 1024]",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm4, [{second} + {line}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm5, [{second} + {line} + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tileloadd tmm4, [{third} + {line}]",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "tileloadd tmm5, [{third} + {line} + 1024]",
                    "tdpbf16ps tmm0, tmm4, tmm6",
                    "tdpbf16ps tmm1, tmm4, tmm7",
                    "tdpbf16ps tmm2, tmm5, tmm6",
                    "tdpbf16ps tmm3, tmm5, tmm7",
                    "add {left}, 2048",
                    "add {second}, 2048",
                    "add {third}, 2048",
                    "add {right}, 2048",
                ],
                left = inout(reg) strip.as_ptr() => _,
                second = inout(reg) strip[panel.len()..].as_ptr() => _,
                third = inout(reg) strip[2 * panel.len()..].as_ptr() => _,
                right = inout(reg) panel.as_ptr() => _,
            );
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod dot {
    use std::arch::x86_64::{
        __m512, __m512bh, _mm512_add_ps, _mm512_cvtne2ps_pbh, _mm512_dpbf16_ps, _mm512_loadu_ps,
        _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_ps, _mm512_storeu_ps,
    };

    use super::super::{DEPTH, Line, SIDE, TILE};

    /// Rows of the output at a time: sixteen sums stay in registers.
    const ROWS: usize = 8;

    pub(super) fn is_there() -> bool {
        std::is_x86_feature_detected!("avx512f") && std::is_x86_feature_detected!("avx512bf16")
    }

    /// [`Unit::round`](super::Unit::round).
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) fn round(line: &mut Line, values: &[f32; DEPTH]) {
        // SAFETY: two vectors are read, one is written.
        unsafe {
            let low = _mm512_loadu_ps(values.as_ptr());
            let high = _mm512_loadu_ps(values.as_ptr().add(TILE));
            let rounded = _mm512_cvtne2ps_pbh(high, low);
            *line = std::mem::transmute::<__m512bh, Line>(rounded);
        }
    }

    /// # Safety
    /// As for [`Unit::block`](super::Unit::block).
    #[target_feature(enable = "avx512f,avx512bf16")]
    pub(super) unsafe fn block(
        out: *mut f32,
        row: usize,
        strip: &[Line],
        panel: &[Line],
        add: bool,
    ) {
        for i in (0..SIDE).step_by(ROWS) {
            let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
            for (left, right) in strip.chunks_exact(SIDE).zip(panel.chunks_exact(SIDE)) {
                for pair in 0..TILE {
                    let [first, second] = [pair, TILE + pair].map(|line| {
                        // SAFETY: a line is a vector.
                        pairs(unsafe { _mm512_loadu_si512(right[line].0.as_ptr().cast()) })
                    });
                    for (r, sums) in sums.iter_mut().enumerate() {
                        let value = left[i + r].0[pair].cast_signed();
                        let value = pairs(_mm512_set1_epi32(value));
                        sums[0] = _mm512_dpbf16_ps(sums[0], value, first);
                        sums[1] = _mm512_dpbf16_ps(sums[1], value, second);
                    }
                }
            }
            for (r, sums) in sums.into_iter().enumerate() {
                for (half, sum) in sums.into_iter().enumerate() {
                    // SAFETY: the output holds the block.
                    unsafe {
                        let at = out.add((i + r) * row + half * TILE);
                        let sum: __m512 = if add {
                            _mm512_add_ps(_mm512_loadu_ps(at), sum)
                        } else {
                            sum
                        };
                        _mm512_storeu_ps(at, sum);
                    }
                }
            }
        }
    }

    /// The same bits, read as pairs of bf16.
    #[inline(always)]
    fn pairs(vector: std::arch::x86_64::__m512i) -> __m512bh {
        // SAFETY: both are 64 bytes without a meaning of their own.
        unsafe { std::mem::transmute::<std::arch::x86_64::__m512i, __m512bh>(vector) }
    }
}
