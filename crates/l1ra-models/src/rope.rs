//! Rotary position embedding in Hugging Face's lay-out (`rotate_half`).
//!
//! Source: Su et al., arXiv 2104.09864; `transformers/modeling_rope_utils.py` for the scalings.

use std::f64::consts::PI;

use burn::tensor::{Device, Int, Tensor, TensorData};
use l1ra_ops::Rotary;

use crate::{
    config::{ModelConfig, RopeScaling},
    segments::Segments,
};

/// Inverse frequencies of a head, `[head_dim / 2]`.
pub fn inverse_frequencies(config: &ModelConfig) -> Vec<f32> {
    let half = config.head_dim / 2;
    let plain =
        |i: usize| 1.0 / (config.rope_theta as f32).powf(2.0 * i as f32 / config.head_dim as f32);
    let frequencies = (0..half).map(plain);
    match &config.rope_scaling {
        RopeScaling::Default => frequencies.collect(),
        RopeScaling::Linear { factor } => frequencies.map(|f| f / *factor as f32).collect(),
        RopeScaling::Divisors { divisors } => frequencies
            .zip(divisors)
            .map(|(frequency, divisor)| frequency / divisor)
            .collect(),
        RopeScaling::Llama3 {
            factor,
            low_freq_factor: low,
            high_freq_factor: high,
            original_max_position_embeddings: original,
        } => {
            let original = *original as f64;
            let scaled = |frequency: f32| {
                let wavelength = 2.0 * PI / f64::from(frequency);
                if wavelength < original / high {
                    frequency
                } else if wavelength > original / low {
                    frequency / *factor as f32
                } else {
                    let smooth = (original / wavelength - low) / (high - low);
                    let frequency = f64::from(frequency);
                    ((1.0 - smooth) * frequency / factor + smooth * frequency) as f32
                }
            };
            frequencies.map(scaled).collect()
        }
    }
}

/// Cosines and sines of the positions, shared by all blocks of a forward.
#[derive(Clone, Debug)]
pub struct RopeTables {
    cos: Tensor<4>,
    sin: Tensor<4>,
}

impl RopeTables {
    /// Tables of `rotary`'s positions: `[1, 1, length, head_dim]` each.
    pub fn new(rotary: &Rotary, device: &Device) -> Self {
        let table = |half: &[f32]| {
            // HF repeats the half: the same angle turns feature i and feature i + d/2.
            let rows = half
                .chunks(rotary.half)
                .flat_map(|row| [row, row].concat())
                .collect();
            let shape = [1, 1, rotary.positions(), 2 * rotary.half];
            Tensor::from_data(TensorData::new::<f32, _>(rows, shape), device)
        };
        Self {
            cos: table(&rotary.cos),
            sin: table(&rotary.sin),
        }
    }

    /// Tables for packed rows, whose positions begin at 0 in every text:
    /// `[batch, 1, length, head_dim]` each.
    pub fn packed(rotary: &Rotary, segments: &Segments, device: &Device) -> Self {
        let [batch, length] = segments.dims();
        let plain = Self::new(rotary, device);
        let positions = TensorData::new(segments.positions(), [batch * length]);
        let positions = Tensor::<1, Int>::from_data(positions, device);
        let pick = |table: Tensor<4>| {
            let [_, _, longest, head_dim] = table.dims();
            table
                .reshape([longest, head_dim])
                .select(0, positions.clone())
                .reshape([batch, 1, length, head_dim])
        };
        Self {
            cos: pick(plain.cos),
            sin: pick(plain.sin),
        }
    }

    /// `x·cos + rotate_half(x)·sin` for `x [batch, heads, length, head_dim]`, where
    /// `rotate_half([x₁, x₂]) = [−x₂, x₁]`.
    pub fn rotate(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let first = x.clone().narrow(3, 0, half);
        let second = x.clone().narrow(3, half, half);
        let rotated = Tensor::cat(vec![second.neg(), first], 3);
        x * self.cos.clone() + rotated * self.sin.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(rope_scaling: RopeScaling) -> ModelConfig {
        let value = serde_json::json!({
            "model_type": "llama", "hidden_size": 512, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256,
            "rope_theta": 500000.0
        });
        let config = ModelConfig::from_value(std::path::Path::new("config.json"), value).unwrap();
        ModelConfig {
            rope_scaling,
            ..config
        }
    }

    #[test]
    fn llama3_keeps_high_and_divides_low_frequencies() {
        let plain = inverse_frequencies(&config(RopeScaling::Default));
        let scaled = inverse_frequencies(&config(RopeScaling::Llama3 {
            factor: 8.0,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            original_max_position_embeddings: 8192,
        }));
        assert_eq!(plain[0], scaled[0]);
        assert_eq!(plain[63] / 8.0, scaled[63]);
        assert!(
            scaled[30..45]
                .iter()
                .zip(&plain[30..45])
                .any(|(s, p)| *s < *p && *s > *p / 8.0)
        );
    }

    #[test]
    fn linear_divides_all() {
        let plain = inverse_frequencies(&config(RopeScaling::Default));
        let scaled = inverse_frequencies(&config(RopeScaling::Linear { factor: 4.0 }));
        assert!(
            plain
                .iter()
                .zip(&scaled)
                .all(|(p, s)| (p / 4.0 - s).abs() < 1e-9)
        );
    }
}
