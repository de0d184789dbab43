//! Hugging Face `config.json`, their names kept, and [`ModelConfig`], what the model is built from.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{error::ModelError, json};

/// What a file that is read here should be.
const A_CONFIG: &str = "model config";

/// `config.json` as Hugging Face writes it for Llama and Mistral.
#[derive(Clone, Debug, Deserialize)]
pub struct HfConfig {
    /// Family: `llama` or `mistral`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; absent: as many as query heads.
    pub num_key_value_heads: Option<usize>,
    /// Width of a head; absent: `hidden_size / num_attention_heads`.
    pub head_dim: Option<usize>,
    /// Vocabulary.
    pub vocab_size: usize,
    /// Longest sequence that the model was trained for.
    #[serde(default = "default_max_positions")]
    pub max_position_embeddings: usize,
    /// ε of the norms.
    #[serde(default = "default_eps")]
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies (older files).
    pub rope_theta: Option<f64>,
    /// Scaling of the rotary frequencies (older files).
    pub rope_scaling: Option<Value>,
    /// Base and scaling of the rotary frequencies (newer files).
    pub rope_parameters: Option<Value>,
    /// Keys that a query sees; absent: all before it.
    pub sliding_window: Option<usize>,
    /// Whether sliding-window attention is used where the file says so on its own.
    pub use_sliding_window: Option<bool>,
    /// Whether the output head is the embedding.
    #[serde(default)]
    pub tie_word_embeddings: bool,
    /// Biases on q, k, v and o.
    #[serde(default)]
    pub attention_bias: bool,
    /// Biases on gate, up and down.
    #[serde(default)]
    pub mlp_bias: bool,
    /// Activation of the MLP.
    #[serde(default = "default_activation")]
    pub hidden_act: String,
    /// First token of a text.
    pub bos_token_id: Option<Value>,
    /// Token, or tokens, that end a text.
    pub eos_token_id: Option<Value>,
    /// Token for padding.
    pub pad_token_id: Option<Value>,
    /// Set in quantised files, which are refused.
    pub quantization_config: Option<Value>,
    /// Share of a head that is rotated; only 1 is supported.
    pub partial_rotary_factor: Option<f64>,
    /// Must be 1 where it is given.
    pub pretraining_tp: Option<usize>,
}

/// Larger sizes are damage, no model: products of two of them still fit into 64 bits.
const MAX_SIZE: usize = 1 << 24;
/// Bytes of the file; those of published models have a few thousand.
const MAX_BYTES: usize = 1 << 20;
const MAX_LAYERS: usize = 1 << 10;
/// Parameters of a whole model: far more than a machine holds, and times their bytes still a number.
const MAX_PARAMETERS: u64 = 1 << 44;

fn default_max_positions() -> usize {
    2048
}

fn default_eps() -> f64 {
    1e-6
}

fn default_activation() -> String {
    "silu".into()
}

/// How the rotary frequencies are stretched beyond the length of the training.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "rope_type", rename_all = "lowercase")]
pub enum RopeScaling {
    /// Not at all.
    Default,
    /// Every frequency divided by `factor`.
    Linear {
        /// Divisor.
        factor: f64,
    },
    /// Llama 3.1: low frequencies divided by `factor`, high ones kept, a ramp between.
    Llama3 {
        /// Divisor of the low frequencies.
        factor: f64,
        /// Wavelengths over `original / low_freq_factor` are low.
        low_freq_factor: f64,
        /// Wavelengths under `original / high_freq_factor` are high.
        high_freq_factor: f64,
        /// Length of the original training.
        original_max_position_embeddings: usize,
    },
    /// One divisor for each frequency, as GGUF files of Llama 3.1 store it.
    Divisors {
        /// `head_dim / 2` numbers.
        divisors: Vec<f32>,
    },
}

/// What a model is built from: a checked [`HfConfig`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelConfig {
    /// Family: `llama` or `mistral`.
    pub model_type: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of blocks.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads.
    pub num_key_value_heads: usize,
    /// Width of a head.
    pub head_dim: usize,
    /// Vocabulary.
    pub vocab_size: usize,
    /// Longest sequence that the model was trained for.
    pub max_position_embeddings: usize,
    /// ε of the norms.
    pub rms_norm_eps: f64,
    /// Base of the rotary frequencies.
    pub rope_theta: f64,
    /// Scaling of the rotary frequencies.
    pub rope_scaling: RopeScaling,
    /// Keys that a query sees, itself included; `None`: all before it.
    pub sliding_window: Option<usize>,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Biases on q, k, v and o.
    pub attention_bias: bool,
    /// Biases on gate, up and down.
    pub mlp_bias: bool,
    /// First token of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// Token for padding.
    pub pad_token_id: Option<u32>,
}

