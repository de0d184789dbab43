//! Products with bf16 weights on CPUs that have instructions for them: both sides are bf16, products
//! are exact and their sums f32.
//!
//! The left side is rounded to bf16 on the way, as it is on devices that compute in bf16. Both sides
//! are copied into tiles of 1 KiB, which both kinds of instructions read as they are:
//!
//! ```text
//! left    16 rows    × 32 of k      one row after the other
//! right   32 of k    × 16 columns   pairs of k, one pair of all columns after the other
//! ```
//!
//! A strip of 32 rows and a panel of 32 columns give a block of the output, over `k` of a group.

use std::cell::RefCell;

use half::bf16;

use super::{Before, Beside, Left, Part, ROWS, Right, Term, Values, each_part, room};
use crate::{
    pack::{PANELS, turn},
    share::Disjoint,
    vector::vectorized,
};

mod unit;
pub(crate) use unit::Unit;

/// Rows and columns of a block of the output: two tiles each.
pub(super) const SIDE: usize = 32;
/// What is summed over in one tile.
pub(super) const DEPTH: usize = 32;
/// Rows, or columns, of a tile.
pub(super) const TILE: usize = 16;
/// What is summed over at a time: a strip of the left side stays in the first cache.
pub(super) const K_BLOCK: usize = 640;
/// Bytes of packed panels that one task holds: half of the second cache of the CPUs with AMX, all of it on
/// AMD's.
pub(super) const PANEL_BYTES: usize = 1 << 20;

/// A line of a tile: 32 values of a row of the left side, or 16 pairs of the right side. Aligned, as
/// tiles are read by lines of the cache.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Line(pub(super) [u32; TILE]);

pub(super) const ZERO: Line = Line([0; TILE]);

#[derive(Default)]
pub(super) struct Buffers {
    pub(super) panels: Vec<Line>,
    pub(super) strip: Vec<Line>,
}

thread_local! {
    /// Packed sides of a thread, kept from one product to the next.
    pub(super) static BUFFERS: RefCell<Buffers> = const {
        RefCell::new(Buffers { panels: Vec::new(), strip: Vec::new() })
    };
}

/// A part of a product: `len` of its `k`, from `from`.
pub(super) struct Group<'a> {
    pub(super) term: Term<'a>,
    values: &'a [bf16],
    pub(super) from: usize,
    pub(super) len: usize,
}

impl Group<'_> {
    /// Lines of a packed panel: two tiles side by side hold a line of 32 values in depth each.
    pub(super) fn lines(&self) -> usize {
        self.len.next_multiple_of(DEPTH)
    }
}

/// `out ← [out +] Σ A·B` over those of `terms` whose right side is bf16, and over a few in f32 beside them.
///
/// Shapes were checked.
pub(super) fn run(
    unit: Unit,
    out: Disjoint<'_>,
    row: usize,
    [m, n]: [usize; 2],
    [terms, others]: [&[Term<'_>]; 2],
    before: Before,
) {
    let groups = groups(terms, K_BLOCK);
    let deepest = groups.iter().map(|group| group.len).max().unwrap_or(1);
    let panel = deepest.next_multiple_of(DEPTH) * SIDE * size_of::<bf16>();
    let [rows, columns] = cut([m, n], (PANEL_BYTES / panel).max(1), [4 * SIDE, SIDE]);
    each_part([m, n], [rows, columns], before, |part| {
        // SAFETY: parts do not overlap, and are within the shapes that were checked before.
        unsafe { run_part(unit, out, row, &groups, others, &part) };
    });
}

/// Rows and columns of a task, which holds `held` panels at most. Rows are cut only where there are too few
/// columns to go round: into no less than the first of `least`, and multiples of the second.
pub(super) fn cut([m, n]: [usize; 2], held: usize, least: [usize; 2]) -> [usize; 2] {
    let threads = rayon::current_num_threads();
    let panels = n.div_ceil(SIDE);
    let parts = panels.div_ceil(held).next_multiple_of(threads).min(panels);
    let columns = panels.div_ceil(parts) * SIDE;
    let parts = n.div_ceil(columns);
    let row_parts = if parts >= threads {
        1
    } else {
        threads.div_ceil(parts).min(m.div_ceil(least[0]))
    };
    [m.div_ceil(row_parts).next_multiple_of(least[1]), columns]
}

/// Starts and lengths of even parts of `k`, no longer than `most`, of whole tiles but for the last.
fn cut_depth(k: usize, most: usize) -> impl Iterator<Item = [usize; 2]> {
    let len = k.div_ceil(k.div_ceil(most).max(1)).next_multiple_of(DEPTH);
    (0..k)
        .step_by(len.max(1))
        .map(move |from| [from, len.min(k - from)])
}

/// What is summed over, in parts of `most`, of those terms whose right side is bf16.
pub(super) fn groups<'a>(terms: &[Term<'a>], most: usize) -> Vec<Group<'a>> {
    let mut groups = Vec::new();
    for term in terms.iter().filter(|term| term.k > 0) {
        let Values::Bf16(values) = term.right.values else {
            continue;
        };
        groups.extend(cut_depth(term.k, most).map(|[from, len]| Group {
            term: *term,
            values,
            from,
            len,
        }));
    }
    groups
}

