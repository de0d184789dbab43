//! Packed rows give the losses and gradients of the same samples in rows of their own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{path::Path, sync::Arc};

use burn::{
    data::dataloader::DataLoader,
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
};
use l1ra_core::{AdaptedModule, GatedLora, walk};
use l1ra_models::{CausalLm, ModelConfig, Segments, weights};
use l1ra_train::{
    FineTune,
    data::{Order, Packing, PaddingReport, Sample, TokenLoader},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn model(name: &str, device: &Device) -> CausalLm {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name);
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let files = weights::SafetensorsFiles::open(&dir).unwrap();
    weights::build_model(&files, &config, weights::Storage::F32, device).unwrap()
}

/// Samples of 2 to 40 tokens: the sliding window of tiny-mistral is 16.
fn samples(count: usize) -> Vec<Sample> {
    let mut draw = ChaCha8Rng::seed_from_u64(5);
    let sample = |_| {
        let length = draw.random_range(2..=40);
        let ids = (0..length).map(|_| draw.random_range(0..256)).collect();
        let is_target = (0..length).map(|place| place > 0 && draw.random_bool(0.7));
        Sample {
            is_target: is_target.collect(),
            ids,
        }
    };
    (0..count).map(sample).collect()
}

/// Loss over all samples and gradients of all adapters, batch by batch.
fn loss_and_gradients(learner: &FineTune, loader: &TokenLoader) -> (f64, Vec<f32>, usize) {
    let (mut sum, mut targets) = (0.0, 0);
    let mut gradients: Vec<f32> = Vec::new();
    for batch in loader.iter() {
        let output = learner.loss(batch.unwrap());
        sum += output.sum();
        targets += output.targets;
        let grads = output.loss_sum.backward();
        let mut all: Vec<f32> = Vec::new();
        let mut lm = learner.lm.clone();
        lm.for_each_linear(&mut |_, linear| {
            let adapter: &GatedLora = linear.adapter.as_ref().unwrap();
            let matrices = [&adapter.lora_a, &adapter.lora_b];
            for matrix in matrices {
                let grad = matrix.val().grad(&grads).unwrap();
                all.extend(grad.into_data().try_into_vec::<f32>().unwrap());
            }
            let grad = adapter.lora_c.val().grad(&grads).unwrap();
            all.extend(grad.into_data().try_into_vec::<f32>().unwrap());
        });
        if gradients.is_empty() {
            gradients = vec![0.0; all.len()];
        }
        gradients
            .iter_mut()
            .zip(&all)
            .for_each(|(sum, grad)| *sum += grad);
    }
    (sum, gradients, targets)
}

#[rstest::rstest]
#[case("tiny-llama")]
#[case("tiny-mistral")]
fn packed_and_unpacked_agree(#[case] name: &str) {
    let device = Device::flex().autodiff();
    let mut lm = model(name, &device).no_grad();
    let mut draw = ChaCha8Rng::seed_from_u64(6);
    lm.for_each_linear(&mut |_, linear| {
        let [d_in, d_out] = linear.dims();
        let mut values = |shape: &[usize]| {
            let count = shape.iter().product();
            let values: Vec<f32> = (0..count).map(|_| draw.random_range(-0.3..0.3)).collect();
            TensorData::new(values, shape.to_vec())
        };
        let (a, c, b) = (values(&[d_in, 4]), values(&[4]), values(&[4, d_out]));
        linear.adapter = Some(GatedLora::from_data(a, c, b, 1.0, 0.0, &device));
    });
    assert_eq!(walk::adapters(&lm).len(), 15); // Two blocks and the head.
    let learner = FineTune::new(lm, None);

    let samples: Arc<[Sample]> = samples(24).into();
    let packing = Arc::new(Packing::new(&samples, 64, 0));
    assert!(packing.rows().iter().any(|row| row.len() > 2));
    let loader = |batch| TokenLoader::new(samples.clone(), batch, 3, Order::InOrder, &device);
    let apart = loss_and_gradients(&learner, &loader(1));
    let padded = loss_and_gradients(&learner, &loader(8));
    let packed = loss_and_gradients(&learner, &loader(3).with_packing(packing));

    let scale = apart
        .1
        .iter()
        .fold(0.0_f32, |most, grad| most.max(grad.abs()));
    assert!(scale > 0.1, "{scale}");
    for (name, other) in [("padded", padded), ("packed", packed)] {
        assert_eq!(apart.2, other.2);
        let relative = (apart.0 - other.0).abs() / apart.0;
        let differences = apart
            .1
            .iter()
            .zip(&other.1)
            .map(|(one, two)| (one - two).abs());
        let largest = differences.fold(0.0_f32, f32::max) / scale;
        assert!(relative < 1e-5, "{name}: loss {} {}", apart.0, other.0);
        assert!(
            largest < 1e-4,
            "{name}: gradients differ by {largest} of the largest"
        );
    }
}

/// Hidden states of a row.
fn hidden(model: &CausalLm, ids: &[i64], segments: Option<&[usize]>) -> Vec<f32> {
    let ids = TensorData::new(ids.to_vec(), [1, ids.len()]);
    let ids = Tensor::<2, Int>::from_data(ids, &Device::flex());
    let hidden = match segments {
        Some(lengths) => model.hidden_packed(ids, &Segments::new([lengths.to_vec()])),
        None => model.hidden(ids, None),
    };
    hidden.into_data().try_into_vec().unwrap()
}

#[rstest::rstest]
#[case("tiny-llama")]
#[case("tiny-mistral")]
fn a_neighbour_is_not_seen(#[case] name: &str) {
    let model = model(name, &Device::flex());
    let text = |seed: i64, length: i64| (0..length).map(|i| (i * 31 + seed * 17) % 256).collect();
    let (one, two, other): (Vec<i64>, Vec<i64>, Vec<i64>) = (text(1, 25), text(2, 30), text(3, 25));
    let width = hidden(&model, &one, None).len() / one.len();
    let packed = |first: &[i64]| hidden(&model, &[first, &two].concat(), Some(&[25, 30]));
    let close = |one: &[f32], other: &[f32]| {
        assert_eq!(one.len(), other.len());
        one.iter().zip(other).all(|(a, b)| (a - b).abs() < 1e-5)
    };
    let row = packed(&one);
    assert!(close(&row[..25 * width], &hidden(&model, &one, None)));
    assert!(close(&row[25 * width..], &hidden(&model, &two, None)));
    // To the bit: another neighbour changes nothing.
    assert!(packed(&other)[25 * width..] == row[25 * width..]);
    // One row without segments would have seen it.
    let mixed = hidden(&model, &[one.clone(), two.clone()].concat(), None);
    assert!(!close(&mixed[25 * width..], &row[25 * width..]));
}

#[test]
fn packing_saves_padding() {
    let samples = samples(400);
    let packing = Packing::new(&samples, 128, 0);
    let report = PaddingReport::new(&samples, Some(&packing), 8, Order::Shuffled { seed: 0 });
    let packed = report.packed.unwrap();
    assert!(report.unpacked > 0.3 && packed.padding < 0.03, "{report}");
}
