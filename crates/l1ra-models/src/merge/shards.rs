//! Which tensor goes into which file and where, known before any of them is read.

use serde_json::{Map, Value, json};

use crate::weights::StoredType;

const SINGLE: &str = "model.safetensors";
/// Name of the list of shards.
pub(super) const INDEX: &str = "model.safetensors.index.json";

/// A tensor of the output.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) dtype: StoredType,
}

impl Entry {
    fn values(&self) -> u64 {
        self.shape.iter().map(|length| *length as u64).product()
    }

    fn bytes(&self) -> u64 {
        self.values() * self.dtype.size() as u64
    }
}

/// A file of the output, its tensors in the order of their bytes.
#[derive(Debug)]
pub(super) struct Shard {
    pub(super) file: String,
    pub(super) entries: Vec<Entry>,
}

impl Shard {
    /// Length, JSON and padding, as safetensors begins: data starts at a multiple of 8.
    pub(super) fn header(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({"format": "pt"}));
        let mut offset = 0;
        for entry in &self.entries {
            let end = offset + entry.bytes();
            let description = json!({
                "dtype": entry.dtype.safetensors_name(),
                "shape": entry.shape,
                "data_offsets": [offset, end],
            });
            header.insert(entry.name.clone(), description);
            offset = end;
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes
    }
}

/// Fills files one after the other, as `save_pretrained` of transformers does: a tensor that would
/// bring a file over `max` begins the next one.
pub(super) fn plan(entries: Vec<Entry>, max: u64) -> Vec<Shard> {
    let mut groups: Vec<Vec<Entry>> = Vec::new();
    let mut size = 0;
    for entry in entries {
        match groups.last_mut() {
            Some(group) if size + entry.bytes() <= max => {
                size += entry.bytes();
                group.push(entry);
            }
            _ => {
                size = entry.bytes();
                groups.push(vec![entry]);
            }
        }
    }
    let count = groups.len();
    let shard = |(i, mut entries): (usize, Vec<Entry>)| {
        // Wider types first, so that every tensor is aligned to its own type.
        entries.sort_by_key(|entry| std::cmp::Reverse(entry.dtype.size()));
        let file = match count {
            1 => SINGLE.to_string(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", i + 1),
        };
        Shard { file, entries }
    };
    groups.into_iter().enumerate().map(shard).collect()
}

/// The list of shards; `None` where there is one.
pub(super) fn index(shards: &[Shard]) -> Option<Vec<u8>> {
    if shards.len() < 2 {
        return None;
    }
    let all = || shards.iter().flat_map(|shard| &shard.entries);
    let total: u64 = all().map(Entry::bytes).sum();
    let mut places: Vec<(&str, &str)> = shards
        .iter()
        .flat_map(|shard| {
            shard
                .entries
                .iter()
                .map(|e| (e.name.as_str(), shard.file.as_str()))
        })
        .collect();
    places.sort_unstable();
    let places: Map<String, Value> = places
        .into_iter()
        .map(|(name, file)| (name.into(), file.into()))
        .collect();
    let index = json!({
        "metadata": {"total_parameters": parameters(shards), "total_size": total},
        "weight_map": places,
    });
    Some(format!("{index:#}\n").into_bytes())
}

pub(super) fn parameters(shards: &[Shard]) -> u64 {
    let all = shards.iter().flat_map(|shard| &shard.entries);
    all.map(Entry::values).sum()
}

/// The type that holds most bytes.
pub(super) fn main_type(entries: &[Entry]) -> StoredType {
    let bytes = |kind: &StoredType| -> u64 {
        let of_kind = entries.iter().filter(|entry| entry.dtype == *kind);
        of_kind.map(Entry::bytes).sum()
    };
    let most = StoredType::ALL.into_iter().max_by_key(bytes);
    most.unwrap_or(StoredType::F32)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, values: usize, dtype: StoredType) -> Entry {
        Entry {
            name: name.into(),
            shape: vec![values],
            dtype,
        }
    }

    #[test]
    fn files_are_filled_in_order_and_no_further_than_they_may() {
        let entries = ["a", "b", "c", "d"].map(|name| entry(name, 4, StoredType::F32));
        let shards = plan(entries.to_vec(), 40);
        let files: Vec<&str> = shards.iter().map(|shard| shard.file.as_str()).collect();
        assert_eq!(
            files,
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors"
            ]
        );
        assert!(shards.iter().all(|shard| shard.entries.len() == 2));
        // A tensor that is too large alone has a file of its own.
        assert_eq!(plan(entries.to_vec(), 1).len(), 4);
        assert_eq!(plan(entries.to_vec(), 64)[0].file, "model.safetensors");
    }

    #[test]
    fn wider_types_come_first_and_data_begins_at_a_multiple_of_8() {
        let entries = vec![
            entry("odd", 3, StoredType::BF16),
            entry("wide", 1, StoredType::F32),
        ];
        let shard = plan(entries, 100).remove(0);
        assert_eq!(shard.entries[0].name, "wide");
        let header = shard.header();
        let length = u64::from_le_bytes(header[..8].try_into().unwrap()) as usize;
        assert_eq!(header.len(), 8 + length);
        assert_eq!(header.len() % 8, 0);
        let mut file = header;
        file.extend([0; 10]);
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("odd").unwrap().data().len(), 6);
    }
}
