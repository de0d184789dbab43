//! Sums of matrix products, `C ← [C +] Σ A·B`, summed in f32.
//!
//! The left sides are activations in f32 or bf16, the right sides weights; the output is f32, or
//! [rounded to bf16](sum_of_products_in_bf16) when its sum is whole. A term's right side is copied into
//! panels of as many columns as two vector registers hold, widened to f32 on the way, and a tile of
//! `C` stays in registers while the sum over `k` runs: first all of one term, then the next. Up to a
//! `k` of about a thousand, a frozen product and its adapter's go through the output once.
//!
//! With few rows of output the right side is read where it lies. Where the CPU multiplies bf16
//! ([`bf16_instructions`]), terms with bf16 weights are a pass of their own after the others, with both
//! sides in bf16. Where their [products](Products) are to be those of f32, the left side goes in three parts.
//!
//! ```text
//! y  = x·W   + (h∘g)·B            forward of an adapted layer
//! dx = dy·Wᵀ + (dh∘g)·Aᵀ          its backward, for any number of layers that share x
//! ```

mod few;
mod narrow;
mod native;
mod parts;
pub(crate) mod tile;

use std::{cell::RefCell, mem::take, ops::Range};

use rayon::prelude::*;

use crate::{
    element::Activation,
    pack::{self, PANELS},
    rows,
    share::Disjoint,
};
use half::{bf16, f16};
use native::Unit;
use tile::{Strip, Tiles};

/// What is summed over at a time: panels of this depth stay in the second cache, and a strip of `A`
/// in the first. Measured on a CPU with 32 KiB and 512 KiB.
const K_BLOCK: usize = 1024;
/// Rows of output up to which a right side of f32 in whole panels is not copied.
const FEW_ROWS: usize = 24;
/// What is summed over at a time where a right side is read as it lies: its rows are on as many pages of
/// memory, whose addresses the CPU has to keep.
const K_IN_PLACE: usize = 128;
/// Bytes of packed panels that one task holds. They stay in the second cache: 512 KiB and more, or 1 MiB and
/// more on CPUs with AVX-512.
const fn panel_bytes(width: usize) -> usize {
    if width >= 32 { 768 << 10 } else { 384 << 10 }
}

/// Numbers of a line of the cache, at which panels begin.
const LINE: usize = 16;

/// The stored values of a right side.
#[derive(Clone, Copy, Debug)]
pub enum Values<'a> {
    /// f32.
    F32(&'a [f32]),
    /// bfloat16.
    Bf16(&'a [bf16]),
    /// IEEE half precision.
    F16(&'a [f16]),
}

impl Values<'_> {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(values) => values.len(),
            Self::Bf16(values) => values.len(),
            Self::F16(values) => values.len(),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those from `index` on.
    pub fn skip(self, index: usize) -> Self {
        match self {
            Self::F32(values) => Self::F32(&values[index..]),
            Self::Bf16(values) => Self::Bf16(&values[index..]),
            Self::F16(values) => Self::F16(&values[index..]),
        }
    }

    /// One of them.
    pub(crate) fn get(&self, index: usize) -> f32 {
        match self {
            Self::F32(values) => values[index],
            Self::Bf16(values) => values[index].to_f32(),
            Self::F16(values) => values[index].to_f32(),
        }
    }
}

/// A matrix within a slice: element `(i, j)` is at `i · row + j · column`.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The slice, beginning with element (0, 0).
    pub values: Values<'a>,
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub column: usize,
}

impl<'a> Left<'a> {
    /// Rows that lie one after the other, `width` long.
    pub fn rows<T: Activation>(values: &'a [T], width: usize) -> Self {
        Self {
            values: T::values(values),
            row: width,
            column: 1,
        }
    }

    /// The transpose of rows that are `width` long.
    pub fn transposed<T: Activation>(values: &'a [T], width: usize) -> Self {
        Self {
            values: T::values(values),
            row: 1,
            column: width,
        }
    }

