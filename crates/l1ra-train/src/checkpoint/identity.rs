//! [`Identity`]: which run a checkpoint is of.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    data::{Packing, Sample},
    plural::counted,
};

/// Settings that may differ from those of the checkpoint: they change no number, or only what comes
/// later. What the paths of model and data stand for is compared by content.
const FREE: [&str; 21] = [
    "output",
    "device",
    "layout",
    "log",
    "checkpoint",
    "model.path",
    "data.train",
    "data.eval",
    "data.cache",
    "train.steps",
    "train.epochs",
    "train.warmup_ratio",
    "train.eval_every",
    "train.recompute",
    "train.not_finite",
    "train.max_skipped",
    // The same of `TrainOptions`, where there is no recipe.
    "steps",
    "eval_every",
    "recompute",
    "not_finite",
    "max_skipped",
];

/// What a run is known by: its settings, its model and its data.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    /// The resolved recipe, or [`TrainOptions`](crate::TrainOptions) where there is none.
    pub settings: Value,
    /// Hash of the model's files; empty where nobody made one.
    pub model: String,
    /// The training data.
    pub train: DataMark,
    /// The evaluation data.
    pub eval: DataMark,
}

/// What data are known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataMark {
    /// Samples.
    pub samples: usize,
    /// Tokens.
    pub tokens: usize,
    /// SHA-256 of ids, targets and packing, hexadecimal.
    pub hash: String,
}

/// The mark of samples, and of the rows that they are packed in.
pub fn data_mark(samples: &[Sample], packing: Option<&Packing>) -> DataMark {
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, value: usize| hash.update((value as u64).to_le_bytes());
    number(&mut hash, samples.len());
    for sample in samples {
        number(&mut hash, sample.len());
        for (id, target) in sample.ids.iter().zip(&sample.is_target) {
            hash.update((u64::from(*id) << 1 | u64::from(*target)).to_le_bytes());
        }
    }
    for row in packing.map(Packing::rows).unwrap_or_default() {
        number(&mut hash, row.len());
        row.iter()
            .for_each(|sample| number(&mut hash, *sample as usize));
    }
    DataMark {
        samples: samples.len(),
        tokens: samples.iter().map(Sample::len).sum(),
        hash: hash
            .finalize()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect(),
    }
}

impl Identity {
    /// What keeps this run from being the one of `saved`, one sentence each.
    pub fn differences(&self, saved: &Self) -> Vec<String> {
        let mut found = Vec::new();
        differences("", &saved.settings, &self.settings, &mut found);
        if !self.model.is_empty() && !saved.model.is_empty() && self.model != saved.model {
            found.push(format!(
                "the model's files hash to {} and hashed to {}",
                self.model, saved.model
            ));
        }
        for (name, now, then) in [
            ("training", &self.train, &saved.train),
            ("evaluation", &self.eval, &saved.eval),
        ] {
            if now != then {
                let said = |mark: &DataMark| {
                    let short = mark.hash.get(..12).unwrap_or(&mark.hash);
                    format!(
                        "{} of {} (hash {short})",
                        counted(mark.samples, "sample"),
                        counted(mark.tokens, "token"),
                    )
                };
                found.push(format!(
                    "the {name} data are {}, and were {}",
                    said(now),
                    said(then)
                ));
            }
        }
        found
    }
}

/// Walks two trees of settings; a key that only one has is compared with `null`.
fn differences(key: &str, saved: &Value, now: &Value, found: &mut Vec<String>) {
    if saved == now || FREE.contains(&key) {
        return;
    }
    let empty = serde_json::Map::new();
    let (then_map, now_map) = match (saved, now) {
        (Value::Object(then), Value::Object(now)) => (then, now),
        (Value::Object(then), Value::Null) => (then, &empty),
        (Value::Null, Value::Object(now)) => (&empty, now),
        _ => {
            found.push(format!("{key} is {now}, and was {saved}"));
            return;
        }
    };
    let more = now_map
        .keys()
        .filter(|name| !then_map.contains_key(name.as_str()));
    for name in then_map.keys().chain(more) {
        let below = match key {
            "" => name.clone(),
            _ => format!("{key}.{name}"),
        };
        let value = |map: &serde_json::Map<String, Value>| {
            map.get(name.as_str()).cloned().unwrap_or(Value::Null)
        };
        differences(&below, &value(then_map), &value(now_map), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn identity(settings: Value) -> Identity {
        Identity {
            settings,
            ..Default::default()
        }
    }

    #[test]
    fn what_may_change_is_not_said_and_the_rest_is() {
        let saved = identity(json!({
            "output": "a", "log": {"every": 0},
            "train": {"steps": 10, "lr": 0.1, "epochs": null},
            "adapters": {"rank": 8, "rank_pattern": {}},
        }));
        let mut now = identity(json!({
            "output": "b", "log": {"every": 3},
            "train": {"steps": 20, "lr": 0.1},
            "adapters": {"rank": 8, "rank_pattern": {}},
        }));
        assert_eq!(now.differences(&saved), Vec::<String>::new());
        now.settings["adapters"]["rank_pattern"]["up_proj"] = 4.into();
        now.settings["train"]["lr"] = 0.2.into();
        now.model = "1".into();
        now.train.samples = 1;
        assert_eq!(
            now.differences(&Identity {
                model: "2".into(),
                ..saved
            }),
            [
                "train.lr is 0.2, and was 0.1",
                "adapters.rank_pattern.up_proj is 4, and was null",
                "the model's files hash to 1 and hashed to 2",
                "the training data are 1 sample of 0 tokens (hash ), and were 0 samples of 0 tokens \
                 (hash )",
            ]
        );
    }

    #[test]
    fn a_mark_sees_ids_targets_and_rows() {
        let sample = |ids: &[u32], targets: &[bool]| Sample {
            ids: ids.to_vec(),
            is_target: targets.to_vec(),
        };
        let samples = vec![
            sample(&[1, 2, 3], &[false, true, true]),
            sample(&[4, 5], &[false, true]),
        ];
        let mark = data_mark(&samples, None);
        assert_eq!((mark.samples, mark.tokens), (2, 5));
        let mut other = samples.clone();
        other[0].is_target[1] = false;
        assert_ne!(data_mark(&other, None).hash, mark.hash);
        let moved = vec![
            sample(&[1, 2], &[false, true]),
            sample(&[3, 4, 5], &[true, false, true]),
        ];
        assert_ne!(data_mark(&moved, None).hash, mark.hash);
        let packing = Packing::new(&samples, 5, 0);
        assert_ne!(data_mark(&samples, Some(&packing)).hash, mark.hash);
        assert_eq!(data_mark(&samples, None), mark);
    }
}
