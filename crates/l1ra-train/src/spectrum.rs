//! What a first, a second, … rank would be worth in every layer, measured through the adapters.
//!
//! For a layer `y = x·W` the loss falls along a small update `ΔW` at the rate `⟨G, ΔW⟩`, `G = ∂L/∂W`.
//! The base is frozen and `G`, as large as the model, is never made. A randomised singular value
//! decomposition (Halko, Martinsson and Tropp, arXiv 0909.4061) needs two products with it, and an
//! adapter beside the layer gives both as gradients of its own, without changing the output:
//!
//! ```text
//! A = Ω, B = 0:   ∂L/∂B = s·Ωᵀ·G    whose rows span what G reaches: an orthonormal Q of them
//! A = 0, B = Qᵀ:  ∂L/∂A = s·G·Q     whose singular values are, nearly, the largest ones of G
//! ```

use burn::{optim::GradientsAccumulator, tensor::Device, train::TrainStep};
use l1ra_core::{
    init::SeededNoise,
    peft::{AdapterSet, install_adapters},
    walk::{self, AdapterData, AdapterView},
};
use l1ra_models::CausalLm;
use nalgebra::DMatrix;

use crate::{data::TokenBatch, error::TrainError, model::FineTune};

/// The squared singular values of the loss's gradient in every adapted layer of `lm`, descending: the
/// `directions` largest, or as many as a layer has. `lm` is on an autodiff device; its adapters say which
/// layers, and are otherwise left out. The gradient is that of the mean loss over all targets of
/// `batches`; `recompute` is that of the run.
///
/// # Errors
/// A gradient that is not finite, or a device that cannot be read.
pub fn gradient_spectra(
    lm: &CausalLm,
    batches: &[TokenBatch],
    directions: usize,
    seed: u64,
    recompute: bool,
) -> Result<Vec<Vec<f64>>, TrainError> {
    let views = walk::adapters(lm);
    let Some(device) = views.first().map(|view| view.c.device().autodiff()) else {
        return Ok(Vec::new());
    };
    let probe = Probe {
        lm,
        views: &views,
        batches,
        recompute,
        device,
    };
    let noise = SeededNoise::new(seed);
    let size = |view: &AdapterView| {
        let [d_in, d_out] = view.dims();
        directions.clamp(1, d_in.min(d_out))
    };
    // ∂L/∂B, [k, d_out], for A = Ω, [d_in, k], and B = 0.
    let sketches = probe.gradients(Part::B, |_, view| {
        let ([d_in, d_out], k) = (view.dims(), size(view));
        let a = noise.sketch(&view.path, d_in, k);
        (a, vec![0.0; k * d_out])
    })?;
    let bases: Vec<DMatrix<f64>> = sketches
        .into_iter()
        .map(|sketch| sketch.transpose().qr().q()) // [d_out, k]
        .collect();
    // ∂L/∂A, [d_in, k], for A = 0 and B = Qᵀ, [k, d_out].
    let products = probe.gradients(Part::A, |index, view| {
        let ([d_in, _], k) = (view.dims(), size(view));
        // By columns Q is what Qᵀ is by rows.
        let b = bases[index].iter().map(|value| *value as f32).collect();
        (vec![0.0; d_in * k], b)
    })?;
    Ok(products
        .into_iter()
        .map(|product| {
            let mut squares: Vec<f64> = product
                .singular_values()
                .iter()
                .map(|value| value * value)
                .collect();
            squares.sort_by(|a, b| b.total_cmp(a));
            squares
        })
        .collect())
}

/// The matrix whose gradient is read.
#[derive(Clone, Copy)]
enum Part {
    A,
    B,
}

struct Probe<'a> {
    lm: &'a CausalLm,
    views: &'a [AdapterView],
    batches: &'a [TokenBatch],
    recompute: bool,
    device: Device,
}

impl Probe<'_> {
    /// Gradients of one matrix of every adapter, the adapters being what `values` (A and B, row-major)
    /// say.
    fn gradients(
        &self,
        part: Part,
        values: impl Fn(usize, &AdapterView) -> (Vec<f32>, Vec<f32>),
    ) -> Result<Vec<DMatrix<f64>>, TrainError> {
        let adapter = |(index, view): (usize, &AdapterView)| {
            let [d_in, d_out] = view.dims();
            let (a, b) = values(index, view);
            AdapterData {
                path: view.path.clone(),
                d_in,
                d_out,
                c: vec![1.0; b.len() / d_out],
                a,
                b,
                scale: 1.0,
            }
        };
        let set = AdapterSet {
            adapters: self.views.iter().enumerate().map(adapter).collect(),
            dropout: 0.0,
            config: None,
        };
        let mut lm = self.lm.clone();
        install_adapters(&mut lm, &set, &self.device)?;
        let mut model = FineTune::new(lm, None);
        if self.recompute {
            model = model.with_block_recompute();
        }
        let (mut accumulator, mut targets) = (GradientsAccumulator::new(), 0);
        for batch in self.batches {
            targets += batch.target_count;
            let output = TrainStep::step(&model, batch.clone());
            accumulator.accumulate(&model, output.grads);
        }
        let grads = accumulator.grads();
        let read = |view: &AdapterView| -> Result<DMatrix<f64>, TrainError> {
            let [id_a, _, id_b] = view.ids;
            let id = match part {
                Part::A => id_a,
                Part::B => id_b,
            };
            let failed = |what: &str| TrainError::Stopped {
                step: 0,
                detail: format!("the gradient of {} {what}", view.path),
            };
            let grad = grads
                .get::<2>(id)
                .ok_or_else(|| failed("is missing: no training row has a target"))?;
            let [rows, columns] = grad.dims();
            let values = grad.into_data().convert::<f32>().try_into_vec::<f32>();
            let values = values.map_err(|error| failed(&format!("cannot be read: {error:?}")))?;
            if values.iter().any(|value| !value.is_finite()) {
                return Err(failed("is not finite before the first step"));
            }
            let mean = values
                .iter()
                .map(|value| f64::from(*value) / targets.max(1) as f64);
            Ok(DMatrix::from_row_iterator(rows, columns, mean))
        };
        walk::adapters(&model).iter().map(read).collect()
    }
}
