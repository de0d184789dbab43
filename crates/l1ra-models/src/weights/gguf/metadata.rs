//! Configuration and special tokens from the metadata.

use serde_json::{Value, json};

use super::{GgufFile, GgufValue, names::ARCHITECTURE};
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
    /// `head_dim` is `attention.key_length`, else `rope.dimension_count`, else
    /// `embedding_length / attention.head_count`; `vocab_size` is the number of rows of the
    /// embedding; `tie_word_embeddings` says that there is no `output.weight`. Source of the keys:
    /// `llama-arch.cpp`. The scaling of Llama 3.1 is not a key but a tensor: see
    /// [`rope_freqs`](Self::rope_freqs).
    ///
    /// # Errors
    /// A key that is missing or of another type, or an option that is not supported.
    pub fn config(&self) -> Result<Value, ModelError> {
        self.refuse_experts()?;
        let heads = self.number("attention.head_count")?;
        let window = self
            .optional("attention.sliding_window")?
            .filter(|window| *window > 0);
        // llama.cpp calls Mistral's models `llama`; only the window tells them apart.
        let (class, family) = match window {
            Some(_) => ("MistralForCausalLM", "mistral"),
            None => ("LlamaForCausalLM", "llama"),
        };
        let vocabulary = self.vocabulary()?;
        let special = self.special_tokens();
        self.check_ids(&special, vocabulary)?;
        let first = |name: &str| self.tensors.contains_key(&format!("model.layers.0.{name}"));
        Ok(json!({
            "architectures": [class],
            "model_type": family,
            "hidden_size": self.number("embedding_length")?,
            "intermediate_size": self.number("feed_forward_length")?,
            "num_hidden_layers": self.number("block_count")?,
            "num_attention_heads": heads,
            "num_key_value_heads": self.kv_heads()?,
            "head_dim": self.head_dim(heads)?,
            "vocab_size": vocabulary,
            "max_position_embeddings": self.number("context_length")?,
            "rms_norm_eps": self.float("attention.layer_norm_rms_epsilon")?,
            "rope_theta": self.optional_float("rope.freq_base")?.unwrap_or(10_000.0),
            "rope_scaling": self.rope_scaling()?,
            "sliding_window": window,
            "tie_word_embeddings": !self.tensors.contains_key("lm_head.weight"),
            "attention_bias": first("self_attn.q_proj.bias"),
            "mlp_bias": first("mlp.gate_proj.bias"),
            "hidden_act": "silu",
            "bos_token_id": special.bos,
            "eos_token_id": special.eos,
            "pad_token_id": special.pad,
        }))
    }

    fn refuse_experts(&self) -> Result<(), ModelError> {
        match self.optional("expert_count")?.filter(|count| *count > 0) {
            None => Ok(()),
            Some(count) => self.refuse("llama.expert_count", &count.to_string(), "0"),
        }
    }

    /// Key and value heads; absent: as many as query heads.
    pub(super) fn kv_heads(&self) -> Result<usize, ModelError> {
        match self.optional("attention.head_count_kv")? {
            Some(heads) => Ok(heads),
            None => self.number("attention.head_count"),
        }
    }

    fn head_dim(&self, heads: usize) -> Result<usize, ModelError> {
        let rotated = self.optional("rope.dimension_count")?;
        let head_dim = match self.optional("attention.key_length")?.or(rotated) {
            Some(length) => length,
            None => {
                let hidden = self.number("embedding_length")?;
                hidden.checked_div(heads).ok_or_else(|| {
                    let detail = "metadata `llama.attention.head_count` is 0; expected 1 or more";
                    ModelError::format(&self.path, detail)
                })?
            }
        };
        let same = format!("{head_dim}, the width of a key");
        for (key, other) in [
            ("rope.dimension_count", rotated),
            (
                "attention.value_length",
                self.optional("attention.value_length")?,
            ),
        ] {
            if let Some(other) = other.filter(|other| *other != head_dim) {
                return self.refuse(&format!("llama.{key}"), &other.to_string(), &same);
            }
        }
        Ok(head_dim)
    }

    /// As `llama-model.cpp` reads it: a factor without a type is linear.
    fn rope_scaling(&self) -> Result<Value, ModelError> {
        let factor = match self.optional_float("rope.scaling.factor")? {
            Some(factor) => Some(factor),
            None => self.optional_float("rope.scale_linear")?,
        };
        let factor = factor.filter(|factor| *factor != 0.0);
        let key = "llama.rope.scaling.type";
        let kind = match self.value(key) {
            Some(_) => self.text(key)?,
            None => "linear",
        };
        match (kind, factor) {
            ("none", _) | ("linear", None) => Ok(Value::Null),
            ("linear", Some(factor)) => Ok(json!({"rope_type": "linear", "factor": factor})),
            _ => self.refuse(key, kind, "none, linear, or the tensor rope_freqs.weight"),
        }
    }

    /// Rows of the embedding: what ids can be looked up, whatever the metadata counts.
    pub(super) fn vocabulary(&self) -> Result<usize, ModelError> {
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

    fn check_ids(&self, special: &SpecialTokenIds, vocabulary: usize) -> Result<(), ModelError> {
        let ids = [
            ("bos", special.bos),
            ("eos", special.eos),
            ("padding", special.pad),
        ];
        for (name, id) in ids {
            if let Some(id) = id.filter(|id| *id as usize >= vocabulary) {
                let detail = format!(
                    "metadata `tokenizer.ggml.{name}_token_id` is {id}; the embedding has \
                     {vocabulary} rows"
                );
                return Err(ModelError::format(&self.path, detail));
            }
        }
        Ok(())
    }

    /// Special tokens, each as `tokenizer.ggml.*` gives it; `None` where the file is silent.
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

    /// The chat template, a Jinja source.
    pub fn chat_template(&self) -> Option<&str> {
        self.value("tokenizer.chat_template")
            .and_then(GgufValue::as_str)
    }

    /// A count under `llama.` that may be absent.
    fn optional(&self, key: &str) -> Result<Option<usize>, ModelError> {
        let key = format!("{ARCHITECTURE}.{key}");
        match self.value(&key) {
            None => Ok(None),
            Some(value) => match value.as_usize() {
                Some(count) => Ok(Some(count)),
                None => Err(self.unfit_value(&key, "a count")),
            },
        }
    }

    /// A count under `llama.`.
    pub(super) fn number(&self, key: &str) -> Result<usize, ModelError> {
        let count = self.optional(key)?;
        count.ok_or_else(|| self.unfit_value(&format!("{ARCHITECTURE}.{key}"), "a count"))
    }

    /// A number under `llama.` that may be absent. It is f32 in the file: its shortest decimal
    /// form is taken, so that 1e-5 stays 1e-5.
    fn optional_float(&self, key: &str) -> Result<Option<f64>, ModelError> {
        let key = format!("{ARCHITECTURE}.{key}");
        let Some(value) = self.value(&key) else {
            return Ok(None);
        };
        let short = value
            .as_f64()
            .and_then(|value| (value as f32).to_string().parse().ok());
        match short.filter(|value: &f64| value.is_finite()) {
            Some(value) => Ok(Some(value)),
            None => Err(self.unfit_value(&key, "a finite number")),
        }
    }

    fn float(&self, key: &str) -> Result<f64, ModelError> {
        let value = self.optional_float(key)?;
        value.ok_or_else(|| self.unfit_value(&format!("{ARCHITECTURE}.{key}"), "a number"))
    }

    pub(super) fn text(&self, key: &str) -> Result<&str, ModelError> {
        self.value(key)
            .and_then(GgufValue::as_str)
            .ok_or_else(|| self.unfit_value(key, "a text"))
    }

    /// A key that is missing or does not hold `kind`.
    pub(super) fn unfit_value(&self, key: &str, kind: &str) -> ModelError {
        let detail = match self.value(key) {
            Some(GgufValue::Array(_)) => format!("metadata `{key}` is an array; expected {kind}"),
            Some(value) => format!("metadata `{key}` is {value:?}; expected {kind}"),
            None => format!("metadata `{key}` ({kind}) is missing"),
        };
        ModelError::format(&self.path, detail)
    }

    pub(super) fn refuse<T>(&self, what: &str, seen: &str, known: &str) -> Result<T, ModelError> {
        Err(ModelError::unsupported(&self.path, what, seen, known))
    }
}
