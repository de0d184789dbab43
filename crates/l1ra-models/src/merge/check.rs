//! Whether adapters fit a model, before anything is written.

use std::collections::BTreeSet;

use l1ra_core::walk::AdapterData;

use crate::{config::ModelConfig, error::ModelError, fit::check_layers};

/// Refuses an adapter whose layer is not there, is tied, is named twice or has another shape.
pub(super) fn adapters(config: &ModelConfig, adapters: &[AdapterData]) -> Result<(), ModelError> {
    let mut seen = BTreeSet::new();
    for adapter in adapters {
        let refuse = |detail: String| Err(ModelError::adapter(&adapter.path, detail));
        if !seen.insert(&adapter.path) {
            return refuse("is there twice; one adapter a layer can be merged".into());
        }
        if adapter.path == "lm_head" && config.tie_word_embeddings {
            return refuse(
                "the output head of this model is its embedding (tie_word_embeddings): a change to \
                 one would change the other; train without lm_head among the targets"
                    .into(),
            );
        }
        values(adapter)?;
    }
    check_layers(config, adapters)
}

/// The lists must have the lengths that the sizes say, and finite values.
fn values(adapter: &AdapterData) -> Result<(), ModelError> {
    let rank = adapter.rank();
    let parts = [
        ("A", &adapter.a, adapter.d_in * rank),
        ("c", &adapter.c, rank),
        ("B", &adapter.b, rank * adapter.d_out),
    ];
    for (name, values, length) in parts {
        if values.len() != length {
            let detail = format!("{name} holds {} values, not {length}", values.len());
            return Err(ModelError::adapter(&adapter.path, detail));
        }
        if let Some(value) = values.iter().find(|value| !value.is_finite()) {
            let detail = format!("{name} holds {value}; not merged (did the training diverge?)");
            return Err(ModelError::adapter(&adapter.path, detail));
        }
    }
    if !adapter.scale.is_finite() {
        let detail = format!("its scale is {}; not merged", adapter.scale);
        return Err(ModelError::adapter(&adapter.path, detail));
    }
    Ok(())
}
