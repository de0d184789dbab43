//! A base model and an adapter as one model, in a Hugging Face folder.
//!
//! ```text
//! W' = W + s·((A ∘ c)·B)ᵀ      W [d_out, d_in] as Hugging Face stores it
//! ```
//!
//! Tensor by tensor: one is read, its adapter is added in f32, it is rounded to the number type of
//! the output and written. Besides the adapter, one tensor and a few megabytes are in memory,
//! however large the model is; pages of the memory-mapped base that were read may count as this
//! program's until the system takes them back.

mod check;
mod companions;
mod delta;
mod folder;
mod from_gguf;
mod shards;

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use l1ra_core::{peft::AdapterSet, walk::AdapterData};
use serde::Serialize;

use crate::{
    error::ModelError,
    load::ModelFiles,
    weights::{StoredTensor, StoredType, check_names_and_shapes, tensor_shapes},
};
use delta::Delta;
use folder::Draft;
use shards::{Entry, Shard};

/// Values of a tensor that are held as f32 at a time.
const BLOCK: usize = 1 << 20;

/// How a merged model is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MergeOptions {
    /// Number type of every tensor; `None`: each as the base has it, quantised types as f32.
    pub dtype: Option<StoredType>,
    /// A file of weights holds no more bytes than this, unless one tensor alone is larger.
    /// Default: 5 GB, as transformers writes.
    pub max_shard_bytes: u64,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            dtype: None,
            max_shard_bytes: 5_000_000_000,
        }
    }
}

/// What a merge wrote.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MergeReport {
    /// The folder.
    pub output: PathBuf,
    /// Names and bytes of its files.
    pub files: Vec<(String, u64)>,
    /// Tensors.
    pub tensors: usize,
    /// Layers that an adapter was added to.
    pub merged: usize,
    /// Parameters.
    pub parameters: u64,
    /// The number type of most bytes, as `config.json` says it.
    pub dtype: StoredType,
}

impl fmt::Display for MergeReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            tensors,
            merged,
            dtype,
            parameters,
            ..
        } = self;
        let output = self.output.display();
        let plural = if *merged == 1 { "" } else { "s" };
        write!(
            f,
            "{merged} adapter{plural} folded into {tensors} tensors, {parameters} parameters, {dtype}, in {output}"
        )?;
        for (name, bytes) in &self.files {
            write!(f, "\n  {name:<32} {bytes:>12} bytes")?;
        }
        Ok(())
    }
}

/// Writes base and adapter as one model into the folder `output`, which is absent or empty.
///
/// From a Hugging Face folder, `config.json` (but for the number type), tokenizer, generation and
/// chat template files are copied. From a GGUF file they are made from its metadata, tensors are
/// dequantised and named as Hugging Face names them. A head that is tied to the embedding stays so:
/// no `lm_head.weight` is written.
///
/// Everything is written into a folder beside `output` that takes its name when it is complete, so
/// a merge that fails leaves nothing half. `progress` is told the tensors done and their number.
///
/// # Errors
/// An output that is there already; an adapter for a layer that the model does not have, of another
/// shape, or on a tied head; rotary divisors of a GGUF file that no `config.json` can express; a
/// file that cannot be read or written.
pub fn merge_to_dir(
    files: &ModelFiles,
    adapter: &AdapterSet,
    output: &Path,
    options: MergeOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<MergeReport, ModelError> {
    check_names_and_shapes(files.weights(), &files.config)?;
    check::adapters(&files.config, &adapter.adapters)?;
    let entries = entries(files, options.dtype)?;
    let dtype = shards::main_type(&entries);
    let companions = companions::of(files, dtype)?;
    let shards = shards::plan(entries, options.max_shard_bytes);

    let draft = Draft::beside(output)?;
    let by_path: BTreeMap<&str, &AdapterData> = adapter
        .adapters
        .iter()
        .map(|adapter| (adapter.path.as_str(), adapter))
        .collect();
    let mut job = Job {
        files,
        adapters: by_path,
        done: 0,
        total: shards.iter().map(|shard| shard.entries.len()).sum(),
        progress,
    };
    for shard in &shards {
        job.write(&draft.path().join(&shard.file), shard)?;
    }
    if let Some(index) = shards::index(&shards) {
        draft.write(shards::INDEX, &index)?;
    }
    for (name, bytes) in &companions {
        draft.write(name, bytes)?;
    }
    let (tensors, parameters) = (job.total, shards::parameters(&shards));
    let (output, files) = draft.finish()?;
    Ok(MergeReport {
        output,
        files,
        tensors,
        merged: adapter.adapters.len(),
        parameters,
        dtype,
    })
}

/// Every tensor of the output, with its number type.
fn entries(files: &ModelFiles, dtype: Option<StoredType>) -> Result<Vec<Entry>, ModelError> {
    tensor_shapes(&files.config)
        .into_iter()
        .map(|(name, shape)| {
            let dtype = match dtype {
                Some(dtype) => dtype,
                None => files.stored_type(&name)?,
            };
            Ok(Entry { name, shape, dtype })
        })
        .collect()
}

struct Job<'a> {
    files: &'a ModelFiles,
    adapters: BTreeMap<&'a str, &'a AdapterData>,
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl Job<'_> {
    fn write(&mut self, path: &Path, shard: &Shard) -> Result<(), ModelError> {
        let io = |error| ModelError::io(path, error);
        let mut file = BufWriter::new(File::create(path).map_err(io)?);
        file.write_all(&shard.header()).map_err(io)?;
        for entry in &shard.entries {
            let stored = self.files.weights().read(&entry.name)?;
            let delta = entry
                .name
                .strip_suffix(".weight")
                .and_then(|layer| self.adapters.get(layer))
                .map(|data| Delta::new(data));
            write_tensor(&mut file, &stored, entry.dtype, delta.as_ref()).map_err(io)?;
            self.done += 1;
            (self.progress)(self.done, self.total);
        }
        let file = file.into_inner().map_err(|error| io(error.into_error()))?;
        file.sync_all().map_err(io)
    }
}

/// Rows of `stored`, with `delta` added, as `dtype`; as they are where nothing changes.
fn write_tensor(
    file: &mut impl Write,
    stored: &StoredTensor,
    dtype: StoredType,
    delta: Option<&Delta<'_>>,
) -> std::io::Result<()> {
    if delta.is_none() && stored.dtype == dtype {
        return file.write_all(&stored.bytes);
    }
    let width = stored.shape.last().copied().unwrap_or(1).max(1);
    let rows = (BLOCK / width).max(1);
    let bytes = rows * width * stored.dtype.size();
    for (i, block) in stored.bytes.chunks(bytes).enumerate() {
        let mut values = stored.dtype.decode(block);
        if let Some(delta) = delta {
            delta.add_to_rows(i * rows, &mut values);
        }
        file.write_all(&dtype.encode(&values))?;
    }
    Ok(())
}
