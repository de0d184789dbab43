//! Errors of this crate.

use std::path::PathBuf;

/// Anything that can go wrong between a path and a running model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file that could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file that breaks its own format.
    #[error("{path}: {detail}", path = path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What was seen, what was expected and what to do.
        detail: String,
    },
    /// An architecture, option or type that is not supported.
    #[error(
        "{path}: {what} is not supported: found `{seen}`; supported: {supported}",
        path = path.display()
    )]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The option.
        what: String,
        /// Its value in the file.
        seen: String,
        /// The values that would do.
        supported: String,
    },
    /// A tensor that the model needs and the file does not have.
    #[error("{path}: tensor `{name}` is missing{hint}", path = path.display())]
    MissingTensor {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Nearest names, or nothing.
        hint: String,
    },
    /// A tensor whose shape is not what the configuration asks for.
    #[error(
        "{path}: tensor `{name}` has shape {seen:?}, the configuration asks for {expected:?}",
        path = path.display()
    )]
    Shape {
        /// The file or folder.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// Shape in the file.
        seen: Vec<usize>,
        /// Shape that the configuration asks for.
        expected: Vec<usize>,
    },
    /// Text that cannot be turned into ids, or ids into text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// A chat template that cannot be parsed or rendered.
    #[error("chat template: {0}")]
    Template(String),
    /// A sampling option outside its range.
    #[error("{field} = {seen}: {expected}")]
    Option {
        /// Name of the option.
        field: &'static str,
        /// The value as it was given.
        seen: String,
        /// What it takes.
        expected: &'static str,
    },
}

impl ModelError {
    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Format {
            path: path.into(),
            detail: detail.into(),
        }
    }

    pub(crate) fn unsupported(
        path: impl Into<PathBuf>,
        what: impl Into<String>,
        seen: impl ToString,
        supported: impl Into<String>,
    ) -> Self {
        Self::Unsupported {
            path: path.into(),
            what: what.into(),
            seen: seen.to_string(),
            supported: supported.into(),
        }
    }
}
