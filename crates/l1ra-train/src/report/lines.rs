//! JSONL files, line by line.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::TrainError;

/// A line with where it stands.
pub(super) struct Line {
    path: PathBuf,
    number: usize,
    value: Value,
}

impl Line {
    pub(super) fn has(&self, key: &str) -> bool {
        self.value.get(key).is_some()
    }

    /// The line as a value; `what` it should be is told if it is not.
    pub(super) fn parse_as<T: DeserializeOwned>(&self, what: &str) -> Result<T, TrainError> {
        T::deserialize(&self.value).map_err(|error| self.error(&format!("not {what}: {error}")))
    }

    pub(super) fn error(&self, detail: &str) -> TrainError {
        TrainError::Line {
            path: self.path.clone(),
            line: self.number,
            detail: detail.into(),
        }
    }
}

/// The lines of a file.
pub(super) struct Lines {
    pub(super) lines: Vec<Line>,
    /// Number of a last line that was cut off and left out.
    pub(super) cut: Option<usize>,
}

/// Reads a JSONL file; `None` if there is none. A last line without its line end that is no JSON
/// was cut off and is left out; any other line that is no JSON is an error.
pub(super) fn read_lines(path: &Path) -> Result<Option<Lines>, TrainError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(TrainError::io(path, error)),
    };
    let ended = bytes.last().is_none_or(|last| *last == b'\n');
    let texts: Vec<&[u8]> = bytes.split(|byte| *byte == b'\n').collect();
    let mut read = Lines {
        lines: Vec::with_capacity(texts.len()),
        cut: None,
    };
    for (index, text) in texts.iter().enumerate() {
        if text.trim_ascii().is_empty() {
            continue;
        }
        let number = index + 1;
        match serde_json::from_slice(text) {
            Ok(value) => read.lines.push(Line {
                path: path.into(),
                number,
                value,
            }),
            Err(_) if !ended && number == texts.len() => read.cut = Some(number),
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
        }
    }
    Ok(Some(read))
}

/// The error, without its own count of lines: it saw one line only.
fn at_column(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let what = text.split(" at line ").next().unwrap_or(&text);
    format!("{what} at column {}", error.column())
}