impl ModelConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// A file that is missing or no JSON, or an architecture or option that is not supported.
    pub fn from_file(path: &Path) -> Result<Self, ModelError> {
        if !path.is_file() {
            let detail = "no such file; give the config.json of a Hugging Face model";
            return Err(ModelError::format(path, detail));
        }
        let bytes = json::read(path)?;
        if bytes.len() > MAX_BYTES {
            let seen = bytes.len();
            let detail = format!("has {seen} bytes; a model config has {MAX_BYTES} at most");
            return Err(ModelError::format(path, detail));
        }
        let family: Family = json::parse(path, &bytes, A_CONFIG)?;
        check_family(path, family.model_type.as_ref())?;
        json::parse::<HfConfig>(path, &bytes, A_CONFIG)?.into_config(path)
    }

    /// Checks a `config.json` that is in memory; `path` is for messages.
    ///
    /// # Errors
    /// As [`from_file`](Self::from_file).
    pub fn from_value(path: &Path, value: Value) -> Result<Self, ModelError> {
        check_family(path, value.get("model_type"))?;
        let config: HfConfig = json::typed(path, value, A_CONFIG)?;
        config.into_config(path)
    }
}

/// What decides whether the rest is asked for.
#[derive(Deserialize)]
struct Family {
    model_type: Option<Value>,
}

/// The family first: another one may lack keys that are required here.
fn check_family(path: &Path, family: Option<&Value>) -> Result<(), ModelError> {
    let seen = family.and_then(Value::as_str).unwrap_or("(none)");
    if matches!(seen, "llama" | "mistral") {
        return Ok(());
    }
    let known = "llama, mistral";
    Err(ModelError::unsupported(path, "model_type", seen, known))
}

