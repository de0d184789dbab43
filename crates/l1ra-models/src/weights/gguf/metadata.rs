//! Configuration and special tokens from the metadata.

use serde_json::{Map, Value, json};

use super::{GgufFile, GgufValue};
use crate::error::ModelError;

/// Special tokens as the file names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialTokenIds {
    /// First token of a text.
    pub bos: Option<u32>,
    /// Token that ends a text.
    pub eos: Option<u32>,
    /// Token for what the vocabulary does not have.
    pub unk: Option<u32>,
    /// Token for padding.
    pub pad: Option<u32>,
    /// Whether a text begins with `bos`.
    pub add_bos: Option<bool>,
    /// Whether a text ends with `eos`.
    pub add_eos: Option<bool>,
}

impl GgufFile {
    /// The configuration, as Hugging Face's `config.json` would say it.
    ///
    /// # Errors
    /// An architecture other than `llama`, or a key that is missing.
    pub fn config(&self) -> Result<Value, ModelError> {
        let architecture = self.text("general.architecture")?;
        if architecture != "llama" {
            let what = "general.architecture";
            return Err(ModelError::unsupported(
                &self.path,
                what,
                architecture,
                "llama",
            ));
        }
        let hidden = self.number("embedding_length")?;
        let heads = self.number("attention.head_count")?;
        let head_dim = match self.optional("attention.key_length") {
            Some(length) => length,
            None => match self.optional("rope.dimension_count") {
                Some(count) => count,
                None => hidden / heads.max(1),
            },
        };
        if let Some(count) = self.optional("expert_count").filter(|count| *count > 0) {
            let what = "llama.expert_count";
            return Err(ModelError::unsupported(&self.path, what, count, "0"));
        }
        let window = self
            .optional("attention.sliding_window")
            .filter(|window| *window > 0);
        let mut config = Map::new();
        let mut put = |key: &str, value: Value| {
            config.insert(key.into(), value);
        };
        // llama.cpp calls Mistral's models `llama`; only the window tells them apart.
        put(
            "model_type",
            json!(if window.is_some() { "mistral" } else { "llama" }),
        );
        put("hidden_size", json!(hidden));
        put(
            "intermediate_size",
            json!(self.number("feed_forward_length")?),
        );
        put("num_hidden_layers", json!(self.number("block_count")?));
        put("num_attention_heads", json!(heads));
        put(
            "num_key_value_heads",
            json!(self.optional("attention.head_count_kv").unwrap_or(heads)),
        );
        put("head_dim", json!(head_dim));
        put("vocab_size", json!(self.vocabulary()?));
        put(
            "max_position_embeddings",
            json!(self.number("context_length")?),
        );
        put(
            "rms_norm_eps",
            json!(self.float("attention.layer_norm_rms_epsilon")?),
        );
        put(
            "rope_theta",
            json!(self.float("rope.freq_base").unwrap_or(10_000.0)),
        );
        put("rope_scaling", self.rope_scaling()?);
        put("sliding_window", json!(window));
        put(
            "tie_word_embeddings",
            json!(!self.tensors.contains_key("lm_head.weight")),
        );
        let has = |name: &str| {
            self.tensors
                .contains_key(&format!("model.layers.0.{name}.bias"))
        };
        put("attention_bias", json!(has("self_attn.q_proj")));
        put("mlp_bias", json!(has("mlp.gate_proj")));
        put("hidden_act", json!("silu"));
        let special = self.special_tokens();
        put("bos_token_id", json!(special.bos));
        put("eos_token_id", json!(special.eos));
        put("pad_token_id", json!(special.pad));
        Ok(Value::Object(config))
    }

    fn rope_scaling(&self) -> Result<Value, ModelError> {
        let kind = self
            .value("llama.rope.scaling.type")
            .and_then(GgufValue::as_str);
        match kind {
            None | Some("none") => Ok(Value::Null),
            Some("linear") => {
                Ok(json!({"rope_type": "linear", "factor": self.float("rope.scaling.factor")?}))
            }
            Some(other) => Err(ModelError::unsupported(
                &self.path,
                "llama.rope.scaling.type",
                other,
                "none, linear, or the tensor rope_freqs.weight",
            )),
        }
    }

    /// Rows of the embedding: the count that is right where the metadata has none.
    fn vocabulary(&self) -> Result<usize, ModelError> {
        let rows = self
            .tensors
            .get("model.embed_tokens.weight")
            .map(|info| info.shape[0]);
        rows.ok_or_else(|| ModelError::MissingTensor {
            path: self.path.clone(),
            name: "token_embd.weight".into(),
            hint: String::new(),
        })
    }

    /// Special tokens.
    pub fn special_tokens(&self) -> SpecialTokenIds {
        let value = |key: &str| self.value(&format!("tokenizer.ggml.{key}"));
        let id = |key: &str| {
            value(key)
                .and_then(GgufValue::as_usize)
                .and_then(|id| u32::try_from(id).ok())
        };
        SpecialTokenIds {
            bos: id("bos_token_id"),
            eos: id("eos_token_id"),
            unk: id("unknown_token_id"),
            pad: id("padding_token_id"),
            add_bos: value("add_bos_token").and_then(GgufValue::as_bool),
            add_eos: value("add_eos_token").and_then(GgufValue::as_bool),
        }
    }

    /// The chat template.
    pub fn chat_template(&self) -> Option<&str> {
        self.value("tokenizer.chat_template")
            .and_then(GgufValue::as_str)
    }

    fn optional(&self, key: &str) -> Option<usize> {
        self.value(&format!("llama.{key}"))
            .and_then(GgufValue::as_usize)
    }

    /// A count under `llama.`.
    pub(super) fn number(&self, key: &str) -> Result<usize, ModelError> {
        self.optional(key)
            .ok_or_else(|| self.missing(&format!("llama.{key}"), "a count"))
    }

    /// f32 in the file; its shortest decimal form, so that 1e-5 stays 1e-5.
    fn float(&self, key: &str) -> Result<f64, ModelError> {
        let key = format!("llama.{key}");
        let value = self.value(&key).and_then(GgufValue::as_f64);
        let short = value.and_then(|value| (value as f32).to_string().parse::<f64>().ok());
        short.ok_or_else(|| self.missing(&key, "a number"))
    }

    pub(super) fn text(&self, key: &str) -> Result<&str, ModelError> {
        self.value(key)
            .and_then(GgufValue::as_str)
            .ok_or_else(|| self.missing(key, "a text"))
    }

    pub(super) fn missing(&self, key: &str, kind: &str) -> ModelError {
        let detail = match self.value(key) {
            Some(_) => format!("metadata `{key}` is not {kind}"),
            None => format!("metadata `{key}` ({kind}) is missing"),
        };
        ModelError::format(&self.path, detail)
    }
}
