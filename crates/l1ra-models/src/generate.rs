//! Generation: greedy or sampled, with a key/value cache.

use burn::tensor::{Int, Tensor, TensorData};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{cache::KvCache, causal_lm::CausalLm, error::ModelError, tokenizer::TextTokenizer};

/// How the next token is chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampling {
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// 0: always the likeliest token; else logits are divided by it.
    pub temperature: f64,
    /// Only the `k` likeliest tokens; `None`: all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability, in (0, 1].
    pub top_p: f64,
    /// Seed of the draws.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// Checks the ranges.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), ModelError> {
        let refuse = |field, seen: String, expected| {
            Err(ModelError::Option {
                field,
                seen,
                expected,
            })
        };
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return refuse(
                "temperature",
                self.temperature.to_string(),
                "zero or a positive number",
            );
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return refuse("top_p", self.top_p.to_string(), "a probability in (0, 1]");
        }
        if self.top_k == Some(0) {
            return refuse("top_k", "0".into(), "at least 1");
        }
        Ok(())
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
    fed: usize,
    produced: usize,
    stop: Vec<u32>,
    finished: bool,
}

impl<'a> Generation<'a> {
    /// Starts after `prompt`, with a cache; ends at one of the `stop` ids, which is not yielded.
    ///
    /// The model should be on a plain device (`model.valid()`), or every token pays for a graph.
    ///
    /// # Errors
    /// An empty prompt, an id outside the vocabulary, or an option outside its range.
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
        Ok(Self {
            model,
            generator: ChaCha8Rng::seed_from_u64(sampling.seed),
            sampling,
            cache: Some(KvCache::new()),
            tokens: prompt.to_vec(),
            fed: 0,
            produced: 0,
            stop: stop.into_iter().collect(),
            finished: false,
        })
    }

    /// Runs the whole sequence again for every token in place of a cache: slow, for comparison.
    pub fn without_cache(mut self) -> Self {
        self.cache = None;
        self
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
        let logits = logits
            .map_err(|error| ModelError::Tokenizer(format!("logits cannot be read: {error:?}")))?;
        Ok(choose(&logits, &self.sampling, &mut self.generator))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<u32, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished || self.produced == self.sampling.max_new_tokens {
            return None;
        }
        match self.next_token() {
            Ok(id) if self.stop.contains(&id) => {
                self.finished = true;
                None
            }
            Ok(id) => {
                self.tokens.push(id);
                self.produced += 1;
                Some(Ok(id))
            }
            Err(error) => {
                self.finished = true;
                Some(Err(error))
            }
        }
    }
}

/// The next token for `logits`: the first largest one, or a draw.
fn choose(logits: &[f32], sampling: &Sampling, generator: &mut ChaCha8Rng) -> u32 {
    let mut order: Vec<usize> = (0..logits.len()).collect();
    if sampling.temperature == 0.0 {
        let best = order
            .into_iter()
            .fold(0, |best, i| if logits[i] > logits[best] { i } else { best });
        return best as u32;
    }
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    order.truncate(sampling.top_k.unwrap_or(logits.len()));
    let largest = f64::from(logits[order[0]]);
    let mut weights: Vec<f64> = order
        .iter()
        .map(|i| ((f64::from(logits[*i]) - largest) / sampling.temperature).exp())
        .collect();
    let total: f64 = weights.iter().sum();
    let mut reached = 0.0;
    let kept = weights.iter().position(|weight| {
        reached += weight;
        reached >= sampling.top_p * total
    });
    weights.truncate(kept.map_or(weights.len(), |last| last + 1));
    let mut left = generator.random::<f64>() * weights.iter().sum::<f64>();
    for (i, weight) in weights.iter().enumerate() {
        left -= weight;
        if left <= 0.0 {
            return order[i] as u32;
        }
    }
    order[weights.len() - 1] as u32
}

/// Generates a whole text after `prompt`.
///
/// # Errors
/// As [`Generation::new`], or when the tokenizer cannot encode or decode.
pub fn generate_text(
    model: &CausalLm,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    sampling: Sampling,
) -> Result<String, ModelError> {
    let stop = tokenizer.eos.iter().copied();
    let ids = Generation::new(model, prompt, stop, sampling)?.collect::<Result<Vec<_>, _>>()?;
    tokenizer.decode(&ids)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(logits: &[f32], sampling: &Sampling, seed: u64) -> u32 {
        choose(logits, sampling, &mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn zero_temperature_takes_the_first_largest() {
        assert_eq!(draw(&[0.0, 2.0, 2.0], &Sampling::default(), 0), 1);
    }

    #[test]
    fn top_k_and_top_p_leave_the_unlikely_out() {
        let logits = [0.0, 1.0, 2.0, 3.0];
        let top_k = Sampling {
            temperature: 1.0,
            top_k: Some(2),
            ..Default::default()
        };
        let top_p = Sampling {
            temperature: 1.0,
            top_p: 0.5,
            ..Default::default()
        };
        for seed in 0..200 {
            assert!(draw(&logits, &top_k, seed) >= 2);
            assert_eq!(draw(&logits, &top_p, seed), 3);
        }
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let logits = [0.0, 3.0_f32.ln()];
        let sampling = Sampling {
            temperature: 1.0,
            ..Default::default()
        };
        let ones = (0..4000)
            .filter(|seed| draw(&logits, &sampling, *seed) == 1)
            .count();
        assert!((2850..3150).contains(&ones), "{ones}");
    }
}
