//! The weight files that an index lists.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use crate::select::{INDEX, SINGLE, is_plain};

/// Longest index that is read; those of models with thousands of tensors have some hundred kilobytes.
const MAX_INDEX: u64 = 1 << 25;

/// Names of the weight files in `dir`: `model.safetensors`, or the shards of its index; else what
/// is wrong.
pub(super) fn shard_names(dir: &Path) -> Result<BTreeSet<String>, String> {
    if dir.join(SINGLE).is_file() {
        return Ok(BTreeSet::from([SINGLE.to_string()]));
    }
    let path = dir.join(INDEX);
    let unread = |error| format!("{INDEX} cannot be read: {error}");
    let size = fs::metadata(&path).map_err(unread)?.len();
    if size > MAX_INDEX {
        return Err(format!(
            "{INDEX} has {size} bytes; at most {MAX_INDEX} are read"
        ));
    }
    let bytes = fs::read(&path).map_err(unread)?;
    let index: Value =
        serde_json::from_slice(&bytes).map_err(|error| format!("{INDEX} is not JSON: {error}"))?;
    let map = index.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| format!("{INDEX} has no `weight_map`"))?;
    let name = |(tensor, name): (&String, &Value)| {
        let plain = name.as_str().filter(|name| is_plain(name));
        let refused = || format!("{INDEX}: tensor `{tensor}` is in {name}, which is no file name");
        plain.map(String::from).ok_or_else(refused)
    };
    map.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn of(index: &str) -> Result<BTreeSet<String>, String> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(INDEX), index).unwrap();
        shard_names(dir.path())
    }

    #[test]
    fn shards_are_listed_once() {
        let names = of(
            r#"{"weight_map": {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}}"#,
        );
        assert_eq!(
            names.unwrap().into_iter().collect::<Vec<_>>(),
            ["1.safetensors", "2.safetensors"]
        );
    }

    #[test]
    fn an_index_without_end_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = fs::File::create(dir.path().join(INDEX)).unwrap();
        file.set_len(MAX_INDEX + 1).unwrap();
        insta::assert_snapshot!(shard_names(dir.path()).unwrap_err(), @"model.safetensors.index.json has 33554433 bytes; at most 33554432 are read");
    }

    #[test]
    fn damage_and_escapes_are_refused() {
        insta::assert_snapshot!(of("{").unwrap_err(), @"model.safetensors.index.json is not JSON: EOF while parsing an object at line 1 column 1");
        insta::assert_snapshot!(of("{}").unwrap_err(), @"model.safetensors.index.json has no `weight_map`");
        insta::assert_snapshot!(of(r#"{"weight_map": {"a": "../b"}}"#).unwrap_err(), @r#"model.safetensors.index.json: tensor `a` is in "../b", which is no file name"#);
    }
}
