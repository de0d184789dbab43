//! Weights in: safetensors, GGUF, or drawn at random; and out.

mod build;
pub mod gguf;
mod random;
mod safetensors;
mod save;

pub use build::{Storage, build_model, linear_paths};
pub use random::RandomWeights;
pub use safetensors::SafetensorsFiles;
pub use save::save_weights;

use std::path::Path;

use crate::error::ModelError;

/// Number type of a stored tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoredType {
    /// 32-bit float.
    F32,
    /// 16-bit float.
    F16,
    /// 16-bit brain float.
    BF16,
}

/// A tensor as a file holds it: row-major, little-endian.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    /// Shape, Hugging Face's order.
    pub shape: Vec<usize>,
    /// Number type.
    pub dtype: StoredType,
    /// Values.
    pub bytes: Vec<u8>,
}

/// Where a model's tensors come from, under their Hugging Face names.
pub trait WeightSource {
    /// The file or folder, for messages.
    fn path(&self) -> &Path;

    /// Names of all tensors.
    fn names(&self) -> Vec<String>;

    /// Shape of a tensor, or `None` where there is none of that name. Nothing is read.
    fn shape(&self, name: &str) -> Option<Vec<usize>>;

    /// Reads one tensor.
    ///
    /// # Errors
    /// A tensor that is missing, damaged or of a type that is not supported.
    fn read(&self, name: &str) -> Result<StoredTensor, ModelError>;
}
