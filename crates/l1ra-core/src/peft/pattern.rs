//! [`RankPattern`]: the ranks of a run as other trainers take them, without its weights.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::Value;

use crate::{config::L1raConfig, peft::layout::number, walk::AdapterData};

/// Arguments of PEFT's `LoraConfig` that give each module the rank it has here.
///
/// Every module has the scale `alpha_i / r_i` that it has here. Modules whose gates are all zero are
/// left out, as PEFT refuses a rank of 0.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RankPattern {
    /// Rank of modules without one of their own; every module has one.
    pub r: usize,
    /// Alpha of modules without one of their own.
    pub lora_alpha: Value,
    /// Full paths of the modules.
    pub target_modules: Vec<String>,
    /// Rank of each module; the keys are regular expressions, full paths with escaped dots.
    pub rank_pattern: IndexMap<String, usize>,
    /// Alpha of each module, by the same keys.
    pub alpha_pattern: IndexMap<String, Value>,
}

impl RankPattern {
    /// The pattern of `adapters`; `None` where every gate is zero.
    pub fn new(adapters: &[AdapterData], config: &L1raConfig) -> Option<Self> {
        let mut alive: Vec<&AdapterData> = adapters.iter().filter(|a| a.has_gate()).collect();
        let target_modules: Vec<String> = alive.iter().map(|a| a.path.clone()).collect();
        // Longest path first: the key `b` matches `a.b` as well, and PEFT takes the first match.
        alive.sort_by_key(|adapter| std::cmp::Reverse(adapter.path.len()));
        let key = |adapter: &AdapterData| adapter.path.replace('.', r"\.");
        let ranks = alive.iter().map(|a| (key(a), a.rank()));
        let alphas = alive.iter().map(|a| (key(a), number(alpha(a))));
        (!target_modules.is_empty()).then(|| Self {
            r: config.rank,
            lora_alpha: number(config.alpha),
            rank_pattern: ranks.collect(),
            alpha_pattern: alphas.collect(),
            target_modules,
        })
    }
}

/// `s·r_i`. The scale is kept in f32, so 4/3 · 6 would not be 8 to the last digit.
fn alpha(adapter: &AdapterData) -> f64 {
    let alpha = f64::from(adapter.scale) * adapter.rank() as f64;
    (alpha * 1e5).round() / 1e5
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(path: &str, gates: &[f32], scale: f32) -> AdapterData {
        let rank = gates.len();
        AdapterData {
            path: path.into(),
            d_in: 2,
            d_out: 3,
            a: vec![0.5; 2 * rank],
            c: gates.to_vec(),
            b: vec![0.25; rank * 3],
            scale,
        }
    }

    #[test]
    fn every_module_keeps_its_scale_and_dead_ones_are_left_out() {
        let config = L1raConfig {
            rank: 3,
            alpha: 4.0,
            ..Default::default()
        };
        let adapters = [
            adapter("layers.0.q_proj", &[1.0; 6], 4.0 / 3.0),
            adapter("layers.0.k_proj", &[0.0; 3], 4.0 / 3.0),
            adapter("layers.0.up_proj", &[0.0, 0.5], 4.0 / 3.0),
        ];
        let pattern = RankPattern::new(&adapters, &config).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&pattern).unwrap(), @r#"
        {
          "r": 3,
          "lora_alpha": 4,
          "target_modules": [
            "layers.0.q_proj",
            "layers.0.up_proj"
          ],
          "rank_pattern": {
            "layers\\.0\\.up_proj": 2,
            "layers\\.0\\.q_proj": 6
          },
          "alpha_pattern": {
            "layers\\.0\\.up_proj": 2.66667,
            "layers\\.0\\.q_proj": 8
          }
        }
        "#);
        assert_eq!(RankPattern::new(&adapters[1..2], &config), None);
    }
}
