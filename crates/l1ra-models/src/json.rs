//! JSON files: bounded, and read into types whose errors name the key.

use std::{fs::File, io::Read, path::Path};

use serde::de::DeserializeOwned;
use serde_json::{Deserializer, Value};

use crate::error::ModelError;

/// Longest file that is read as configuration. Those of published models have a few kilobytes, their
/// lists of tensors and added tokens some megabytes. What a parser makes of a file may take many
/// times its size.
pub(crate) const MAX_BYTES: u64 = 1 << 25;

/// The bytes of a file, [`MAX_BYTES`] at most.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, ModelError> {
    let io = |error| ModelError::io(path, error);
    let file = File::open(path).map_err(io)?;
    let size = file.metadata().map_err(io)?.len();
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_BYTES {
        let detail = format!("has {size} bytes; at most {MAX_BYTES} are read of such a file");
        return Err(ModelError::format(path, detail));
    }
    Ok(bytes)
}

/// The same as text.
pub(crate) fn read_text(path: &Path) -> Result<String, ModelError> {
    String::from_utf8(read(path)?).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        let detail = format!("is not UTF-8 text (byte {place} is not); save it as UTF-8");
        ModelError::format(path, detail)
    })
}

/// A value of the kind `what`. Keys that its type does not have cost nothing; one that is there twice
/// is an error.
pub(crate) fn parse<T: DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
    what: &str,
) -> Result<T, ModelError> {
    let mut json = Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json);
    let value = value.map_err(|error| told(path, what, error))?;
    let ended = json.end();
    ended.map_err(|error| ModelError::format(path, format!("is not JSON: {error}")))?;
    Ok(value)
}

/// The same from a value that is in memory.
pub(crate) fn typed<T: DeserializeOwned>(
    path: &Path,
    value: Value,
    what: &str,
) -> Result<T, ModelError> {
    serde_path_to_error::deserialize(value).map_err(|error| told(path, what, error))
}

fn told(
    path: &Path,
    what: &str,
    error: serde_path_to_error::Error<serde_json::Error>,
) -> ModelError {
    let key = error.path().to_string();
    let error = error.into_inner();
    let detail = match key.as_str() {
        _ if !error.is_data() => format!("is not JSON: {error}"),
        "." => format!("is no {what}: {error}"),
        key => format!("is no {what}: `{key}`: {error}"),
    };
    ModelError::format(path, detail)
}
