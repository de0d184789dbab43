//! What an error means to the shell that called: 2 for the user's mistake, 1 for a failure.

use std::fmt;

use l1ra_core::{ConfigError, CoreError, DeviceError};
use l1ra_models::ModelError;
use l1ra_train::TrainError;

/// A mistake of the user that only the program can see.
#[derive(Debug)]
pub(crate) struct Mistake(String);

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Mistake {}

/// An error that ends the program with 2.
pub(crate) fn mistake(detail: impl Into<String>) -> anyhow::Error {
    Mistake(detail.into()).into()
}

/// An error about a setting that the command line gave, in the command line's words: `--top-p` in
/// place of `top_p`.
pub(crate) fn as_flag(error: impl Into<TrainError>) -> anyhow::Error {
    let (field, seen, expected) = match error.into() {
        TrainError::Option {
            field,
            seen,
            expected,
        } => (field, seen, expected),
        TrainError::Model(ModelError::Option {
            field,
            seen,
            expected,
        }) => (field, seen, expected.to_string()),
        other => return other.into(),
    };
    let name = field.rsplit('.').next().unwrap_or(field).replace('_', "-");
    mistake(format!("--{name} {seen}: {expected}"))
}

/// 2 where the user's input is at fault, 128 + n where signal n ended a run, else 1.
pub(crate) fn exit_code(error: &anyhow::Error) -> u8 {
    if let Some(TrainError::Interrupted { reason, .. }) = error.downcast_ref() {
        return u8::try_from(128 + reason).unwrap_or(1);
    }
    let users = if let Some(error) = error.downcast_ref::<TrainError>() {
        error.is_users_mistake()
    } else if let Some(error) = error.downcast_ref::<ModelError>() {
        error.is_users_mistake()
    } else if let Some(error) = error.downcast_ref::<CoreError>() {
        error.is_users_mistake()
    } else {
        error.is::<Mistake>() || error.is::<ConfigError>() || error.is::<DeviceError>()
    };
    if users { 2 } else { 1 }
}
