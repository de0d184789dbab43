//! One step of a tiny model with adapters on its layers, and its gradients.
// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Int, Tensor, TensorData},
    train::TrainStep,
};
use l1ra_core::{L1raConfig, attach_adapters, target::Targets, walk};
use l1ra_models::{CausalLm, ModelConfig, Segments, weights};
use l1ra_train::{
    FineTune,
    data::{Origin, TokenBatch},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The fixture `name` with adapters on the layers that `targets` match.
pub(crate) fn model(name: &str, targets: &str, dropout: f64, device: &Device) -> CausalLm {
    stored(name, targets, dropout, weights::Storage::F32, device)
}

/// The same with its matrices kept as `storage`.
pub(crate) fn stored(
    name: &str,
    targets: &str,
    dropout: f64,
    storage: weights::Storage,
    device: &Device,
) -> CausalLm {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name);
    let config = ModelConfig::from_file(&dir.join("config.json")).unwrap();
    let files = weights::SafetensorsFiles::open(&dir).unwrap();
    let plain = device.clone().inner();
    let model = weights::build_model(&files, &config, storage, &plain).unwrap();
    let mut model = model.fork(device).no_grad();
    let options = L1raConfig {
        rank: 3,
        policy: l1ra_core::Policy::Lasso,
        targets: Targets::from(targets),
        dropout,
        ..Default::default()
    };
    attach_adapters(&mut model, &options, device).unwrap();
    model.map(&mut Fill(ChaCha8Rng::seed_from_u64(4)))
}

/// Gives every B values, so that gradients reach A and the gates.
struct Fill(ChaCha8Rng);

impl burn::module::ModuleMapper for Fill {
    fn map_float<const D: usize>(
        &mut self,
        param: burn::module::Param<Tensor<D>>,
    ) -> burn::module::Param<Tensor<D>> {
        let tensor = param.val();
        if D != 2 || !tensor.is_require_grad() {
            return param;
        }
        let (dims, device) = (tensor.dims(), tensor.device().inner());
        let values: Vec<f32> = (0..dims.iter().product())
            .map(|_| self.0.random_range(-0.3..0.3))
            .collect();
        param.map(|_| {
            let tensor = Tensor::from_data(TensorData::new(values, dims), &device);
            Tensor::from_inner(tensor).require_grad()
        })
    }
}

/// Two rows of 20 tokens, packed of three texts each where asked, two thirds of them targets.
pub(crate) fn batch(packed: bool, device: &Device) -> TokenBatch {
    let mut draw = ChaCha8Rng::seed_from_u64(9);
    let mut ids = |n: usize| {
        (0..n)
            .map(|_| draw.random_range(0..256))
            .collect::<Vec<i64>>()
    };
    let vector = |values: Vec<i64>| {
        let length = values.len();
        Tensor::<1, Int>::from_data(TensorData::new(values, [length]), device)
    };
    let rows: Vec<i64> = (0..40).filter(|place| place % 3 > 0).collect();
    TokenBatch {
        ids: Tensor::from_data(TensorData::new(ids(40), [2, 20]), device),
        targets: Some(vector(ids(rows.len()))),
        target_count: rows.len(),
        rows: Some(vector(rows)),
        token_count: 40,
        segments: packed.then(|| Segments::new([vec![7, 12, 1], vec![3, 17]])),
        origin: Origin::default(),
    }
}

/// Loss and gradients of all adapters, by path.
pub(crate) fn step(model: &FineTune, batch: TokenBatch) -> (f64, Vec<(String, Vec<f32>)>) {
    let mut output = TrainStep::step(model, batch);
    let mut gradients = Vec::new();
    for view in walk::adapters(&model.lm) {
        let mut add = |name: &str, values: Option<Vec<f32>>| {
            gradients.push((format!("{}.{name}", view.path), values.unwrap()));
        };
        let numbers = |data: TensorData| data.try_into_vec::<f32>().unwrap();
        let [a, c, b] = view.ids;
        add(
            "a",
            output.grads.remove::<2>(a).map(|g| numbers(g.into_data())),
        );
        add(
            "c",
            output.grads.remove::<1>(c).map(|g| numbers(g.into_data())),
        );
        add(
            "b",
            output.grads.remove::<2>(b).map(|g| numbers(g.into_data())),
        );
    }
    assert!(output.grads.is_empty());
    (output.item.sum(), gradients)
}
