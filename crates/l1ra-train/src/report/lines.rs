//! JSONL files, line by line.

use std::path::Path;

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, IgnoredAny},
};

use crate::error::TrainError;

/// A line with where it stands.
pub(super) struct Line<'a> {
    path: &'a Path,
    number: usize,
    text: &'a [u8],
    keys: Keys,
}

/// The keys that tell lines apart; what stands under them is not kept.
#[derive(Default, Deserialize)]
pub(super) struct Keys {
    #[serde(default, deserialize_with = "there")]
    pub(super) loss: bool,
    #[serde(default, deserialize_with = "there")]
    pub(super) eval_loss: bool,
    #[serde(default, deserialize_with = "there")]
    pub(super) skipped: bool,
    #[serde(default, deserialize_with = "there")]
    pub(super) r#final: bool,
}

fn there<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(deserializer).map(|_| true)
}

impl Line<'_> {
    pub(super) fn keys(&self) -> &Keys {
        &self.keys
    }

    /// The line as a value; `what` it should be is told if it is not.
    pub(super) fn parse_as<T: DeserializeOwned>(&self, what: &str) -> Result<T, TrainError> {
        serde_json::from_slice(self.text).map_err(|error| {
            let text = error.to_string();
            let why = text.split(" at line ").next().unwrap_or(&text);
            self.error(&format!("not {what}: {why}"))
        })
    }

    pub(super) fn error(&self, detail: &str) -> TrainError {
        TrainError::Line {
            path: self.path.into(),
            line: self.number,
            detail: detail.into(),
        }
    }
}

/// What [`each_line`] found beside the lines.
pub(super) struct Read {
    /// Number of a last line that was cut off and left out.
    pub(super) cut: Option<usize>,
}

/// Hands the lines of a JSONL file to `take`, one after the other; `None` if there is no file. A
/// last line without its line end that is no JSON was cut off and is left out; any other line that
/// is no JSON is an error.
pub(super) fn each_line(
    path: &Path,
    mut take: impl FnMut(&Line<'_>) -> Result<(), TrainError>,
) -> Result<Option<Read>, TrainError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::io(path, error)),
    };
    let mut rest = bytes.as_slice();
    let mut number = 0;
    while !rest.is_empty() {
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (text, after) = match end {
            Some(end) => (&rest[..end], &rest[end + 1..]),
            None => (rest, &rest[rest.len()..]),
        };
        (rest, number) = (after, number + 1);
        if text.trim_ascii().is_empty() {
            continue;
        }
        let keys = match serde_json::from_slice(text) {
            Ok(keys) => keys,
            // JSON, but no object.
            Err(error) if error.is_data() => Keys::default(),
            Err(_) if end.is_none() => return Ok(Some(Read { cut: Some(number) })),
            Err(error) => {
                return Err(TrainError::Line {
                    path: path.into(),
                    line: number,
                    detail: format!(
                        "no JSON ({}); correct the line or delete it",
                        at_column(&error)
                    ),
                });
            }
        };
        take(&Line {
            path,
            number,
            text,
            keys,
        })?;
    }
    Ok(Some(Read { cut: None }))
}

/// The error, without its own count of lines: it saw one line only.
fn at_column(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{what} at column {}", error.column())
}