impl HfConfig {
    /// Checks the values and fills in what may be absent; `path` is for messages.
    ///
    /// # Errors
    /// An option that is not supported, or sizes that do not fit together.
    pub fn into_config(self, path: &Path) -> Result<ModelConfig, ModelError> {
        self.refuse_unsupported(path)?;
        let heads = self.num_attention_heads;
        let kv_heads = self.num_key_value_heads.unwrap_or(heads);
        let sizes = [
            self.hidden_size,
            self.intermediate_size,
            self.num_hidden_layers,
            heads,
        ];
        if sizes.contains(&0)
            || kv_heads == 0
            || self.vocab_size == 0
            || !heads.is_multiple_of(kv_heads)
        {
            let detail = format!(
                "sizes do not fit together: hidden_size {}, intermediate_size {}, \
                 num_hidden_layers {}, num_attention_heads {heads}, num_key_value_heads {kv_heads}, \
                 vocab_size {}; all must be positive and heads a multiple of key/value heads",
                self.hidden_size, self.intermediate_size, self.num_hidden_layers, self.vocab_size
            );
            return Err(ModelError::format(path, detail));
        }
        let head_dim = self.head_dim.unwrap_or(self.hidden_size / heads);
        self.refuse_impossible(path, head_dim)?;
        if head_dim == 0 || !head_dim.is_multiple_of(2) {
            return Err(ModelError::unsupported(
                path,
                "head_dim",
                head_dim,
                "even numbers",
            ));
        }
        if !(self.rms_norm_eps.is_finite() && self.rms_norm_eps > 0.0) {
            let detail = format!("rms_norm_eps = {}: a positive number", self.rms_norm_eps);
            return Err(ModelError::format(path, detail));
        }
        let (rope_theta, rope_scaling) = self.rope(path)?;
        let windowed = self.use_sliding_window.unwrap_or(true);
        let ids = |key: &str, value: &Option<Value>| token_ids(path, key, value.as_ref());
        Ok(ModelConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            num_hidden_layers: self.num_hidden_layers,
            num_attention_heads: heads,
            num_key_value_heads: kv_heads,
            head_dim,
            vocab_size: self.vocab_size,
            max_position_embeddings: self.max_position_embeddings,
            rms_norm_eps: self.rms_norm_eps,
            rope_theta,
            rope_scaling,
            // Llama files may carry the key without meaning it: only Mistral uses it.
            sliding_window: self
                .sliding_window
                .filter(|window| windowed && *window > 0 && self.model_type == "mistral"),
            tie_word_embeddings: self.tie_word_embeddings,
            attention_bias: self.attention_bias,
            mlp_bias: self.mlp_bias,
            bos_token_id: ids("bos_token_id", &self.bos_token_id)?.first().copied(),
            eos_token_ids: ids("eos_token_id", &self.eos_token_id)?,
            pad_token_id: ids("pad_token_id", &self.pad_token_id)?.first().copied(),
            model_type: self.model_type,
        })
    }

    /// Sizes of no model, before anything is multiplied or allocated by them.
    fn refuse_impossible(&self, path: &Path, head_dim: usize) -> Result<(), ModelError> {
        let sizes = [
            ("hidden_size", self.hidden_size, MAX_SIZE),
            ("intermediate_size", self.intermediate_size, MAX_SIZE),
            ("num_hidden_layers", self.num_hidden_layers, MAX_LAYERS),
            ("num_attention_heads", self.num_attention_heads, MAX_SIZE),
            ("head_dim", head_dim, MAX_SIZE),
            ("vocab_size", self.vocab_size, MAX_SIZE),
        ];
        for (key, size, limit) in sizes {
            if size > limit {
                let detail = format!("{key} = {size}: at most {limit} is possible");
                return Err(ModelError::format(path, detail));
            }
        }
        let wide = |size: usize| size as u64;
        let queries = wide(self.num_attention_heads) * wide(head_dim);
        if queries > wide(MAX_SIZE) {
            let detail = format!(
                "num_attention_heads = {} and head_dim = {head_dim}: their product may be {MAX_SIZE} \
                 at most",
                self.num_attention_heads
            );
            return Err(ModelError::format(path, detail));
        }
        // Sizes are bounded: this fits into 64 bits. Keys and values are no wider than queries.
        let layer = wide(self.hidden_size) * (4 * queries + 3 * wide(self.intermediate_size));
        let ends = 2 * wide(self.vocab_size) * wide(self.hidden_size);
        let parameters = wide(self.num_hidden_layers) * layer + ends;
        if parameters > MAX_PARAMETERS {
            let detail = format!(
                "its sizes make a model of {parameters} parameters; at most {MAX_PARAMETERS} are \
                 possible"
            );
            return Err(ModelError::format(path, detail));
        }
        Ok(())
    }

    fn refuse_unsupported(&self, path: &Path) -> Result<(), ModelError> {
        let refuse = |what: &str, seen: String, supported: &str| {
            Err(ModelError::unsupported(path, what, seen, supported))
        };
        if self.hidden_act != "silu" {
            return refuse("hidden_act", self.hidden_act.clone(), "silu");
        }
        if let Some(quantization) = &self.quantization_config {
            let method = quantization.get("quant_method").and_then(Value::as_str);
            let seen = method.unwrap_or("(unnamed)").to_string();
            return refuse(
                "quantization_config",
                seen,
                "unquantised safetensors, or a GGUF file",
            );
        }
        if let Some(factor) = self.partial_rotary_factor.filter(|factor| *factor != 1.0) {
            return refuse("partial_rotary_factor", factor.to_string(), "1");
        }
        if let Some(parallel) = self.pretraining_tp.filter(|parallel| *parallel > 1) {
            return refuse("pretraining_tp", parallel.to_string(), "1");
        }
        Ok(())
    }

    /// Base and scaling of the rotary frequencies, from the older or the newer keys.
    fn rope(&self, path: &Path) -> Result<(f64, RopeScaling), ModelError> {
        let given = [
            ("rope_parameters", &self.rope_parameters),
            ("rope_scaling", &self.rope_scaling),
        ];
        let given = given
            .into_iter()
            .find_map(|(key, value)| Some((key, value.as_ref().filter(|v| !v.is_null())?)));
        let wrong = |detail: String| ModelError::format(path, detail);
        if let Some((key, value)) = given.filter(|(_, value)| !value.is_object()) {
            return Err(wrong(format!(
                "`{key}` is {value}; expected an object or null"
            )));
        }
        let (key, scaling) = given.map_or(("rope_scaling", None), |(key, v)| (key, Some(v)));
        let within = |name: &str| {
            let value = scaling.and_then(|value| value.get(name));
            value.filter(|value| !value.is_null())
        };
        let number = |name: &str| {
            let seen = within(name);
            let number = seen.and_then(Value::as_f64);
            number.filter(|n| n.is_finite() && *n > 0.0).ok_or_else(|| {
                let seen = seen.map_or("missing".into(), |value| format!("{value}"));
                wrong(format!(
                    "`{key}.{name}` is {seen}; expected a positive number"
                ))
            })
        };
        let theta = match within("rope_theta") {
            Some(_) => number("rope_theta")?,
            None => self.rope_theta.unwrap_or(10_000.0),
        };
        if !(theta.is_finite() && theta > 0.0) {
            return Err(wrong(format!("rope_theta = {theta}: a positive number")));
        }
        let kind = within("rope_type").or(within("type"));
        let kind =
            match kind {
                Some(kind) => Some(kind.as_str().ok_or_else(|| {
                    wrong(format!("`{key}.rope_type` is {kind}; expected a text"))
                })?),
                None => None,
            };
        let scaling = match kind.unwrap_or("default") {
            "default" => RopeScaling::Default,
            "linear" => RopeScaling::Linear {
                factor: number("factor")?,
            },
            "llama3" => {
                let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
                if low >= high {
                    return Err(wrong(format!(
                        "`{key}` has the low_freq_factor {low} and the high_freq_factor {high}; \
                         expected the second to be larger"
                    )));
                }
                RopeScaling::Llama3 {
                    factor: number("factor")?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_max_position_embeddings: number("original_max_position_embeddings")?
                        as usize,
                }
            }
            other => {
                let known = "default, linear, llama3";
                return Err(ModelError::unsupported(path, "rope scaling", other, known));
            }
        };
        Ok((theta, scaling))
    }
}

