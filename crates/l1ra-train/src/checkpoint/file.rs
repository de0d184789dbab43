//! [`Checkpoint`]: the file.
//!
//! Safetensors, with one entry `l1ra_checkpoint` in its metadata: a CRC-32C, a blank, and JSON. The
//! sum is over the JSON and over name and bytes of every tensor, in the order of their names. Tensors
//! are `PATH.lora_a` `[d_in, r]`, `PATH.lora_c` `[r]`, `PATH.lora_b` `[r, d_out]`, for each of them
//! `…/moment_1` and what else the optimizer keeps, all f32, and `losses` `[steps]`, f64.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    fmt, fs, io,
    path::Path,
};

use l1ra_core::{
    TrainingState,
    allocation::RankChange,
    files::replace_whole,
    state::{AdapterState, PARTS, ParameterState, StateTensor},
    walk::AdapterData,
};
use safetensors::{Dtype, SafeTensors, View};

use crate::{
    callback::RankUpdate,
    checkpoint::{
        Identity, Progress,
        header::{AdapterHeader, Header, ParameterHeader, VERSION},
    },
    error::TrainError,
};

/// The metadata's one key.
const KEY: &str = "l1ra_checkpoint";
const LOSSES: &str = "losses";

/// What is wrong with a file.
#[derive(Debug)]
struct Flaw(String);

/// A run between two steps.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// How far it is.
    pub progress: Progress,
    /// Which run it is.
    pub identity: Identity,
    /// Every rank update so far.
    pub updates: Vec<RankUpdate>,
    /// Adapters, optimizer and rank allocator.
    pub state: TrainingState,
}

impl Checkpoint {
    /// Writes the file `path`: beside, flushed, renamed.
    ///
    /// # Errors
    /// When it cannot be written; what was there before is still there.
    pub fn write(&self, path: &Path) -> Result<(), TrainError> {
        let failed = |error| TrainError::io(path, error);
        let header = serde_json::to_string(&self.header())
            .map_err(|error| failed(io::Error::from(error)))?;
        let tensors = self.tensors();
        let sum = checksum(
            &header,
            tensors
                .iter()
                .map(|(name, tensor)| (name.as_str(), tensor.data())),
        );
        let metadata = HashMap::from([(KEY.to_string(), format!("{sum:08x} {header}"))]);
        replace_whole(path, |beside| {
            safetensors::serialize_to_file(tensors, Some(metadata), beside).map_err(|error| {
                match error {
                    safetensors::SafeTensorError::IoError(error) => error,
                    other => io::Error::other(other),
                }
            })
        })
        .map_err(failed)
    }

