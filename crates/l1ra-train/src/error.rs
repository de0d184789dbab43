//! Errors of this crate.

use std::path::{Path, PathBuf};

use l1ra_core::{ConfigError, CoreError, DeviceError, device::DeviceFailure, is_users_path};
use l1ra_models::ModelError;

use crate::predict::MemoryPrediction;

/// Anything that can stop a run.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting outside its range.
    #[error("{field} = {seen}: {expected}")]
    Option {
        /// Name of the setting.
        field: &'static str,
        /// The value as it was given.
        seen: String,
        /// What it takes instead.
        expected: String,
    },
    /// A recipe that cannot be used.
    #[error("{place}: {detail}")]
    Recipe {
        /// The recipe's file and line, or the words of the command line.
        place: String,
        /// What was seen and what to write instead.
        detail: String,
    },
    /// Data that cannot be used.
    #[error("{path}: {detail}", path = path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What was seen, where, and what was expected.
        detail: String,
    },
    /// A line of a data file that cannot be used.
    #[error("{path}, line {line}: {detail}", path = path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What was seen and what was expected.
        detail: String,
    },
    /// A file that could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A device that cannot be used.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Adapters, their surgery or their files.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// The model, its tokenizer or its template.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A folder that another run holds.
    #[error("{path}: another run holds this folder ({holder}); wait for it, or choose another folder", path = path.display())]
    Held {
        /// The folder.
        path: PathBuf,
        /// What is known of the other run.
        holder: String,
    },
    /// A checkpoint of another run than the one that is to go on.
    #[error("{path}: is of another run: {detail}", path = path.display())]
    OtherRun {
        /// The checkpoint.
        path: PathBuf,
        /// What differs, and what may.
        detail: String,
    },
    /// A run that was asked to stop.
    #[error("stopped after step {step} of {steps}{}", saved_as(checkpoint.as_deref()))]
    Interrupted {
        /// Optimizer steps taken.
        step: usize,
        /// Optimizer steps of the run.
        steps: usize,
        /// Where it was saved; nowhere before its first step.
        checkpoint: Option<PathBuf>,
        /// The reason that the stop signal was given.
        reason: usize,
    },
    /// A checkpoint that could not be written.
    #[error("no checkpoint could be written after step {step}: {source}{}", still_there(kept.as_deref()))]
    NotSaved {
        /// Optimizer steps taken.
        step: usize,
        /// Why.
        source: Box<TrainError>,
        /// The newest one that is there.
        kept: Option<PathBuf>,
    },
    /// A device that gave up, most often for want of memory.
    #[error("{}", device_failed(when, failure, predicted.as_deref()))]
    DeviceFailed {
        /// What was being done.
        when: String,
        /// What it said.
        failure: DeviceFailure,
        /// The prediction of the run's memory, where there is one.
        predicted: Option<String>,
    },
    /// A run that ended with adapters that change nothing.
    #[error("the run had no effect: after {steps} steps {detail}")]
    NoEffect {
        /// Optimizer steps of the run.
        steps: usize,
        /// What was seen and what to change.
        detail: &'static str,
    },
    /// A number that is not finite, or a failure within Burn's training.
    #[error("training stopped at step {step}: {detail}")]
    Stopped {
        /// Optimizer step, from 1.
        step: usize,
        /// What was seen.
        detail: String,
    },
}

fn device_failed(when: &str, failure: &DeviceFailure, predicted: Option<&str>) -> String {
    let detail = &failure.detail;
    if !failure.out_of_memory {
        return format!("the device failed {when}: {detail}");
    }
    let predicted = predicted.map_or_else(String::new, |text| format!("; predicted: {text}"));
    format!(
        "the device ran out of memory {when}: {detail}{predicted}. Fewer rows (train.batch_size, with more \
         train.accumulation), shorter ones (data.max_length), train.recompute = \"blocks\" and \
         model.dtype = \"bf16\" need less"
    )
}

fn saved_as(checkpoint: Option<&Path>) -> String {
    match checkpoint {
        Some(path) => format!("; saved as {}", path.display()),
        None => String::new(),
    }
}

fn still_there(kept: Option<&Path>) -> String {
    match kept {
        Some(path) => format!("; the last one is {}", path.display()),
        None => "; there is none from before".into(),
    }
}

impl From<l1ra_models::hub::HubError> for TrainError {
    fn from(error: l1ra_models::hub::HubError) -> Self {
        Self::Model(error.into())
    }
}

impl From<ConfigError> for TrainError {
    fn from(error: ConfigError) -> Self {
        Self::Core(error.into())
    }
}

impl TrainError {
    /// A setting outside its range.
    pub(crate) fn option(
        field: &'static str,
        seen: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Option {
            field,
            seen: seen.to_string(),
            expected: expected.into(),
        }
    }

    pub(crate) fn recipe(place: impl ToString, detail: impl Into<String>) -> Self {
        Self::Recipe {
            place: place.to_string(),
            detail: detail.into(),
        }
    }

    /// A device that gave up.
    pub(crate) fn device_failed(when: impl Into<String>, failure: DeviceFailure) -> Self {
        Self::DeviceFailed {
            when: when.into(),
            failure,
            predicted: None,
        }
    }

    /// The same with the prediction of the run's memory, where that is what was short.
    pub(crate) fn with_prediction(self, memory: &MemoryPrediction) -> Self {
        match self {
            Self::DeviceFailed { when, failure, .. } => Self::DeviceFailed {
                when,
                failure,
                predicted: memory.to_string().lines().next().map(str::to_string),
            },
            other => other,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    /// Whether the user's input is at fault, found before any long work: programs exit with 2.
    pub fn is_users_mistake(&self) -> bool {
        match self {
            Self::Stopped { .. }
            | Self::NoEffect { .. }
            | Self::DeviceFailed { .. }
            | Self::Interrupted { .. }
            | Self::NotSaved { .. } => false,
            Self::Io { source, .. } => is_users_path(source),
            Self::Core(error) => error.is_users_mistake(),
            Self::Model(error) => error.is_users_mistake(),
            Self::Device(_)
            | Self::Held { .. }
            | Self::OtherRun { .. }
            | Self::Option { .. }
            | Self::Recipe { .. }
            | Self::Data { .. }
            | Self::Line { .. } => true,
        }
    }
}
