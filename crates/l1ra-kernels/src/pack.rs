//! Panels: a right side copied so that the inner loop reads it in order.

use std::cell::RefCell;

use pulp::Arch;

use crate::{
    element::Element,
    gemm::{Right, Values},
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
    let Shape {
        width,
        depth,
        at,
        len,
        from,
        n,
    } = shape;
    Arch::new().dispatch(|| {
        for (index, panel) in panels.chunks_exact_mut(width * depth).enumerate() {
            let first = index * width;
            let columns = width.min(n - first);
            let panel = &mut panel[at * width..(at + len) * width];
            let values = &values[from * right.row + first * right.column..];
            if right.column == 1 {
                for (i, line) in panel.chunks_exact_mut(width).enumerate() {
                    let stored = &values[i * right.row..][..columns];
                    line.iter_mut()
                        .zip(stored)
                        .for_each(|(line, stored)| *line = stored.widen());
                    line[columns..].fill(0.0);
                }
            } else if right.row == 1 {
                transpose(panel, width, values, right.column, columns);
            } else {
                for (i, line) in panel.chunks_exact_mut(width).enumerate() {
                    for (j, line) in line.iter_mut().enumerate() {
                        *line = if j < columns {
                            values[i * right.row + j * right.column].widen()
                        } else {
                            0.0
                        };
                    }
                }
            }
        }
    });
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
    const SIDE: usize = 8;
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
                for (r, line) in lines.chunks_exact_mut(width).enumerate() {
                    let line = &mut line[j..j + SIDE];
                    for (line, square) in line.iter_mut().zip(&square) {
                        *line = square[r];
                    }
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
