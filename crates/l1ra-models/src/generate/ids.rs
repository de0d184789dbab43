//! [`Generation`]: one run of generation, as ids.

use std::fmt;

use burn::tensor::{Int, Tensor, TensorData};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::{
    cache::{KvCache, PromptCache},
    causal_lm::CausalLm,
    error::ModelError,
    generate::Sampling,
};

/// Why a generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Finish {
    /// The model ended its text.
    EndOfText,
    /// One of the stop texts came.
    Stop,
    /// As many tokens as were asked for.
    Length,
    /// The model's context is full.
    Context,
}

impl fmt::Display for Finish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EndOfText => "end of text",
            Self::Stop => "stop text",
            Self::Length => "length limit",
            Self::Context => "context full",
        })
    }
}

/// One run of generation: yields a token id at a time.
#[derive(Debug)]
pub struct Generation<'a> {
    model: &'a CausalLm,
    sampling: Sampling,
    generator: ChaCha8Rng,
    cache: Option<KvCache>,
    tokens: Vec<u32>,
    prompt: usize,
    fed: usize,
    limit: usize,
    stop: Vec<u32>,
    finish: Option<Finish>,
    failed: bool,
}

impl<'a> Generation<'a> {
    /// Starts after `prompt`, with a cache; ends at one of the `stop` ids, which is not yielded.
    ///
    /// Prompt and answer together get no longer than the model's `max_position_embeddings`:
    /// [`limit`](Self::limit) says how many tokens there will be at most.
    ///
    /// The model should be on a plain device (`model.valid()`), or every token pays for a graph.
    ///
    /// # Errors
    /// A prompt that is empty or fills the model's context, an id outside the vocabulary, or an
    /// option outside its range.
    pub fn new(
        model: &'a CausalLm,
        prompt: &[u32],
        stop: impl IntoIterator<Item = u32>,
        sampling: Sampling,
    ) -> Result<Self, ModelError> {
        sampling.validate()?;
        if prompt.is_empty() {
            return Err(ModelError::Option {
                field: "prompt",
                seen: "no tokens".into(),
                expected: "at least one token",
            });
        }
        let vocabulary = model.config().vocab_size;
        if let Some(id) = prompt.iter().find(|id| **id as usize >= vocabulary) {
            return Err(ModelError::Tokenizer(format!(
                "token id {id} is outside the model's vocabulary of {vocabulary}; \
                 is this the model's tokenizer?"
            )));
        }
        let context = model.config().max_position_embeddings;
        if prompt.len() >= context {
            let tokens = prompt.len();
            return Err(ModelError::PromptTooLong { tokens, context });
        }
        let limit = sampling.max_new_tokens.min(context - prompt.len());
        Ok(Self {
            model,
            generator: ChaCha8Rng::seed_from_u64(sampling.seed),
            limit,
            sampling,
            cache: Some(KvCache::with_capacity(prompt.len() + limit)),
            tokens: prompt.to_vec(),
            prompt: prompt.len(),
            fed: 0,
            stop: stop.into_iter().collect(),
            finish: None,
            failed: false,
        })
    }

    /// Runs the whole sequence again for every token in place of a cache: slow, for comparison.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self.fed = 0;
        self
    }

    /// Goes on from what an earlier run of this model has cached, as far as its tokens are this
    /// prompt's. Must be called before the first token.
    pub fn with_cache(mut self, cached: PromptCache) -> Self {
        let (cache, shared) = cached.shared_with(&self.tokens[..self.tokens.len() - 1]);
        self.cache = Some(cache);
        self.fed = shared;
        self
    }

    /// What this run has cached, for a later one that begins with the same tokens.
    pub fn into_cache(self) -> Option<PromptCache> {
        let tokens = self.tokens[..self.fed].to_vec();
        self.cache.map(|cache| PromptCache::new(tokens, cache))
    }

    /// Most tokens that this run yields: `max_new_tokens`, or what the context leaves.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Tokens of the prompt that came from a cache.
    pub fn cached(&self) -> usize {
        self.fed.min(self.prompt)
    }

    /// The tokens yielded so far.
    pub fn generated(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Why the run ended; `None` while it goes on and after an error.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    fn next_token(&mut self) -> Result<u32, ModelError> {
        let new = match &self.cache {
            Some(_) => &self.tokens[self.fed..],
            None => &self.tokens[..],
        };
        let ids: Vec<i64> = new.iter().map(|id| i64::from(*id)).collect();
        let device = self.model.model.embed_tokens.weight.val().device();
        let length = ids.len();
        let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, length]), &device);
        let hidden = self.model.hidden(ids, self.cache.as_mut());
        self.fed = self.tokens.len();
        let last = hidden.narrow(1, length - 1, 1); // [1, 1, hidden]
        let logits = self
            .model
            .logits(last)
            .into_data()
            .convert::<f32>()
            .try_into_vec::<f32>();
        let mut logits = logits
            .map_err(|error| ModelError::Tokenizer(format!("logits cannot be read: {error:?}")))?;
        Ok(self
            .sampling
            .choose(&mut logits, &self.tokens, &mut self.generator))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finish.is_some() || self.failed {
            return None;
        }
        if self.generated().len() == self.limit {
            let full = self.limit < self.sampling.max_new_tokens;
            self.finish = Some(if full {
                Finish::Context
            } else {
                Finish::Length
            });
            return None;
        }
        match self.next_token() {
            Ok(id) if self.stop.contains(&id) => {
                self.finish = Some(Finish::EndOfText);
                None
            }
            Ok(id) => {
                self.tokens.push(id);
                Some(Ok(id))
            }
            Err(error) => {
                self.failed = true;
                Some(Err(error))
            }
        }
    }
}
