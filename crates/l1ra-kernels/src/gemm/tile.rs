//! The inner loop: a tile of the output in registers while the sum over `k` runs.

#[cfg(target_arch = "x86_64")]
mod avx512;

use pulp::{Arch, Simd, WithSimd};

/// One product, as the inner loop reads it.
#[derive(Clone, Copy)]
pub(crate) struct Strip {
    /// Element (0, 0) of the left side.
    pub(crate) start: *const f32,
    /// Distance between its rows.
    pub(crate) row: usize,
    /// Distance between its columns.
    pub(crate) column: usize,
    /// What is summed over.
    pub(crate) len: usize,
    /// Element (0, 0) of the right side.
    pub(crate) lines: *const f32,
    /// Distance between its rows, within a panel.
    pub(crate) line: usize,
    /// Distance between its panels.
    pub(crate) panel: usize,
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

    /// `out ← [out +] Σ left·right` over `strips`, `shape` rows and columns.
    ///
    /// # Safety
    /// `out` must hold the shape; left sides as many rows; right sides whole panels of
    /// [`columns`](Self::columns) for every group of columns.
    pub(crate) unsafe fn run(
        self,
        out: *mut f32,
        row: usize,
        shape: [usize; 2],
        strips: &[Strip],
        add: bool,
    ) {
        let done = unsafe { self.whole(out, row, shape, strips, add) };
        if done < shape[0] {
            self.arch.dispatch(Run {
                out,
                row,
                shape,
                strips,
                add,
                done,
            });
        }
    }

    /// The rows of whole tiles where they have code of their own. Gives their number.
    ///
    /// # Safety
    /// As for [`run`](Self::run).
    #[cfg(target_arch = "x86_64")]
    unsafe fn whole(
        self,
        out: *mut f32,
        row: usize,
        [m, n]: [usize; 2],
        strips: &[Strip],
        add: bool,
    ) -> usize {
        if !matches!(self.arch, Arch::V4(_)) {
            return 0;
        }
        let whole = m / avx512::ROWS * avx512::ROWS;
        for i in (0..whole).step_by(avx512::ROWS) {
            // SAFETY: the machine has AVX-512; the output and the left sides have these rows.
            unsafe { avx512::rows(out.add(i * row), row, n, strips, i, add) };
        }
        whole
    }

    /// No code of its own on this architecture.
    #[cfg(not(target_arch = "x86_64"))]
    unsafe fn whole(
        self,
        _out: *mut f32,
        _row: usize,
        _shape: [usize; 2],
        _strips: &[Strip],
        _add: bool,
    ) -> usize {
        0
    }
}

struct Run<'a> {
    out: *mut f32,
    row: usize,
    shape: [usize; 2],
    strips: &'a [Strip],
    add: bool,
    /// Rows that are there already.
    done: usize,
}

impl WithSimd for Run<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let [m, _] = self.shape;
        let full = tile_rows::<S>();
        let mut i = self.done;
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
        for (index, j) in (0..n).step_by(width).enumerate() {
            let mut sums = [[simd.splat_f32s(0.0); 2]; R];
            for strip in self.strips {
                unsafe {
                    let start = strip.start.add(i * strip.row);
                    let lines = strip.lines.add(index * strip.panel);
                    accumulate::<S, R>(simd, &mut sums, start, strip, lines);
                }
            }
            let out = unsafe { self.out.add(i * self.row + j) };
            unsafe { self.store::<S, R>(simd, sums, out, width.min(n - j)) };
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
    // SAFETY, here and below: `k` is below the strip's length.
    let line = |k: usize| unsafe { lines.add(k * strip.line) };
    if strip.column == 1 {
        // Four at a time: less counting, and the distances are constants.
        let whole = strip.len / 4 * 4;
        for k in (0..whole).step_by(4) {
            unsafe { step::<S, R>(simd, sums, &rows, k, line(k)) };
            unsafe { step::<S, R>(simd, sums, &rows, k + 1, line(k + 1)) };
            unsafe { step::<S, R>(simd, sums, &rows, k + 2, line(k + 2)) };
            unsafe { step::<S, R>(simd, sums, &rows, k + 3, line(k + 3)) };
        }
        for k in whole..strip.len {
            unsafe { step::<S, R>(simd, sums, &rows, k, line(k)) };
        }
    } else {
        for k in 0..strip.len {
            unsafe { step::<S, R>(simd, sums, &rows, k * strip.column, line(k)) };
        }
    }
}

/// One term of the sum: elements `at` of the rows times one row of the right side.
///
/// A function, as it has to be inlined: a closure of this size may not be, and what is outside of
/// `with_simd` is compiled without the machine's instructions.
#[inline(always)]
unsafe fn step<S: Simd, const R: usize>(
    simd: S,
    sums: &mut [[S::f32s; 2]; R],
    rows: &[*const f32; R],
    at: usize,
    line: *const f32,
) {
    let [first, second] = unsafe {
        let line = line.cast::<S::f32s>();
        [line.read_unaligned(), line.add(1).read_unaligned()]
    };
    for (sums, row) in sums.iter_mut().zip(rows) {
        let left = simd.splat_f32s(unsafe { *row.add(at) });
        sums[0] = simd.mul_add_e_f32s(left, first, sums[0]);
        sums[1] = simd.mul_add_e_f32s(left, second, sums[1]);
    }
}