    /// `m` rows of `k` in f32, one after the other; nothing where they are f32 as they are.
    fn widened(&self, m: usize, k: usize) -> Vec<f32> {
        if matches!(self.values, Values::F32(_)) {
            return Vec::new();
        }
        let mut wide = vec![0.0; m * k];
        self.widen(&mut wide, 0..m, 0, k);
        wide
    }

    /// `len` columns from `from` of `rows` in f32, one after the other.
    fn widen(&self, out: &mut [f32], lines: Range<usize>, from: usize, len: usize) {
        for (i, out) in lines.zip(out.chunks_exact_mut(len.max(1))) {
            let start = i * self.row + from * self.column;
            match self.values {
                Values::Bf16(values) if self.column == 1 => {
                    rows::widen(out, &values[start..][..len]);
                }
                values => {
                    for (j, out) in out.iter_mut().enumerate() {
                        *out = values.get(start + j * self.column);
                    }
                }
            }
        }
    }
}

/// A matrix of stored values: element `(i, j)` is at `i · row + j · column`.
#[derive(Clone, Copy, Debug)]
pub struct Right<'a> {
    /// The slice, beginning with element (0, 0).
    pub values: Values<'a>,
    /// Distance between rows.
    pub row: usize,
    /// Distance between columns.
    pub column: usize,
}

impl<'a> Right<'a> {
    /// Rows that lie one after the other, `width` long.
    pub fn rows<T: Activation>(values: &'a [T], width: usize) -> Self {
        Self {
            values: T::values(values),
            row: width,
            column: 1,
        }
    }

    /// The same matrix with rows and columns exchanged.
    pub fn transpose(self) -> Self {
        Self {
            row: self.column,
            column: self.row,
            ..self
        }
    }

    /// The matrix without its first columns.
    pub(crate) fn skip_columns(self, columns: usize) -> Self {
        Self {
            values: self.values.skip(columns * self.column),
            ..self
        }
    }
}

/// One product of the sum: `A [m, k] · B [k, n]`.
#[derive(Clone, Copy, Debug)]
pub struct Term<'a> {
    /// `A`.
    pub left: Left<'a>,
    /// `B`.
    pub right: Right<'a>,
    /// What is summed over.
    pub k: usize,
    /// What the products are taken in.
    pub products: Products,
}

impl<'a> Term<'a> {
    /// `left [m, k] · right [k, n]`.
    pub fn new(left: Left<'a>, right: Right<'a>, k: usize) -> Self {
        let products = Products::default();
        Self {
            left,
            right,
            k,
            products,
        }
    }

    /// The same with its products taken so.
    pub fn taken_in(self, products: Products) -> Self {
        Self { products, ..self }
    }

    /// Whether rounding the left side to bf16 would change the products, and must not.
    fn needs_f32(&self) -> bool {
        self.products == Products::F32 && !matches!(self.left.values, Values::Bf16(_))
    }
}

/// What products with a matrix of 16 bits are taken in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Products {
    /// The type that the matrix is stored in, where the device multiplies in it: activations are rounded to it.
    /// A CPU without [instructions for bf16](bf16_instructions) does as with `F32`.
    #[default]
    Stored,
    /// f32. The matrix is widened as it is read, and nothing is rounded.
    F32,
}

/// What becomes of the values that the output holds before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Before {
    /// They are overwritten.
    Drop,
    /// The products are added to them.
    Add,
}

/// The instructions that multiply bf16 on this machine, if it has any that are used.
///
/// With them, and more than four rows of output, the left side of a product with bf16 weights is
/// rounded to bf16, and the sum over `k` is made in f32. Without them, and with [`Products::F32`], bf16 weights
/// are widened, and the left side stays as it is.
pub fn bf16_instructions() -> Option<&'static str> {
    Unit::detect().map(Unit::name)
}

