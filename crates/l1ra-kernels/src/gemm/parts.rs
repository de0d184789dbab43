//! Products in f32 on tiles for bf16, where the weights are bf16, as those of a published checkpoint that is trained
//! in f32: the left side is taken in three parts of bf16, which hold all 24 bits of a number.
//!
//! ```text
//! a = a₀ + a₁ + a₂     a₀ = a without its last 16 bits, a₁ = a − a₀ without them, a₂ = a − a₀ − a₁
//! a·b = a₀·b + a₁·b + a₂·b
//! ```
//!
//! All three products are exact, and their sums are f32, so nothing is lost that instructions in f32 would keep.
//! Numbers below 2⁻¹²⁶ count as zero, parts that small as well; what is infinite on the left gives NaN.

use super::{
    Before, Beside, Part, ROWS, Term, Values, each_part,
    native::{
        self, BUFFERS, Buffers, DEPTH, Group, Line, SIDE, TILE, Unit, ZERO, block, cut, gathered,
        pack_right,
    },
    room,
};
use crate::{pack::PANELS, share::Disjoint, vector::vectorized};

/// Parts of a number.
const PARTS: usize = 3;
/// What is summed over at a time: the parts of a strip of the left side, 54 KiB, nearly stay in the first cache.
const K_BLOCK: usize = 288;
/// What is summed over before the output is left.
const K_GROUP: usize = 1536;
/// Bytes of packed panels that one task holds, in the second cache of 2 MiB.
const PANEL_BYTES: usize = 1 << 20;
/// The bits of an f32 that a bf16 does not have.
const LOW: u32 = 0xffff;
/// The least product that goes this way: rows, columns, and what is summed over.
const LEAST: [usize; 3] = [64, 128, 64];

/// Whether a product goes this way: f32 with bf16, large, on tiles, and nothing may be rounded.
/// (Right sides in f32 would take six products of parts. On a CPU that throttles its tiles those were no faster
/// than one in f32.)
pub(super) fn apply(unit: Unit, [m, n]: [usize; 2], term: &Term<'_>) -> bool {
    let [rows, columns, depth] = LEAST;
    unit == Unit::Amx
        && m >= rows
        && n >= columns
        && term.k >= depth
        && matches!(term.left.values, Values::F32(_))
        && matches!(term.right.values, Values::Bf16(_))
}

/// `out ← [out +] Σ A·B` for terms that [`apply`] said yes to, and a few others beside them. Shapes were checked.
pub(super) fn run(
    unit: Unit,
    out: Disjoint<'_>,
    row: usize,
    [m, n]: [usize; 2],
    [terms, others]: [&[Term<'_>]; 2],
    before: Before,
) {
    let groups = groups(terms);
    let bytes = |group: &Vec<Group<'_>>| lines(group) * SIDE * size_of::<u16>();
    let deepest = groups.iter().map(bytes).max().unwrap_or(1);
    let held = (PANEL_BYTES / deepest.max(1)).max(1);
    let [rows, columns] = cut([m, n], held, [4 * SIDE, SIDE]);
    each_part([m, n], [rows, columns], before, |part| {
        // SAFETY: parts do not overlap, and are within the shapes that were checked before.
        unsafe { run_part(unit, out, row, &groups, others, part) };
    });
}

/// What is summed over, in parts that stay in the first cache, and as many of them as stay in the second.
fn groups<'a>(terms: &[Term<'a>]) -> Vec<Vec<Group<'a>>> {
    let mut groups: Vec<Vec<Group<'a>>> = Vec::new();
    let mut held = 0;
    for block in native::groups(terms, K_BLOCK) {
        let len = block.len;
        match groups.last_mut() {
            Some(group) if held + len <= K_GROUP => group.push(block),
            _ => {
                groups.push(vec![block]);
                held = 0;
            }
        }
        held += len;
    }
    groups
}

