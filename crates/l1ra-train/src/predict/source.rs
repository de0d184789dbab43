//! [`WeightsFrom`]: what is known of weight files without reading them.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use l1ra_core::{StoredEntry, TensorFile};
use l1ra_models::weights::{
    StoredType,
    gguf::{GgmlType, GgufFile},
};

use crate::error::TrainError;

/// Where the weights come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WeightsFrom {
    /// Safetensors or GGUF files, memory-mapped while they are read.
    Files {
        /// Bytes of all files.
        bytes: u64,
        /// What [`Storage::AsStored`](l1ra_models::weights::Storage::AsStored) makes of most of
        /// their numbers: quantised types become f32.
        stored: StoredType,
    },
    /// Nothing is read: weights are drawn, or are there already.
    #[default]
    Memory,
}

impl WeightsFrom {
    /// The weight files that `path`, a folder or a `.gguf` file, holds: their size and type, from
    /// headers alone. A folder without any gives [`Memory`](Self::Memory).
    ///
    /// # Errors
    /// A file that cannot be read, or whose header is damaged.
    pub fn path(path: &Path) -> Result<Self, TrainError> {
        let files = if path.is_dir() {
            weight_files(path)?
        } else {
            vec![path.to_path_buf()]
        };
        let mut bytes = 0;
        let mut numbers = BTreeMap::new();
        for file in &files {
            let metadata = fs::metadata(file).map_err(|error| TrainError::io(file, error))?;
            bytes += metadata.len();
            let counted = if is(file, "gguf") {
                count_gguf(file)?
            } else {
                count_safetensors(file)?
            };
            for (stored, count) in counted {
                *numbers.entry(stored).or_insert(0) += count;
            }
        }
        let most = numbers.into_iter().max_by_key(|(_, count)| *count);
        Ok(most.map_or(Self::Memory, |(stored, _)| Self::Files { bytes, stored }))
    }
}

fn is(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|other| other == extension)
}

/// Safetensors files of a folder, or else its GGUF file, as
/// [`ModelFiles`](l1ra_models::load::ModelFiles) takes them.
fn weight_files(dir: &Path) -> Result<Vec<PathBuf>, TrainError> {
    let entries = fs::read_dir(dir).map_err(|error| TrainError::io(dir, error))?;
    let paths: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .collect();
    let of = |extension| {
        paths
            .iter()
            .filter(move |path| is(path, extension))
            .cloned()
    };
    let safetensors: Vec<PathBuf> = of("safetensors").collect();
    if safetensors.is_empty() && !dir.join("config.json").is_file() {
        return Ok(of("gguf").take(1).collect());
    }
    Ok(safetensors)
}

fn count_gguf(path: &Path) -> Result<Vec<(StoredType, u64)>, TrainError> {
    let file = GgufFile::open(path)?;
    let count = |name: &String| {
        let (shape, kind) = file.tensor_info(name)?;
        let stored = match kind {
            GgmlType::F16 => StoredType::F16,
            GgmlType::BF16 => StoredType::BF16,
            _ => StoredType::F32,
        };
        Some((stored, shape.iter().map(|length| *length as u64).product()))
    };
    Ok(file.tensor_names().iter().filter_map(count).collect())
}

fn count_safetensors(path: &Path) -> Result<Vec<(StoredType, u64)>, TrainError> {
    let file = TensorFile::open(path)?;
    let count = |entry: &StoredEntry| {
        let stored = match entry.dtype.to_string().as_str() {
            "F16" => StoredType::F16,
            "BF16" => StoredType::BF16,
            _ => StoredType::F32,
        };
        let values = entry.shape.iter().map(|length| *length as u64);
        (stored, values.product())
    };
    Ok(file.tensors().values().map(count).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../..")
            .join(path)
    }

    #[test]
    fn folders_and_gguf_files_say_what_they_hold() {
        let path = repository("examples/finetune/model");
        let bytes = fs::metadata(path.join("model.safetensors")).unwrap().len();
        let stored = StoredType::F16;
        let files = WeightsFrom::Files { bytes, stored };
        assert_eq!(WeightsFrom::path(&path).unwrap(), files);

        let path = repository("tests/fixtures/gguf/tiny-llama.gguf");
        let bytes = fs::metadata(&path).unwrap().len();
        let found = WeightsFrom::path(&path).unwrap();
        assert!(matches!(found, WeightsFrom::Files { bytes: found, .. } if found == bytes));
    }

    #[test]
    fn a_folder_without_weights_is_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config.json"), "{}").unwrap();
        assert_eq!(WeightsFrom::path(dir.path()).unwrap(), WeightsFrom::Memory);
    }

    #[test]
    fn damage_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        fs::write(&path, [0xff; 16]).unwrap();
        let error = WeightsFrom::path(dir.path()).unwrap_err().to_string();
        assert!(error.contains("or no safetensors file?"), "{error}");
        fs::write(&path, b"\x02\0\0\0\0\0\0\0[]").unwrap();
        let error = WeightsFrom::path(dir.path()).unwrap_err().to_string();
        assert!(error.contains("its header cannot be read"), "{error}");
        let error = WeightsFrom::path(&dir.path().join("none")).unwrap_err();
        assert!(error.to_string().contains("none"), "{error}");
    }
}
