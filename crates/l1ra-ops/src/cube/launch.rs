//! From tensors to launches: contiguous inputs, an output in the place of an input that nobody else holds, and
//! as many cubes as there are rows.

use burn::{
    backend::{TensorMetadata, cubecl::dtype_to_elem_type},
    tensor::{DType, FloatDType, Shape},
};
use burn_cubecl::{
    CubeBackend,
    cubecl::{CubeCount, CubeDim, calculate_cube_count_elemwise, ir::ElemType, prelude::TensorArg},
    kernel::into_contiguous,
    ops::numeric::empty_device_contiguous_dtype,
    tensor::CubeTensor,
};

use super::{RowKernels, half_as_wide, kernels};

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

/// The rows of a contiguous array, and how they are dealt out.
struct Rows {
    count: usize,
    columns: usize,
    units: usize,
    of_a_cube: usize,
    cubes: CubeCount,
    dim: CubeDim,
}

impl Rows {
    fn of(x: &CubeTensor) -> Self {
        let columns = columns(x);
        let count = x.meta.num_elements() / columns;
        let most = x.client.properties().hardware.max_units_per_cube as usize;
        // Powers of two, as sums are halved.
        let most = 1 << most.max(1).ilog2();
        let units = if columns > SHORT { MANY } else { FEW }.min(most);
        let of_a_cube = (CUBE.min(most) / units).max(1);
        let cubes = count.div_ceil(of_a_cube);
        let wide = cubes.clamp(1, CUBES);
        Self {
            count,
            columns,
            units,
            of_a_cube,
            cubes: CubeCount::Static(wide as u32, cubes.div_ceil(wide) as u32, 1),
            dim: CubeDim::new_2d(units as u32, of_a_cube as u32),
        }
    }
}

/// Cubes with a unit for every value.
fn a_unit_each(x: &CubeTensor) -> (CubeCount, CubeDim) {
    let values = x.meta.num_elements();
    let dim = CubeDim::new(&x.client, values);
    (calculate_cube_count_elemwise(&x.client, values, dim), dim)
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

impl RowKernels for CubeBackend {
    fn rms_norm(x: CubeTensor, weight: CubeTensor, epsilon: f32) -> CubeTensor {
        let [x, weight] = [x, weight].map(into_contiguous);
        let (y, place) = output(&x, 0);
        let rows = Rows::of(&x);
        kernels::rms_norm::launch(
            &y.client,
            rows.cubes,
            rows.dim,
            x.into_tensor_arg(),
            weight.into_tensor_arg(),
            place,
            epsilon,
            rows.units,
            rows.of_a_cube,
        );
        y
    }

    fn rms_norm_backward(
        dy: CubeTensor,
        x: CubeTensor,
        weight: CubeTensor,
        epsilon: f32,
    ) -> CubeTensor {
        let [dy, x, weight] = [dy, x, weight].map(into_contiguous);
        let (dx, place) = output(&dy, 0);
        let rows = Rows::of(&x);
        kernels::rms_norm_backward::launch(
            &dx.client,
            rows.cubes,
            rows.dim,
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

    fn swiglu(gate_up: CubeTensor, dtype: FloatDType) -> CubeTensor {
        let gate_up = into_contiguous(gate_up);
        let y = empty(&gate_up, half_as_wide(&gate_up.shape()), dtype.into());
        let (cubes, dim) = a_unit_each(&y);
        let types = [elements(&gate_up), elements(&y)];
        kernels::swiglu::launch(
            &y.client,
            cubes,
            dim,
            gate_up.into_tensor_arg(),
            y.clone().into_tensor_arg(),
            columns(&y) as u32,
            types,
        );
        y
    }

    fn swiglu_backward(dy: CubeTensor, gate_up: CubeTensor) -> CubeTensor {
        let [dy, gate_up] = [dy, gate_up].map(into_contiguous);
        let d = empty(&gate_up, gate_up.shape(), gate_up.dtype);
        let (cubes, dim) = a_unit_each(&dy);
        let (wide, types) = (columns(&dy) as u32, [elements(&gate_up), elements(&dy)]);
        kernels::swiglu_backward::launch(
            &d.client,
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

    fn masked_softmax(scores: CubeTensor, mask: CubeTensor) -> CubeTensor {
        let scores = into_contiguous(scores);
        let (p, place) = output(&scores, 0);
        let rows = Rows::of(&scores);
        let rows_of_a_mask = rows.count / scores.meta.shape()[0];
        kernels::masked_softmax::launch(
            &p.client,
            rows.cubes,
            rows.dim,
            scores.into_tensor_arg(),
            mask.into_tensor_arg(),
            place,
            rows.columns as u32,
            rows_of_a_mask as u32,
            rows.units,
            rows.of_a_cube,
            elements(&p),
        );
        p
    }

    fn softmax_backward(p: CubeTensor, dp: CubeTensor) -> CubeTensor {
        let [p, dp] = [p, dp].map(into_contiguous);
        let (ds, place) = output(&dp, 1);
        let rows = Rows::of(&p);
        kernels::softmax_backward::launch(
            &ds.client,
            rows.cubes,
            rows.dim,
            p.into_tensor_arg(),
            dp.into_tensor_arg(),
            place,
            rows.columns as u32,
            rows.units,
            rows.of_a_cube,
            elements(&ds),
        );
        ds
    }

    fn cross_entropy(
        logits: CubeTensor,
        targets: CubeTensor,
        slope: bool,
    ) -> (CubeTensor, CubeTensor) {
        let [logits, targets] = [logits, targets].map(into_contiguous);
        let rows = Rows::of(&logits);
        let losses = empty(&logits, Shape::new([rows.count]), DType::F32);
        // Nothing is written where no slope is asked for.
        let (slopes, place) = if slope {
            output(&logits, 0)
        } else {
            (logits.clone(), logits.as_tensor_alias(0))
        };
        let types = [elements(&logits), elements(&targets)];
        kernels::cross_entropy::launch(
            &losses.client,
            rows.cubes,
            rows.dim,
            logits.into_tensor_arg(),
            targets.into_tensor_arg(),
            losses.clone().into_tensor_arg(),
            place,
            rows.columns as u32,
            slope,
            rows.units,
            rows.of_a_cube,
            types,
        );
        (losses, slopes)
    }
}
