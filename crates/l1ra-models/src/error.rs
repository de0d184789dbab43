//! Errors of this crate.

use std::{io, path::PathBuf};

use l1ra_core::{CoreError, fit_to_print, is_users_path};

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
        source: io::Error,
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
    /// An adapter that does not fit the model.
    #[error("adapter `{path}`: {detail}")]
    Adapter {
        /// Path of the layer that the adapter names.
        path: String,
        /// What was seen, what was expected and what to do.
        detail: String,
    },
    /// A place that nothing can be written to.
    #[error("{path}: {detail}", path = path.display())]
    Output {
        /// The file or folder.
        path: PathBuf,
        /// What is in the way and what to do.
        detail: String,
    },
    /// A hub name that gave no model.
    #[error(transparent)]
    Hub(#[from] l1ra_hub::HubError),
    /// Adapter files that cannot be read.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// A prompt that leaves no room for an answer.
    #[error(
        "the prompt has {tokens} tokens, and this model reads {context} with the answer \
         (max_position_embeddings): shorten the prompt or begin a new conversation"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that the model reads.
        context: usize,
    },
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
    /// Whether the user can mend it by giving something else: another path, file or option. What is
    /// left are failures of the machine and of this program.
    pub fn is_users_mistake(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_users_path(source),
            Self::Core(error) => error.is_users_mistake(),
            Self::Hub(error) => error.is_users_mistake(),
            Self::Tokenizer(_) => false,
            Self::Format { .. }
            | Self::Unsupported { .. }
            | Self::MissingTensor { .. }
            | Self::Shape { .. }
            | Self::Template(_)
            | Self::Adapter { .. }
            | Self::Output { .. }
            | Self::PromptTooLong { .. }
            | Self::Option { .. } => true,
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn format(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Format {
            path: path.into(),
            detail: fit_to_print(detail.into()),
        }
    }

    pub(crate) fn adapter(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Adapter {
            path: path.into(),
            detail: detail.into(),
        }
    }

    pub(crate) fn output(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::Output {
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
            what: fit_to_print(what.into()),
            seen: fit_to_print(seen.to_string()),
            supported: supported.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_nobody_s_mistake() {
        let io = |kind: io::ErrorKind| ModelError::io("a", kind.into());
        assert!(io(io::ErrorKind::NotFound).is_users_mistake());
        assert!(!io(io::ErrorKind::StorageFull).is_users_mistake());
        assert!(ModelError::adapter("a", "does not fit").is_users_mistake());
        assert!(!ModelError::Tokenizer("broken".into()).is_users_mistake());
    }
}
