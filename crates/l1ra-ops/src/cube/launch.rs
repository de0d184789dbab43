//! From tensors to launches: contiguous inputs, an output in the place of an input that nobody else holds, and
//! as many cubes as there are rows.

use burn::{
    backend::{TensorMetadata, cubecl::dtype_to_elem_type},
    tensor::{DType, FloatDType, Shape},
};
use burn_cubecl::{
    cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise, ir::ElemType, prelude::TensorArg},
    kernel::into_contiguous,
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};

use super::{half_as_wide, kernels};

/// Cubes along one axis, at most: what WebGPU promises.
const CUBES: usize = 65_535;
/// Units of a short row, each of which adds up what the others found.
const FEW: usize = 32;
/// Columns of a short row, at most.
const SHORT: usize = 2048;
/// Units of a long row, at most what WebGPU promises for a cube.
const MANY: usize = 256;
/// Units of a cube whose rows are short.
const CUBE: usize = 128;

/// How rows are dealt out.
struct Rows {
    cubes: CubeCount,
    units: usize,
    of_a_cube: usize,
}

impl Rows {
    /// For the rows of a contiguous array with `columns`.
    fn of(x: &CubeTensor, columns: usize) -> Self {
        let most = x.client.properties().hardware.max_units_per_cube as usize;
        // Powers of two, as sums are halved.
        let most = 1 << most.max(1).ilog2();
        let units = if columns > SHORT { MANY } else { FEW }.min(most);
        let of_a_cube = (CUBE.min(most) / units).max(1);
        let rows = x.meta.num_elements() / columns;
        let cubes = rows.div_ceil(of_a_cube);
        let wide = cubes.clamp(1, CUBES);
        Self {
            cubes: CubeCount::Static(wide as u32, cubes.div_ceil(wide) as u32, 1),
            units,
            of_a_cube,
        }
    }

    fn dim(&self) -> CubeDim {
        CubeDim::new_2d(self.units as u32, self.of_a_cube as u32)
    }
}

fn columns(x: &CubeTensor) -> usize {
    let shape = x.meta.shape();
    shape[shape.num_dims() - 1]
}

/// An array without values.
fn empty(like: &CubeTensor, shape: Shape, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(like.client.clone(), like.device.clone(), shape, dtype)
}

/// Where the output goes: to the `place`-th argument, if nobody else holds it, and to a new array otherwise.
fn output(input: &CubeTensor, place: usize) -> (CubeTensor, TensorArg) {
    if input.can_mut() {
        return (input.clone(), input.as_tensor_alias(place));
    }
    let new = empty(input, input.shape(), input.dtype);
    (new.clone(), new.into_tensor_arg())
}

fn elements(x: &CubeTensor) -> ElemType {
    dtype_to_elem_type(x.dtype)
}

pub(super) fn rms_norm(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
    let [x, weight] = [x, weight].map(into_contiguous);
    let (y, place) = output(&x, 0);
    let rows = Rows::of(&x, columns(&x));
    let client = x.client.clone();
    kernels::rms_norm::launch(
        &client,
        rows.cubes.clone(),
        rows.dim(),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        place,
        epsilon,
        rows.units,
        rows.of_a_cube,
    );
    y
}

pub(super) fn rms_norm_backward(
    dy: CubeTensor,
    x: CubeTensor,
    weight: CubeTensor,
    epsilon: f32,
) -> CubeTensor {
    let [dy, x, weight] = [dy, x, weight].map(into_contiguous);
    let (dx, place) = output(&dy, 0);
    let rows = Rows::of(&x, columns(&x));
    let client = x.client.clone();
    kernels::rms_norm_backward::launch(
        &client,
        rows.cubes.clone(),
        rows.dim(),
        dy.into_tensor_arg(),
        x.into_tensor_arg(),
        weight.into_tensor_arg(),
        place,
        epsilon,
        rows.units,
        rows.of_a_cube,
    );
    dx
}

