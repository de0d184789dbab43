//! GGUF files of Llama-family models: configuration, weights and tokenizer from one file.
//!
//! Format: `docs/gguf.md` of ggml and `gguf.cpp`; names and the permutation of q and k:
//! `convert_hf_to_gguf.py` of llama.cpp.

mod layout;
mod metadata;
mod names;
mod parse;
mod quant;
mod sentencepiece;
#[cfg(test)]
mod tests;
mod tokenizer;
mod value;

pub use metadata::SpecialTokenIds;
pub use quant::GgmlType;
pub use value::GgufValue;

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
};

use memmap2::Mmap;

use crate::{error::ModelError, weights::mapped::release};
use layout::TensorInfo;
use parse::Header;

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
    /// Opens a GGUF file (version 2 or 3, little-endian) and checks its header against its size.
    ///
    /// # Errors
    /// A file that cannot be read, is damaged or cut off, is one part of several, or has an
    /// architecture, tensor name or tensor type that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(|error| ModelError::io(path, error))?;
        // SAFETY: the map is read-only and private; a file that another program truncates while
        // it is open would end this program, as with every memory-mapped reader.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| ModelError::io(path, error))?;
        let Header { metadata, tensors } = parse::header(path, &map)?;
        let mut opened = Self {
            path: path.into(),
            map,
            metadata,
            tensors: BTreeMap::new(),
            rope_freqs: None,
        };
        opened.refuse_unsupported()?;
        opened.rename(tensors)?;
        Ok(opened)
    }

    fn refuse_unsupported(&self) -> Result<(), ModelError> {
        let key = "general.architecture";
        let architecture = self.text(key)?;
        if architecture != names::ARCHITECTURE {
            return self.refuse(key, architecture, names::ARCHITECTURE);
        }
        let parts = self
            .value("split.count")
            .and_then(GgufValue::as_usize)
            .unwrap_or(1);
        if parts > 1 {
            return self.refuse("split.count", &parts.to_string(), "one whole file");
        }
        Ok(())
    }

    /// Files the tensors under their Hugging Face names.
    fn rename(&mut self, stored: Vec<(String, TensorInfo)>) -> Result<(), ModelError> {
        for (name, info) in stored {
            if name == "rope_freqs.weight" {
                self.rope_freqs = Some(info);
                continue;
            }
            let Some(renamed) = names::hugging_face(&name) else {
                return self.refuse("a tensor name", &name, "the tensors of Llama-family models");
            };
            self.tensors.insert(renamed, info);
        }
        Ok(())
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
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

    /// Hugging Face shape (row-major) and stored type of a tensor.
    pub fn tensor_info(&self, hf_name: &str) -> Option<(&[usize], GgmlType)> {
        self.tensors
            .get(hf_name)
            .map(|info| (info.shape.as_slice(), info.kind))
    }

    /// Number type that [`tensor`](Self::tensor) will give; nothing is read.
    pub fn decoded_type(&self, hf_name: &str) -> Option<GgufDType> {
        self.tensors
            .get(hf_name)
            .map(|info| quant::decoded_type(info.kind))
    }

    /// Bytes that a tensor takes in the file.
    pub fn stored_bytes(&self, hf_name: &str) -> Option<u64> {
        self.tensors
            .get(hf_name)
            .map(|info| info.range.len() as u64)
    }

    /// Bytes of the file.
    pub fn file_bytes(&self) -> u64 {
        self.map.len() as u64
    }

    /// Reads a tensor: quantised types become f32, others stay; the order of q and k rows (and
    /// biases) is Hugging Face's again.
    ///
    /// # Errors
    /// A tensor that is missing, or q or k whose rows do not fit the number of heads.
    pub fn tensor(&self, hf_name: &str) -> Result<GgufTensor, ModelError> {
        let info = self
            .tensors
            .get(hf_name)
            .ok_or_else(|| self.absent(hf_name))?;
        let (dtype, mut bytes) = quant::decode(info.kind, &self.map[info.range.clone()]);
        release(&self.map, &info.range);
        if let Some(heads) = self.permuted_heads(hf_name)? {
            bytes = names::unpermute(&bytes, info.shape[0], heads).ok_or_else(|| {
                let rows = info.shape[0];
                let detail = format!(
                    "tensor `{hf_name}` has {rows} rows; expected a multiple of twice its {heads} \
                     heads"
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

    fn absent(&self, name: &str) -> ModelError {
        ModelError::MissingTensor {
            path: self.path.clone(),
            name: name.into(),
            hint: String::new(),
        }
    }

    /// Divisors of the rotary frequencies, `[head_dim / 2]`, where the file has them: llama.cpp's
    /// form of Llama 3.1's scaling. The `i`th frequency is `theta^(-2i / head_dim) / divisor[i]`.
    ///
    /// # Errors
    /// A tensor that is not f32, or a divisor that is not positive.
    pub fn rope_freqs(&self) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(info) = &self.rope_freqs else {
            return Ok(None);
        };
        if info.kind != GgmlType::F32 {
            let seen = format!("{:?}", info.kind);
            return self.refuse("the type of tensor `rope_freqs.weight`", &seen, "F32");
        }
        let (numbers, _) = self.map[info.range.clone()].as_chunks::<4>();
        let divisors: Vec<f32> = numbers
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect();
        match divisors
            .iter()
            .find(|divisor| !(divisor.is_finite() && **divisor > 0.0))
        {
            None => Ok(Some(divisors)),
            Some(seen) => {
                let detail =
                    format!("tensor `rope_freqs.weight` holds {seen}; expected numbers > 0");
                Err(ModelError::format(&self.path, detail))
            }
        }
    }

    /// Heads whose rows llama.cpp permuted, for q and k.
    fn permuted_heads(&self, name: &str) -> Result<Option<usize>, ModelError> {
        if name.contains(".q_proj.") {
            self.number("attention.head_count").map(Some)
        } else if name.contains(".k_proj.") {
            self.kv_heads().map(Some)
        } else {
            Ok(None)
        }
    }
}
