//! Generated pictures: one of 8 patterns of 16 × 16 pixels, with noise.

use burn::{
    data::{
        dataloader::batcher::Batcher,
        dataset::{Dataset, DatasetError},
    },
    tensor::{Device, Int, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Number of patterns.
pub(crate) const CLASSES: usize = 8;
/// Pixels of a picture.
pub(crate) const PIXELS: usize = 16 * 16;
/// Pictures of a batch.
pub(crate) const BATCH: usize = 64;
/// Half width of the uniform noise on every pixel.
const NOISE: f32 = 3.0;

/// A set of pictures, each a function of its index.
#[derive(Clone, Debug)]
pub(crate) struct Pictures {
    patterns: u64,
    first: usize,
    count: usize,
}

/// Pixels and pattern.
#[derive(Clone, Debug)]
pub(crate) struct Picture {
    pixels: Vec<f32>,
    label: usize,
}

impl Pictures {
    /// `count` pictures of the patterns that belong to a seed.
    pub(crate) fn new(patterns: u64, count: usize) -> Self {
        Self {
            patterns,
            first: 0,
            count,
        }
    }

    /// Other pictures of the same patterns.
    pub(crate) fn test_set(&self) -> Self {
        Self {
            first: self.count,
            count: 1024,
            ..self.clone()
        }
    }

    /// Number of pictures.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Picture> {
        (0..self.count).map(|index| self.picture(index)).collect()
    }

    fn picture(&self, index: usize) -> Picture {
        let index = self.first + index;
        let label = index % CLASSES;
        let mut pattern = ChaCha8Rng::seed_from_u64(self.patterns * 1000 + label as u64);
        let mut noise = ChaCha8Rng::seed_from_u64(1_000_000 + index as u64);
        let pixel = |_| {
            let ink: f32 = if pattern.random_bool(0.5) { 0.5 } else { -0.5 };
            ink + noise.random_range(-NOISE..NOISE)
        };
        Picture {
            pixels: (0..PIXELS).map(pixel).collect(),
            label,
        }
    }
}

impl Dataset<Picture> for Pictures {
    fn get(&self, index: usize) -> Result<Picture, DatasetError> {
        Ok(self.picture(index))
    }

    fn len(&self) -> usize {
        self.count
    }
}

/// Pictures on a device.
#[derive(Clone, Debug)]
pub(crate) struct PicturesBatch {
    /// `[batch, pixels]`.
    pub(crate) pixels: Tensor<2>,
    /// `[batch]`.
    pub(crate) labels: Tensor<1, Int>,
}

/// Stacks pictures.
#[derive(Clone, Debug)]
pub(crate) struct PicturesBatcher;

impl PicturesBatcher {
    pub(crate) fn stack(&self, pictures: Vec<Picture>, device: &Device) -> PicturesBatch {
        let count = pictures.len();
        let labels: Vec<i64> = pictures
            .iter()
            .map(|picture| picture.label as i64)
            .collect();
        let pixels: Vec<f32> = pictures
            .into_iter()
            .flat_map(|picture| picture.pixels)
            .collect();
        PicturesBatch {
            pixels: Tensor::from_data(TensorData::new(pixels, [count, PIXELS]), device),
            labels: Tensor::from_data(TensorData::new(labels, [count]), device),
        }
    }
}

impl Batcher<Picture, PicturesBatch> for PicturesBatcher {
    fn batch(&self, pictures: Vec<Picture>, device: &Device) -> PicturesBatch {
        self.stack(pictures, device)
    }
}
