//! Proves that the adapter's operation has the values and gradients of its formula on every CPU
//! backend, alone and inside a layer.

#![allow(clippy::unwrap_used)]

mod common;

use burn::tensor::{DType, Device, FloatDType, Tensor, TensorData};
use common::{Numbers, assert_close, devices, flex, tensor, values};
use l1ra_core::{
    AdaptedLinear, GatedLora,
    adapter::op::{composed, gated_lora},
};

/// `[n, d_in, r, d_out]`.
const SHAPES: [[usize; 4]; 7] = [
    [1, 1, 1, 1],
    [1, 5, 3, 4],
    [6, 5, 1, 4],
    [7, 3, 5, 2],
    [4, 9, 4, 1],
    [16, 33, 17, 29],
    [40, 64, 16, 48],
];

type Operation = fn(Tensor<2>, Tensor<2>, Tensor<1>, Tensor<2>) -> Tensor<2>;

/// Operands, and the weights of the loss `Σ y ∘ w`.
struct Case {
    dims: [usize; 4],
    x: Vec<f32>,
    a: Vec<f32>,
    g: Vec<f32>,
    b: Vec<f32>,
    w: Vec<f32>,
}

/// The output and the gradients of x, A, g and B, where they were asked for.
struct Outcome {
    y: Vec<f32>,
    grads: [Option<Vec<f32>>; 4],
}

impl Case {
    fn new(dims: [usize; 4], seed: u64) -> Self {
        let [n, d_in, r, d_out] = dims;
        let mut numbers = Numbers::new(seed);
        Self {
            dims,
            x: numbers.signed(n * d_in),
            a: numbers.signed(d_in * r),
            g: numbers.signed(r),
            b: numbers.signed(r * d_out),
            w: numbers.signed(n * d_out),
        }
    }

    fn operands(&self, device: &Device) -> (Tensor<2>, Tensor<2>, Tensor<1>, Tensor<2>) {
        let [n, d_in, r, d_out] = self.dims;
        (
            tensor(&self.x, [n, d_in], device),
            tensor(&self.a, [d_in, r], device),
            tensor(&self.g, [r], device),
            tensor(&self.b, [r, d_out], device),
        )
    }

    fn run(&self, operation: Operation, tracked: [bool; 4], device: &Device) -> Outcome {
        let [n, _, _, d_out] = self.dims;
        let (x, a, g, b) = self.operands(device);
        let x = x.set_require_grad(tracked[0]);
        let a = a.set_require_grad(tracked[1]);
        let g = g.set_require_grad(tracked[2]);
        let b = b.set_require_grad(tracked[3]);
        let y = operation(x.clone(), a.clone(), g.clone(), b.clone());
        assert_eq!(y.is_tracked(), tracked.contains(&true));
        let out = values(&y);
        if !y.is_tracked() {
            return Outcome {
                y: out,
                grads: Default::default(),
            };
        }
        let weights = tensor(&self.w, [n, d_out], device);
        let grads = (y * weights).sum().backward();
        let grads = [
            x.grad(&grads).map(|grad| values(&grad)),
            a.grad(&grads).map(|grad| values(&grad)),
            g.grad(&grads).map(|grad| values(&grad)),
            b.grad(&grads).map(|grad| values(&grad)),
        ];
        Outcome { y: out, grads }
    }

    /// The loss in f64, computed element by element.
    fn loss(&self, x: &[f64], a: &[f64], g: &[f64], b: &[f64]) -> f64 {
        let [n, d_in, r, d_out] = self.dims;
        let mut loss = 0.0;
        for t in 0..n {
            for k in 0..r {
                let h: f64 = (0..d_in).map(|i| x[t * d_in + i] * a[i * r + k]).sum();
                let out: f64 = (0..d_out)
                    .map(|o| b[k * d_out + o] * f64::from(self.w[t * d_out + o]))
                    .sum();
                loss += h * g[k] * out;
            }
        }
        loss
    }
}

const NAMES: [&str; 4] = ["dx", "dA", "dg", "dB"];
const ALL: [bool; 4] = [true; 4];

