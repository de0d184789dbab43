//! Gradients scaled to a mean over tokens and clipped by their global norm.

use burn::{
    module::{Module, ModuleVisitor, Param},
    optim::GradientsParams,
    tensor::Tensor,
};

/// Multiplies all gradients by `scale`, then clips their global L2 norm to `max_norm` (0: not at
/// all), as `torch.nn.utils.clip_grad_norm_` does: `g ← g · min(1, max_norm / (norm + 1e-6))`.
///
/// Returns the gradients and the norm before clipping. `NaN` or infinity in any gradient shows in
/// the norm; the gradients are then not worth a step.
pub fn scale_and_clip<M: Module>(
    module: &M,
    grads: GradientsParams,
    scale: f64,
    max_norm: f64,
) -> (GradientsParams, f64) {
    let mut squares = Squares {
        grads: &grads,
        sum: None,
    };
    module.visit(&mut squares);
    let squares = squares
        .sum
        .map_or(0.0, |sum| f64::from(sum.into_scalar::<f32>()));
    let norm = squares.sqrt() * scale;
    let clip = if max_norm > 0.0 {
        (max_norm / (norm + 1e-6)).min(1.0)
    } else {
        1.0
    };
    let factor = scale * clip;
    if factor == 1.0 {
        return (grads, norm);
    }
    let mut scaler = Scaler { grads, factor };
    module.visit(&mut scaler);
    (scaler.grads, norm)
}

/// Sum of squares of all gradients, on the device; one read-back at the end.
struct Squares<'a> {
    grads: &'a GradientsParams,
    sum: Option<Tensor<1>>,
}

impl ModuleVisitor for Squares<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(grad) = self.grads.get::<D>(param.id) else {
            return;
        };
        let square = grad.square().sum();
        self.sum = Some(match self.sum.take() {
            Some(sum) => sum + square,
            None => square,
        });
    }
}

struct Scaler {
    grads: GradientsParams,
    factor: f64,
}

impl ModuleVisitor for Scaler {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(grad) = self.grads.remove::<D>(param.id) {
            self.grads.register(param.id, grad.mul_scalar(self.factor));
        }
    }
}
