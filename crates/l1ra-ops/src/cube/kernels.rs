//! The kernels: a cube of units does one row of a contiguous array, the units stride over its columns, and what
//! they found is put together in shared memory. Values are read in the array's type and computed in f32.

use burn_cubecl::cubecl;
use cubecl::prelude::*;

/// The sum of all units' parts, for each of them.
#[cube]
fn sum_of_units(part: f32, room: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    // Whoever still reads the former sum.
    sync_cube();
    room[unit] = part;
    sync_cube();
    let mut half = units.runtime() / 2;
    while half > 0 {
        if unit < half {
            room[unit] = room[unit] + room[unit + half];
        }
        half /= 2;
        sync_cube();
    }
    room[0]
}

/// The largest of all units' parts, for each of them.
#[cube]
fn most_of_units(part: f32, room: &mut Shared<[f32]>, #[comptime] units: usize) -> f32 {
    let unit = UNIT_POS as usize;
    sync_cube();
    room[unit] = part;
    sync_cube();
    let mut half = units.runtime() / 2;
    while half > 0 {
        if unit < half {
            room[unit] = max(room[unit], room[unit + half]);
        }
        half /= 2;
        sync_cube();
    }
    room[0]
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
) {
    let (row, columns) = (CUBE_POS, weight.len());
    if row >= x.len() / columns {
        terminate!();
    }
    let mut room = Shared::new_slice(units);
    let first = row * columns;
    let mut squares = 0.0;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let value = x[first + at];
        squares += value * value;
        at += units;
    }
    let squares = sum_of_units(squares, &mut room, units);
    let inverse = 1.0 / (squares / f32::cast_from(columns as u32) + epsilon).sqrt();
    let mut at = UNIT_POS as usize;
    while at < columns {
        y[first + at] = x[first + at] * inverse * weight[at];
        at += units;
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
) {
    let (row, columns) = (CUBE_POS, weight.len());
    if row >= x.len() / columns {
        terminate!();
    }
    let mut room = Shared::new_slice(units);
    let first = row * columns;
    let mut squares = 0.0;
    let mut pulled = 0.0;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let value = x[first + at];
        squares += value * value;
        pulled += dy[first + at] * weight[at] * value;
        at += units;
    }
    let n = f32::cast_from(columns as u32);
    let squares = sum_of_units(squares, &mut room, units);
    let pulled = sum_of_units(pulled, &mut room, units) / n;
    let inverse = 1.0 / (squares / n + epsilon).sqrt();
    let slope = pulled * inverse * inverse * inverse;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let d = dy[first + at] * weight[at] * inverse - x[first + at] * slope;
        dx[first + at] = d;
        at += units;
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
    #[define(E)] _type: ElemType,
) {
    let (row, columns) = (CUBE_POS, columns as usize);
    if row >= scores.len() / columns {
        terminate!();
    }
    let mut batch = row / rows_of_a_mask as usize;
    if mask.shape(0) == 1 {
        batch = 0;
    }
    let masked = batch * mask.stride(0) + row % mask.shape(2) * mask.stride(2);
    let step = mask.stride(3);
    let mut room = Shared::new_slice(units);
    let first = row * columns;
    // −∞ in the mask is below this, and e to its power is 0 against any score.
    let lowest = f32::min_value();
    let mut most = lowest;
    let mut sum = 0.0;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let score = f32::cast_from(scores[first + at]) + mask[masked + at * step];
        let former = most;
        most = max(most, score);
        sum = sum * (former - most).exp() + (score - most).exp();
        at += units;
    }
    let highest = most_of_units(most, &mut room, units);
    let sum = sum_of_units(sum * (most - highest).exp(), &mut room, units);
    let mut at = UNIT_POS as usize;
    while at < columns {
        let score = f32::cast_from(scores[first + at]) + mask[masked + at * step];
        p[first + at] = E::cast_from((score - highest).exp() / sum);
        at += units;
    }
}

#[cube(launch)]
pub(super) fn softmax_backward<E: Float>(
    p: &Tensor<E>,
    dp: &Tensor<E>,
    ds: &mut Tensor<E>,
    columns: u32,
    #[comptime] units: usize,
    #[define(E)] _type: ElemType,
) {
    let (row, columns) = (CUBE_POS, columns as usize);
    if row >= p.len() / columns {
        terminate!();
    }
    let mut room = Shared::new_slice(units);
    let first = row * columns;
    let mut pulled = 0.0;
    let mut at = UNIT_POS as usize;
    while at < columns {
        pulled += f32::cast_from(p[first + at]) * f32::cast_from(dp[first + at]);
        at += units;
    }
    let pulled = sum_of_units(pulled, &mut room, units);
    let mut at = UNIT_POS as usize;
    while at < columns {
        let slope = f32::cast_from(dp[first + at]) - pulled;
        ds[first + at] = E::cast_from(f32::cast_from(p[first + at]) * slope);
        at += units;
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
    #[define(E, I)] _types: [ElemType; 2],
) {
    let (row, columns) = (CUBE_POS, columns as usize);
    if row >= losses.len() {
        terminate!();
    }
    let mut room = Shared::new_slice(units);
    let first = row * columns;
    let target = u32::cast_from(targets[row]) as usize;
    // Read before any unit writes slopes, which may lie where the logits do.
    let picked = f32::cast_from(logits[first + target]);
    let mut most = f32::min_value();
    let mut sum = 0.0;
    let mut at = UNIT_POS as usize;
    while at < columns {
        let value = f32::cast_from(logits[first + at]);
        let former = most;
        most = max(most, value);
        sum = sum * (former - most).exp() + (value - most).exp();
        at += units;
    }
    let highest = most_of_units(most, &mut room, units);
    let sum = sum_of_units(sum * (most - highest).exp(), &mut room, units);
    if UNIT_POS == 0 {
        losses[row] = highest + sum.ln() - picked;
    }
    if slope {
        let mut at = UNIT_POS as usize;
        while at < columns {
            let value = f32::cast_from(logits[first + at]);
            let mut d = (value - highest).exp() / sum;
            if at == target {
                d -= 1.0;
            }
            slopes[first + at] = E::cast_from(d);
            at += units;
        }
    }
}
