//! [`Sampling`]: how the next token is chosen.

use std::collections::BTreeSet;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::ModelError;

/// How the next token is chosen, and when to stop.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sampling {
    /// Most tokens to generate. What the model's context leaves is the limit in any case.
    pub max_new_tokens: usize,
    /// 0: always the likeliest token; else logits are divided by it.
    pub temperature: f64,
    /// Only the `k` likeliest tokens; absent: all.
    pub top_k: Option<usize>,
    /// Only the likeliest tokens that together reach this probability, in (0, 1].
    pub top_p: f64,
    /// Logits of tokens that are in the text already, prompt included, are divided by it where they
    /// are positive and multiplied by it where they are negative, as Hugging Face does. 1: off.
    pub repetition_penalty: f64,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Seed of the draws: the same seed gives the same text.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            max_new_tokens: 128,
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            repetition_penalty: 1.0,
            stop: Vec::new(),
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
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let (temperature, penalty) = (self.temperature, self.repetition_penalty);
        let checks = [
            (
                self.max_new_tokens > 0,
                "max_new_tokens",
                self.max_new_tokens.to_string(),
                "at least 1",
            ),
            (
                positive(temperature) || temperature == 0.0,
                "temperature",
                temperature.to_string(),
                "zero or a positive number",
            ),
            (
                self.top_p > 0.0 && self.top_p <= 1.0,
                "top_p",
                self.top_p.to_string(),
                "a probability in (0, 1]",
            ),
            (self.top_k != Some(0), "top_k", "0".into(), "at least 1"),
            (
                positive(penalty),
                "repetition_penalty",
                penalty.to_string(),
                "a positive number; 1 changes nothing",
            ),
            (
                !self.stop.iter().any(String::is_empty),
                "stop",
                "an empty text".into(),
                "texts of at least one letter",
            ),
        ];
        for (good, field, seen, expected) in checks {
            if !good {
                return Err(ModelError::Option {
                    field,
                    seen,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// The next token for `logits`, after `tokens`: the first largest one, or a draw.
    pub(super) fn choose(
        &self,
        logits: &mut [f32],
        tokens: &[u32],
        generator: &mut ChaCha8Rng,
    ) -> u32 {
        self.penalise(logits, tokens);
        if self.temperature == 0.0 {
            let larger = |best: usize, i: usize| if logits[i] > logits[best] { i } else { best };
            return (0..logits.len()).fold(0, larger) as u32;
        }
        let (order, weights) = self.candidates(logits);
        let mut left = generator.random::<f64>() * weights.iter().sum::<f64>();
        for (id, weight) in order.iter().zip(&weights) {
            left -= weight;
            if left <= 0.0 {
                return *id as u32;
            }
        }
        order[weights.len() - 1] as u32
    }

    fn penalise(&self, logits: &mut [f32], tokens: &[u32]) {
        if self.repetition_penalty == 1.0 {
            return;
        }
        let penalty = self.repetition_penalty as f32;
        // A token counts once, however often it is there.
        for id in tokens.iter().collect::<BTreeSet<_>>() {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = if *logit > 0.0 {
                    *logit / penalty
                } else {
                    *logit * penalty
                };
            }
        }
    }

    /// Ids from the likeliest on, and the weights of those that may be drawn.
    fn candidates(&self, logits: &[f32]) -> (Vec<usize>, Vec<f64>) {
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        order.truncate(self.top_k.unwrap_or(logits.len()));
        let largest = f64::from(logits[order[0]]);
        let mut weights: Vec<f64> = order
            .iter()
            .map(|i| ((f64::from(logits[*i]) - largest) / self.temperature).exp())
            .collect();
        let total: f64 = weights.iter().sum();
        let mut reached = 0.0;
        let kept = weights.iter().position(|weight| {
            reached += weight;
            reached >= self.top_p * total
        });
        weights.truncate(kept.map_or(weights.len(), |last| last + 1));
        (order, weights)
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn draw(logits: &[f32], sampling: &Sampling, seed: u64) -> u32 {
        let mut generator = ChaCha8Rng::seed_from_u64(seed);
        sampling.choose(&mut logits.to_vec(), &[], &mut generator)
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

    #[test]
    fn tokens_of_the_text_are_penalised_once_as_hugging_face_does() {
        let sampling = Sampling {
            repetition_penalty: 2.0,
            ..Default::default()
        };
        let mut logits = [1.0, -1.0, 0.0, 4.0, 3.0];
        sampling.penalise(&mut logits, &[0, 1, 2, 3, 3, 99]);
        assert_eq!(logits, [0.5, -2.0, 0.0, 2.0, 3.0]);
    }

    #[test]
    fn what_cannot_be_is_refused_by_name() {
        let refused = |change: &dyn Fn(&mut Sampling)| {
            let mut sampling = Sampling::default();
            change(&mut sampling);
            sampling.validate().unwrap_err().to_string()
        };
        assert_eq!(
            refused(&|s| s.repetition_penalty = 0.0),
            "repetition_penalty = 0: a positive number; 1 changes nothing"
        );
        assert_eq!(
            refused(&|s| s.max_new_tokens = 0),
            "max_new_tokens = 0: at least 1"
        );
        assert_eq!(
            refused(&|s| s.stop = vec![String::new()]),
            "stop = an empty text: texts of at least one letter"
        );
        assert_eq!(
            refused(&|s| s.temperature = -0.5),
            "temperature = -0.5: zero or a positive number"
        );
        assert_eq!(
            refused(&|s| s.top_p = 1.5),
            "top_p = 1.5: a probability in (0, 1]"
        );
    }

    #[test]
    fn options_are_read_by_name_and_no_other() {
        let read: Sampling = serde_json::from_str(r#"{"top_k": 5, "stop": ["a"]}"#).unwrap();
        assert_eq!((read.top_k, read.top_p), (Some(5), 1.0));
        assert!(serde_json::from_str::<Sampling>(r#"{"topk": 5}"#).is_err());
    }
}
