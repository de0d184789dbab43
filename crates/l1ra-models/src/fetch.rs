//! A model by name, checked before its weights are downloaded.

use std::path::PathBuf;

use l1ra_hub::{ModelRef, Progress, fetch_accepted_model};

use crate::{config::ModelConfig, error::ModelError};

/// The path of a model for [`load_model`](crate::load_model), downloaded first where `reference`
/// is a hub name. A `config.json` that is not supported is refused before any weight is asked for.
///
/// `progress` is called with a file's name, its bytes so far and its size in bytes.
///
/// # Errors
/// As [`l1ra_hub::fetch_model`].
pub fn fetch_model(
    reference: &ModelRef,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, ModelError> {
    let accepts = |config: &std::path::Path| match ModelConfig::from_file(config) {
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    };
    Ok(fetch_accepted_model(reference, &accepts, progress)?)
}
