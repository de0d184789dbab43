//! A model by name: a path, or `org/name[@revision]` on a Hugging Face hub.
//!
//! [`fetch_model`] turns a [`ModelRef`] into a path that a loader takes. Hub names need the feature
//! `hub`; paths never touch the network. Files go into the cache that other Hugging Face programs
//! share, are resumed where a connection broke, and are asked for once. These variables of the
//! environment are honoured:
//!
//! | variable | effect |
//! |---|---|
//! | `HF_HUB_CACHE`, else `HF_HOME` | where the cache is (`$HF_HOME/hub`) |
//! | `HF_TOKEN`, `HF_TOKEN_PATH`, else `$HF_HOME/token` | the token that is sent |
//! | `HF_HUB_DISABLE_IMPLICIT_TOKEN` | no token is sent |
//! | `HF_ENDPOINT` | another hub |
//! | `HF_HUB_OFFLINE` | no request at all: what is not in the cache is an error |
//!
//! | module | holds |
//! |---|---|
//! | `reference` | [`ModelRef`]: what a user may write |
//! | `options` | `HubOptions`: cache, token and hub, from the environment |
//! | `select` | which files of a repository are needed |
//! | `cache` | one repository's folder in the cache |
//! | `remote`, `transfer` | requests, resumption, checks of what the hub answers |
//! | `answer` | refusals and failures, each with what to do |
//! | `fetch` | all of it |

#[cfg(feature = "hub")]
mod answer;
#[cfg(feature = "hub")]
mod cache;
mod error;
#[cfg(feature = "hub")]
mod fetch;
#[cfg(feature = "hub")]
mod options;
mod reference;
#[cfg(feature = "hub")]
mod remote;
#[cfg(feature = "hub")]
mod select;
#[cfg(feature = "hub")]
mod shards;
#[cfg(feature = "hub")]
mod transfer;

pub use error::{HubError, HubErrorKind};
#[cfg(feature = "hub")]
pub use fetch::fetch_model_with;
#[cfg(feature = "hub")]
pub use options::HubOptions;
pub use reference::ModelRef;

use std::path::{Path, PathBuf};

/// Called with a file's name, its bytes so far and its size in bytes.
pub type Progress<'a> = dyn FnMut(&str, u64, u64) + 'a;

/// Called with the path of `config.json`, before any weight is asked for; an error is what makes
/// the model one that cannot be used.
pub type Accepts<'a> = dyn Fn(&Path) -> Result<(), String> + 'a;

/// The path of a model, downloaded first where `reference` is a hub name.
///
/// A path is returned as it is, whether it exists or not. A hub name gives the folder of its
/// snapshot in the cache, or the `.gguf` file in it for a repository that holds no safetensors and
/// one such file. Only what a loader of Llama-family models reads is downloaded, the weights last.
///
/// # Errors
/// A program without the feature `hub`, a variable of the environment that cannot be used, a
/// repository that does not exist, is gated or holds no model, no network, or a cache that cannot
/// be written.
pub fn fetch_model(reference: &ModelRef, progress: &mut Progress<'_>) -> Result<PathBuf, HubError> {
    fetch_accepted_model(reference, &|_| Ok(()), progress)
}

/// [`fetch_model`], with a word on `config.json` before weights are asked for.
///
/// # Errors
/// As [`fetch_model`], and [`HubErrorKind::Content`] with the message of `accepts`.
pub fn fetch_accepted_model(
    reference: &ModelRef,
    accepts: &Accepts<'_>,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, HubError> {
    match reference {
        ModelRef::Path(path) => Ok(path.clone()),
        ModelRef::Hub { .. } => from_hub(reference, accepts, progress),
    }
}

#[cfg(feature = "hub")]
fn from_hub(
    reference: &ModelRef,
    accepts: &Accepts<'_>,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, HubError> {
    fetch_model_with(reference, &HubOptions::from_env()?, accepts, progress)
}

#[cfg(not(feature = "hub"))]
fn from_hub(
    reference: &ModelRef,
    _accepts: &Accepts<'_>,
    _progress: &mut Progress<'_>,
) -> Result<PathBuf, HubError> {
    Err(HubError::new(
        reference,
        HubErrorKind::NotBuilt,
        "there is no such file or folder, and to fetch a hub name (`org/name[@revision]`) needs a \
         build with `--features hub`; a Hugging Face folder or a .gguf file works without",
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_path_is_returned_as_it_is() {
        let path = ModelRef::parse("./absent").unwrap();
        let fetched = fetch_model(&path, &mut |_, _, _| {}).unwrap();
        assert_eq!(fetched, Path::new("./absent"));
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn a_hub_name_without_the_feature_says_what_works() {
        let reference = ModelRef::parse("org/name@v1").unwrap();
        let error = fetch_model(&reference, &mut |_, _, _| {}).unwrap_err();
        assert!(error.is_users_mistake());
        insta::assert_snapshot!(error, @"org/name@v1: there is no such file or folder, and to fetch a hub name (`org/name[@revision]`) needs a build with `--features hub`; a Hugging Face folder or a .gguf file works without");
    }
}