/// `out ← [out +] Σ A·B` for `out [m, n]`, whose rows are `row` apart.
///
/// # Panics
/// If a slice is too short for its shape.
pub fn sum_of_products(
    out: &mut [f32],
    row: usize,
    [m, n]: [usize; 2],
    terms: &[Term<'_>],
    before: Before,
) {
    if m == 0 || n == 0 {
        return;
    }
    check(out.len(), row, [m, n], terms);
    if terms.iter().all(|term| term.k == 0) {
        if before == Before::Drop {
            out.chunks_mut(row)
                .take(m)
                .for_each(|out| out[..n].fill(0.0));
        }
        return;
    }
    let out = Disjoint::new(out);
    if m <= few::ROWS {
        few::run(out, row, [m, n], terms, before);
        return;
    }
    match Unit::detect() {
        Some(unit) => shared(unit, out, row, [m, n], terms, before),
        None => in_f32(out, row, [m, n], terms, before),
    }
}

/// `out ← Σ A·B` for `out [m, n]`, whose rows are `row` apart: summed in f32 and then rounded.
///
/// # Panics
/// If a slice is too short for its shape.
pub fn sum_of_products_in_bf16(
    out: &mut [bf16],
    row: usize,
    [m, n]: [usize; 2],
    terms: &[Term<'_>],
) {
    if m == 0 || n == 0 {
        return;
    }
    check(out.len(), row, [m, n], terms);
    narrow::run(Unit::detect(), Disjoint::new(out), row, [m, n], terms);
}

fn check(out: usize, row: usize, [m, n]: [usize; 2], terms: &[Term<'_>]) {
    assert!(row >= n && out >= (m - 1) * row + n, "output too short");
    for term in terms.iter().filter(|term| term.k > 0) {
        let last = |rows: usize, columns: usize, row: usize, column: usize| {
            (rows - 1) * row + (columns - 1) * column
        };
        let (left, right) = (term.left, term.right);
        assert!(
            left.values.len() > last(m, term.k, left.row, left.column),
            "left side too short"
        );
        assert!(
            right.values.len() > last(term.k, n, right.row, right.column),
            "right side too short"
        );
    }
}

/// Products with bf16 on the instructions for it, added to the others: with little to sum over, those are made
/// beside the first of them, while the output is in the caches.
fn shared(
    unit: Unit,
    out: Disjoint<'_>,
    row: usize,
    shape: [usize; 2],
    terms: &[Term<'_>],
    before: Before,
) {
    let [mut others, mut native, mut parted] = [const { Vec::new() }; 3];
    for term in terms.iter().filter(|term| term.k > 0) {
        match term.right.values {
            Values::Bf16(_) if !term.needs_f32() => native.push(*term),
            _ if parts::apply(unit, shape, term) => parted.push(*term),
            _ => others.push(*term),
        }
    }
    let mut before = before;
    let depth: usize = others.iter().map(|term| term.k).sum();
    if depth > BESIDE || native.is_empty() && parted.is_empty() {
        in_f32(out, row, shape, &take(&mut others), before);
        before = Before::Add;
    }
    if !native.is_empty() {
        native::run(unit, out, row, shape, [&native, &take(&mut others)], before);
        before = Before::Add;
    }
    if !parted.is_empty() {
        parts::run(unit, out, row, shape, [&parted, &others], before);
    }
}

/// What terms in f32 sum over at most where they are made beside others.
const BESIDE: usize = 256;
/// Rows of the output for which they are made at once: whole tiles, whatever their height.
const ROWS: usize = 96;

/// Terms in f32 that are made beside others, for a range of columns.
struct Beside<'a> {
    tiles: Tiles,
    packed: Vec<Packed<'a>>,
    columns: Range<usize>,
}

impl<'a> Beside<'a> {
    /// Copies the columns of right sides, if there is one.
    fn new(panels: &mut Vec<f32>, terms: &[Term<'a>], part: &Part) -> Option<Self> {
        let whole = |term: &Term<'a>| Block {
            term: *term,
            from: 0,
            len: term.k,
        };
        let group: Group<'a> = terms.iter().map(whole).collect();
        let tiles = Tiles::detect();
        (!group.is_empty()).then(|| Self {
            tiles,
            packed: packed(panels, tiles.columns(), &group, part),
            columns: 0..part.columns.len(),
        })
    }

    /// Adds them to these rows, or writes them; `out` is the first element.
    ///
    /// # Safety
    /// `out` must hold the rows and the columns, and left sides the rows.
    unsafe fn rows(&self, out: *mut f32, row: usize, rows: Range<usize>, before: Before) {
        let (shape, add) = ([&rows, &self.columns], before == Before::Add);
        // SAFETY: as the caller promises.
        unsafe { multiply(self.tiles, out, row, shape, &self.packed, add) };
    }
}

/// Products in f32, for output that was checked.
fn in_f32(out: Disjoint<'_>, row: usize, shape: [usize; 2], terms: &[Term<'_>], before: Before) {
    let (tiles, blocks) = (Tiles::detect(), blocks(terms, shape));
    each_part(shape, cut(shape, &blocks, tiles), before, |part| {
        // SAFETY: parts do not overlap, and are within the shapes that were checked above.
        unsafe { run(tiles, out, row, &blocks, &part) };
    });
}

/// A part of a term that fits the caches: `k` from `from` to `from + len`.
#[derive(Clone, Copy)]
struct Block<'a> {
    term: Term<'a>,
    from: usize,
    len: usize,
}

impl<'a> Block<'a> {
    /// The right side from the block's first row, where copying it would cost more than reading its
    /// rows as they lie: f32, whole panels, and few rows of output.
    fn in_place(&self, rows: usize, n: usize, width: usize) -> Option<&'a [f32]> {
        in_place(&self.term, [rows, n], width)
            .map(|values| &values[self.from * self.term.right.row..])
    }
}

