//! Products whose output is bf16: sums of all terms are made in f32, for a few rows at a time that stay in
//! the caches, and rounded when they are whole.

use std::cell::RefCell;

use half::bf16;

use super::{
    Before, Beside, Part, ROWS, Term, Values, each_part,
    native::{self, Line, PANEL_BYTES, SIDE, Unit},
    room,
};
use crate::{rows, share::Disjoint};

/// Panels that a task holds: at least, where those of all `k` are large, and at most, so that sums stay in the
/// second cache.
const HELD: [usize; 2] = [2, 16];

#[derive(Default)]
struct Buffers {
    panels: Vec<f32>,
    native: Vec<Line>,
    strip: Vec<Line>,
    sums: Vec<f32>,
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::new(Buffers::default());
}

/// The terms by how they are multiplied.
struct Sides<'a> {
    unit: Option<Unit>,
    single: Vec<Term<'a>>,
    native: Vec<native::Group<'a>>,
}

impl<'a> Sides<'a> {
    fn new(unit: Option<Unit>, terms: &[Term<'a>]) -> Self {
        let terms = || terms.iter().filter(|term| term.k > 0);
        let is_native =
            |term: &Term<'_>| unit.is_some() && matches!(term.right.values, Values::Bf16(_));
        let native: Vec<Term<'a>> = terms().filter(|term| is_native(term)).copied().collect();
        Self {
            unit,
            single: terms().filter(|term| !is_native(term)).copied().collect(),
            native: native::groups(&native, native::K_BLOCK),
        }
    }

    /// Bytes of the panels of a column.
    fn column_bytes(&self) -> usize {
        let single: usize = self.single.iter().map(|term| term.k).sum();
        let native: usize = self.native.iter().map(native::Group::lines).sum();
        single * size_of::<f32>() + native * size_of::<bf16>()
    }
}

/// `out ← Σ A·B`, for slices that were checked.
pub(super) fn run(
    unit: Option<Unit>,
    out: Disjoint<'_, bf16>,
    row: usize,
    [m, n]: [usize; 2],
    terms: &[Term<'_>],
) {
    let sides = Sides::new(unit, terms);
    let [least, most] = HELD;
    let held = (PANEL_BYTES / (SIDE * sides.column_bytes().max(1))).clamp(least, most);
    let cut = native::cut([m, n], held, [ROWS, ROWS]);
    each_part([m, n], cut, Before::Drop, |part| sides.run(out, row, &part));
}

impl Sides<'_> {
    /// Writes a part that no other task writes.
    fn run(&self, out: Disjoint<'_, bf16>, row: usize, part: &Part) {
        BUFFERS.with_borrow_mut(|buffers| match self.unit {
            Some(unit) if !self.native.is_empty() => {
                unit.with(|| self.in_buffers(out, row, part, buffers));
            }
            _ => self.in_buffers(out, row, part, buffers),
        });
    }

    fn in_buffers(&self, out: Disjoint<'_, bf16>, row: usize, part: &Part, buffers: &mut Buffers) {
        let Buffers {
            panels,
            native,
            strip,
            sums,
        } = buffers;
        let (first, n) = (part.columns.start, part.columns.len());
        let single = Beside::new(panels, &self.single, part);
        let lines = |group: &native::Group<'_>| n.div_ceil(SIDE) * group.lines();
        let native = room(native, self.native.iter().map(lines).sum(), native::ZERO);
        let mut rest = &mut *native;
        for group in &self.native {
            let (panels, after) = rest.split_at_mut(lines(group));
            native::pack_right(panels, group, first, n);
            rest = after;
        }
        for top in part.rows.clone().step_by(ROWS) {
            let lines_here = top..(top + ROWS).min(part.rows.end);
            let sums = room(sums, lines_here.len() * n, 0.0);
            if single.is_none() && self.native.is_empty() {
                sums.fill(0.0);
            }
            if let Some(single) = &single {
                let lines = lines_here.clone();
                // SAFETY: the sums have these rows and columns, and left sides were checked.
                unsafe { single.rows(sums.as_mut_ptr(), n, lines, Before::Drop) };
            }
            if let Some(unit) = self.unit {
                let mut rest = &native[..];
                for (index, group) in self.native.iter().enumerate() {
                    let (panels, after) = rest.split_at(lines(group));
                    rest = after;
                    let add = index > 0 || single.is_some();
                    let sums = sums.as_mut_ptr();
                    let shape = [top, lines_here.len(), n];
                    // SAFETY: as above.
                    unsafe { native::multiply(unit, sums, n, shape, group, panels, strip, add) };
                }
            }
            for (i, sums) in lines_here.zip(sums.chunks_exact(n)) {
                // SAFETY: tasks have rows and columns of their own.
                let out = unsafe { out.slice(i * row + first, n) };
                rows::narrow(out, sums);
            }
        }
    }
}