    fn header(&self) -> Header<'_> {
        let parameter = |state: &ParameterState| ParameterHeader {
            path: state.path.clone(),
            tensors: state.tensors.keys().cloned().collect(),
            scalars: state.scalars.clone(),
        };
        let adapter = |adapter: &AdapterState| AdapterHeader {
            path: adapter.data.path.clone(),
            scale: adapter.data.scale,
            optimizer: std::array::from_fn(|part| parameter(&adapter.optimizer[part])),
        };
        Header {
            version: VERSION,
            written_by: concat!("l1ra ", env!("CARGO_PKG_VERSION")).into(),
            progress: Cow::Borrowed(&self.progress),
            identity: Cow::Borrowed(&self.identity),
            allocator: Cow::Borrowed(&self.state.allocator),
            adapters: self.state.adapters.iter().map(adapter).collect(),
            updates: Cow::Borrowed(&self.updates),
        }
    }

    fn tensors(&self) -> BTreeMap<String, Stored<'_>> {
        let mut tensors = BTreeMap::new();
        for adapter in &self.state.adapters {
            let AdapterData { path, a, c, b, .. } = &adapter.data;
            let parts = PARTS.into_iter().zip([a, c, b]).zip(adapter.shapes());
            for (((part, values), shape), state) in parts.zip(&adapter.optimizer) {
                let name = format!("{path}.{part}");
                for (field, tensor) in &state.tensors {
                    let (shape, values) = (tensor.shape.clone(), Values::F32(&tensor.values));
                    tensors.insert(format!("{name}/{field}"), Stored { shape, values });
                }
                let values = Values::F32(values);
                tensors.insert(name, Stored { shape, values });
            }
        }
        let losses = &self.progress.losses;
        let losses = Stored {
            shape: vec![losses.len()],
            values: Values::F64(losses),
        };
        tensors.insert(LOSSES.into(), losses);
        tensors
    }

    /// Reads the file `path` and checks that it is whole and holds together.
    ///
    /// # Errors
    /// When it cannot be read, is damaged, or was written by a later version.
    pub fn read(path: &Path) -> Result<Self, TrainError> {
        let bytes = fs::read(path).map_err(|error| TrainError::io(path, error))?;
        Self::parse(&bytes).map_err(|Flaw(detail)| TrainError::Data {
            path: path.into(),
            detail: format!("{detail}; take another checkpoint"),
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let damaged = |error: &dyn fmt::Display| Flaw(format!("is no whole checkpoint: {error}"));
        let (_, metadata) = SafeTensors::read_metadata(bytes).map_err(|error| damaged(&error))?;
        let entry = metadata
            .metadata()
            .as_ref()
            .and_then(|entries| entries.get(KEY));
        let (sum, header) = entry
            .and_then(|entry| entry.split_once(' '))
            .ok_or_else(|| Flaw(format!("has no `{KEY}` entry; it is no checkpoint")))?;
        let file = SafeTensors::deserialize(bytes).map_err(|error| damaged(&error))?;
        let mut names = file.names();
        names.sort_unstable();
        let mut tensors = Vec::with_capacity(names.len());
        for name in names {
            let tensor = file.tensor(name).map_err(|error| damaged(&error))?;
            tensors.push((name, tensor));
        }
        let seen = checksum(
            header,
            tensors
                .iter()
                .map(|(name, tensor)| (*name, Cow::Borrowed(tensor.data()))),
        );
        if u32::from_str_radix(sum, 16) != Ok(seen) {
            return Err(Flaw(format!(
                "is damaged: its content has the checksum {seen:08x}, and {sum} is noted"
            )));
        }
        let version = serde_json::from_str::<Version>(header).map_err(|error| damaged(&error))?;
        if version.version != VERSION {
            return Err(Flaw(format!(
                "has form {}; this program reads {VERSION}",
                version.version
            )));
        }
        let header: Header<'_> = serde_json::from_str(header).map_err(|error| damaged(&error))?;
        Self::assemble(header, &file)
    }

    fn assemble(header: Header<'_>, file: &SafeTensors<'_>) -> Result<Self, Flaw> {
        let mut adapters = Vec::with_capacity(header.adapters.len());
        for adapter in header.adapters {
            adapters.push(read_adapter(file, adapter)?);
        }
        let state = TrainingState {
            adapters,
            allocator: header.allocator.into_owned(),
        };
        state.check().map_err(|error| Flaw(error.to_string()))?;
        let mut progress = header.progress.into_owned();
        progress.losses = read_losses(file, progress.step)?;
        if state.allocator.step != progress.step {
            return Err(Flaw(format!(
                "is after {} steps, and its rank allocator after {}",
                progress.step, state.allocator.step
            )));
        }
        let count = state.adapters.len();
        for update in header.updates.iter() {
            let plan = &update.plan;
            let is_possible = |change: &RankChange| {
                let kept = change.before.checked_sub(change.pruned.len());
                kept.and_then(|kept| kept.checked_add(change.added))
                    .is_some()
            };
            let fits = plan.changes.len() == count && plan.changes.iter().all(is_possible);
            if !fits {
                return Err(Flaw(format!(
                    "its rank update after step {} is not of its {count} adapters",
                    update.step
                )));
            }
        }
        Ok(Self {
            progress,
            identity: header.identity.into_owned(),
            updates: header.updates.into_owned(),
            state,
        })
    }
}

/// The part of the JSON that every form has.
#[derive(serde::Deserialize)]
struct Version {
    version: u32,
}

/// A tensor on its way to the file.
struct Stored<'a> {
    shape: Vec<usize>,
    values: Values<'a>,
}