pub(super) fn swiglu(gate_up: CubeTensor, dtype: FloatDType) -> CubeTensor {
    let gate_up = into_contiguous(gate_up);
    let y = empty(&gate_up, half_as_wide(&gate_up.shape()), dtype.into());
    let client = gate_up.client.clone();
    let values = y.meta.num_elements();
    let dim = CubeDim::new(&client, values);
    let cubes = calculate_cube_count_elemwise(&client, values, dim);
    kernels::swiglu::launch(
        &client,
        cubes,
        dim,
        gate_up.clone().into_tensor_arg(),
        y.clone().into_tensor_arg(),
        columns(&y) as u32,
        [elements(&gate_up), elements(&y)],
    );
    y
}

pub(super) fn swiglu_backward(dy: CubeTensor, gate_up: CubeTensor) -> CubeTensor {
    let [dy, gate_up] = [dy, gate_up].map(into_contiguous);
    let d = empty(&gate_up, gate_up.shape(), gate_up.dtype);
    let client = gate_up.client.clone();
    let values = dy.meta.num_elements();
    let dim = CubeDim::new(&client, values);
    let cubes = calculate_cube_count_elemwise(&client, values, dim);
    let (wide, types) = (columns(&dy) as u32, [elements(&gate_up), elements(&dy)]);
    kernels::swiglu_backward::launch(
        &client,
        cubes,
        dim,
        dy.into_tensor_arg(),
        gate_up.into_tensor_arg(),
        d.clone().into_tensor_arg(),
        wide,
        types,
    );
    d
}

pub(super) fn masked_softmax(scores: CubeTensor, mask: CubeTensor) -> CubeTensor {
    let scores = into_contiguous(scores);
    let (p, place) = output(&scores, 0);
    let wide = columns(&scores);
    let rows = Rows::of(&scores, wide);
    let batch = scores.meta.shape()[0];
    let rows_of_a_mask = scores.meta.num_elements() / wide / batch;
    let (client, elements) = (scores.client.clone(), elements(&scores));
    kernels::masked_softmax::launch(
        &client,
        rows.cubes.clone(),
        rows.dim(),
        scores.into_tensor_arg(),
        mask.into_tensor_arg(),
        place,
        wide as u32,
        rows_of_a_mask as u32,
        rows.units,
        rows.of_a_cube,
        elements,
    );
    p
}

pub(super) fn softmax_backward(p: CubeTensor, dp: CubeTensor) -> CubeTensor {
    let [p, dp] = [p, dp].map(into_contiguous);
    let (ds, place) = output(&dp, 1);
    let wide = columns(&p);
    let rows = Rows::of(&p, wide);
    let (client, elements) = (p.client.clone(), elements(&p));
    kernels::softmax_backward::launch(
        &client,
        rows.cubes.clone(),
        rows.dim(),
        p.into_tensor_arg(),
        dp.into_tensor_arg(),
        place,
        wide as u32,
        rows.units,
        rows.of_a_cube,
        elements,
    );
    ds
}

pub(super) fn cross_entropy(
    logits: CubeTensor,
    targets: CubeTensor,
    slope: bool,
) -> (CubeTensor, CubeTensor) {
    let [logits, targets] = [logits, targets].map(into_contiguous);
    let wide = columns(&logits);
    let rows = Rows::of(&logits, wide);
    let n = logits.meta.num_elements() / wide;
    let losses = empty(&logits, Shape::new([n]), DType::F32);
    // Nothing is written where no slope is asked for.
    let (slopes, place) = if slope {
        output(&logits, 0)
    } else {
        (logits.clone(), logits.as_tensor_alias(0))
    };
    let client = logits.client.clone();
    let types = [elements(&logits), elements(&targets)];
    kernels::cross_entropy::launch(
        &client,
        rows.cubes.clone(),
        rows.dim(),
        logits.into_tensor_arg(),
        targets.into_tensor_arg(),
        losses.clone().into_tensor_arg(),
        place,
        wide as u32,
        slope,
        rows.units,
        rows.of_a_cube,
        types,
    );
    (losses, slopes)
}
