//! A [`CausalLm`] from a [`WeightSource`], every shape checked before Burn sees it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use burn::{
    module::Param,
    nn::{RmsNorm, RmsNormConfig},
    tensor::{Bytes, DType, Device, FloatDType, Tensor, TensorData},
};
use l1ra_core::AdaptedLinear;
use l1ra_ops::{has_kernels, linear::Products};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    attention::Attention,
    block::Block,
    causal_lm::{CausalLm, Decoder, Embedding},
    config::ModelConfig,
    error::ModelError,
    mlp::Mlp,
    weights::{StoredTensor, StoredType, WeightSource},
};

/// What matrices are kept in. Norms and biases are f32 in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Storage {
    /// 32-bit floats, whatever the file holds. On the CPU's kernels what the file has in bf16 stays so, in half the
    /// memory, and is multiplied as f32, of which it is a part: no value and no product is another one.
    #[default]
    F32,
    /// bf16: half the memory. The CPU's kernels widen it as it is read; elsewhere products are taken in
    /// bf16.
    BF16,
    /// f16.
    F16,
    /// As the file holds them.
    #[serde(rename = "stored")]
    AsStored,
}

impl Storage {
    /// The number type; `None` where the file decides.
    pub fn stored_type(self) -> Option<StoredType> {
        match self {
            Self::F32 => Some(StoredType::F32),
            Self::BF16 => Some(StoredType::BF16),
            Self::F16 => Some(StoredType::F16),
            Self::AsStored => None,
        }
    }

    /// What a matrix is kept in that a file has in `stored`, on a device with kernels of ours or without.
    pub fn kept(self, stored: StoredType, kernels: bool) -> StoredType {
        match (self, stored) {
            (Self::F32, StoredType::BF16) if kernels => StoredType::BF16,
            _ => self.stored_type().unwrap_or(stored),
        }
    }

    /// What matrices are multiplied in.
    fn products(self) -> Products {
        match self {
            Self::F32 => Products::F32,
            _ => Products::Stored,
        }
    }

    /// Every choice.
    pub const ALL: [Self; 4] = [Self::F32, Self::BF16, Self::F16, Self::AsStored];
}

impl fmt::Display for Storage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::BF16 => "bf16",
            Self::F16 => "f16",
            Self::AsStored => "stored",
        })
    }
}

impl FromStr for Storage {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL
            .into_iter()
            .find(|storage| storage.to_string() == text);
        known.ok_or_else(|| format!("type `{text}` is unknown; known: f32, bf16, f16, stored"))
    }
}

/// Names and shapes of every tensor that `config` asks for, Hugging Face's names and order.
pub(crate) fn tensor_shapes(config: &ModelConfig) -> Vec<(String, Vec<usize>)> {
    let (hidden, vocab) = (config.hidden_size, config.vocab_size);
    let mut shapes = vec![("model.embed_tokens.weight".to_string(), vec![vocab, hidden])];
    for layer in 0..config.num_hidden_layers {
        let prefix = format!("model.layers.{layer}");
        for (name, d_in, d_out, bias) in projections(config) {
            shapes.push((format!("{prefix}.{name}.weight"), vec![d_out, d_in]));
            if bias {
                shapes.push((format!("{prefix}.{name}.bias"), vec![d_out]));
            }
        }
        for norm in ["input_layernorm", "post_attention_layernorm"] {
            shapes.push((format!("{prefix}.{norm}.weight"), vec![hidden]));
        }
    }
    shapes.push(("model.norm.weight".to_string(), vec![hidden]));
    if !config.tie_word_embeddings {
        shapes.push(("lm_head.weight".to_string(), vec![vocab, hidden]));
    }
    shapes
}

/// Paths of the linear layers that a model of `config` will have, the output head last: to check
/// targets before any weight is loaded.
pub fn linear_paths(config: &ModelConfig) -> Vec<String> {
    let layers = linear_dims(config).into_iter();
    layers.map(|(path, _)| path).collect()
}

