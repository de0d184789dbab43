//! JSON and safetensors, read and written.

use std::{collections::HashMap, fs, path::Path};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use crate::{error::CoreError, files::write_whole};

/// A named f32 array, row-major.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct NamedTensor {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) values: Vec<f32>,
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), CoreError> {
    let mut text = format!("{value:#}");
    text.push('\n');
    write_whole(path, text.as_bytes()).map_err(|error| CoreError::io(path, error))
}

pub(crate) fn write_safetensors(
    path: &Path,
    tensors: &[NamedTensor],
    metadata: Option<HashMap<String, String>>,
) -> Result<(), CoreError> {
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
    let file = safetensors::serialize(views, Some(metadata))
        .map_err(|error| CoreError::file(path, error.to_string()))?;
    write_whole(path, &file).map_err(|error| CoreError::io(path, error))
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, CoreError> {
    fs::read(path).map_err(|error| CoreError::io(path, error))
}

pub(crate) fn parse_json(path: &Path, bytes: &[u8]) -> Result<Value, CoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| CoreError::file(path, format!("is not JSON: {error}")))
}

pub(crate) fn parse_safetensors<'a>(
    path: &Path,
    bytes: &'a [u8],
) -> Result<SafeTensors<'a>, CoreError> {
    SafeTensors::deserialize(bytes)
        .map_err(|error| CoreError::file(path, format!("is not a safetensors file: {error}")))
}

/// A stored matrix or vector as f32.
pub(crate) fn values(
    path: &Path,
    name: &str,
    view: &TensorView<'_>,
) -> Result<Vec<f32>, CoreError> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => Ok(data.chunks_exact(4).map(f32_from_le).collect()),
        Dtype::F16 => Ok(data
            .chunks_exact(2)
            .map(|b| half_from_le(b).0.to_f32())
            .collect()),
        Dtype::BF16 => Ok(data
            .chunks_exact(2)
            .map(|b| half_from_le(b).1.to_f32())
            .collect()),
        other => Err(CoreError::file(
            path,
            format!("tensor `{name}` is stored as {other:?}; supported: F32, F16, BF16"),
        )),
    }
}

fn f32_from_le(bytes: &[u8]) -> f32 {
    let mut word = [0; 4];
    word.copy_from_slice(bytes);
    f32::from_le_bytes(word)
}

/// The same two bytes as f16 and as bf16.
fn half_from_le(bytes: &[u8]) -> (burn::tensor::f16, burn::tensor::bf16) {
    let word = u16::from_le_bytes([bytes[0], bytes[1]]);
    (
        burn::tensor::f16::from_bits(word),
        burn::tensor::bf16::from_bits(word),
    )
}

fn le_bytes(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}
