//! [`CausalLm`]: the model.

use burn::{
    module::{Module, Param},
    nn::RmsNorm,
    tensor::{FloatDType, Int, Tensor},
};
use l1ra_core::{AdaptedLinear, AdaptedModule};

use l1ra_ops::{
    has_kernels,
    linear::{Linear, Output, Products, Prologue, linears},
    loss::{cross_entropy_sum, linear_cross_entropy},
};

use crate::{
    block::{Block, norm},
    cache::KvCache,
    config::ModelConfig,
    positions::Positions,
    rope::inverse_frequencies,
    segments::Segments,
};

/// The token embedding, frozen.
#[derive(Module, Debug)]
pub struct Embedding {
    /// `[vocabulary, hidden]`.
    pub weight: Param<Tensor<2>>,
    /// What it is multiplied in where it is the head, too.
    #[module(skip)]
    pub products: Products,
}

/// Embedding, blocks and final norm.
#[derive(Module, Debug)]
pub struct Decoder {
    /// Token embedding.
    pub embed_tokens: Embedding,
    /// Blocks.
    pub layers: Vec<Block>,
    /// Final norm.
    pub norm: RmsNorm,
}

/// A Llama- or Mistral-family language model. Everything but adapters is frozen.
///
/// Activations are f32 whatever the weights are stored in, unless
/// [`set_activations`](Self::set_activations) says otherwise.
#[derive(Module, Debug)]
pub struct CausalLm {
    /// Embedding, blocks, norm.
    pub model: Decoder,
    /// Output head, `[hidden, vocabulary]`; absent where it is the embedding.
    pub lm_head: Option<AdaptedLinear>,
    #[module(skip)]
    config: ModelConfig,
    #[module(skip)]
    inverse_frequencies: Vec<f32>,
    #[module(skip)]
    activations: FloatDType,
}

impl CausalLm {
    /// A model from its parts.
    pub fn new(model: Decoder, lm_head: Option<AdaptedLinear>, config: ModelConfig) -> Self {
        let inverse_frequencies = inverse_frequencies(&config);
        Self {
            model,
            lm_head,
            config,
            inverse_frequencies,
            activations: FloatDType::F32,
        }
    }

    /// The type of activations within blocks: queries, keys, values, the output of attention, gate and up,
    /// and their gradients.
    pub fn activations(&self) -> FloatDType {
        self.activations
    }

    /// The type of the blocks' matrices: what they are multiplied in, where the device can. Those of an f32 model
    /// [may be kept](crate::weights::Storage::F32) in fewer bits.
    pub fn base_type(&self) -> FloatDType {
        let first = self.model.layers.first();
        first.map_or(FloatDType::F32, |block| block.self_attn.q_proj.dtype())
    }

    /// Keeps activations within blocks in another type, with half the memory where it has two bytes. The
    /// residual stream, norms, softmax, adapters, every sum and the loss stay f32.
    pub fn set_activations(&mut self, dtype: FloatDType) {
        self.activations = dtype;
    }

    /// What the model was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Hidden states after the final norm, for `ids [batch, length]`: `[batch, length, hidden]`.
    ///
    /// With a cache, `ids` are the tokens that follow the cached ones.
    pub fn hidden(&self, ids: Tensor<2, Int>, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.hidden_each(ids, cache, |_| {})
    }

    /// [`hidden`](Self::hidden), with the residual stream after the embedding and after each block
    /// but the last shown to `inspect`, then the normed result.
    pub fn hidden_each(
        &self,
        ids: Tensor<2, Int>,
        cache: Option<&mut KvCache>,
        inspect: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let start = cache.as_ref().map_or(0, |cache| cache.len());
        let mut positions = self.positions_after(start, &ids);
        // Kernels for a cache take f32, and there is nothing to save where nothing is kept.
        if cache.is_some() && has_kernels(&ids.device()) {
            positions = positions.with_activations(FloatDType::F32);
        }
        self.run(ids, &positions, cache, inspect)
    }

    /// [`hidden`](Self::hidden) for rows that hold several texts each: every text's states are those
    /// that it has in a row of its own.
    ///
    /// `ids` must have the shape [`Segments::dims`]; Burn panics on another.
    pub fn hidden_packed(&self, ids: Tensor<2, Int>, segments: &Segments) -> Tensor<3> {
        let positions = self.positions(&ids, Some(segments));
        self.run(ids, &positions, None, |_| {})
    }