/// [`Block::in_place`] of a whole term.
fn in_place<'a>(term: &Term<'a>, [rows, n]: [usize; 2], width: usize) -> Option<&'a [f32]> {
    match term.right.values {
        Values::F32(values) => {
            let few = rows <= FEW_ROWS && n.is_multiple_of(width);
            (few && term.right.column == 1).then_some(values)
        }
        _ => None,
    }
}

/// A group of consecutive blocks whose panels are held at once, `k` of `K_BLOCK` at most (and the
/// small remainder of an adapter, which is not worth a pass of its own over the output).
type Group<'a> = Vec<Block<'a>>;

fn blocks<'a>(terms: &[Term<'a>], shape: [usize; 2]) -> Vec<Group<'a>> {
    let width = Tiles::detect().columns();
    let mut groups: Vec<Group<'a>> = Vec::new();
    let mut held = 0;
    for term in terms.iter().filter(|term| term.k > 0) {
        let in_place = in_place(term, shape, width).is_some();
        let parts = term.k.div_ceil(if in_place { K_IN_PLACE } else { K_BLOCK });
        let len = term.k.div_ceil(parts);
        for from in (0..term.k).step_by(len) {
            let len = len.min(term.k - from);
            let block = Block {
                term: *term,
                from,
                len,
            };
            let fits = held + len <= K_BLOCK + K_BLOCK / 4 && !in_place;
            match groups.last_mut() {
                Some(group) if fits => {
                    group.push(block);
                    held += len;
                }
                _ => {
                    groups.push(vec![block]);
                    held = len;
                }
            }
        }
    }
    groups
}