/// # Safety
/// `out` must hold the part, and nobody else may write there meanwhile.
unsafe fn run_part(
    unit: Unit,
    out: Disjoint<'_>,
    row: usize,
    groups: &[Group<'_>],
    others: &[Term<'_>],
    part: &Part,
) {
    let (first, n) = (part.columns.start, part.columns.len());
    let act = |Buffers { panels, strip }: &mut Buffers, beside: Option<Beside<'_>>| {
        for (index, group) in groups.iter().enumerate() {
            let panels = room(panels, n.div_ceil(SIDE) * group.lines(), ZERO);
            pack_right(panels, group, first, n);
            for top in part.rows.clone().step_by(ROWS) {
                let rows = top..(top + ROWS).min(part.rows.end);
                let shape = [top, rows.len(), n];
                let out = out.pointer(top * row + first);
                let mut add = index > 0 || part.before == Before::Add;
                // SAFETY: as the caller promises.
                unsafe {
                    if let Some(beside) = beside.as_ref().filter(|_| index == 0) {
                        beside.rows(out, row, rows, part.before);
                        add = true;
                    }
                    multiply(unit, out, row, shape, group, panels, strip, add);
                }
            }
        }
    };
    PANELS.with_borrow_mut(|panels| {
        let beside = Beside::new(panels, others, part);
        BUFFERS.with_borrow_mut(|buffers| unit.with(|| act(buffers, beside)));
    });
}

/// Rows `top .. top + m` of a group's left side by the `n` columns of `panels`, into `out` on.
///
/// # Safety
/// `out` must hold them, in rows that are `row` apart.
#[allow(clippy::too_many_arguments)] // An inner loop's.
pub(super) unsafe fn multiply(
    unit: Unit,
    out: *mut f32,
    row: usize,
    [top, m, n]: [usize; 3],
    group: &Group<'_>,
    panels: &[Line],
    strip: &mut Vec<Line>,
    add: bool,
) {
    let strip = room(strip, group.lines(), ZERO);
    for i in (0..m).step_by(SIDE) {
        let rows = SIDE.min(m - i);
        pack_left(unit, strip, group, top + i, rows);
        for (index, panel) in panels.chunks_exact(group.lines()).enumerate() {
            let j = index * SIDE;
            let columns = SIDE.min(n - j);
            // SAFETY: a part of what the caller promises.
            unsafe {
                let out = out.add(i * row + j);
                block(out, row, [rows, columns], add, |out, row| {
                    unit.block(out, row, strip, panel, add);
                });
            }
        }
    }
}

/// One block of the output, of which `rows` and `columns` exist: `act` writes a whole one, at a place with a
/// distance between rows, which is the output where it holds it.
///
/// # Safety
/// `out` must hold them, in rows that are `row` apart.
pub(super) unsafe fn block(
    out: *mut f32,
    row: usize,
    [rows, columns]: [usize; 2],
    add: bool,
    act: impl FnOnce(*mut f32, usize),
) {
    if [rows, columns] == [SIDE; 2] {
        act(out, row);
        return;
    }
    let mut whole = [0.0_f32; SIDE * SIDE];
    for i in 0..rows {
        // SAFETY: rows and columns that exist.
        let line = unsafe { std::slice::from_raw_parts(out.add(i * row), columns) };
        if add {
            whole[i * SIDE..][..columns].copy_from_slice(line);
        }
    }
    act(whole.as_mut_ptr(), SIDE);
    for i in 0..rows {
        // SAFETY: as above.
        let line = unsafe { std::slice::from_raw_parts_mut(out.add(i * row), columns) };
        line.copy_from_slice(&whole[i * SIDE..][..columns]);
    }
}

/// Copies rows `first .. first + rows` of a left side into tiles; what is missing is zero.
fn pack_left(unit: Unit, strip: &mut [Line], group: &Group<'_>, first: usize, rows: usize) {
    let left = group.term.left;
    let start = first * left.row + group.from * left.column;
    for (chunk, tiles) in strip.chunks_exact_mut(SIDE).enumerate() {
        let k = chunk * DEPTH;
        let len = DEPTH.min(group.len - k);
        tiles[rows..].fill(ZERO);
        for (r, line) in tiles[..rows].iter_mut().enumerate() {
            let at = start + r * left.row + k * left.column;
            if left.column == 1 && len == DEPTH {
                match left.values {
                    Values::F32(values) => {
                        if let Some(values) = values[at..].first_chunk::<DEPTH>() {
                            unit.round(line, values);
                            continue;
                        }
                    }
                    Values::Bf16(values) => {
                        if let Some(values) = values[at..].first_chunk::<DEPTH>() {
                            *line = as_line(values);
                            continue;
                        }
                    }
                    Values::F16(_) => {}
                }
            }
            unit.round(line, &gathered(left, at, len));
        }
    }
}

/// `len` values of a row of a left side from `at` on, whatever its strides; what is missing is zero.
#[inline(always)]
pub(super) fn gathered(left: Left<'_>, at: usize, len: usize) -> [f32; DEPTH] {
    let mut some = [0.0; DEPTH];
    for (p, some) in some[..len].iter_mut().enumerate() {
        *some = left.values.get(at + p * left.column);
    }
    some
}

/// Copies columns `first .. first + n` of a group's right side into panels; what is missing is zero.
pub(super) fn pack_right(panels: &mut [Line], group: &Group<'_>, first: usize, n: usize) {
    let right = group.term.right;
    let values = &group.values[group.from * right.row + first * right.column..];
    pack_panels(panels, values, right, [group.len, n]);
}

vectorized! {
    /// Copies a matrix of `len` rows and `n` columns into panels; what is missing is zero. `right` has its
    /// strides.
    fn pack_panels(
        panels: &mut [Line],
        values: &[bf16],
        right: Right<'_>,
        shape: [usize; 2],
    ) {
        let [len, n] = shape;
        let depth = len.next_multiple_of(DEPTH);
        // In the order in which the matrix lies: a part of all its rows, or one column after the other.
        let rows = if right.column == 1 { DEPTH } else { depth };
        for top in (0..depth).step_by(rows) {
            for (index, panel) in panels.chunks_exact_mut(depth).enumerate() {
                let part = &mut panel[top..][..rows];
                pack_tiles(part, values, right, [top, index * SIDE], [len, n]);
            }
        }
    }
}

/// The tiles of a panel from row `top` and column `first` on, of a side with `depth` rows and `n` columns.
#[inline(always)]
fn pack_tiles(
    panel: &mut [Line],
    values: &[bf16],
    right: Right<'_>,
    [top, first]: [usize; 2],
    [depth, n]: [usize; 2],
) {
    for (index, tile) in panel.chunks_exact_mut(TILE).enumerate() {
        let line = index * TILE;
        let (k, j) = (top + line / DEPTH * DEPTH, first + line % DEPTH);
        let (columns, len) = (n.saturating_sub(j).min(TILE), DEPTH.min(depth - k));
        let at = k * right.row + j * right.column;
        match (columns, len, right) {
            (TILE, DEPTH, Right { column: 1, row, .. }) => {
                pairs_of_rows(tile, &values[at..], row);
            }
            (TILE, DEPTH, Right { row: 1, column, .. }) => {
                pairs_in_place(tile, &values[at..], column);
            }
            _ => any(tile, values, right, [k, j], [len, columns]),
        }
    }
}

/// A pair of a tile: two neighbours in `k`, the first in the low half.
#[inline(always)]
fn side_by_side(first: bf16, second: bf16) -> u32 {
    u32::from(first.to_bits()) | (u32::from(second.to_bits()) << 16)
}

/// Values of a row as they lie.
#[inline(always)]
fn as_line(values: &[bf16; DEPTH]) -> Line {
    Line(std::array::from_fn(|pair| {
        side_by_side(values[2 * pair], values[2 * pair + 1])
    }))
}

/// A tile of a matrix whose rows are in order and `row` apart: two rows are put together.
#[inline(always)]
fn pairs_of_rows(tile: &mut [Line], values: &[bf16], row: usize) {
    for (pair, line) in tile.iter_mut().enumerate() {
        let low = &values[2 * pair * row..][..TILE];
        let high = &values[(2 * pair + 1) * row..][..TILE];
        for ((pair, low), high) in line.0.iter_mut().zip(low).zip(high) {
            *pair = side_by_side(*low, *high);
        }
    }
}

/// A tile of a matrix whose columns are in order and `column` apart: pairs lie together and are turned,
/// in squares of 8 that stay in registers.
#[inline(always)]
fn pairs_in_place(tile: &mut [Line], values: &[bf16], column: usize) {
    const SQUARE: usize = 8;
    for j in (0..TILE).step_by(SQUARE) {
        for pair in (0..TILE).step_by(SQUARE) {
            let mut square = [[0_u32; SQUARE]; SQUARE];
            for (c, square) in square.iter_mut().enumerate() {
                let stored = &values[(j + c) * column + 2 * pair..][..2 * SQUARE];
                for (square, stored) in square.iter_mut().zip(stored.chunks_exact(2)) {
                    *square = side_by_side(stored[0], stored[1]);
                }
            }
            for (line, turned) in tile[pair..].iter_mut().zip(turn(square)) {
                line.0[j..j + SQUARE].copy_from_slice(&turned);
            }
        }
    }
}

/// A tile at the edge of a matrix, or of one with any strides.
fn any(
    tile: &mut [Line],
    values: &[bf16],
    right: Right<'_>,
    [k, j]: [usize; 2],
    [len, columns]: [usize; 2],
) {
    let value = |p: usize, c: usize| {
        if p < len && c < columns {
            u32::from(values[(k + p) * right.row + (j + c) * right.column].to_bits())
        } else {
            0
        }
    };
    for (pair, line) in tile.iter_mut().enumerate() {
        for (c, line) in line.0.iter_mut().enumerate() {
            *line = value(2 * pair, c) | value(2 * pair + 1, c) << 16;
        }
    }
}

#[cfg(test)]
#[allow(clippy::print_stderr)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::gemm::exact::farthest;

    /// Every kind of instructions that the machine has, also the one that is not chosen on it.
    #[test]
    fn units_agree_with_sums_in_f64() {
        let units = Unit::all();
        if units.is_empty() {
            eprintln!("this machine has no instructions for bf16");
        }
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for ([m, n, k], turned) in [
            ([32, 32, 32], false),
            ([33, 47, 31], true),
            ([64, 96, 700], true),
            ([5, 900, 65], false),
            ([100, 20, 1300], false),
        ] {
            let mut draw = |n: usize| -> Vec<bf16> {
                let value = |_| bf16::from_f32(rng.random_range(-1.0..1.0));
                (0..n).map(value).collect()
            };
            let (left, right) = (draw(m * k), draw(k * n));
            let left: Vec<f32> = left.into_iter().map(bf16::to_f32).collect();
            let [row, column] = if turned { [1, k] } else { [n, 1] };
            let term = Term::new(
                Left::rows(&left, k),
                Right {
                    values: Values::Bf16(&right),
                    row,
                    column,
                },
                k,
            );
            for unit in &units {
                for before in [Before::Drop, Before::Add] {
                    let mut out = vec![0.5; m * n];
                    let terms = [&[term][..], &[]];
                    run(*unit, Disjoint::new(&mut out), n, [m, n], terms, before);
                    let start = if before == Before::Add { 0.5 } else { 0.0 };
                    let seen = farthest(&out, n, start, &[term]);
                    assert!(seen <= 2e-6, "{unit:?}, {m} × {n} × {k}: {seen:e}");
                }
            }
        }
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let values = || (0..=u32::MAX).step_by(977).map(f32::from_bits);
        for unit in Unit::all() {
            for first in values().step_by(DEPTH) {
                let next = |k: usize| f32::from_bits(first.to_bits().wrapping_add(977 * k as u32));
                let some: [f32; DEPTH] = std::array::from_fn(next);
                let mut line = ZERO;
                unit.round(&mut line, &some);
                for (k, value) in some.into_iter().enumerate() {
                    let seen = bf16::from_bits((line.0[k / 2] >> (16 * (k % 2))) as u16);
                    let exact = bf16::from_f32(value);
                    if value.is_nan() {
                        assert!(seen.is_nan());
                    } else if value.is_normal() || value == 0.0 {
                        assert_eq!(seen, exact, "{value:e}");
                    } else {
                        assert!(seen == exact || seen == bf16::ZERO, "{value:e}");
                    }
                }
            }
        }
    }
}
