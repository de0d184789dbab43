//! The files beside the weights: configuration, tokenizer, generation, chat template.

use std::path::Path;

use serde_json::Value;

use crate::{
    error::ModelError,
    load::{ModelFiles, Source},
    merge::from_gguf,
    tokenizer::read_json,
    weights::StoredType,
};

/// Files that a Hugging Face reader may look for, copied to the byte where they are.
const COPIED: [&str; 12] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
    "generation_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "LICENSE",
    "NOTICE",
];

/// Names and contents.
pub(super) type Companions = Vec<(String, Vec<u8>)>;

/// The files to write beside weights of type `dtype`.
pub(super) fn of(files: &ModelFiles, dtype: StoredType) -> Result<Companions, ModelError> {
    match files.source() {
        Source::Safetensors(_) => from_folder(files.path(), dtype),
        Source::Gguf(weights) => from_gguf::companions(&weights.file, &files.config, dtype),
    }
}

fn from_folder(dir: &Path, dtype: StoredType) -> Result<Companions, ModelError> {
    let path = dir.join("config.json");
    let mut config = read_json(&path)?.unwrap_or_default();
    set_dtype(&mut config, dtype);
    let mut companions = vec![("config.json".to_string(), pretty(&config))];
    for name in COPIED {
        let path = dir.join(name);
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(|error| ModelError::io(&path, error))?;
            companions.push((name.into(), bytes));
        }
    }
    Ok(companions)
}

/// Sets the key that the file uses: `dtype` since transformers 4.56, `torch_dtype` before.
pub(super) fn set_dtype(config: &mut Value, dtype: StoredType) {
    let newer = config.get("dtype").is_some();
    let older = config.get("torch_dtype").is_some();
    if newer {
        config["dtype"] = dtype.torch_name().into();
    }
    if older || !newer {
        config["torch_dtype"] = dtype.torch_name().into();
    }
}

pub(super) fn pretty(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}
