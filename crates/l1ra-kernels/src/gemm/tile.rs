//! The inner loop: a tile of the output in registers while the sum over `k` runs.

use pulp::{Arch, Simd, WithSimd};

/// Rows of a left side, as the inner loop reads them.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    pub(crate) start: *const f32,
    pub(crate) row: usize,
    pub(crate) column: usize,
    pub(crate) len: usize,
}

/// The tile that this machine's registers hold.
#[derive(Clone, Copy)]
pub(crate) struct Tiles {
    arch: Arch,
    rows: usize,
    columns: usize,
}

struct Size;

impl WithSimd for Size {
    type Output = [usize; 2];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [usize; 2] {
        [tile_rows::<S>(), 2 * S::F32_LANES]
    }
}

/// Two vectors a row: 12 of 16 registers, or 24 of 32.
const fn tile_rows<S: Simd>() -> usize {
    if S::REGISTER_COUNT >= 32 { 12 } else { 6 }
}

impl Tiles {
    pub(crate) fn detect() -> Self {
        let arch = Arch::new();
        let [rows, columns] = arch.dispatch(Size);
        Self {
            arch,
            rows,
            columns,
        }
    }

    pub(crate) fn rows(self) -> usize {
        self.rows
    }

    pub(crate) fn columns(self) -> usize {
        self.columns
    }

    /// `out ← [out +] Σ strips·panels`, `shape` rows and columns.
    ///
    /// # Safety
    /// `out` must hold the shape, the strips as many rows, and `panels` the sum of their lengths,
    /// `depth`, for every group of columns.
    #[allow(clippy::too_many_arguments)]
    pub(crate) unsafe fn run(
        self,
        out: *mut f32,
        row: usize,
        shape: [usize; 2],
        strips: &[Strip],
        panels: &[f32],
        depth: usize,
        add: bool,
    ) {
        self.arch.dispatch(Run {
            out,
            row,
            shape,
            strips,
            panels,
            depth,
            add,
        });
    }
}

struct Run<'a> {
    out: *mut f32,
    row: usize,
    shape: [usize; 2],
    strips: &'a [Strip],
    panels: &'a [f32],
    depth: usize,
    add: bool,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [m, _] = self.shape;
        let full = tile_rows::<S>();
        let mut i = 0;
        while i < m {
            let rows = full.min(m - i);
            // SAFETY: `Tiles::run` asks for what `strip` needs.
            unsafe {
                match rows {
                    1 => self.strip::<S, 1>(simd, i),
                    2 => self.strip::<S, 2>(simd, i),
                    3 => self.strip::<S, 3>(simd, i),
                    4 => self.strip::<S, 4>(simd, i),
                    5 => self.strip::<S, 5>(simd, i),
                    6 => self.strip::<S, 6>(simd, i),
                    7 => self.strip::<S, 7>(simd, i),
                    8 => self.strip::<S, 8>(simd, i),
                    9 => self.strip::<S, 9>(simd, i),
                    10 => self.strip::<S, 10>(simd, i),
                    11 => self.strip::<S, 11>(simd, i),
                    _ => self.strip::<S, 12>(simd, i),
                }
            }
            i += rows;
        }
    }
}

impl Run<'_> {
    /// Rows `i .. i + R` of the output.
    ///
    /// # Safety
    /// As for [`Tiles::run`].
    #[inline(always)]
    unsafe fn strip<S: Simd, const R: usize>(&self, simd: S, i: usize) {
        let width = 2 * S::F32_LANES;
        let [_, n] = self.shape;
        let mut panel = self.panels.as_ptr();
        for j in (0..n).step_by(width) {
            let mut sums = [[simd.splat_f32s(0.0); 2]; R];
            let mut lines = panel;
            for strip in self.strips {
                let start = unsafe { strip.start.add(i * strip.row) };
                unsafe { accumulate::<S, R>(simd, &mut sums, start, strip, lines) };
                lines = unsafe { lines.add(strip.len * width) };
            }
            let out = unsafe { self.out.add(i * self.row + j) };
            unsafe { self.store::<S, R>(simd, sums, out, width.min(n - j)) };
            panel = panel.wrapping_add(self.depth * width); // Past the end after the last.
        }
    }

    /// Writes a tile, of whose columns `columns` belong to the output.
    #[inline(always)]
    unsafe fn store<S: Simd, const R: usize>(
        &self,
        simd: S,
        sums: [[S::f32s; 2]; R],
        out: *mut f32,
        columns: usize,
    ) {
        let lanes = S::F32_LANES;
        for (r, sums) in sums.into_iter().enumerate() {
            let line = unsafe { out.add(r * self.row) };
            for (half, sum) in sums.into_iter().enumerate() {
                let columns = columns.saturating_sub(half * lanes).min(lanes);
                let line = unsafe { line.add(half * lanes) };
                if columns == lanes {
                    let line = line.cast::<S::f32s>();
                    let sum = if self.add {
                        simd.add_f32s(unsafe { line.read_unaligned() }, sum)
                    } else {
                        sum
                    };
                    unsafe { line.write_unaligned(sum) };
                } else if columns > 0 {
                    let line = unsafe { std::slice::from_raw_parts_mut(line, columns) };
                    let sum = if self.add {
                        simd.add_f32s(simd.partial_load_f32s(line), sum)
                    } else {
                        sum
                    };
                    simd.partial_store_f32s(line, sum);
                }
            }
        }
    }
}

/// `sums ← sums + left·lines` over the strip's `k`.
#[inline(always)]
unsafe fn accumulate<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[S::f32s; 2]; R],
    start: *const f32,
    strip: &Strip,
    lines: *const f32,
) {
    let mut rows = [start; R];
    for (r, pointer) in rows.iter_mut().enumerate() {
        *pointer = unsafe { start.add(r * strip.row) };
    }
    let mut lines = lines.cast::<S::f32s>();
    let mut at = 0;
    for _ in 0..strip.len {
        let [first, second] = unsafe { [lines.read_unaligned(), lines.add(1).read_unaligned()] };
        for (sums, row) in sums.iter_mut().zip(&rows) {
            let left = simd.splat_f32s(unsafe { *row.add(at) });
            sums[0] = simd.mul_add_e_f32s(left, first, sums[0]);
            sums[1] = simd.mul_add_e_f32s(left, second, sums[1]);
        }
        lines = unsafe { lines.add(2) };
        at += strip.column;
    }
}