/// The same with the inputs and outputs of each layer.
pub fn linear_dims(config: &ModelConfig) -> Vec<(String, [usize; 2])> {
    let linear = |(name, shape): (String, Vec<usize>)| {
        let path = name.strip_suffix(".weight")?;
        match shape[..] {
            [d_out, d_in] if path != "model.embed_tokens" => Some((path.into(), [d_in, d_out])),
            _ => None,
        }
    };
    tensor_shapes(config)
        .into_iter()
        .filter_map(linear)
        .collect()
}

/// Name, inputs, outputs and bias of each projection of a block.
fn projections(config: &ModelConfig) -> [(&'static str, usize, usize, bool); 7] {
    let hidden = config.hidden_size;
    let inner = config.intermediate_size;
    let queries = config.num_attention_heads * config.head_dim;
    let keys = config.num_key_value_heads * config.head_dim;
    let (attention, mlp) = (config.attention_bias, config.mlp_bias);
    [
        ("self_attn.q_proj", hidden, queries, attention),
        ("self_attn.k_proj", hidden, keys, attention),
        ("self_attn.v_proj", hidden, keys, attention),
        ("self_attn.o_proj", queries, hidden, attention),
        ("mlp.gate_proj", hidden, inner, mlp),
        ("mlp.up_proj", hidden, inner, mlp),
        ("mlp.down_proj", inner, hidden, mlp),
    ]
}

/// Builds the frozen model. All names and shapes are checked first, then tensors are read one by
/// one.
///
/// # Errors
/// A tensor that is missing, of another shape, damaged, or that this model would not use.
pub fn build_model(
    source: &dyn WeightSource,
    config: &ModelConfig,
    storage: Storage,
    device: &Device,
) -> Result<CausalLm, ModelError> {
    check_names_and_shapes(source, config)?;
    Builder {
        source,
        config,
        storage,
        device,
    }
    .model()
}

/// Whether `source` has every tensor that `config` asks for, in its shape, and no other.
pub(crate) fn check_names_and_shapes(
    source: &dyn WeightSource,
    config: &ModelConfig,
) -> Result<(), ModelError> {
    let expected = tensor_shapes(config);
    for (name, expected) in &expected {
        match source.shape(name) {
            None => {
                let path = source.path().into();
                return Err(ModelError::MissingTensor {
                    path,
                    name: name.clone(),
                    hint: near(name, source),
                });
            }
            Some(seen) if seen != *expected => {
                return Err(ModelError::Shape {
                    path: source.path().into(),
                    name: name.clone(),
                    seen,
                    expected: expected.clone(),
                });
            }
            Some(_) => {}
        }
    }
    let known: BTreeSet<&str> = expected.iter().map(|(name, _)| name.as_str()).collect();
    let harmless = |name: &str| {
        name.ends_with("rotary_emb.inv_freq")
            || (config.tie_word_embeddings && name == "lm_head.weight")
    };
    let names = source.names();
    let unused: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|name| !known.contains(name) && !harmless(name))
        .collect();
    if unused.is_empty() {
        return Ok(());
    }
    let seen = unused
        .iter()
        .take(3)
        .copied()
        .collect::<Vec<_>>()
        .join(", ");
    Err(ModelError::unsupported(
        source.path(),
        format!(
            "a model with {} tensors that its configuration does not mention",
            unused.len()
        ),
        seen,
        "files whose every tensor is used (is config.json the right one?)",
    ))
}

fn near(name: &str, source: &dyn WeightSource) -> String {
    let last = name.rsplit('.').nth(1).unwrap_or(name);
    let names = source.names();
    let nearest: Vec<&str> = names
        .iter()
        .map(String::as_str)
        .filter(|other| other.contains(last))
        .take(3)
        .collect();
    if nearest.is_empty() {
        format!(" (the file holds {} others)", names.len())
    } else {
        format!("; nearest: {}", nearest.join(", "))
    }
}

