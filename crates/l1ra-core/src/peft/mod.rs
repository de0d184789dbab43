//! Adapter files in PEFT's form, written so that every reader scales them right.
//!
//! PEFT stores `A [r, d_in]` and `B [d_out, r]` and knows no gates, so the gates are folded into B:
//! `B·diag(c)`. Ranks differ from module to module, and readers disagree about the scale then:
//!
//! | reader | scale of a module with rank `r_i` |
//! |---|---|
//! | PEFT | `alpha_i / r_i`, patterns honoured |
//! | llama.cpp | global `alpha` / the tensor's own rank |
//! | vLLM | one global `alpha / r`, patterns ignored |
//!
//! Hence three lay-outs ([`Layout`]). What PEFT's files cannot hold (gates, the unfolded B, scales,
//! the configuration) lies beside them in a sidecar that other readers never open.

mod describe;
mod files;
mod layout;
mod load;
mod pattern;
mod reader;
mod sidecar;

pub use describe::{AdapterFiles, describe_adapter};
pub use layout::Layout;
pub use load::{AdapterSet, install_adapters, load_adapter};
pub use pattern::RankPattern;
pub use reader::Reader;

use std::path::Path;

use burn::module::Module;

use crate::{config::L1raConfig, error::CoreError, files::write_together, walk};

/// Name of PEFT's configuration file.
pub const CONFIG_FILE: &str = "adapter_config.json";
/// Name of PEFT's weights file.
pub const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Name of our sidecar: gates, unfolded matrices, scales and the configuration.
pub const SIDECAR_FILE: &str = "l1ra_adapter.safetensors";
/// What PEFT puts before the module's path in tensor names.
pub(crate) const PREFIX: &str = "base_model.model.";

/// Saves every adapter of `module` into the folder `dir`: PEFT's two files and the sidecar.
///
/// `base_model` is what PEFT's configuration names as the model that the adapter belongs to.
/// Adapters whose gates are all zero are left out of PEFT's files, as PEFT refuses a rank of 0.
///
/// The three files get their names when all of them are written: a folder that cannot be written keeps the
/// adapter that it had.
///
/// # Errors
/// When the folder cannot be written, a value is not finite, or every gate is zero: PEFT loads no
/// adapter without a module.
pub fn save_adapter<M: Module>(
    module: &M,
    config: &L1raConfig,
    layout: Layout,
    base_model: &str,
    dir: &Path,
) -> Result<(), CoreError> {
    let adapters = walk::adapters(module)
        .iter()
        .map(walk::AdapterView::data)
        .collect::<Result<Vec<_>, _>>()?;
    save_adapter_data(&adapters, config, layout, base_model, dir)
}

/// [`save_adapter`] for adapters that are on the host already.
///
/// # Errors
/// As [`save_adapter`].
pub fn save_adapter_data(
    adapters: &[walk::AdapterData],
    config: &L1raConfig,
    layout: Layout,
    base_model: &str,
    dir: &Path,
) -> Result<(), CoreError> {
    check_finite(adapters)?;
    check_alive(adapters, dir)?;
    std::fs::create_dir_all(dir).map_err(|error| CoreError::io(dir, error))?;
    let (peft_config, tensors) = layout.encode(adapters, config, base_model);
    let [weights, beside] = [WEIGHTS_FILE, SIDECAR_FILE].map(|name| dir.join(name));
    let weights_bytes = files::safetensors(&weights, &tensors, None)?;
    let sidecar = sidecar::encode(&beside, adapters, config)?;
    write_together(&[
        (weights, weights_bytes),
        (dir.join(CONFIG_FILE), files::json(&peft_config)),
        (beside, sidecar),
    ])
}

/// Something must be left once adapters whose gates are all zero are left out.
fn check_alive(adapters: &[walk::AdapterData], dir: &Path) -> Result<(), CoreError> {
    if adapters.iter().any(walk::AdapterData::has_gate) {
        return Ok(());
    }
    let seen = match adapters.len() {
        0 => "there are no adapters".to_string(),
        1 => "every gate of the one adapter is zero".to_string(),
        count => format!("every gate of the {count} adapters is zero"),
    };
    let detail = format!(
        "not written, as {seen}: the files would hold no module, and PEFT loads none without. Train \
         with a lower lambda or eta_c, so that gates are left"
    );
    Err(CoreError::file(dir, detail))
}

fn check_finite(adapters: &[walk::AdapterData]) -> Result<(), CoreError> {
    for adapter in adapters {
        for (name, values) in [("A", &adapter.a), ("c", &adapter.c), ("B", &adapter.b)] {
            if let Some(value) = values.iter().find(|value| !value.is_finite()) {
                let detail = format!("{name} holds {value}; not saved (has the loss diverged?)");
                return Err(CoreError::adapter(&adapter.path, detail));
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adapter_without_a_module_is_not_written() {
        let adapter = walk::AdapterData {
            path: "q_proj".into(),
            d_in: 1,
            d_out: 1,
            a: vec![1.0, 1.0],
            c: vec![0.0, 0.0],
            b: vec![1.0, 1.0],
            scale: 1.0,
        };
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("adapter");
        let save = |adapters: &[walk::AdapterData]| {
            let config = L1raConfig::default();
            save_adapter_data(adapters, &config, Layout::default(), "base", &dir)
        };
        let refused = save(&[adapter.clone(), adapter.clone()]).unwrap_err();
        assert!(
            refused.to_string().ends_with(
                "adapter: not written, as every gate of the 2 adapters is zero: the files would hold no \
                 module, and PEFT loads none without. Train with a lower lambda or eta_c, so that gates \
                 are left"
            ),
            "{refused}"
        );
        assert!(!dir.exists());
        let mut held = adapter.clone();
        held.path = "k_proj".into();
        held.c[1] = 0.5;
        save(&[adapter, held]).unwrap();
    }
}
