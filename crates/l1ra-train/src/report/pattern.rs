//! [`Trainer`]: the ranks of a run, for other trainers to take from the start.

use std::{fmt, fmt::Write, path::Path, str::FromStr};

use l1ra_core::peft::{RankPattern, describe_adapter};
use serde_json::Value;

use crate::error::TrainError;

/// A program that trains with LoRA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trainer {
    /// PEFT: keyword arguments of `LoraConfig`, as JSON.
    Peft,
    /// Axolotl 0.18 or later: keys of its YAML file.
    Axolotl,
    /// LLaMA-Factory, which takes one rank for all modules.
    LlamaFactory,
}

impl Trainer {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Peft, Self::Axolotl, Self::LlamaFactory];

    /// The text that this trainer takes for `pattern`.
    ///
    /// # Errors
    /// When it cannot take these ranks.
    pub fn text(self, pattern: &RankPattern) -> Result<String, TrainError> {
        match self {
            Self::Peft => Ok(format!("{:#}", serde_json::json!(pattern))),
            Self::Axolotl => axolotl(pattern),
            Self::LlamaFactory => Err(self.refusal(
                "has no key for ranks by module: `lora_rank` is one number for all. Take peft or \
                 axolotl, or give it the run's adapter to go on from (`adapter_name_or_path`)",
            )),
        }
    }

    fn refusal(self, detail: impl Into<String>) -> TrainError {
        TrainError::option("rank_pattern", self, detail)
    }
}

/// The ranks that the run in `dir` ended with, from its adapter.
///
/// # Errors
/// When the run has no adapter, because it has not ended or every gate was zero.
pub fn rank_pattern(dir: &Path) -> Result<RankPattern, TrainError> {
    let adapter = dir.join("adapter");
    let wrong = |detail: &str| TrainError::Data {
        path: adapter.clone(),
        detail: detail.into(),
    };
    if !adapter.is_dir() {
        return Err(wrong(
            "is not there; a run writes it at its end, unless every gate is zero",
        ));
    }
    let set = describe_adapter(&adapter)?.set;
    let config = set
        .config
        .ok_or_else(|| wrong("has no sidecar, so its alpha is not known"))?;
    RankPattern::new(&set.adapters, &config)
        .ok_or_else(|| wrong("every gate is zero, so no rank is left"))
}

/// Axolotl's `lora_alpha` and `lora_alpha_pattern` are whole numbers.
fn axolotl(pattern: &RankPattern) -> Result<String, TrainError> {
    let keys = pattern.alpha_pattern.iter();
    let whole = keys.map(|(key, alpha)| (key.as_str(), alpha));
    let mut alphas = whole.chain([("lora_alpha", &pattern.lora_alpha)]);
    if let Some((key, alpha)) = alphas.find(|(_, alpha)| !alpha.is_u64()) {
        return Err(Trainer::Axolotl.refusal(format!(
            "takes whole alphas only, and `{key}` has {alpha}; train with an adapters.alpha that is \
             a multiple of adapters.rank"
        )));
    }
    let mut text = String::from("adapter: lora\n");
    let _ = writeln!(text, "lora_r: {}", pattern.r);
    let _ = writeln!(
        text,
        "lora_alpha: {}\nlora_target_modules:",
        pattern.lora_alpha
    );
    for path in &pattern.target_modules {
        let _ = writeln!(text, "  - {path}");
    }
    text.push_str("lora_rank_pattern:\n");
    for (key, rank) in &pattern.rank_pattern {
        entry(&mut text, key, &Value::from(*rank));
    }
    text.push_str("lora_alpha_pattern:\n");
    for (key, alpha) in &pattern.alpha_pattern {
        entry(&mut text, key, alpha);
    }
    Ok(text.trim_end().into())
}

/// YAML's single quotes keep a backslash as it is.
fn entry(text: &mut String, key: &str, value: &Value) {
    let _ = writeln!(text, "  '{}': {value}", key.replace('\'', "''"));
}

impl fmt::Display for Trainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peft => "peft",
            Self::Axolotl => "axolotl",
            Self::LlamaFactory => "llama-factory",
        })
    }
}

impl FromStr for Trainer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.into_iter().find(|one| one.to_string() == text);
        known.ok_or_else(|| {
            format!("trainer `{text}` is unknown; known: peft, axolotl, llama-factory")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(alpha: Value) -> RankPattern {
        RankPattern {
            r: 4,
            lora_alpha: Value::from(8),
            target_modules: vec!["model.layers.0.self_attn.q_proj".into()],
            rank_pattern: [(r"model\.layers\.0\.self_attn\.q_proj".into(), 3)].into(),
            alpha_pattern: [(r"model\.layers\.0\.self_attn\.q_proj".into(), alpha)].into(),
        }
    }

    #[test]
    fn axolotl_s_keys() {
        let text = Trainer::Axolotl.text(&pattern(Value::from(6))).unwrap();
        insta::assert_snapshot!(text, @r"
        adapter: lora
        lora_r: 4
        lora_alpha: 8
        lora_target_modules:
          - model.layers.0.self_attn.q_proj
        lora_rank_pattern:
          'model\.layers\.0\.self_attn\.q_proj': 3
        lora_alpha_pattern:
          'model\.layers\.0\.self_attn\.q_proj': 6
        ");
    }

    #[test]
    fn what_a_trainer_cannot_take_is_refused_by_name() {
        let half = pattern(Value::from(4.5));
        let said = |trainer: Trainer| trainer.text(&half).unwrap_err().to_string();
        insta::assert_snapshot!(said(Trainer::Axolotl), @r"rank_pattern = axolotl: takes whole alphas only, and `model\.layers\.0\.self_attn\.q_proj` has 4.5; train with an adapters.alpha that is a multiple of adapters.rank");
        insta::assert_snapshot!(said(Trainer::LlamaFactory), @"rank_pattern = llama-factory: has no key for ranks by module: `lora_rank` is one number for all. Take peft or axolotl, or give it the run's adapter to go on from (`adapter_name_or_path`)");
        assert!(Trainer::Peft.text(&half).unwrap().contains("4.5"));
    }
}
