//! Weights in: safetensors, GGUF, or drawn at random; and out.

mod build;
mod count;
pub mod gguf;
mod mapped;
mod random;
mod safetensors;
mod save;
mod stored_type;

pub use build::{Storage, build_model, linear_dims, linear_paths};
pub(crate) use build::{check_names_and_shapes, tensor_shapes};
pub use count::{ParameterCount, parameter_count};
pub use random::RandomWeights;
pub use safetensors::SafetensorsFiles;
pub use save::save_weights;
pub use stored_type::StoredType;

use std::path::Path;

use crate::error::ModelError;

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
