//! Adapters made up by hand: PEFT's two files.

use std::{fs, path::Path};

use safetensors::{Dtype, tensor::TensorView};
use serde_json::json;

/// A layer of the repository's model.
pub(crate) const QUERY: &str = "model.layers.0.self_attn.q_proj";

/// Writes an adapter of rank 2 for one layer, without a sidecar. `[d_in, d_out]` of the layer that
/// [`QUERY`] names is `[192, 192]`.
pub(crate) fn write_adapter(dir: &Path, layer: &str, [d_in, d_out]: [usize; 2]) {
    fs::create_dir_all(dir).unwrap();
    let config = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": "org/base",
        "r": 2,
        "lora_alpha": 4,
        "lora_dropout": 0.0,
        "bias": "none",
        "target_modules": [layer],
    });
    fs::write(dir.join("adapter_config.json"), config.to_string()).unwrap();
    let values = |count: usize| -> Vec<u8> {
        let value = |i: usize| ((i % 7) as f32 - 3.0) / 64.0;
        (0..count).flat_map(|i| value(i).to_le_bytes()).collect()
    };
    let (a, b) = (values(2 * d_in), values(d_out * 2));
    let name = |part: &str| format!("base_model.model.{layer}.{part}.weight");
    let tensors = [
        (
            name("lora_A"),
            TensorView::new(Dtype::F32, vec![2, d_in], &a).unwrap(),
        ),
        (
            name("lora_B"),
            TensorView::new(Dtype::F32, vec![d_out, 2], &b).unwrap(),
        ),
    ];
    let bytes = safetensors::serialize(tensors, None).unwrap();
    fs::write(dir.join("adapter_model.safetensors"), bytes).unwrap();
}
