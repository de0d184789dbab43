//! What the tests share: seeded numbers, comparisons and a small module with adapters.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
// Every test file is a program of its own and uses a part of this.
#![allow(dead_code)]

use burn::{
    module::{Module, ModuleMapper, Param},
    tensor::{Device, Tensor, TensorData},
};
use l1ra_core::{
    AdaptedLinear, AdaptedModule, GatedLora, L1raConfig, attach_adapters, parse_device,
    walk::{self, AdapterData},
};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Every CPU backend of this build, by name.
pub(crate) fn devices() -> Vec<(&'static str, Device)> {
    ["flex", "ndarray"]
        .map(|name| (name, parse_device(name).unwrap()))
        .to_vec()
}

pub(crate) fn flex() -> Device {
    parse_device("flex").unwrap()
}

/// Seeded plain numbers.
pub(crate) struct Numbers(ChaCha8Rng);

impl Numbers {
    pub(crate) fn new(seed: u64) -> Self {
        Self(ChaCha8Rng::seed_from_u64(seed))
    }

    /// A number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.0.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number in `low..=high`.
    pub(crate) fn whole(&mut self, low: usize, high: usize) -> usize {
        low + (self.0.next_u64() % (high - low + 1) as u64) as usize
    }

    /// `count` numbers in `[-1, 1)`.
    pub(crate) fn signed(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| (2.0 * self.unit() - 1.0) as f32)
            .collect()
    }

    /// `count` gates in `[0, 1)`, about a third of them exactly zero.
    pub(crate) fn gates(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| {
                if self.unit() < 0.33 {
                    0.0
                } else {
                    self.unit() as f32
                }
            })
            .collect()
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.whole(0, last));
        }
    }
}

pub(crate) fn tensor<const D: usize>(
    values: &[f32],
    shape: [usize; D],
    device: &Device,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), device)
}

pub(crate) fn values<const D: usize>(tensor: &Tensor<D>) -> Vec<f32> {
    tensor
        .clone()
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .unwrap()
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Every element within `bound` times the largest of `want`.
#[track_caller]
pub(crate) fn assert_close<G: Into<f64> + Copy, W: Into<f64> + Copy>(
    what: &str,
    got: &[G],
    want: &[W],
    bound: f64,
) {
    assert_eq!(got.len(), want.len(), "{what}: number of values");
    let worst = difference(got, want);
    assert!(
        worst <= bound,
        "{what}: differs by {worst:e} of the largest value; bound {bound:e}"
    );
}

/// The largest difference, relative to the largest of `want`.
pub(crate) fn difference<G: Into<f64> + Copy, W: Into<f64> + Copy>(got: &[G], want: &[W]) -> f64 {
    let size = want.iter().map(|w| (*w).into().abs()).fold(0.0, f64::max);
    let pairs = got.iter().zip(want);
    let gap = pairs
        .map(|(g, w)| ((*g).into() - (*w).into()).abs())
        .fold(0.0, f64::max);
    if gap == 0.0 {
        0.0
    } else {
        gap / size.max(f64::MIN_POSITIVE)
    }
}

/// A model of three linear layers, two of them with a bias, all of other sizes.
#[derive(Module, Debug)]
pub(crate) struct Small {
    pub(crate) layers: Vec<AdaptedLinear>,
    pub(crate) head: AdaptedLinear,
}

pub(crate) const SMALL: [(&str, [usize; 2]); 3] =
    [("layers.0", [5, 7]), ("layers.1", [7, 6]), ("head", [6, 4])];

impl AdaptedModule for Small {
    fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut AdaptedLinear)) {
        for (index, layer) in self.layers.iter_mut().enumerate() {
            visit(&format!("layers.{index}"), layer);
        }
        visit("head", &mut self.head);
    }
}

impl Small {
    pub(crate) fn new(seed: u64, device: &Device) -> Self {
        let mut numbers = Numbers::new(seed);
        let mut layer = |[d_in, d_out]: [usize; 2], bias: bool| {
            let weight = tensor(&numbers.signed(d_in * d_out), [d_in, d_out], device);
            let bias = bias.then(|| tensor(&numbers.signed(d_out), [d_out], device));
            AdaptedLinear::new(weight, bias)
        };
        let layers = vec![layer(SMALL[0].1, true), layer(SMALL[1].1, false)];
        Self {
            layers,
            head: layer(SMALL[2].1, true),
        }
    }

