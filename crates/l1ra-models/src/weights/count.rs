//! [`ParameterCount`]: parameters of a model, from its configuration alone.

use serde::Serialize;

use crate::{config::ModelConfig, weights::tensor_shapes};

/// Parameters of a model and its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ParameterCount {
    /// The token embedding.
    pub embedding: u64,
    /// All blocks and the final norm.
    pub layers: u64,
    /// The output head; 0 where it is the embedding.
    pub head: u64,
    /// All of them.
    pub total: u64,
}

/// Counts the parameters that a model of `config` has. No file is needed.
pub fn parameter_count(config: &ModelConfig) -> ParameterCount {
    let mut count = ParameterCount {
        embedding: 0,
        layers: 0,
        head: 0,
        total: 0,
    };
    for (name, shape) in tensor_shapes(config) {
        let values: u64 = shape.iter().map(|length| *length as u64).product();
        match name.as_str() {
            "model.embed_tokens.weight" => count.embedding += values,
            "lm_head.weight" => count.head += values,
            _ => count.layers += values,
        }
        count.total += values;
    }
    count
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use super::*;

    #[test]
    fn published_sizes_come_out() {
        // Llama 3.1 8B has 8,030,261,248 parameters, SmolLM2-135M 134,515,008, Mistral 7B v0.3
        // 7,248,023,552 (their model cards).
        let llama = json!({
            "model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 128256
        });
        let smol = json!({
            "model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
            "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
            "vocab_size": 49152, "tie_word_embeddings": true
        });
        let mistral = json!({
            "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336,
            "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
            "vocab_size": 32768
        });
        for (config, total) in [
            (llama, 8_030_261_248),
            (smol, 134_515_008),
            (mistral, 7_248_023_552),
        ] {
            let config = ModelConfig::from_value(Path::new("config.json"), config).unwrap();
            let count = parameter_count(&config);
            assert_eq!(count.total, total);
            assert_eq!(count.embedding + count.layers + count.head, total);
        }
    }
}