/// Rows and columns of a task.
fn cut([m, n]: [usize; 2], blocks: &[Group<'_>], tiles: Tiles) -> [usize; 2] {
    let width = tiles.columns();
    let depth = blocks
        .iter()
        .map(|group| group.iter().map(|block| block.len).sum::<usize>())
        .max()
        .unwrap_or(1);
    let threads = rayon::current_num_threads();
    let small = m * n * depth < 1 << 16;
    let most = (panel_bytes(width) / (4 * depth * width)).max(1) * width;
    let panels = n.div_ceil(width);
    let parts = if small || threads == 1 {
        n.div_ceil(most)
    } else {
        n.div_ceil(most).next_multiple_of(threads).min(panels)
    };
    let columns = panels.div_ceil(parts) * width;
    let parts = n.div_ceil(columns);
    // Rows are cut only where there are too few columns to go round.
    let row_parts = if small || parts >= threads {
        1
    } else {
        threads.div_ceil(parts).min(m.div_ceil(4 * tiles.rows()))
    };
    [
        m.div_ceil(row_parts).next_multiple_of(tiles.rows()),
        columns,
    ]
}

/// A task's part of the output.
struct Part {
    rows: Range<usize>,
    columns: Range<usize>,
    before: Before,
}

/// Calls `act` with the parts of an output that is cut into `rows` by `columns`, shared among the threads.
fn each_part(
    [m, n]: [usize; 2],
    [rows, columns]: [usize; 2],
    before: Before,
    act: impl Fn(Part) + Sync,
) {
    let [row_parts, parts] = [m.div_ceil(rows), n.div_ceil(columns)];
    let task = |index: usize| {
        let (i, j) = (index % row_parts * rows, index / row_parts * columns);
        act(Part {
            rows: i..(i + rows).min(m),
            columns: j..(j + columns).min(n),
            before,
        });
    };
    match row_parts * parts {
        1 => task(0),
        tasks => (0..tasks).into_par_iter().for_each(task),
    }
}

/// A right side as the inner loop reads it.
struct Packed<'a> {
    block: Block<'a>,
    lines: *const f32,
    line: usize,
    panel: usize,
}

impl Packed<'_> {
    /// Whether the left side is f32 as it is.
    fn is_wide(&self) -> bool {
        matches!(self.block.term.left.values, Values::F32(_))
    }
}

/// The first `len` values of a buffer that only grows: what they hold is of no interest.
fn room<T: Copy>(values: &mut Vec<T>, len: usize, new: T) -> &mut [T] {
    if values.len() < len {
        values.resize(len, new);
    }
    &mut values[..len]
}

/// Rows of left sides in bf16 that are widened at once.
const WIDENED_ROWS: usize = 24;

thread_local! {
    /// Their values.
    static WIDENED: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Computes a part.
///
/// # Safety
/// `out` must hold the part, and nobody else may write there meanwhile.
unsafe fn run(tiles: Tiles, out: Disjoint<'_>, row: usize, groups: &[Group<'_>], part: &Part) {
    let width = tiles.columns();
    let n = part.columns.len();
    PANELS.with_borrow_mut(|panels| {
        for (index, group) in groups.iter().enumerate() {
            let packed = packed(panels, width, group, part);
            let add = index > 0 || part.before == Before::Add;
            let start = out.pointer(part.rows.start * row + part.columns.start);
            // SAFETY: as the caller promises; left sides have the part's rows.
            unsafe { multiply(tiles, start, row, [&part.rows, &(0..n)], &packed, add) };
        }
    });
}

/// Copies a group's right sides into panels, but for those that are read where they lie.
fn packed<'a>(
    panels: &mut Vec<f32>,
    width: usize,
    group: &Group<'a>,
    part: &Part,
) -> Vec<Packed<'a>> {
    let n = part.columns.len();
    let depth: usize = group.iter().map(|block| block.len).sum();
    let panels = aligned(panels, n.div_ceil(width) * width * depth);
    let mut at = 0;
    let mut packed = Vec::with_capacity(group.len());
    for block in group {
        let right = block.term.right.skip_columns(part.columns.start);
        let (lines, line, panel) = match block.in_place(part.rows.len(), n, width) {
            Some(values) => (values[part.columns.start..].as_ptr(), right.row, width),
            None => {
                pack::panels(panels, width, [depth, at, block.len], right, block.from, n);
                (panels[at * width..].as_ptr(), width, depth * width)
            }
        };
        at += block.len;
        packed.push(Packed {
            block: *block,
            lines,
            line,
            panel,
        });
    }
    packed
}

