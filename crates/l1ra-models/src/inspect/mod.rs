//! What a path holds: a model, or an adapter, without building either.

mod adapter;
mod model;
mod text;

pub use adapter::{AdapterInspection, GateSummary, RankRow, ReaderVerdict};
pub use model::{ModelInspection, StoredBytes, TokenizerInspection};

use std::{fmt, path::Path};

use l1ra_core::peft::CONFIG_FILE;
use serde::Serialize;

use crate::error::ModelError;

/// What a path holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Inspection {
    /// A model: a Hugging Face folder, or a GGUF file.
    Model(Box<ModelInspection>),
    /// An adapter: the folder of PEFT's two files.
    Adapter(Box<AdapterInspection>),
}

/// Looks into `path`: a Hugging Face folder (weights and tokenizer may be absent), a `.gguf` file,
/// a folder with one, or the folder of an adapter.
///
/// # Errors
/// Nothing of the kind there, or a file that is damaged or not supported.
pub fn inspect(path: &Path) -> Result<Inspection, ModelError> {
    if path.join(CONFIG_FILE).is_file() {
        return Ok(Inspection::Adapter(Box::new(adapter::inspect(path)?)));
    }
    Ok(Inspection::Model(Box::new(model::inspect(path)?)))
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model(model) => model.fmt(f),
            Self::Adapter(adapter) => adapter.fmt(f),
        }
    }
}

/// Names and sizes of the files in a folder, by name.
fn files(dir: &Path) -> Result<Vec<(String, u64)>, ModelError> {
    let io = |error| ModelError::io(dir, error);
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        // Through links: the hub's cache holds nothing else.
        let metadata = std::fs::metadata(entry.path()).map_err(io)?;
        if metadata.is_file() {
            let name = entry.file_name().to_string_lossy().into_owned();
            files.push((name, metadata.len()));
        }
    }
    files.sort();
    Ok(files)
}
