//! JSON and safetensors, read and made.

use std::{collections::HashMap, fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::CoreError;

/// A named f32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamedTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

pub(crate) fn json(value: &Value) -> Vec<u8> {
    format!("{value:#}\n").into_bytes()
}

/// The bytes of a safetensors file, which is to be `path`.
pub(crate) fn safetensors(
    path: &Path,
    tensors: &[NamedTensor],
    metadata: Option<HashMap<String, String>>,
) -> Result<Vec<u8>, CoreError> {
    let bytes: Vec<Vec<u8>> = tensors
        .iter()
        .map(|tensor| le_bytes(&tensor.values))
        .collect();
    let mut views = Vec::with_capacity(tensors.len());
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)
            .map_err(|error| CoreError::file(path, error.to_string()))?;
        views.push((tensor.name.as_str(), view));
    }
    let metadata =
        metadata.unwrap_or_else(|| HashMap::from([("format".to_string(), "pt".to_string())]));
    safetensors::serialize(views, Some(metadata))
        .map_err(|error| CoreError::file(path, error.to_string()))
}

/// Largest configuration that is read; those of PEFT have a few kilobytes. What a parser makes of a
/// file may take many times its size.
const MAX_CONFIG: u64 = 1 << 24;

/// Reads a JSON file of the kind `what`. A key that does not fit is named with its line.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path, what: &str) -> Result<T, CoreError> {
    let io = |error| CoreError::io(path, error);
    let size = fs::metadata(path).map_err(io)?.len();
    if size > MAX_CONFIG {
        let detail = format!("has {size} bytes; {what} has {MAX_CONFIG} at most");
        return Err(CoreError::file(path, detail));
    }
    let bytes = fs::read(path).map_err(io)?;
    let not_json = |error| CoreError::file(path, format!("is not JSON: {error}"));
    let mut json = serde_json::Deserializer::from_slice(&bytes);
    let read = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        let inner = error.into_inner();
        match (inner.is_data(), place.as_str()) {
            (false, _) => not_json(inner),
            (true, ".") => CoreError::file(path, format!("is no {what}: {inner}")),
            (true, key) => CoreError::file(path, format!("is no {what}: `{key}`: {inner}")),
        }
    })?;
    json.end().map_err(not_json)?;
    Ok(read)
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
