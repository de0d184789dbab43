//! Initial values of adapters, drawn on the CPU so that every backend starts equal.

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal, StandardUniform};

use crate::config::Init;

/// Where the values of a new rank's column of `A` come from.
pub trait Noise: Send {
    /// `d_in` unit draws of `init` (see [`Init::scale`]) for the `count`-th rank (0-based, over the whole
    /// run) that is grown, in the adapter at `path`.
    fn column(&mut self, path: &str, count: usize, d_in: usize, init: Init) -> Vec<f32>;
}

/// Draws from a seed, a path and a counter: the same on every backend, whatever
/// the order in which adapters are made.
#[derive(Clone, Debug)]
pub struct SeededNoise {
    seed: u64,
}

impl SeededNoise {
    /// A source for `seed`.
    pub fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// `rows · columns` unit draws of `init` for the initial `A` of the adapter at `path`.
    pub fn matrix(&self, path: &str, rows: usize, columns: usize, init: Init) -> Vec<f32> {
        draws(self.generator("init", path, 0), rows * columns, init)
    }

    /// `rows · columns` standard-normal values for a measurement of the layer at `path`.
    pub fn sketch(&self, path: &str, rows: usize, columns: usize) -> Vec<f32> {
        let generator = self.generator("sketch", path, 0);
        draws(generator, rows * columns, Init::Gaussian)
    }

    fn generator(&self, purpose: &str, path: &str, count: usize) -> ChaCha8Rng {
        let mut hash = fnv1a(FNV_OFFSET, purpose.as_bytes());
        hash = fnv1a(hash, &[0]);
        hash = fnv1a(hash, path.as_bytes());
        hash = fnv1a(hash, &[0]);
        hash = fnv1a(hash, &(count as u64).to_le_bytes());
        hash = fnv1a(hash, &self.seed.to_le_bytes());
        ChaCha8Rng::seed_from_u64(hash)
    }
}

impl Noise for SeededNoise {
    fn column(&mut self, path: &str, count: usize, d_in: usize, init: Init) -> Vec<f32> {
        draws(self.generator("grow", path, count), d_in, init)
    }
}

/// Standard-normal values, or uniform ones in `[-1, 1)`.
fn draws(generator: ChaCha8Rng, count: usize, init: Init) -> Vec<f32> {
    match init {
        Init::Gaussian => StandardNormal.sample_iter(generator).take(count).collect(),
        Init::Kaiming => StandardUniform
            .sample_iter(generator)
            .take(count)
            .map(|unit: f32| 2.0 * unit - 1.0)
            .collect(),
    }
}

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;

/// FNV-1a, 64 bits: stable over Rust versions and platforms, unlike the standard hasher.
fn fnv1a(hash: u64, bytes: &[u8]) -> u64 {
    bytes.iter().fold(hash, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_depend_on_seed_path_and_count_only() {
        let mut noise = SeededNoise::new(7);
        let first = noise.column("a.b", 3, 4, Init::Gaussian);
        assert_eq!(
            first,
            SeededNoise::new(7).column("a.b", 3, 4, Init::Gaussian)
        );
        assert_ne!(first, noise.column("a.c", 3, 4, Init::Gaussian));
        assert_ne!(first, noise.column("a.b", 4, 4, Init::Gaussian));
        assert_ne!(
            first,
            SeededNoise::new(8).column("a.b", 3, 4, Init::Gaussian)
        );
    }

    #[test]
    fn values_are_standard_normal() {
        let values = SeededNoise::new(0).matrix("x", 100, 100, Init::Gaussian);
        let mean = values.iter().sum::<f32>() / 1e4;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1e4;
        assert!(
            mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05,
            "{mean} {variance}"
        );
    }
    #[test]
    fn kaiming_draws_are_uniform() {
        let values = SeededNoise::new(0).matrix("x", 100, 100, Init::Kaiming);
        let mean = values.iter().sum::<f32>() / 1e4;
        let variance = values.iter().map(|v| v * v).sum::<f32>() / 1e4;
        assert!(values.iter().all(|value| value.abs() <= 1.0));
        assert!(
            mean.abs() < 0.02 && (variance - 1.0 / 3.0).abs() < 0.01,
            "{mean} {variance}"
        );
    }
}