    /// What all blocks share in a forward of `ids` without a cache.
    pub fn positions(&self, ids: &Tensor<2, Int>, segments: Option<&Segments>) -> Positions {
        let inverse = &self.inverse_frequencies;
        match segments {
            Some(segments) => Positions::packed(&self.config, inverse, segments, &ids.device())
                .with_activations(self.activations),
            None => self.positions_after(0, ids),
        }
    }

    fn positions_after(&self, start: usize, ids: &Tensor<2, Int>) -> Positions {
        let inverse = &self.inverse_frequencies;
        Positions::new(&self.config, inverse, start, ids.dims(), &ids.device())
            .with_activations(self.activations)
    }

    /// The residual stream before the first block: `[batch, length, hidden]`, f32.
    pub fn embed(&self, ids: Tensor<2, Int>) -> Tensor<3> {
        let [batch, length] = ids.dims();
        let embedding = self.model.embed_tokens.weight.val();
        embedding
            .select(0, ids.reshape([(batch * length) as i64]))
            .cast(FloatDType::F32)
            .reshape([batch, length, self.config.hidden_size])
    }

    fn run(
        &self,
        ids: Tensor<2, Int>,
        positions: &Positions,
        mut cache: Option<&mut KvCache>,
        mut inspect: impl FnMut(&Tensor<3>),
    ) -> Tensor<3> {
        let [_, length] = ids.dims();
        let mut x = self.embed(ids);
        for (layer, block) in self.model.layers.iter().enumerate() {
            inspect(&x);
            x = block.forward(
                x,
                positions,
                cache.as_mut().map(|cache| (&mut **cache, layer)),
            );
        }
        if let Some(cache) = cache {
            cache.advance(length);
        }
        let x = norm(&self.model.norm, x);
        inspect(&x);
        x
    }

    /// Logits for hidden states `[.., hidden]`: `[.., vocabulary]`.
    pub fn logits<const D: usize>(&self, hidden: Tensor<D>) -> Tensor<D> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => {
                let head = [self.tied_head()];
                linears(
                    hidden,
                    &Prologue::Nothing,
                    &head,
                    Output::values(FloatDType::F32),
                )
            }
        }
    }

    /// The embedding as a head, `[hidden, vocabulary]`.
    fn tied_head(&self) -> Linear {
        Linear {
            weight: self.model.embed_tokens.weight.val().transpose(),
            products: self.model.embed_tokens.products,
            adapter: None,
        }
    }

    /// Whether an adapter drops parts of its input in training.
    pub fn has_dropout(&self) -> bool {
        let head = self.lm_head.as_ref().and_then(|head| head.adapter.as_ref());
        head.is_some_and(|adapter| adapter.dropout.prob > 0.0)
            || self.model.layers.iter().any(Block::has_dropout)
    }

    /// Cross-entropy of `hidden [n, hidden]` against `targets [n]`, summed: `[1]`. Logits are never
    /// made whole, unless the head has an adapter of its own.
    pub fn loss_sum(&self, hidden: Tensor<2>, targets: Tensor<1, Int>) -> Tensor<1> {
        match &self.lm_head {
            None => {
                let head = self.tied_head();
                linear_cross_entropy(hidden, (&head.weight, head.products), targets)
            }
            Some(head) if head.adapter.is_none() && head.bias.is_none() => {
                linear_cross_entropy(hidden, (&head.weight.val(), head.products()), targets)
            }
            Some(head) => cross_entropy_sum(head.forward(hidden), targets),
        }
    }

    /// Logits `[batch, length, vocabulary]` for `ids [batch, length]`.
    pub fn forward(&self, ids: Tensor<2, Int>, cache: Option<&mut KvCache>) -> Tensor<3> {
        self.logits(self.hidden(ids, cache))
    }
}

impl AdaptedModule for CausalLm {
    fn for_each_linear(&mut self, visit: &mut dyn FnMut(&str, &mut AdaptedLinear)) {
        for (i, block) in self.model.layers.iter_mut().enumerate() {
            let attention = &mut block.self_attn;
            let mlp = &mut block.mlp;
            let linears = [
                ("self_attn.q_proj", &mut attention.q_proj),
                ("self_attn.k_proj", &mut attention.k_proj),
                ("self_attn.v_proj", &mut attention.v_proj),
                ("self_attn.o_proj", &mut attention.o_proj),
                ("mlp.gate_proj", &mut mlp.gate_proj),
                ("mlp.up_proj", &mut mlp.up_proj),
                ("mlp.down_proj", &mut mlp.down_proj),
            ];
            for (name, linear) in linears {
                visit(&format!("model.layers.{i}.{name}"), linear);
            }
        }
        if let Some(head) = &mut self.lm_head {
            visit("lm_head", head);
        }
    }
}