struct Builder<'a> {
    source: &'a dyn WeightSource,
    config: &'a ModelConfig,
    storage: Storage,
    device: &'a Device,
}

impl Builder<'_> {
    fn model(&self) -> Result<CausalLm, ModelError> {
        let embedding = self.matrix("model.embed_tokens.weight")?;
        let layers = (0..self.config.num_hidden_layers)
            .map(|layer| self.block(&format!("model.layers.{layer}")))
            .collect::<Result<_, _>>()?;
        let lm_head = if self.config.tie_word_embeddings {
            None
        } else {
            Some(AdaptedLinear::new(
                self.matrix("lm_head.weight")?.transpose(),
                None,
            ))
            .map(|head| head.taken_in(self.storage.products()))
        };
        let decoder = Decoder {
            embed_tokens: Embedding {
                weight: Param::from_tensor(embedding).set_require_grad(false),
                products: self.storage.products(),
            },
            layers,
            norm: self.norm("model.norm")?,
        };
        Ok(CausalLm::new(decoder, lm_head, self.config.clone()))
    }

    fn block(&self, prefix: &str) -> Result<Block, ModelError> {
        let mut linears = Vec::with_capacity(7);
        for (name, _, _, bias) in projections(self.config) {
            linears.push(self.linear(&format!("{prefix}.{name}"), bias)?);
        }
        let mut linears = linears.into_iter();
        let mut next = || {
            linears
                .next()
                .ok_or_else(|| ModelError::format(self.source.path(), "too few layers"))
        };
        Ok(Block {
            self_attn: Attention::new([next()?, next()?, next()?, next()?], self.config),
            mlp: Mlp {
                gate_proj: next()?,
                up_proj: next()?,
                down_proj: next()?,
            },
            input_layernorm: self.norm(&format!("{prefix}.input_layernorm"))?,
            post_attention_layernorm: self.norm(&format!("{prefix}.post_attention_layernorm"))?,
        })
    }

    /// Stored `[d_out, d_in]` is seen as `[d_in, d_out]`: a view, nothing is moved.
    fn linear(&self, path: &str, bias: bool) -> Result<AdaptedLinear, ModelError> {
        let weight = self.matrix(&format!("{path}.weight"))?.transpose();
        let bias = if bias {
            Some(self.vector(&format!("{path}.bias"))?)
        } else {
            None
        };
        Ok(AdaptedLinear::new(weight, bias).taken_in(self.storage.products()))
    }

    fn norm(&self, path: &str) -> Result<RmsNorm, ModelError> {
        let gamma = self.vector(&format!("{path}.weight"))?;
        let mut norm = RmsNormConfig::new(self.config.hidden_size)
            .with_epsilon(self.config.rms_norm_eps)
            .init(self.device);
        norm.gamma = Param::from_tensor(gamma).set_require_grad(false);
        Ok(norm)
    }

    fn matrix(&self, name: &str) -> Result<Tensor<2>, ModelError> {
        let stored = self.source.read(name)?;
        let dtype = self.storage.kept(stored.dtype, has_kernels(self.device));
        self.tensor(name, stored, dtype)
    }

    fn vector(&self, name: &str) -> Result<Tensor<1>, ModelError> {
        self.tensor(name, self.source.read(name)?, StoredType::F32)
    }

    fn tensor<const D: usize>(
        &self,
        name: &str,
        stored: StoredTensor,
        dtype: StoredType,
    ) -> Result<Tensor<D>, ModelError> {
        let [source, dtype] = [stored.dtype, dtype].map(|kind| DType::from(FloatDType::from(kind)));
        if stored.shape.len() != D {
            let detail = format!("tensor `{name}` has {} axes, not {D}", stored.shape.len());
            return Err(ModelError::format(self.source.path(), detail));
        }
        let bytes = Bytes::from_bytes_vec(stored.bytes);
        let data = TensorData::from_bytes(bytes, stored.shape, source).convert_dtype(dtype);
        Ok(Tensor::from_data(data, (self.device, dtype)))
    }
}
