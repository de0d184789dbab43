//! [`Layout`]: the three ways to write mixed ranks, and who reads them right.

use std::{cmp::Reverse, fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    config::L1raConfig,
    peft::{PREFIX, Reader, files::NamedTensor},
    walk::AdapterData,
};

/// How ranks and scales are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// `rank_pattern` and `alpha_pattern_i = s·r_i`; matrices as they are. Right in PEFT.
    Exact,
    /// `rank_pattern` only; `B_i` scaled by `s·r_i / alpha`. Right in PEFT and llama.cpp.
    #[default]
    Folded,
    /// Every module zero-padded to one rank `R`, `s` folded into B, `alpha = R`, no patterns.
    /// Right in PEFT, llama.cpp and vLLM; the largest files.
    Padded,
}

impl Layout {
    /// Every lay-out.
    pub const ALL: [Self; 3] = [Self::Exact, Self::Folded, Self::Padded];

    /// Whether `reader` gives these files the scale that they were trained with.
    pub fn is_right_in(self, reader: Reader) -> bool {
        match self {
            Self::Exact => reader == Reader::Peft,
            Self::Folded => reader != Reader::Vllm,
            Self::Padded => true,
        }
    }

    /// One line for a person who is about to load these files with `reader`: whether it scales them
    /// right, how that is known, and what to do where it does not.
    pub fn reader_note(self, reader: Reader) -> String {
        let rule = reader.rule();
        if self.is_right_in(reader) {
            return format!("right: {rule}; {}", reader.checked());
        }
        let better = Self::ALL
            .into_iter()
            .rev()
            .filter(|l| l.is_right_in(reader));
        let better: Vec<String> = better.map(|layout| layout.to_string()).collect();
        format!(
            "WRONG for mixed ranks or scales: {rule}; write the lay-out {} for it",
            better.join(" or ")
        )
    }

    /// PEFT's configuration and tensors for `adapters`.
    pub(crate) fn encode(
        self,
        adapters: &[AdapterData],
        config: &L1raConfig,
        base_model: &str,
    ) -> (Value, Vec<NamedTensor>) {
        let alive: Vec<&AdapterData> = adapters
            .iter()
            .filter(|adapter| adapter.has_gate())
            .collect();
        let widest = alive
            .iter()
            .map(|adapter| adapter.rank())
            .max()
            .unwrap_or(1);
        let mut ranks = Map::new();
        let mut alphas = Map::new();
        let mut tensors = Vec::with_capacity(2 * alive.len());
        // Longest path first: the key `b` matches `a.b` as well, and readers take the first match.
        let mut longest_first = alive.clone();
        longest_first.sort_by_key(|adapter| Reverse(adapter.path.len()));
        for adapter in longest_first {
            let (rank, scale) = (adapter.rank(), f64::from(adapter.scale));
            let key = adapter.path.replace('.', r"\.");
            let (fold, width) = match self {
                Self::Exact => {
                    ranks.insert(key.clone(), json!(rank));
                    alphas.insert(key, json!(scale * rank as f64));
                    (1.0, rank)
                }
                Self::Folded => {
                    ranks.insert(key, json!(rank));
                    (scale * rank as f64 / config.alpha, rank)
                }
                Self::Padded => (scale, widest),
            };
            tensors.extend(matrices(adapter, fold as f32, width));
        }
        let (r, alpha) = match self {
            Self::Padded => (widest, widest as f64),
            _ => (config.rank, config.alpha),
        };
        let paths: Vec<&str> = alive.iter().map(|adapter| adapter.path.as_str()).collect();
        let peft = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": base_model,
            "inference_mode": true,
            "r": r,
            "lora_alpha": number(alpha),
            "lora_dropout": config.dropout,
            "bias": "none",
            "fan_in_fan_out": false,
            "init_lora_weights": true,
            "modules_to_save": null,
            "target_modules": paths,
            "rank_pattern": ranks,
            "alpha_pattern": alphas,
        });
        (peft, tensors)
    }
}

/// A whole number without a fraction: llama.cpp and older readers expect an integer alpha.
pub(super) fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 {
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// `A [width, d_in]` and `B·diag(c)·fold [d_out, width]`, zero-padded to `width` ranks.
fn matrices(adapter: &AdapterData, fold: f32, width: usize) -> [NamedTensor; 2] {
    let AdapterData {
        path,
        d_in,
        d_out,
        a,
        c,
        b,
        ..
    } = adapter;
    let rank = c.len();
    let mut a_peft = vec![0.0; width * d_in];
    let mut b_peft = vec![0.0; d_out * width];
    for k in 0..rank {
        for i in 0..*d_in {
            a_peft[k * d_in + i] = a[i * rank + k];
        }
        let factor = c[k] * fold;
        for o in 0..*d_out {
            b_peft[o * width + k] = b[k * d_out + o] * factor;
        }
    }
    let named = |part: &str, shape: Vec<usize>, values| NamedTensor {
        name: format!("{PREFIX}{path}.{part}.weight"),
        shape,
        values,
    };
    [
        named("lora_A", vec![width, *d_in], a_peft),
        named("lora_B", vec![*d_out, width], b_peft),
    ]
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Exact => "exact",
            Self::Folded => "folded",
            Self::Padded => "padded",
        })
    }
}

impl FromStr for Layout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL
            .into_iter()
            .find(|layout| layout.to_string() == text)
            .ok_or_else(|| format!("lay-out `{text}` is unknown; known: exact, folded, padded"))
    }
}