/// One id, several, or none; negative ones, which older files have for none, are left out.
pub(crate) fn token_ids(
    path: &Path,
    key: &str,
    value: Option<&Value>,
) -> Result<Vec<u32>, ModelError> {
    let values = match value {
        None | Some(Value::Null) => &[],
        Some(Value::Array(values)) => values.as_slice(),
        Some(value) => std::slice::from_ref(value),
    };
    let mut ids = Vec::new();
    for value in values {
        if value.as_i64().is_some_and(|id| id < 0) {
            continue;
        }
        let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
        ids.push(id.ok_or_else(|| {
            let detail = format!("`{key}` holds {value}; expected ids of tokens");
            ModelError::format(path, detail)
        })?);
    }
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn minimal() -> Value {
        json!({
            "model_type": "llama", "hidden_size": 64, "intermediate_size": 128,
            "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 256
        })
    }

    fn parse(value: Value) -> Result<ModelConfig, String> {
        ModelConfig::from_value(Path::new("config.json"), value).map_err(|error| error.to_string())
    }

    fn with(key: &str, entry: Value) -> Value {
        let mut value = minimal();
        value[key] = entry;
        value
    }

    #[test]
    fn absent_keys_have_the_family_s_defaults() {
        let config = parse(minimal()).unwrap();
        assert_eq!((config.num_key_value_heads, config.head_dim), (4, 16));
        assert_eq!(config.rope_theta, 10_000.0);
        assert_eq!(config.rope_scaling, RopeScaling::Default);
    }

    #[test]
    fn both_forms_of_rope_keys_are_read() {
        let llama3 = json!({"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192});
        let older = parse(with("rope_scaling", llama3.clone())).unwrap();
        let mut newer = llama3;
        newer["rope_theta"] = json!(500000.0);
        let newer = parse(with("rope_parameters", newer)).unwrap();
        assert_eq!(older.rope_scaling, newer.rope_scaling);
        assert_eq!(newer.rope_theta, 500_000.0);
    }

    #[test]
    fn what_is_not_supported_is_refused_by_name() {
        let refused = [
            (
                "model_type",
                json!("gpt2"),
                "model_type is not supported: found `gpt2`",
            ),
            (
                "hidden_act",
                json!("gelu"),
                "hidden_act is not supported: found `gelu`",
            ),
            (
                "rope_scaling",
                json!({"type": "yarn", "factor": 2}),
                "found `yarn`",
            ),
            (
                "quantization_config",
                json!({"quant_method": "gptq"}),
                "found `gptq`",
            ),
            ("num_key_value_heads", json!(3), "sizes do not fit together"),
        ];
        for (key, entry, message) in refused {
            let error = parse(with(key, entry)).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn the_window_is_mistral_s() {
        let mut value = with("sliding_window", json!(16));
        assert_eq!(parse(value.clone()).unwrap().sliding_window, None);
        value["model_type"] = json!("mistral");
        assert_eq!(parse(value).unwrap().sliding_window, Some(16));
    }
}
