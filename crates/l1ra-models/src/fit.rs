//! Whether an adapter fits a model, from the configuration alone.

use std::collections::BTreeMap;

use l1ra_core::walk::AdapterData;

use crate::{config::ModelConfig, error::ModelError, weights::linear_dims};

/// Every adapted layer must be one of the model, with its inputs and outputs.
pub(crate) fn check_layers(
    config: &ModelConfig,
    adapters: &[AdapterData],
) -> Result<(), ModelError> {
    let layers = linear_dims(config);
    let known: BTreeMap<&str, [usize; 2]> = layers
        .iter()
        .map(|(path, dims)| (path.as_str(), *dims))
        .collect();
    for adapter in adapters {
        let refuse = |detail: String| Err(ModelError::adapter(&adapter.path, detail));
        let seen = [adapter.d_in, adapter.d_out];
        match known.get(adapter.path.as_str()) {
            None => {
                let nearest = nearest(&adapter.path, known.keys().copied());
                return refuse(format!(
                    "this model has no such layer; nearest: {nearest} (is it the adapter's base?)"
                ));
            }
            Some(dims) if *dims != seen => {
                return refuse(format!(
                    "was trained for a layer {seen:?} (in, out); this model's is {dims:?} (is it \
                     the adapter's base?)"
                ));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

fn nearest<'a>(path: &str, layers: impl Iterator<Item = &'a str>) -> String {
    let mut names: Vec<&str> = layers.collect();
    let likeness = |name: &str| strsim::jaro_winkler(path, name);
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    names.truncate(3);
    names.join(", ")
}