/// Lines of the packed panels of a group that lie one after the other.
fn lines(group: &[Group<'_>]) -> usize {
    group.iter().map(Group::lines).sum()
}

/// # Safety
/// `out` must hold the part, and nobody else may write there meanwhile.
unsafe fn run_part(
    unit: Unit,
    out: Disjoint<'_>,
    row: usize,
    groups: &[Vec<Group<'_>>],
    others: &[Term<'_>],
    mut part: Part,
) {
    let (first, n) = (part.columns.start, part.columns.len());
    let mut others = others;
    for group in groups {
        BUFFERS.with_borrow_mut(|Buffers { panels, strip }| {
            let panels = room(panels, n.div_ceil(SIDE) * lines(group), ZERO);
            pack_group(panels, group, first, n);
            PANELS.with_borrow_mut(|single| {
                let beside = Beside::new(single, others, &part);
                // SAFETY: as the caller promises.
                unit.with(|| unsafe {
                    multiply(unit, out, row, group, panels, strip, beside.as_ref(), &part);
                });
            });
        });
        others = &[];
        part.before = Before::Add;
    }
}

/// A group's products and those beside them, strip after strip.
///
/// # Safety
/// As for [`run_part`]; within [`Unit::with`].
#[allow(clippy::too_many_arguments)] // An inner loop's.
unsafe fn multiply(
    unit: Unit,
    out: Disjoint<'_>,
    row: usize,
    group: &[Group<'_>],
    panels: &[Line],
    strip: &mut Vec<Line>,
    beside: Option<&Beside<'_>>,
    part: &Part,
) {
    let (first, n) = (part.columns.start, part.columns.len());
    for (index, top) in part.rows.clone().step_by(SIDE).enumerate() {
        let rows = SIDE.min(part.rows.end - top);
        let out = out.pointer(top * row + first);
        if let Some(beside) = beside.filter(|_| (index * SIDE).is_multiple_of(ROWS)) {
            let rows = top..(top + ROWS).min(part.rows.end);
            // SAFETY: within the part.
            unsafe { beside.rows(out, row, rows, part.before) };
        }
        let mut rest = panels;
        for (number, block_of_k) in group.iter().enumerate() {
            let add = number > 0 || beside.is_some() || part.before == Before::Add;
            let lines = block_of_k.lines();
            let (panels, after) = rest.split_at(n.div_ceil(SIDE) * lines);
            rest = after;
            let strip = room(strip, PARTS * lines, ZERO);
            pack_left(strip, block_of_k, top, rows);
            for (index, panel) in panels.chunks_exact(lines).enumerate() {
                let j = index * SIDE;
                let shape = [rows, SIDE.min(n - j)];
                // SAFETY: within the part.
                unsafe {
                    block(out.add(j), row, shape, add, |out, row| {
                        unit.block_of_parts(out, row, strip, panel, add);
                    });
                }
            }
        }
    }
}

/// Copies columns `first .. first + n` of all right sides of a group into panels, block after block.
fn pack_group(panels: &mut [Line], group: &[Group<'_>], first: usize, n: usize) {
    let mut rest = panels;
    for block in group {
        let (own, after) = rest.split_at_mut(n.div_ceil(SIDE) * block.lines());
        rest = after;
        pack_right(own, block, first, n);
    }
}

/// The parts of a number, each in its high half: what is cut off a part lies in the next.
#[inline(always)]
fn parts(value: f32) -> [u32; PARTS] {
    let first = value.to_bits() & !LOW;
    let rest = value - f32::from_bits(first);
    let second = rest.to_bits() & !LOW;
    let rest = rest - f32::from_bits(second);
    [first, second, rest.to_bits() & !LOW]
}

/// A line of the left side, in parts: pairs, the first in the low half.
#[inline(always)]
fn split(values: &[f32; DEPTH]) -> [Line; PARTS] {
    let mut lines = [ZERO; PARTS];
    for pair in 0..TILE {
        let (first, second) = (parts(values[2 * pair]), parts(values[2 * pair + 1]));
        for (part, line) in lines.iter_mut().enumerate() {
            line.0[pair] = first[part] >> 16 | second[part];
        }
    }
    lines
}

vectorized! {
    /// Copies rows `first .. first + rows` of a left side into tiles, part after part; what is missing is zero.
    fn pack_left(strip: &mut [Line], block: &Group<'_>, first: usize, rows: usize) {
        let left = block.term.left;
        let Values::F32(values) = left.values else {
            return;
        };
        let start = first * left.row + block.from * left.column;
        let depth = strip.len() / PARTS;
        for k in (0..depth).step_by(DEPTH) {
            let len = DEPTH.min(block.len - k);
            for r in 0..SIDE {
                let at = start + r * left.row + k * left.column;
                let lines = if r >= rows {
                    [ZERO; PARTS]
                } else if left.column == 1
                    && len == DEPTH
                    && let Some(values) = values[at..].first_chunk::<DEPTH>()
                {
                    split(values)
                } else {
                    split(&gathered(left, at, len))
                };
                for (part, line) in lines.into_iter().enumerate() {
                    strip[part * depth + k + r] = line;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::print_stderr)]
mod tests {
    use half::bf16;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::gemm::{Left, Products, Right, exact::farthest, in_f32, sum_of_products};

    /// Products of every kind of instructions that the machine has, also the one that is not chosen on it, and
    /// those in f32 beside it: how far from sums in f64, as a share of the sum of absolute values.
    #[test]
    fn results_are_as_near_as_those_in_f32() {
        let units = Unit::all();
        if units.is_empty() {
            eprintln!("this machine has no instructions for bf16");
        }
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        for (shape, turned) in [
            ([32, 32, 32], false),
            ([33, 47, 31], true),
            ([64, 96, 700], true),
            ([70, 900, 65], false),
            ([100, 40, 3300], false),
        ] {
            let [m, n, k] = shape;
            let mut draw = |n: usize| -> Vec<f32> {
                (0..n).map(|_| rng.random_range(-1.0_f32..1.0)).collect()
            };
            let (left, right) = (draw(m * k), draw(k * n));
            let right: Vec<bf16> = right.into_iter().map(bf16::from_f32).collect();
            let matrix = Right {
                row: if turned { 1 } else { n },
                column: if turned { k } else { 1 },
                ..Right::rows(&right, n)
            };
            let term = Term::new(Left::rows(&left, k), matrix, k);
            let (low, b) = (draw(m * 7), draw(7 * n));
            let other = Term::new(Left::rows(&low, 7), Right::rows(&b, n), 7);
            let terms = [&[term][..], &[other]];
            for (before, start) in [(Before::Drop, 0.0), (Before::Add, 0.5)] {
                let mut plain = vec![0.5; m * n];
                let all = [term, other];
                in_f32(Disjoint::new(&mut plain), n, [m, n], &all, before);
                let bound = farthest(&plain, n, start, &all).max(2e-7);
                for unit in &units {
                    let mut out = vec![0.5; m * n];
                    let place = Disjoint::new(&mut out);
                    run(*unit, place, n, [m, n], terms, before);
                    let seen = farthest(&out, n, start, &all);
                    assert!(seen <= bound, "{unit:?} {shape:?}: {seen:e}, f32 {bound:e}");
                }
            }
        }
    }

    #[test]
    fn parts_hold_all_of_a_number() {
        for bits in (0..=u32::MAX).step_by(977) {
            let value = f32::from_bits(bits);
            let [first, second, third] = parts(value).map(f32::from_bits);
            let sum = third + second + first;
            if value.is_finite() {
                // Of numbers near the smallest, parts end where f32 ends.
                let lost = if value.abs() < 1e-30 { 1e-38 } else { 0.0 };
                assert!((sum - value).abs() <= lost, "{value:e}: {sum:e}");
            } else {
                assert!(sum.is_nan(), "{value}");
            }
        }
    }

    #[test]
    fn what_is_not_a_number_shows() {
        let [m, n, k] = [64, 128, 64];
        for unit in Unit::all() {
            for wrong in [f32::NAN, f32::INFINITY, f32::from_bits(0x7f80_0001)] {
                for side in 0..2 {
                    let mut sides = [vec![1.0_f32; m * k], vec![1.0_f32; k * n]];
                    sides[side][5] = wrong;
                    let [left, right] = &sides;
                    let right: Vec<bf16> = right.iter().map(|v| bf16::from_f32(*v)).collect();
                    let term = Term::new(Left::rows(left, k), Right::rows(&right, n), k);
                    let mut out = vec![0.0; m * n];
                    let place = Disjoint::new(&mut out);
                    run(unit, place, n, [m, n], [&[term], &[]], Before::Drop);
                    for (index, seen) in out.iter().enumerate() {
                        let hit = [index / n == 0, index % n == 5][side];
                        let right = if hit {
                            !seen.is_finite()
                        } else {
                            *seen == k as f32
                        };
                        assert!(right, "{unit:?}, {wrong}, side {side}: {seen} at {index}");
                    }
                }
            }
        }
    }

    #[test]
    fn only_large_products_with_bf16_come_here() {
        let [m, n, k] = [64, 128, 64];
        let (left, narrow) = (vec![0.1_f32; m * k], vec![bf16::ONE; m * k]);
        let (right, wide) = (vec![bf16::ONE; k * n], vec![0.5_f32; k * n]);
        let term = Term::new(Left::rows(&left, k), Right::rows(&right, n), k);
        assert!(apply(Unit::Amx, [m, n], &term));
        assert!(!apply(Unit::Dot, [m, n], &term));
        assert!(!apply(Unit::Amx, [m - 1, n], &term));
        assert!(!apply(Unit::Amx, [m, n - 1], &term));
        assert!(!apply(Unit::Amx, [m, n], &Term { k: k - 1, ..term }));
        for other in [
            Term::new(Left::rows(&left, k), Right::rows(&wide, n), k),
            Term::new(Left::rows(&narrow, k), Right::rows(&right, n), k),
        ] {
            assert!(!apply(Unit::Amx, [m, n], &other));
        }
    }

    /// Through the public function, beside a product of another kind.
    #[test]
    fn products_are_those_of_f32_where_they_are_to_be() {
        let [m, n, k] = [70, 130, 200];
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let mut draw =
            |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0_f32..1.0)).collect() };
        let (left, low, b) = (draw(m * k), draw(m * 7), draw(7 * n));
        let right: Vec<bf16> = draw(k * n).into_iter().map(bf16::from_f32).collect();
        let base = Term::new(Left::rows(&left, k), Right::rows(&right, n), k);
        let side = Term::new(Left::rows(&low, 7), Right::rows(&b, n), 7);
        let mut out = vec![0.0; m * n];
        let terms = [base.taken_in(Products::F32), side];
        sum_of_products(&mut out, n, [m, n], &terms, Before::Drop);
        let seen = farthest(&out, n, 0.0, &terms);
        assert!(seen < 1e-6, "{seen:e}");
    }
}
