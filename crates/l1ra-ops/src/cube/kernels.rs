//! The kernels: some units do one row of a contiguous array. They stride over its columns, and what they found is
//! put together in shared memory. Values are read in the array's type and computed in f32.
//!
//! A cube does several rows where they are short. All of its units meet at every barrier, those without a row as
//! well: they do the last one again and write nothing.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

/// Parts that every unit adds up by itself; with more of them, they are halved down to these.
const PARTS: usize = 32;

/// Where a unit works.
#[derive(CubeType)]
struct Place {
    /// Its first element in the array.
    first: usize,
    /// The end of its row.
    end: usize,
    /// Its row.
    row: usize,
    /// Whether there is such a row.
    inside: bool,
}

#[cube]
impl Place {
    /// The place of this unit among rows of `columns`.
    fn new(rows: usize, columns: usize) -> Place {
        let row = CUBE_POS * CUBE_DIM_Y as usize + UNIT_POS_Y as usize;
        let inside = row < rows;
        let row = min(row, rows - 1);
        let start = row * columns;
        Place {
            first: start + UNIT_POS_X as usize,
            end: start + columns,
            row,
            inside,
        }
    }
}

/// The larger of two numbers, or their sum.
#[cube]
fn joined(a: f32, b: f32, #[comptime] largest: bool) -> f32 {
    if comptime!(largest) { max(a, b) } else { a + b }
}

/// The largest of the parts of all units of a row, or their sum, for each of them.
#[cube]
fn of_all_units(
    part: f32,
    room: &mut Shared<[f32]>,
    #[comptime] units: usize,
    #[comptime] largest: bool,
) -> f32 {
    let (unit, base) = (UNIT_POS_X as usize, UNIT_POS_Y as usize * units);
    // Whoever still reads what was there before.
    sync_cube();
    room[base + unit] = part;
    sync_cube();
    let mut half = units.runtime() / 2;
    while half >= PARTS {
        if unit < half {
            room[base + unit] = joined(room[base + unit], room[base + unit + half], largest);
        }
        half /= 2;
        sync_cube();
    }
    let mut all = room[base];
    for i in 1..comptime!(if units < PARTS { units } else { PARTS }) {
        all = joined(all, room[base + i], largest);
    }
    all
}

/// The sum of the parts of all units of a row, for each of them.
#[cube]
fn sum_of_units(part: f32, room: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    of_all_units(part, room, units, false)
}

/// The largest of the parts of all units of a row, for each of them.
#[cube]
fn most_of_units(part: f32, room: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    of_all_units(part, room, units, true)
}

/// `σ(x)`.
#[cube]
fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

#[cube(launch)]
pub(super) fn rms_norm(
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    y: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] units: usize,
    #[comptime] rows_of_a_cube: usize,
) {
    let columns = weight.len();
    let place = Place::new(x.len() / columns, columns);
    let mut room = Shared::new_slice(units * rows_of_a_cube);
    let mut squares = 0.0;
    let mut at = place.first;
    while at < place.end {
        let value = x[at];
        squares += value * value;
        at += units;
    }
    let squares = sum_of_units(squares, &mut room, units);
    let inverse = 1.0 / (squares / f32::cast_from(columns as u32) + epsilon).sqrt();
    if place.inside {
        let mut at = place.first;
        let mut column = UNIT_POS_X as usize;
        while at < place.end {
            y[at] = x[at] * inverse * weight[column];
            at += units;
            column += units;
        }
    }
}

#[cube(launch)]
pub(super) fn rms_norm_backward(
    dy: &Tensor<f32>,
    x: &Tensor<f32>,
    weight: &Tensor<f32>,
    dx: &mut Tensor<f32>,
    epsilon: f32,
    #[comptime] units: usize,
    #[comptime] rows_of_a_cube: usize,
) {
    let columns = weight.len();
    let place = Place::new(x.len() / columns, columns);
    let mut room = Shared::new_slice(units * rows_of_a_cube);
    let mut squares = 0.0;
    let mut pulled = 0.0;
    let mut at = place.first;
    let mut column = UNIT_POS_X as usize;
    while at < place.end {
        let value = x[at];
        squares += value * value;
        pulled += dy[at] * weight[column] * value;
        at += units;
        column += units;
    }
    let n = f32::cast_from(columns as u32);
    let squares = sum_of_units(squares, &mut room, units);
    let pulled = sum_of_units(pulled, &mut room, units) / n;
    let inverse = 1.0 / (squares / n + epsilon).sqrt();
    let slope = pulled * inverse * inverse * inverse;
    if place.inside {
        let mut at = place.first;
        let mut column = UNIT_POS_X as usize;
        while at < place.end {
            let d = dy[at] * weight[column] * inverse - x[at] * slope;
            dx[at] = d;
            at += units;
            column += units;
        }
    }
}

/// A unit does one column of one row.
#[cube(launch)]
pub(super) fn swiglu<E: Float, O: Float>(
    gate_up: &Tensor<E>,
    y: &mut Tensor<O>,
    columns: u32,
    #[define(E, O)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= y.len() {
        terminate!();
    }
    let columns = columns as usize;
    let first = ABSOLUTE_POS / columns * 2 * columns + ABSOLUTE_POS % columns;
    let gate = f32::cast_from(gate_up[first]);
    let up = f32::cast_from(gate_up[first + columns]);
    y[ABSOLUTE_POS] = O::cast_from(gate * sigmoid(gate) * up);
}