#[test]
fn values_and_gradients_are_those_of_the_composition() {
    for (name, device) in devices() {
        for (seed, dims) in SHAPES.into_iter().enumerate() {
            let case = Case::new(dims, seed as u64);
            for device in [
                device.clone().autodiff(),
                device.clone().autodiff().gradient_checkpointing(),
            ] {
                let got = case.run(gated_lora, ALL, &device);
                let want = case.run(composed, ALL, &device);
                assert_close(&format!("{name} {dims:?} y"), &got.y, &want.y, 1e-5);
                for ((got, want), part) in got.grads.iter().zip(&want.grads).zip(NAMES) {
                    let what = format!("{name} {dims:?} {part}");
                    assert_close(&what, got.as_ref().unwrap(), want.as_ref().unwrap(), 1e-5);
                }
            }
        }
    }
}

#[test]
fn gradients_are_the_central_differences_of_the_formula() {
    let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    for (name, device) in devices() {
        for (seed, dims) in SHAPES.into_iter().take(5).enumerate() {
            let case = Case::new(dims, 100 + seed as u64);
            let got = case.run(gated_lora, ALL, &device.clone().autodiff());
            let point = [&case.x, &case.a, &case.g, &case.b].map(|values| wide(values));
            for (part, grad) in got.grads.iter().enumerate() {
                let at = |index: usize, step: f64| {
                    let mut moved = point.clone();
                    moved[part][index] += step;
                    case.loss(&moved[0], &moved[1], &moved[2], &moved[3])
                };
                let want: Vec<f64> = (0..point[part].len())
                    .map(|index| (at(index, 1e-3) - at(index, -1e-3)) / 2e-3)
                    .collect();
                let what = format!("{name} {dims:?} {}", NAMES[part]);
                assert_close(&what, grad.as_ref().unwrap(), &want, 1e-5);
            }
        }
    }
}

/// The operation's own values, not the formula's, are differenced here. The loss is linear in every
/// single operand, so a wide step has no error of its own and f32 allows a tight bound.
#[test]
fn gradients_are_the_central_differences_of_the_operation() {
    for (name, device) in devices() {
        let mut case = Case::new([3, 4, 2, 5], 7);
        let got = case.run(gated_lora, ALL, &device.clone().autodiff());
        for (part, grad) in got.grads.iter().enumerate() {
            let grad = grad.as_ref().unwrap();
            let mut want = Vec::with_capacity(grad.len());
            for index in 0..grad.len() {
                let mut at = |step: f32| {
                    let operand = [&mut case.x, &mut case.a, &mut case.g, &mut case.b];
                    let operand = operand.into_iter().nth(part).unwrap();
                    let before = operand[index];
                    operand[index] += step;
                    let y = case.run(gated_lora, [false; 4], &device).y;
                    [&mut case.x, &mut case.a, &mut case.g, &mut case.b]
                        .into_iter()
                        .nth(part)
                        .unwrap()[index] = before;
                    y.iter()
                        .zip(&case.w)
                        .map(|(y, w)| f64::from(*y) * f64::from(*w))
                        .sum::<f64>()
                };
                want.push(at(1.0) - at(-1.0));
            }
            let want: Vec<f64> = want.iter().map(|twice| twice / 2.0).collect();
            assert_close(&format!("{name} {}", NAMES[part]), grad, &want, 1e-5);
        }
    }
}

#[test]
fn f64_operands_keep_their_precision() {
    let device = flex().autodiff();
    let case = Case::new([6, 5, 3, 4], 9);
    let run = |operation: Operation| {
        let (x, a, g, b) = case.operands(&device);
        let x = x.cast(FloatDType::F64).require_grad();
        let a = a.cast(FloatDType::F64).require_grad();
        let g = g.cast(FloatDType::F64).require_grad();
        let b = b.cast(FloatDType::F64).require_grad();
        let y = operation(x.clone(), a.clone(), g.clone(), b.clone());
        assert_eq!(y.dtype(), DType::F64);
        let w = tensor(&case.w, [6, 4], &device).cast(FloatDType::F64);
        let grads = (y.clone() * w).sum().backward();
        let host = |data: TensorData| data.try_into_vec::<f64>().unwrap();
        [
            host(y.into_data()),
            host(x.grad(&grads).unwrap().into_data()),
            host(a.grad(&grads).unwrap().into_data()),
            host(g.grad(&grads).unwrap().into_data()),
            host(b.grad(&grads).unwrap().into_data()),
        ]
    };
    for (got, want) in run(gated_lora).iter().zip(&run(composed)) {
        assert_close("f64", got, want, 1e-13);
    }
}

