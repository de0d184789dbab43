//! [`OptimizerEntries`]: what an optimizer keeps, taken apart. Its record's bytes are the only
//! public way to it.

use std::collections::BTreeMap;

use burn::{
    optim::{ModuleOptimizer, OptimizerRecord},
    tensor::{Bytes, DType},
};
use burn_pack::{Reader, Scalar, Tensor as PackTensor, Writer};

use crate::error::CoreError;

/// A tensor of an optimizer's record.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// `ID.FIELD`.
    pub(crate) name: String,
    pub(crate) dtype: DType,
    pub(crate) shape: Vec<usize>,
    /// Id of the parameter whose state it is.
    pub(crate) id: Option<u64>,
    /// Row-major.
    pub(crate) bytes: Vec<u8>,
}

/// An optimizer's record.
#[derive(Clone, Debug, Default)]
pub(crate) struct OptimizerEntries {
    pub(crate) tensors: Vec<Entry>,
    /// By `ID.FIELD`.
    pub(crate) scalars: BTreeMap<String, Scalar>,
    /// A parameter's path in the module, by id.
    pub(crate) paths: BTreeMap<String, String>,
}

impl OptimizerEntries {
    /// The state of `optimizer`.
    pub(crate) fn of(optimizer: &ModuleOptimizer) -> Result<Self, CoreError> {
        let record = optimizer
            .to_record()
            .into_bytes()
            .map_err(|error| failed(&error))?;
        let reader = Reader::from_bytes(record).map_err(|error| failed(&error))?;
        let (paths, scalars) = (reader.metadata().clone(), reader.scalars().clone());
        let mut tensors = Vec::new();
        for tensor in reader.into_tensors().map_err(|error| failed(&error))? {
            let (name, dtype, shape, id, bytes) =
                tensor.into_parts().map_err(|error| failed(&error))?;
            tensors.push(Entry {
                name,
                dtype,
                shape: shape.as_slice().to_vec(),
                id,
                bytes: bytes.to_vec(),
            });
        }
        Ok(Self {
            tensors,
            scalars,
            paths,
        })
    }

    /// `optimizer` with this state in place of its own.
    pub(crate) fn into_optimizer(
        self,
        optimizer: &ModuleOptimizer,
    ) -> Result<ModuleOptimizer, CoreError> {
        let tensors = self.tensors.into_iter().map(|entry| {
            let bytes = Bytes::from_bytes_vec(entry.bytes);
            PackTensor::new(entry.name, entry.dtype, entry.shape, entry.id, bytes)
        });
        let mut writer = Writer::new(tensors.collect());
        for (key, value) in &self.paths {
            writer = writer.with_metadata(key, value);
        }
        for (key, value) in self.scalars {
            writer = writer.with_scalar(&key, value);
        }
        let bytes = writer.into_bytes().map_err(|error| failed(&error))?;
        let record = OptimizerRecord::from_bytes(bytes).map_err(|error| failed(&error))?;
        Ok(optimizer.clone().load_record(record))
    }
}

fn failed(error: &dyn std::fmt::Display) -> CoreError {
    CoreError::OptimizerState(error.to_string())
}