enum Values<'a> {
    F32(&'a [f32]),
    F64(&'a [f64]),
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        match self.values {
            Values::F32(_) => Dtype::F32,
            Values::F64(_) => Dtype::F64,
        }
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let mut bytes = Vec::with_capacity(self.data_len());
        match self.values {
            Values::F32(values) => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
            Values::F64(values) => {
                bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
            }
        }
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        match self.values {
            Values::F32(values) => size_of_val(values),
            Values::F64(values) => size_of_val(values),
        }
    }
}

fn checksum<'a>(header: &str, tensors: impl Iterator<Item = (&'a str, Cow<'a, [u8]>)>) -> u32 {
    let mut sum = crc32c::crc32c(header.as_bytes());
    for (name, data) in tensors {
        sum = crc32c::crc32c_append(sum, name.as_bytes());
        sum = crc32c::crc32c_append(sum, &data);
    }
    sum
}

fn read_adapter(file: &SafeTensors<'_>, header: AdapterHeader) -> Result<AdapterState, Flaw> {
    let AdapterHeader {
        path,
        scale,
        optimizer,
    } = header;
    let [a, c, b] = PARTS.map(|part| read_f32(file, &format!("{path}.{part}")));
    let (a, c, b) = (a?, c?, b?);
    let (&[d_in, r_a], &[r], &[r_b, d_out]) = (&*a.shape, &*c.shape, &*b.shape) else {
        return Err(Flaw(format!(
            "adapter `{path}` has A {:?}, c {:?} and B {:?}; expected [d_in, r], [r] and [r, d_out]",
            a.shape, c.shape, b.shape
        )));
    };
    if [r_a, r_b] != [r; 2] {
        return Err(Flaw(format!(
            "adapter `{path}` has {r_a}, {r} and {r_b} ranks in A, c and B; expected one number"
        )));
    }
    let mut states = <[ParameterState; 3]>::default();
    for (part, (state, header)) in PARTS.into_iter().zip(states.iter_mut().zip(optimizer)) {
        for name in header.tensors {
            let tensor = read_f32(file, &format!("{path}.{part}/{name}"))?;
            state.tensors.insert(name, tensor);
        }
        state.path = header.path;
        state.scalars = header.scalars;
    }
    Ok(AdapterState {
        data: AdapterData {
            path,
            d_in,
            d_out,
            a: a.values,
            c: c.values,
            b: b.values,
            scale,
        },
        optimizer: states,
    })
}

fn read_f32(file: &SafeTensors<'_>, name: &str) -> Result<StateTensor, Flaw> {
    let tensor = file
        .tensor(name)
        .map_err(|_| Flaw(format!("tensor `{name}` is missing")))?;
    if tensor.dtype() != Dtype::F32 {
        let dtype = tensor.dtype();
        return Err(Flaw(format!("tensor `{name}` is {dtype:?}; expected F32")));
    }
    let (words, _) = tensor.data().as_chunks::<4>();
    Ok(StateTensor {
        shape: tensor.shape().to_vec(),
        values: words.iter().map(|word| f32::from_le_bytes(*word)).collect(),
    })
}

fn read_losses(file: &SafeTensors<'_>, steps: usize) -> Result<Vec<f64>, Flaw> {
    let tensor = file.tensor(LOSSES).ok();
    let tensor = tensor.filter(|tensor| tensor.dtype() == Dtype::F64 && tensor.shape() == [steps]);
    let tensor = tensor.ok_or_else(|| Flaw(format!("has no `{LOSSES}` of {steps} steps, F64")))?;
    let (words, _) = tensor.data().as_chunks::<8>();
    Ok(words.iter().map(|word| f64::from_le_bytes(*word)).collect())
}

#[cfg(test)]
mod tests;