#[test]
fn only_tracked_operands_get_a_gradient() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let case = Case::new([6, 5, 3, 4], 11);
        let want = case.run(composed, ALL, &device);
        for mask in 0..16_usize {
            let tracked = std::array::from_fn(|bit| mask >> bit & 1 == 1);
            let got = case.run(gated_lora, tracked, &device);
            assert_close("y", &got.y, &want.y, 1e-5);
            for part in 0..4 {
                let what = format!("{name} {} of {tracked:?}", NAMES[part]);
                assert_eq!(got.grads[part].is_some(), tracked[part], "{what}");
                if let Some(got) = &got.grads[part] {
                    assert_close(&what, got, want.grads[part].as_ref().unwrap(), 1e-5);
                }
            }
        }
    }
}

#[test]
fn operands_without_autodiff_are_constants() {
    for (name, device) in devices() {
        let case = Case::new([6, 5, 3, 4], 13);
        let want = case.run(composed, ALL, &device.clone().autodiff());
        let plain = case.run(gated_lora, [false; 4], &device);
        assert_close(name, &plain.y, &want.y, 1e-5);

        let (x, _, _, b) = case.operands(&device);
        let (_, a, g, _) = case.operands(&device.clone().autodiff());
        let (a, g) = (a.require_grad(), g.require_grad());
        let y = gated_lora(x, a.clone(), g.clone(), b);
        let grads = (y * tensor(&case.w, [6, 4], &device)).sum().backward();
        for (part, got) in [
            (1, values(&a.grad(&grads).unwrap())),
            (2, values(&g.grad(&grads).unwrap())),
        ] {
            assert_close(name, &got, want.grads[part].as_ref().unwrap(), 1e-5);
        }
    }
}

/// Two operations in a row that share A and B, with an input that is itself computed: gradients of
/// both uses are summed and pass through.
#[test]
fn gradients_of_several_uses_are_summed() {
    for (name, device) in devices() {
        let device = device.autodiff();
        let case = Case::new([6, 5, 3, 5], 17);
        let run = |operation: Operation| {
            let (x, a, g, b) = case.operands(&device);
            let (x, a) = (x.require_grad(), a.require_grad());
            let (g, b) = (g.require_grad(), b.require_grad());
            let inner = operation(x.clone().tanh(), a.clone(), g.clone(), b.clone());
            let y = operation(inner.clone().tanh(), a.clone(), g.clone(), b.clone()) + inner;
            let grads = (y * tensor(&case.w, [6, 5], &device)).sum().backward();
            [
                values(&x.grad(&grads).unwrap()),
                values(&a.grad(&grads).unwrap()),
                values(&g.grad(&grads).unwrap()),
                values(&b.grad(&grads).unwrap()),
            ]
        };
        for ((got, want), part) in run(gated_lora).iter().zip(&run(composed)).zip(NAMES) {
            assert_close(&format!("{name} {part}"), got, want, 1e-5);
        }
    }
}

/// A layer with an adapter, and the numbers it is made of.
struct Layer {
    weight: Vec<f32>,
    bias: Vec<f32>,
    adapter: l1ra_core::walk::AdapterData,
}

const LAYER: [usize; 2] = [6, 5];

impl Layer {
    fn new(seed: u64) -> Self {
        let mut numbers = Numbers::new(seed);
        let [d_in, d_out] = LAYER;
        Self {
            weight: numbers.signed(d_in * d_out),
            bias: numbers.signed(d_out),
            adapter: common::random_adapter("layer", LAYER, 3, &mut numbers),
        }
    }

    fn module(&self, weight: FloatDType, device: &Device) -> AdaptedLinear {
        let base = tensor(&self.weight, LAYER, device).cast(weight);
        let mut linear = AdaptedLinear::new(base, Some(tensor(&self.bias, [LAYER[1]], device)));
        linear.adapter = Some(common::gated(&self.adapter, device));
        linear
    }