    /// With fresh adapters of the ranks that are given.
    pub(crate) fn adapted(seed: u64, ranks: [usize; 3], device: &Device) -> (Self, L1raConfig) {
        let mut config = L1raConfig {
            rank: ranks[0],
            alpha: 6.0,
            seed,
            policy: l1ra_core::Policy::Lasso,
            budget: Some(l1ra_core::BudgetUnit::Ranks),
            ..Default::default()
        };
        for ((path, _), rank) in SMALL.iter().zip(ranks) {
            config.rank_pattern.insert(path.replace('.', r"\."), rank);
        }
        let mut module = Self::new(seed, device);
        attach_adapters(&mut module, &config, device).unwrap();
        (module, config)
    }

    /// With trained-looking adapters: A, B and the gates are all random.
    pub(crate) fn trained(seed: u64, ranks: [usize; 3], device: &Device) -> (Self, L1raConfig) {
        let (module, config) = Self::adapted(seed, ranks, device);
        let mut scramble = Scramble {
            path: Vec::new(),
            numbers: Numbers::new(seed ^ 0x5eed),
        };
        (module.map(&mut scramble), config)
    }

    pub(crate) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let hidden = self
            .layers
            .iter()
            .fold(x, |x, layer| layer.forward(x).tanh());
        self.head.forward(hidden)
    }

    pub(crate) fn data(&self) -> Vec<AdapterData> {
        walk::adapters(self)
            .iter()
            .map(|view| view.data().unwrap())
            .collect()
    }
}

/// Puts random values on A, B and the gates.
struct Scramble {
    path: Vec<String>,
    numbers: Numbers,
}

impl ModuleMapper for Scramble {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let name = self.path.last().cloned().unwrap_or_default();
        let shape = param.val().dims();
        let count = shape.iter().product();
        let new = match name.as_str() {
            "lora_a" | "lora_b" => self.numbers.signed(count),
            "lora_c" => self.numbers.gates(count),
            _ => return param,
        };
        set(param, &new)
    }
}

/// A parameter with other values, its id and gradient setting kept.
pub(crate) fn set<const D: usize>(param: Param<Tensor<D>>, new: &[f32]) -> Param<Tensor<D>> {
    let tracked = param.is_require_grad();
    param.map(|old| {
        let next = tensor(new, old.dims(), &old.device().inner());
        let next = if old.is_autodiff() {
            next.autodiff()
        } else {
            next
        };
        next.set_require_grad(tracked)
    })
}

/// An adapter of random values.
pub(crate) fn random_adapter(
    path: &str,
    dims: [usize; 2],
    rank: usize,
    n: &mut Numbers,
) -> AdapterData {
    let [d_in, d_out] = dims;
    AdapterData {
        path: path.into(),
        d_in,
        d_out,
        a: n.signed(d_in * rank),
        c: n.gates(rank),
        b: n.signed(rank * d_out),
        scale: (0.1 + 3.0 * n.unit()) as f32,
    }
}

/// `s · (A ∘ c)·B` in f64, `[d_in, d_out]` row-major.
pub(crate) fn dense(adapter: &AdapterData) -> Vec<f64> {
    let AdapterData {
        d_in,
        d_out,
        a,
        c,
        b,
        scale,
        ..
    } = adapter;
    let rank = c.len();
    let mut delta = vec![0.0; d_in * d_out];
    for i in 0..*d_in {
        for k in 0..rank {
            let left = f64::from(*scale) * f64::from(a[i * rank + k]) * f64::from(c[k]);
            for o in 0..*d_out {
                delta[i * d_out + o] += left * f64::from(b[k * d_out + o]);
            }
        }
    }
    delta
}

/// The module that [`random_adapter`]'s values make.
pub(crate) fn gated(adapter: &AdapterData, device: &Device) -> GatedLora {
    let AdapterData {
        d_in,
        d_out,
        a,
        c,
        b,
        scale,
        ..
    } = adapter;
    let rank = c.len();
    GatedLora::from_data(
        TensorData::new(a.clone(), [*d_in, rank]),
        TensorData::new(c.clone(), [rank]),
        TensorData::new(b.clone(), [rank, *d_out]),
        *scale,
        0.0,
        device,
    )
}