/// A unit does one column of one row, of the gate and of what it lets through.
#[cube(launch)]
pub(super) fn swiglu_backward<E: Float, O: Float>(
    dy: &Tensor<O>,
    gate_up: &Tensor<E>,
    d: &mut Tensor<E>,
    columns: u32,
    #[define(E, O)] _types: [ElemType; 2],
) {
    if ABSOLUTE_POS >= dy.len() {
        terminate!();
    }
    let columns = columns as usize;
    let first = ABSOLUTE_POS / columns * 2 * columns + ABSOLUTE_POS % columns;
    let gate = f32::cast_from(gate_up[first]);
    let up = f32::cast_from(gate_up[first + columns]);
    let dy = f32::cast_from(dy[ABSOLUTE_POS]);
    let s = sigmoid(gate);
    d[first] = E::cast_from(dy * up * s * (1.0 + gate * (1.0 - s)));
    d[first + columns] = E::cast_from(dy * gate * s);
}

#[cube(launch)]
pub(super) fn masked_softmax<E: Float>(
    scores: &Tensor<E>,
    mask: &Tensor<f32>,
    p: &mut Tensor<E>,
    columns: u32,
    rows_of_a_mask: u32,
    #[comptime] units: usize,
    #[comptime] rows_of_a_cube: usize,
    #[define(E)] _type: ElemType,
) {
    let columns = columns as usize;
    let place = Place::new(scores.len() / columns, columns);
    let mut batch = place.row / rows_of_a_mask as usize;
    if mask.shape(0) == 1 {
        batch = 0;
    }
    let step = mask.stride(3);
    let row_of_mask = batch * mask.stride(0) + place.row % mask.shape(2) * mask.stride(2);
    let masked = row_of_mask + UNIT_POS_X as usize * step;
    let mut room = Shared::new_slice(units * rows_of_a_cube);
    // −∞ in the mask is below this, and e to its power is 0 against any score.
    let mut most = f32::min_value();
    let mut at = place.first;
    let mut mask_at = masked;
    while at < place.end {
        most = max(most, f32::cast_from(scores[at]) + mask[mask_at]);
        at += units;
        mask_at += units * step;
    }
    let most = most_of_units(most, &mut room, units);
    let mut sum = 0.0;
    let mut at = place.first;
    let mut mask_at = masked;
    while at < place.end {
        sum += (f32::cast_from(scores[at]) + mask[mask_at] - most).exp();
        at += units;
        mask_at += units * step;
    }
    let share = 1.0 / sum_of_units(sum, &mut room, units);
    if place.inside {
        let mut at = place.first;
        let mut mask_at = masked;
        while at < place.end {
            let power = (f32::cast_from(scores[at]) + mask[mask_at] - most).exp();
            p[at] = E::cast_from(power * share);
            at += units;
            mask_at += units * step;
        }
    }
}

#[cube(launch)]
pub(super) fn softmax_backward<E: Float>(
    p: &Tensor<E>,
    dp: &Tensor<E>,
    ds: &mut Tensor<E>,
    columns: u32,
    #[comptime] units: usize,
    #[comptime] rows_of_a_cube: usize,
    #[define(E)] _type: ElemType,
) {
    let columns = columns as usize;
    let place = Place::new(p.len() / columns, columns);
    let mut room = Shared::new_slice(units * rows_of_a_cube);
    let mut pulled = 0.0;
    let mut at = place.first;
    while at < place.end {
        pulled += f32::cast_from(p[at]) * f32::cast_from(dp[at]);
        at += units;
    }
    let pulled = sum_of_units(pulled, &mut room, units);
    if place.inside {
        let mut at = place.first;
        while at < place.end {
            let slope = f32::cast_from(dp[at]) - pulled;
            ds[at] = E::cast_from(f32::cast_from(p[at]) * slope);
            at += units;
        }
    }
}

#[cube(launch)]
pub(super) fn cross_entropy<E: Float, I: Int>(
    logits: &Tensor<E>,
    targets: &Tensor<I>,
    losses: &mut Tensor<f32>,
    slopes: &mut Tensor<E>,
    columns: u32,
    #[comptime] slope: bool,
    #[comptime] units: usize,
    #[comptime] rows_of_a_cube: usize,
    #[define(E, I)] _types: [ElemType; 2],
) {
    let columns = columns as usize;
    let place = Place::new(losses.len(), columns);
    let mut room = Shared::new_slice(units * rows_of_a_cube);
    let target = place.end - columns + u32::cast_from(targets[place.row]) as usize;
    // Read before any unit writes slopes, which may lie where the logits do.
    let picked = f32::cast_from(logits[target]);
    // The row is long: the largest and the sum in one go over it.
    let mut most = f32::min_value();
    let mut sum = 0.0;
    let mut at = place.first;
    while at < place.end {
        let value = f32::cast_from(logits[at]);
        let former = most;
        most = max(most, value);
        sum = sum * (former - most).exp() + (value - most).exp();
        at += units;
    }
    let highest = most_of_units(most, &mut room, units);
    let sum = sum_of_units(sum * (most - highest).exp(), &mut room, units);
    if place.inside && UNIT_POS_X == 0 {
        losses[place.row] = highest + sum.ln() - picked;
    }
    if slope && place.inside {
        let share = 1.0 / sum;
        let mut at = place.first;
        while at < place.end {
            let mut d = (f32::cast_from(logits[at]) - highest).exp() * share;
            if at == target {
                d -= 1.0;
            }
            slopes[at] = E::cast_from(d);
            at += units;
        }
    }
}
