//! GGUF files of Llama-family models: configuration, weights and tokenizer from one file.
//!
//! Format: `gguf-py` and `docs/gguf.md` of ggml; names and the permutation of q and k:
//! `convert_hf_to_gguf.py` of llama.cpp.

mod metadata;
mod names;
mod parse;
mod quant;
mod tokenizer;

pub use metadata::SpecialTokenIds;
pub use parse::GgufValue;
pub use quant::GgmlType;

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::error::ModelError;
use parse::{Header, TensorInfo};

/// A GGUF file, memory-mapped, its header read and checked.
#[derive(Debug)]
pub struct GgufFile {
    path: PathBuf,
    map: Mmap,
    metadata: BTreeMap<String, GgufValue>,
    /// By Hugging Face name.
    tensors: BTreeMap<String, TensorInfo>,
    rope_freqs: Option<TensorInfo>,
}

/// Number type of a tensor as [`GgufFile::tensor`] gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GgufDType {
    /// 32-bit float; what quantised types become.
    F32,
    /// 16-bit float.
    F16,
    /// 16-bit brain float.
    BF16,
}

/// A tensor in Hugging Face's shape, little-endian.
#[derive(Clone, Debug)]
pub struct GgufTensor {
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Number type.
    pub dtype: GgufDType,
    /// Values.
    pub bytes: Vec<u8>,
}

impl GgufFile {
    /// Opens a GGUF file (version 2 or 3) and checks its header against its size.
    ///
    /// # Errors
    /// A damaged or truncated file, or a tensor of a type or name that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|error| ModelError::io(path, error))?;
        // SAFETY: the map is read-only and private; a file that another program truncates while
        // it is open would end this program, as with every memory-mapped reader.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| ModelError::io(path, error))?;
        let Header {
            metadata,
            tensors: stored,
        } = parse::header(&map).map_err(|detail| ModelError::format(path, detail))?;
        let mut tensors = BTreeMap::new();
        let mut rope_freqs = None;
        for (name, info) in stored {
            if name == "rope_freqs.weight" {
                rope_freqs = Some(info);
                continue;
            }
            let Some(hf) = names::hugging_face(&name) else {
                let known = "the tensors of Llama-family models";
                return Err(ModelError::unsupported(path, "a tensor name", name, known));
            };
            tensors.insert(hf, info);
        }
        Ok(Self {
            path: path.into(),
            map,
            metadata,
            tensors,
            rope_freqs,
        })
    }

    /// A metadata value.
    pub fn value(&self, key: &str) -> Option<&GgufValue> {
        self.metadata.get(key)
    }

    /// Every metadata value, by key.
    pub fn metadata(&self) -> impl Iterator<Item = (&str, &GgufValue)> {
        self.metadata
            .iter()
            .map(|(key, value)| (key.as_str(), value))
    }

    /// Hugging Face names of all tensors.
    pub fn tensor_names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    /// Hugging Face shape and stored type of a tensor.
    pub fn tensor_info(&self, name: &str) -> Option<(&[usize], GgmlType)> {
        self.tensors
            .get(name)
            .map(|info| (info.shape.as_slice(), info.kind))
    }

    /// Reads a tensor: quantised types become f32, others stay; the order of q and k rows is
    /// Hugging Face's again.
    ///
    /// # Errors
    /// A tensor that is missing.
    pub fn tensor(&self, name: &str) -> Result<GgufTensor, ModelError> {
        let info = self
            .tensors
            .get(name)
            .ok_or_else(|| ModelError::MissingTensor {
                path: self.path.clone(),
                name: name.into(),
                hint: String::new(),
            })?;
        let (dtype, mut bytes) = quant::decode(info.kind, &self.map[info.range.clone()]);
        if let Some(heads) = self.permuted_heads(name)? {
            let width = if dtype == GgufDType::F32 { 4 } else { 2 };
            let row = info.shape.get(1).copied().unwrap_or(1) * width;
            bytes = names::unpermute(&bytes, row, info.shape[0], heads).ok_or_else(|| {
                let detail = format!(
                    "tensor `{name}`: {} rows do not fit {heads} heads",
                    info.shape[0]
                );
                ModelError::format(&self.path, detail)
            })?;
        }
        Ok(GgufTensor {
            shape: info.shape.clone(),
            dtype,
            bytes,
        })
    }

    /// Divisors of the rotary frequencies, `[head_dim / 2]`, where the file has them (Llama 3.1).
    ///
    /// # Errors
    /// A tensor that is not f32.
    pub fn rope_freqs(&self) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(info) = &self.rope_freqs else {
            return Ok(None);
        };
        if info.kind != GgmlType::F32 {
            let seen = format!("{:?}", info.kind);
            return Err(ModelError::unsupported(
                &self.path,
                "rope_freqs.weight",
                seen,
                "F32",
            ));
        }
        let bytes = &self.map[info.range.clone()];
        let number = |b: &[u8]| f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
        Ok(Some(bytes.chunks_exact(4).map(number).collect()))
    }

    /// Heads whose rows llama.cpp permuted, for q and k.
    fn permuted_heads(&self, name: &str) -> Result<Option<usize>, ModelError> {
        let key = if name.contains("q_proj") {
            "attention.head_count"
        } else if name.contains("k_proj") {
            "attention.head_count_kv"
        } else {
            return Ok(None);
        };
        self.number(key).map(Some)
    }
}