/// Room for `len` values that begins at a line of the cache.
fn aligned(values: &mut Vec<f32>, len: usize) -> &mut [f32] {
    let values = room(values, len + LINE, 0.0);
    let skip = values.as_ptr().align_offset(LINE * size_of::<f32>());
    &mut values[skip.min(LINE)..][..len]
}

/// `out ← [out +] Σ A·B` for `rows` of the left sides and as many columns as `columns` has; `out` is their
/// first element.
///
/// # Safety
/// `out` must hold the shape, left sides the rows, and right sides whole panels for all columns.
unsafe fn multiply(
    tiles: Tiles,
    out: *mut f32,
    row: usize,
    [rows, columns]: [&Range<usize>; 2],
    packed: &[Packed<'_>],
    add: bool,
) {
    let step = match packed.iter().all(Packed::is_wide) {
        true => rows.len(),
        false => WIDENED_ROWS,
    };
    WIDENED.with_borrow_mut(|wide| {
        for first in rows.clone().step_by(step.max(1)) {
            let lines = first..(first + step).min(rows.end);
            let strips = strips(packed, &lines, wide);
            let shape = [lines.len(), columns.len()];
            // SAFETY: as the caller promises.
            unsafe {
                let out = out.add((first - rows.start) * row);
                tiles.run(out, row, shape, &strips, add);
            }
        }
    });
}

/// `rows` of the left sides beside the right sides; those in bf16 are widened into `wide`.
fn strips(packed: &[Packed<'_>], rows: &Range<usize>, wide: &mut Vec<f32>) -> Vec<Strip> {
    let width: usize = packed
        .iter()
        .filter(|packed| !packed.is_wide())
        .map(|packed| packed.block.len)
        .sum();
    let mut wide = room(wide, width * rows.len(), 0.0);
    let each = |packed: &Packed<'_>| {
        let Block { term, from, len } = packed.block;
        let left = term.left;
        let (start, row, column) = match left.values {
            Values::F32(values) => {
                let start = rows.start * left.row + from * left.column;
                (values[start..].as_ptr(), left.row, left.column)
            }
            _ => {
                let (part, rest) = take(&mut wide).split_at_mut(rows.len() * len);
                wide = rest;
                left.widen(part, rows.clone(), from, len);
                (part.as_ptr(), len, 1)
            }
        };
        Strip {
            start,
            row,
            column,
            len,
            lines: packed.lines,
            line: packed.line,
            panel: packed.panel,
        }
    };
    packed.iter().map(each).collect()
}

#[cfg(test)]
mod exact {
    use super::Term;

    /// How far `out`, rows of `n`, is from the terms' sums in f64, which begin with `start`: the largest
    /// difference, as a share of the sum of absolute values.
    pub(super) fn farthest(out: &[f32], n: usize, start: f64, terms: &[Term<'_>]) -> f64 {
        let each = |(index, seen): (usize, &f32)| {
            let (i, j) = (index / n, index % n);
            let products = |term: &Term<'_>| -> Vec<f64> {
                let (left, right) = (term.left, term.right);
                let product = |p: usize| {
                    let a = left.values.get(i * left.row + p * left.column);
                    let b = right.values.get(p * right.row + j * right.column);
                    f64::from(a) * f64::from(b)
                };
                (0..term.k).map(product).collect()
            };
            let products: Vec<f64> = terms.iter().flat_map(products).collect();
            let exact = start + products.iter().sum::<f64>();
            let size = start + products.iter().map(|product| product.abs()).sum::<f64>();
            (f64::from(*seen) - exact).abs() / size
        };
        out.iter().enumerate().map(each).fold(0.0, f64::max)
    }
}
