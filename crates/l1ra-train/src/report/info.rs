//! [`RunInfo`]: what `run.json` says, each part of it optional.

use std::{fs::File, io::Read, path::Path};

use serde_json::Value;

use crate::{error::TrainError, eval::EvalResult};

/// What `run.json` says of a run. A part that is missing, or is not what it should be, is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RunInfo {
    /// Version of the program.
    pub version: Option<String>,
    /// The base model, as the user named it.
    pub model: Option<String>,
    /// Where it ran.
    pub device: Option<String>,
    /// Number format of the base weights.
    pub dtype: Option<String>,
    /// When it began, in RFC 3339.
    pub started: Option<String>,
    /// Evaluation before training.
    pub before: Option<EvalResult>,
    /// Evaluation after training.
    pub after: Option<EvalResult>,
    /// Adapter parameters at the start and at the end.
    pub parameters: Option<[usize; 2]>,
    /// Tokens trained on.
    pub tokens: Option<usize>,
    /// Seconds of training.
    pub seconds: Option<f64>,
    /// Largest resident memory, bytes.
    pub peak_bytes: Option<u64>,
    /// Peak memory as it was predicted, bytes.
    pub predicted_bytes: Option<u64>,
    /// Seconds of a step as they were predicted.
    pub predicted_step_seconds: Option<f64>,
    /// Statistics of the training data, as names and values.
    pub train: Vec<(String, Value)>,
    /// Statistics of the evaluation data, as names and values.
    pub eval: Vec<(String, Value)>,
}

/// Longest `run.json` that is read; a run writes some kilobytes.
const MAX_BYTES: u64 = 1 << 18;

impl RunInfo {
    /// Reads `run.json`. A file that is not there gives an empty value; one that is no JSON, as a
    /// run that was cut off may leave it, gives an empty value and a note.
    pub(super) fn read(path: &Path, notes: &mut Vec<String>) -> Result<Self, TrainError> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(TrainError::io(path, error)),
        };
        let mut bytes = Vec::new();
        let mut start = file.take(MAX_BYTES + 1);
        let read = start.read_to_end(&mut bytes);
        read.map_err(|error| TrainError::io(path, error))?;
        if bytes.len() as u64 > MAX_BYTES {
            notes.push(format!(
                "run.json has more than {MAX_BYTES} bytes; its numbers are taken from the metrics."
            ));
            return Ok(Self::default());
        }
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Self::from_value(&value)),
            Err(error) => {
                notes.push(format!(
                    "run.json is no JSON ({error}); its numbers are taken from the metrics."
                ));
                Ok(Self::default())
            }
        }
    }

    fn from_value(value: &Value) -> Self {
        let text = |key: &str| value[key].as_str().map(str::to_owned);
        let prediction = &value["prediction"];
        Self {
            version: text("version"),
            model: text("model"),
            device: text("device"),
            dtype: text("dtype"),
            started: text("started"),
            before: parsed(&value["before"]),
            after: parsed(&value["after"]),
            parameters: parsed(&value["parameters"]),
            tokens: parsed(&value["tokens"]),
            seconds: parsed(&value["seconds"]),
            peak_bytes: parsed(&value["peak_bytes"]),
            predicted_bytes: parsed(&prediction["peak_bytes"]),
            predicted_step_seconds: parsed(&prediction["step_seconds"]),
            train: flatten(&value["train"]),
            eval: flatten(&value["eval"]),
        }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(value: &Value) -> Option<T> {
    T::deserialize(value).ok()
}

/// Most names of one list of statistics, and the longest of them. Names of nested objects are put
/// together, so that a deep one would have all of those above it many times over.
const MAX_NAMES: usize = 256;
const MAX_NAME: usize = 120;

/// Names and values of an object, nested ones as `outer inner`, in their order; what lies beyond
/// [`MAX_NAMES`] or [`MAX_NAME`] is left out.
fn flatten(value: &Value) -> Vec<(String, Value)> {
    let mut flat = Vec::new();
    add_flat("", value, &mut flat);
    flat
}

fn add_flat(name: &str, value: &Value, flat: &mut Vec<(String, Value)>) {
    if name.len() > MAX_NAME || flat.len() == MAX_NAMES {
        return;
    }
    match value {
        Value::Object(object) => {
            for (key, inner) in object {
                let key = key.replace('_', " ");
                let name = if name.is_empty() {
                    key
                } else {
                    format!("{name} {key}")
                };
                add_flat(&name, inner, flat);
            }
        }
        Value::Null => {}
        other if !name.is_empty() => flat.push((name.to_owned(), other.clone())),
        _ => {}
    }
}
