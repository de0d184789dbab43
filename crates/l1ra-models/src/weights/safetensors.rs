//! Safetensors: one file, or several with `model.safetensors.index.json`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use l1ra_core::{StoredEntry, TensorFile};
use memmap2::Mmap;
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    error::ModelError,
    json,
    weights::{StoredTensor, StoredType, WeightSource, mapped::release},
};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The weights of a Hugging Face folder, memory-mapped.
#[derive(Debug)]
pub struct SafetensorsFiles {
    dir: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    tensors: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    file: usize,
    shape: Vec<usize>,
    dtype: Dtype,
    /// Byte range in the file.
    range: std::ops::Range<usize>,
}

impl SafetensorsFiles {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// Neither file is there, a shard is missing, or a file is damaged.
    pub fn open(dir: &Path) -> Result<Self, ModelError> {
        let names = shard_names(dir)?;
        let mut opened = Self {
            dir: dir.into(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
        };
        for name in names {
            let path = dir.join(name);
            if !path.is_file() {
                let detail = format!("is missing; {INDEX} lists it (is the download complete?)");
                return Err(ModelError::format(path, detail));
            }
            opened.add(path)?;
        }
        Ok(opened)
    }

    /// The files, in the order of their names, with their sizes in bytes.
    pub fn files(&self) -> impl Iterator<Item = (&Path, u64)> {
        self.files
            .iter()
            .map(|(path, map)| (path.as_path(), map.len() as u64))
    }

    /// Number type of a tensor; nothing is read.
    ///
    /// # Errors
    /// A tensor that is missing, or of a type that is not supported.
    pub fn stored_type(&self, name: &str) -> Result<StoredType, ModelError> {
        let entry = self.entry(name)?;
        match entry.dtype {
            Dtype::F32 => Ok(StoredType::F32),
            Dtype::F16 => Ok(StoredType::F16),
            Dtype::BF16 => Ok(StoredType::BF16),
            other => {
                let what = format!("the type of tensor `{name}`");
                let (path, seen) = (&self.files[entry.file].0, format!("{other:?}"));
                Err(ModelError::unsupported(path, what, seen, "F32, F16, BF16"))
            }
        }
    }

    /// Name of a tensor's type and its bytes, for the list of a file's content.
    pub(crate) fn described(&self, name: &str) -> Option<(String, u64)> {
        let entry = self.tensors.get(name)?;
        Some((format!("{:?}", entry.dtype), entry.range.len() as u64))
    }

    fn entry(&self, name: &str) -> Result<&Entry, ModelError> {
        self.tensors
            .get(name)
            .ok_or_else(|| ModelError::MissingTensor {
                path: self.dir.clone(),
                name: name.into(),
                hint: String::new(),
            })
    }

    fn add(&mut self, path: PathBuf) -> Result<(), ModelError> {
        let (file, tensors) = TensorFile::open(&path)?.into_parts();
        // SAFETY: the map is read-only and private; a file that another program truncates while
        // it is open would end this program, as with every memory-mapped reader.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|error| ModelError::io(&path, error))?;
        let index = self.files.len();
        for (name, stored) in tensors {
            let StoredEntry {
                dtype,
                shape,
                range,
            } = stored;
            if range.end > map.len() {
                let detail = "was made shorter while it was opened; open it again";
                return Err(ModelError::format(&path, detail));
            }
            let entry = Entry {
                file: index,
                shape,
                dtype,
                range,
            };
            if let Some(other) = self.tensors.get(&name) {
                let other = self.files[other.file].0.file_name().unwrap_or_default();
                let detail = format!(
                    "tensor `{name}` is also in {}; expected it in one of the shards",
                    other.display()
                );
                return Err(ModelError::format(&path, detail));
            }
            self.tensors.insert(name, entry);
        }
        self.files.push((path, map));
        Ok(())
    }
}

/// What is read of a list of shards.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, Value>,
}

/// Names of the weight files in `dir`.
fn shard_names(dir: &Path) -> Result<BTreeSet<String>, ModelError> {
    if dir.join(SINGLE).is_file() {
        return Ok(BTreeSet::from([SINGLE.to_string()]));
    }
    let index = dir.join(INDEX);
    if !index.is_file() {
        let detail = format!(
            "holds neither {SINGLE} nor {INDEX} (weights in .bin files must be converted first)"
        );
        return Err(ModelError::format(dir, detail));
    }
    let bytes = json::read(&index)?;
    let Index { weight_map } = json::parse(&index, &bytes, "list of shards")?;
    if weight_map.is_empty() {
        let detail = "its `weight_map` is empty; expected a file name for every tensor";
        return Err(ModelError::format(&index, detail));
    }
    let mut names = BTreeSet::new();
    for (tensor, name) in &weight_map {
        let plain = name
            .as_str()
            .filter(|name| Path::new(name).file_name() == Some(name.as_ref()));
        let name = plain.ok_or_else(|| {
            let detail =
                format!("tensor `{tensor}` is in {name}; expected the name of a file beside it");
            ModelError::format(&index, detail)
        })?;
        names.insert(name.to_string());
    }
    Ok(names)
}

impl WeightSource for SafetensorsFiles {
    fn path(&self) -> &Path {
        &self.dir
    }

    fn names(&self) -> Vec<String> {
        self.tensors.keys().cloned().collect()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.tensors.get(name).map(|entry| entry.shape.clone())
    }

    fn read(&self, name: &str) -> Result<StoredTensor, ModelError> {
        let dtype = self.stored_type(name)?;
        let entry = self.entry(name)?;
        let (_, map) = &self.files[entry.file];
        let bytes = map[entry.range.clone()].to_vec();
        release(map, &entry.range);
        Ok(StoredTensor {
            shape: entry.shape.clone(),
            dtype,
            bytes,
        })
    }
}
