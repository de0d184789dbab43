//! Random weights, to train a small model from nothing.

use std::path::{Path, PathBuf};

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Normal};

use crate::{
    config::ModelConfig,
    error::ModelError,
    weights::{StoredTensor, StoredType, WeightSource, build::tensor_shapes},
};

/// Weights drawn from N(0, σ²) on the CPU; norms are one, biases zero.
#[derive(Debug)]
pub struct RandomWeights {
    path: PathBuf,
    shapes: Vec<(String, Vec<usize>)>,
    seed: u64,
    sigma: f32,
}

impl RandomWeights {
    /// Weights for `config`, from `seed`, with standard deviation `sigma`. Matrices that write to
    /// the residual stream get `sigma / √(2 · layers)` (GPT-2's rule).
    pub fn new(config: &ModelConfig, seed: u64, sigma: f32) -> Self {
        Self {
            path: "(random weights)".into(),
            shapes: tensor_shapes(config),
            seed,
            sigma,
        }
    }

    fn spread(&self, name: &str) -> f32 {
        let layers = self
            .shapes
            .iter()
            .filter(|(name, _)| name.ends_with("o_proj.weight"))
            .count();
        if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            self.sigma / (2.0 * layers as f32).sqrt()
        } else {
            self.sigma
        }
    }
}

impl WeightSource for RandomWeights {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.shapes.iter().map(|(name, _)| name.clone()).collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.shapes
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, shape)| shape.clone())
    }

    fn read(&self, name: &str) -> Result<StoredTensor, ModelError> {
        let position = self.shapes.iter().position(|(known, _)| known == name);
        let position = position.ok_or_else(|| ModelError::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            hint: String::new(),
        })?;
        let shape = self.shapes[position].1.clone();
        let count = shape.iter().product();
        let values: Vec<f32> = if name.contains("norm") {
            vec![1.0; count]
        } else if name.ends_with("bias") {
            vec![0.0; count]
        } else {
            let mut generator = ChaCha8Rng::seed_from_u64(self.seed);
            generator.set_stream(position as u64);
            let normal = Normal::new(0.0, self.spread(name)).map_err(|error| {
                ModelError::format(&self.path, format!("standard deviation: {error}"))
            })?;
            normal.sample_iter(generator).take(count).collect()
        };
        let bytes = values
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        Ok(StoredTensor {
            shape,
            dtype: StoredType::F32,
            bytes,
        })
    }
}
