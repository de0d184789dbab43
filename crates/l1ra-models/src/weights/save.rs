//! A model out, as Hugging Face safetensors.

use std::{collections::HashMap, path::Path};

use burn::{
    module::{Module, ModuleVisitor, Param},
    tensor::{DType, FloatDType, Tensor},
};
use l1ra_core::files::write_whole;
use safetensors::{Dtype, tensor::TensorView};

use crate::{causal_lm::CausalLm, error::ModelError};

/// Writes `model.safetensors` into `dir`, in Hugging Face's names and shapes, adapters left out.
///
/// # Errors
/// When the file cannot be written.
pub fn save_weights(model: &CausalLm, dtype: FloatDType, dir: &Path) -> Result<(), ModelError> {
    let path = dir.join("model.safetensors");
    let stored = match dtype {
        FloatDType::F32 => Dtype::F32,
        FloatDType::F16 => Dtype::F16,
        FloatDType::BF16 => Dtype::BF16,
        other => {
            let seen = format!("{other:?}");
            return Err(ModelError::unsupported(
                path,
                "the stored type",
                seen,
                "f32, f16, bf16",
            ));
        }
    };
    let mut collector = Collector {
        dtype,
        path: Vec::new(),
        tensors: Vec::new(),
    };
    model.visit(&mut collector);
    let mut views = Vec::with_capacity(collector.tensors.len());
    for (name, shape, bytes) in &collector.tensors {
        let view = TensorView::new(stored, shape.clone(), bytes)
            .map_err(|error| ModelError::format(&path, format!("tensor `{name}`: {error}")))?;
        views.push((name.as_str(), view));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let bytes = safetensors::serialize(views, Some(metadata))
        .map_err(|error| ModelError::format(&path, error.to_string()))?;
    write_whole(&path, &bytes).map_err(|error| ModelError::io(&path, error))
}

struct Collector {
    dtype: FloatDType,
    path: Vec<String>,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
}

impl ModuleVisitor for Collector {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let path = self.path.join(".");
        if path.contains(".lora_") {
            return;
        }
        let value = param.val().inner().cast(self.dtype);
        // Linear layers are [d_in, d_out] here and [d_out, d_in] there; norms call it `weight`.
        let value = if D == 2 && !path.starts_with("model.embed_tokens") {
            value.swap_dims(0, 1)
        } else {
            value
        };
        let name = path
            .strip_suffix("gamma")
            .map_or(path.clone(), |norm| format!("{norm}weight"));
        let shape = value.dims().to_vec();
        let data = value.into_data().convert_dtype(DType::from(self.dtype));
        self.tensors.push((name, shape, data.as_bytes().to_vec()));
    }
}
