//! Panels: a right side copied so that the inner loop reads it in order.

use std::cell::RefCell;

use crate::{
    element::Element,
    gemm::{Right, Values},
    vector::vectorized,
};

thread_local! {
    /// Panels of a thread, kept from one product to the next.
    pub(crate) static PANELS: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
}

/// Copies rows `from .. from + len` and the first `n` columns of `right` into panels of `width`
/// columns, each `depth` rows deep, at their rows `at .. at + len`. Columns past `n` are zero.
pub(crate) fn panels(
    panels: &mut [f32],
    width: usize,
    [depth, at, len]: [usize; 3],
    right: Right<'_>,
    from: usize,
    n: usize,
) {
    let shape = Shape {
        width,
        depth,
        at,
        len,
        from,
        n,
    };
    match right.values {
        Values::F32(values) => copy(panels, shape, values, right),
        Values::Bf16(values) => copy(panels, shape, values, right),
        Values::F16(values) => copy(panels, shape, values, right),
    }
}

/// Rows and columns of a square that is transposed in registers.
const SIDE: usize = 8;

#[derive(Clone, Copy)]
struct Shape {
    width: usize,
    depth: usize,
    at: usize,
    len: usize,
    from: usize,
    n: usize,
}

fn copy<T: Element>(panels: &mut [f32], shape: Shape, values: &[T], right: Right<'_>) {
    copy_values(
        panels,
        shape,
        &values[shape.from * right.row..],
        right.row,
        right.column,
    );
}

vectorized! {
    fn copy_values<T: Element>(panels: &mut [f32], shape: Shape, values: &[T], row: usize, column: usize) {
        let Shape {
            width,
            depth,
            at,
            len,
            from: _,
            n,
        } = shape;
        let part = at * width..(at + len) * width;
        if column == 1 {
            // Row by row, so that the matrix is read in order.
            for (i, stored) in values.chunks(row.max(n)).take(len).enumerate() {
                for (index, stored) in stored[..n].chunks(width).enumerate() {
                    let line = &mut panels[(index * depth + at + i) * width..][..width];
                    if let (Ok(line), Ok(stored)) = (
                        <&mut [f32; 16]>::try_from(&mut *line),
                        <&[T; 16]>::try_from(stored),
                    ) {
                        *line = stored.map(Element::widen);
                        continue;
                    }
                    let (line, rest) = line.split_at_mut(stored.len());
                    line.iter_mut()
                        .zip(stored)
                        .for_each(|(line, stored)| *line = stored.widen());
                    rest.fill(0.0);
                }
            }
            return;
        }
        for (index, panel) in panels.chunks_exact_mut(width * depth).enumerate() {
            let first = index * width;
            let columns = width.min(n - first);
            let panel = &mut panel[part.clone()];
            let values = &values[first * column..];
            if row == 1 {
                transpose(panel, width, values, column, columns);
                continue;
            }
            for (i, line) in panel.chunks_exact_mut(width).enumerate() {
                for (j, line) in line.iter_mut().enumerate() {
                    *line = if j < columns {
                        values[i * row + j * column].widen()
                    } else {
                        0.0
                    };
                }
            }
        }
    }
}

/// `panel[k, j] = values[j · stride + k]`, in squares of 8 that stay in registers.
#[inline(always)]
fn transpose<T: Element>(
    panel: &mut [f32],
    width: usize,
    values: &[T],
    stride: usize,
    columns: usize,
) {
    for (block, lines) in panel.chunks_mut(SIDE * width).enumerate() {
        let k = block * SIDE;
        let depth = lines.len() / width;
        for j in (0..width).step_by(SIDE) {
            if depth == SIDE && j + SIDE <= columns {
                let mut square = [[0.0_f32; SIDE]; SIDE];
                for (c, square) in square.iter_mut().enumerate() {
                    let stored = &values[(j + c) * stride + k..][..SIDE];
                    for (square, stored) in square.iter_mut().zip(stored) {
                        *square = stored.widen();
                    }
                }
                let turned = turn(square);
                for (line, turned) in lines.chunks_exact_mut(width).zip(&turned) {
                    line[j..j + SIDE].copy_from_slice(turned);
                }
            } else {
                for (r, line) in lines.chunks_exact_mut(width).enumerate() {
                    for c in j..(j + SIDE).min(width) {
                        line[c] = if c < columns {
                            values[c * stride + k + r].widen()
                        } else {
                            0.0
                        };
                    }
                }
            }
        }
    }
}

/// The transpose of a square, in three rounds that each take two rows: shuffles of registers, where a
/// register holds a row.
#[inline(always)]
pub(crate) fn turn<T: Copy>(r: [[T; SIDE]; SIDE]) -> [[T; SIDE]; SIDE] {
    let low = |a: [T; 8], b: [T; 8]| [a[0], b[0], a[1], b[1], a[4], b[4], a[5], b[5]];
    let high = |a: [T; 8], b: [T; 8]| [a[2], b[2], a[3], b[3], a[6], b[6], a[7], b[7]];
    let even = |a: [T; 8], b: [T; 8]| [a[0], a[1], b[0], b[1], a[4], a[5], b[4], b[5]];
    let odd = |a: [T; 8], b: [T; 8]| [a[2], a[3], b[2], b[3], a[6], a[7], b[6], b[7]];
    let front = |a: [T; 8], b: [T; 8]| [a[0], a[1], a[2], a[3], b[0], b[1], b[2], b[3]];
    let back = |a: [T; 8], b: [T; 8]| [a[4], a[5], a[6], a[7], b[4], b[5], b[6], b[7]];
    let quarter = |a, b, c, d| {
        let [ab_low, ab_high, cd_low, cd_high] = [low(a, b), high(a, b), low(c, d), high(c, d)];
        [
            even(ab_low, cd_low),
            odd(ab_low, cd_low),
            even(ab_high, cd_high),
            odd(ab_high, cd_high),
        ]
    };
    let top = quarter(r[0], r[1], r[2], r[3]);
    let bottom = quarter(r[4], r[5], r[6], r[7]);
    [
        front(top[0], bottom[0]),
        front(top[1], bottom[1]),
        front(top[2], bottom[2]),
        front(top[3], bottom[3]),
        back(top[0], bottom[0]),
        back(top[1], bottom[1]),
        back(top[2], bottom[2]),
        back(top[3], bottom[3]),
    ]
}
