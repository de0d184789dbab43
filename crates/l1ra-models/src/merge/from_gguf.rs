//! Hugging Face's files from the metadata of a GGUF file.

use serde_json::{Map, Value, json};

use crate::{
    config::{ModelConfig, RopeScaling},
    error::ModelError,
    merge::companions::{Companions, pretty, set_dtype},
    rope::inverse_frequencies,
    weights::{
        StoredType,
        gguf::{GgufFile, SpecialTokenIds},
    },
};

/// Configuration, tokenizer and generation files.
pub(super) fn companions(
    file: &GgufFile,
    config: &ModelConfig,
    dtype: StoredType,
) -> Result<Companions, ModelError> {
    let tokenizer = file.tokenizer()?;
    let text = |id: Option<u32>| id.and_then(|id| tokenizer.id_to_token(id));
    let special = file.special_tokens();
    let serialised = tokenizer
        .to_string(true)
        .map_err(|error| ModelError::Tokenizer(format!("cannot be written: {error}")))?;
    let tokens = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": text(special.bos),
        "eos_token": text(special.eos),
        "unk_token": text(special.unk),
        "pad_token": text(special.pad),
        "add_bos_token": special.add_bos,
        "add_eos_token": special.add_eos,
        "clean_up_tokenization_spaces": false,
        "model_max_length": config.max_position_embeddings,
        "chat_template": file.chat_template(),
    });
    let files = [
        ("config.json", pretty(&configuration(file, config, dtype)?)),
        ("generation_config.json", pretty(&generation(&special))),
        ("tokenizer.json", serialised.into_bytes()),
        ("tokenizer_config.json", pretty(&known(tokens))),
    ];
    Ok(files.map(|(name, bytes)| (name.to_string(), bytes)).into())
}

fn configuration(
    file: &GgufFile,
    config: &ModelConfig,
    dtype: StoredType,
) -> Result<Value, ModelError> {
    let mut value = known(file.config()?);
    if let RopeScaling::Divisors { divisors } = &config.rope_scaling {
        let scaling = llama3(config, divisors).ok_or_else(|| {
            let detail = "its rope_freqs.weight is not the scaling of Llama 3, the only one that a \
                          config.json can express; merge from the Hugging Face folder instead";
            ModelError::format(file.path(), detail)
        })?;
        value["rope_scaling"] = scaling;
    }
    set_dtype(&mut value, dtype);
    Ok(value)
}

/// Llama 3's parameters from the divisors that they give: the factor is the largest one, the others
/// are those of the published models.
fn llama3(config: &ModelConfig, divisors: &[f32]) -> Option<Value> {
    let factor = f64::from(divisors.iter().copied().fold(0.0, f32::max));
    let plain = ModelConfig {
        rope_scaling: RopeScaling::Default,
        ..config.clone()
    };
    let plain = inverse_frequencies(&plain);
    let fits = |original: usize| {
        let scaled = inverse_frequencies(&ModelConfig {
            rope_scaling: RopeScaling::Llama3 {
                factor,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_max_position_embeddings: original,
            },
            ..config.clone()
        });
        let wanted = plain.iter().zip(divisors).map(|(plain, by)| plain / by);
        wanted
            .zip(scaled)
            .all(|(wanted, seen)| (wanted - seen).abs() <= 1e-4 * wanted)
    };
    let original = [8192, 4096, 2048, 16_384, 32_768]
        .into_iter()
        .find(|o| fits(*o))?;
    Some(json!({
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": original,
    }))
}

fn generation(special: &SpecialTokenIds) -> Value {
    known(json!({
        "_from_model_config": true,
        "bos_token_id": special.bos,
        "eos_token_id": special.eos,
        "pad_token_id": special.pad,
    }))
}

/// Without the keys that hold nothing, but for `rope_scaling`, which transformers writes as null.
fn known(value: Value) -> Value {
    let Value::Object(entries) = value else {
        return value;
    };
    let kept = entries
        .into_iter()
        .filter(|(key, value)| !value.is_null() || key == "rope_scaling");
    Value::Object(kept.collect::<Map<_, _>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        let value = json!({
            "model_type": "llama", "hidden_size": 512, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256,
            "rope_theta": 500000.0
        });
        ModelConfig::from_value(std::path::Path::new("config.json"), value).unwrap()
    }

    /// As `convert_hf_to_gguf.py` computes them.
    fn divisors(factor: f64, original: f64) -> Vec<f32> {
        inverse_frequencies(&config())
            .into_iter()
            .map(|frequency| {
                let wavelength = 2.0 * std::f64::consts::PI / f64::from(frequency);
                if wavelength < original / 4.0 {
                    1.0
                } else if wavelength > original {
                    factor as f32
                } else {
                    let smooth = (original / wavelength - 1.0) / 3.0;
                    (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
                }
            })
            .collect()
    }

    #[test]
    fn llama_3_s_parameters_come_back_from_its_divisors() {
        for (factor, original) in [(8.0, 8192), (32.0, 8192)] {
            let found = llama3(&config(), &divisors(factor, f64::from(original))).unwrap();
            assert_eq!(found["factor"], factor);
            assert_eq!(found["original_max_position_embeddings"], original);
        }
        let mut other = divisors(8.0, 8192.0);
        other[20] = 3.0;
        assert_eq!(llama3(&config(), &other), None);
    }
}