    /// Output and gradients of x, A, c and B, by Burn operations alone. Every row of `x` is a token.
    fn reference(&self, x: &[f32], w: &[f32], device: &Device) -> [Vec<f32>; 5] {
        let [d_in, d_out] = LAYER;
        let (rank, n) = (self.adapter.rank(), x.len() / d_in);
        let x = tensor(x, [n, d_in], device).require_grad();
        let a = tensor(&self.adapter.a, [d_in, rank], device).require_grad();
        let c = tensor(&self.adapter.c, [rank], device).require_grad();
        let b = tensor(&self.adapter.b, [rank, d_out], device).require_grad();
        let base = x.clone().matmul(tensor(&self.weight, LAYER, device))
            + tensor(&self.bias, [1, d_out], device);
        let side = (x.clone().matmul(a.clone()) * c.clone().unsqueeze()).matmul(b.clone());
        let y = base + side.mul_scalar(self.adapter.scale);
        let grads = (y.clone() * tensor(w, [n, d_out], device)).sum().backward();
        [
            values(&y),
            values(&x.grad(&grads).unwrap()),
            values(&a.grad(&grads).unwrap()),
            values(&c.grad(&grads).unwrap()),
            values(&b.grad(&grads).unwrap()),
        ]
    }

    fn outcome<const D: usize>(
        &self,
        shape: [usize; D],
        weight: FloatDType,
        device: &Device,
    ) -> ([Vec<f32>; 5], [Vec<f32>; 5]) {
        let tokens: usize = shape[..D - 1].iter().product();
        let mut numbers = Numbers::new(shape.iter().sum::<usize>() as u64);
        let x = numbers.signed(tokens * LAYER[0]);
        let w = numbers.signed(tokens * LAYER[1]);
        let want = self.reference(&x, &w, device);

        let linear = self.module(weight, device);
        let x = tensor(&x, shape, device).require_grad();
        let y = linear.forward(x.clone());
        let mut out = shape;
        out[D - 1] = LAYER[1];
        assert_eq!(y.dims(), out);
        assert_eq!(y.dtype(), DType::F32);
        let grads = (y.clone() * tensor(&w, out, device)).sum().backward();
        let adapter: &GatedLora = linear.adapter.as_ref().unwrap();
        assert!(
            linear.weight.val().grad(&grads).is_none(),
            "the base is frozen"
        );
        assert!(linear.bias.as_ref().unwrap().val().grad(&grads).is_none());
        assert!(adapter.lora_scale.val().grad(&grads).is_none());
        let got = [
            values(&y),
            values(&x.grad(&grads).unwrap()),
            values(&adapter.lora_a.val().grad(&grads).unwrap()),
            values(&adapter.lora_c.val().grad(&grads).unwrap()),
            values(&adapter.lora_b.val().grad(&grads).unwrap()),
        ];
        (got, want)
    }
}

const LAYER_PARTS: [&str; 5] = ["y", "dx", "dA", "dc", "dB"];

#[test]
fn a_layer_is_base_bias_and_scaled_side_path() {
    for (name, device) in devices() {
        let (device, layer) = (device.autodiff(), Layer::new(19));
        let outcomes = [
            layer.outcome([7, 6], FloatDType::F32, &device),
            layer.outcome([1, 6], FloatDType::F32, &device),
            layer.outcome([2, 3, 6], FloatDType::F32, &device),
            layer.outcome([2, 1, 3, 6], FloatDType::F32, &device),
        ];
        for (got, want) in outcomes {
            for ((got, want), part) in got.iter().zip(&want).zip(LAYER_PARTS) {
                assert_close(&format!("{name} {part}"), got, want, 1e-5);
            }
        }
    }
}

/// One rounding of x, of W and of the product to 8 bits each: 3 · 2⁻⁸, here of sums over 6 terms.
#[test]
fn a_bf16_base_takes_f32_activations() {
    let (device, layer) = (flex().autodiff(), Layer::new(23));
    let (got, want) = layer.outcome([2, 4, 6], FloatDType::BF16, &device);
    let bounds = [0.02, 0.02, 1e-5, 1e-5, 1e-5];
    for (((got, want), part), bound) in got.iter().zip(&want).zip(LAYER_PARTS).zip(bounds) {
        assert_close(part, got, want, bound);
    }
    assert_ne!(got[0], want[0], "the base product was not taken in bf16");
}

#[test]
fn the_dense_update_is_what_the_side_path_adds() {
    for (name, device) in devices() {
        let (layer, mut numbers) = (Layer::new(29), Numbers::new(29));
        let adapter = common::gated(&layer.adapter, &device);
        let dense = common::dense(&layer.adapter);
        assert_close(name, &values(&adapter.delta_weight()), &dense, 1e-6);
        let x = tensor(&numbers.signed(4 * 6), [4, 6], &device);
        let side = values(&adapter.forward(x.clone()));
        assert_close(
            name,
            &values(&x.matmul(adapter.delta_weight())),
            &side,
            1e-5,
        );
    }
}
