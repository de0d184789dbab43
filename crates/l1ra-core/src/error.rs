//! Errors of this crate.

use std::path::PathBuf;

/// A configuration that cannot be used, found before anything is built or loaded.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ConfigError {
    /// A value outside its range.
    #[error("{field} = {seen}: {expected}")]
    Value {
        /// Name of the field.
        field: &'static str,
        /// The value as it was given.
        seen: String,
        /// What the field takes instead.
        expected: String,
    },
    /// A target that names no linear layer of the model.
    #[error("target `{target}` matches no linear layer of this model; nearest: {nearest}")]
    UnknownTarget {
        /// The target as it was given.
        target: String,
        /// The nearest names that exist, comma-separated.
        nearest: String,
    },
    /// A regular expression that does not compile.
    #[error("{field}: `{pattern}` is not a regular expression: {detail}")]
    Pattern {
        /// Name of the field.
        field: &'static str,
        /// The expression as it was given.
        pattern: String,
        /// The parser's message.
        detail: String,
    },
    /// A reallocation schedule that cannot work.
    #[error("rank reallocation cannot work with this schedule: {detail}")]
    Schedule {
        /// What is wrong, with the values seen and what to change.
        detail: String,
    },
}

/// Anything that can go wrong with adapters, their surgery and their files.
#[derive(Debug, thiserror::Error)]
pub enum CoreError {
    /// A configuration that cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// An adapter that breaks an invariant or does not fit its layer.
    #[error("adapter `{path}`: {detail}")]
    Adapter {
        /// Path of the adapter in its module.
        path: String,
        /// What was seen and what was expected.
        detail: String,
    },
    /// The optimizer's state could not be edited.
    #[error("optimizer state: {0}")]
    OptimizerState(String),
    /// A file that could not be read or written.
    #[error("{path}: {source}", path = path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// A file whose content is wrong.
    #[error("{path}: {detail}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was seen, what was expected, and what to do.
        detail: String,
    },
}

/// A message that quotes a file, which may hold names of any length and what a terminal would obey:
/// control characters are written as escapes, and a middle too long is left out.
pub fn fit_to_print(message: String) -> String {
    const MOST: usize = 1200;
    const END: usize = 400;
    let is_plain = |letter: char| !letter.is_control() || letter == '\n';
    if message.len() <= MOST && message.chars().all(is_plain) {
        return message;
    }
    let mut clean = String::with_capacity(message.len());
    for letter in message.chars() {
        match is_plain(letter) {
            true => clean.push(letter),
            false => clean.extend(letter.escape_default()),
        }
    }
    if clean.len() > MOST {
        let start = clean.floor_char_boundary(MOST - END);
        let end = clean.ceil_char_boundary(clean.len() - END);
        clean.replace_range(start..end, " … ");
    }
    clean
}

/// Whether an error of the file system is the user's to mend: a path that is wrong or closed, not a
/// disk that is full or broken.
pub fn is_users_path(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        InvalidData, InvalidFilename, IsADirectory, NotADirectory, NotFound, PermissionDenied,
        ReadOnlyFilesystem,
    };
    matches!(
        error.kind(),
        NotFound
            | PermissionDenied
            | NotADirectory
            | IsADirectory
            | InvalidData
            | InvalidFilename
            | ReadOnlyFilesystem
    )
}

impl CoreError {
    /// Whether the user's input is at fault: programs exit with 2.
    pub fn is_users_mistake(&self) -> bool {
        match self {
            Self::Io { source, .. } => is_users_path(source),
            Self::OptimizerState(_) => false,
            Self::Config(_) | Self::Adapter { .. } | Self::File { .. } => true,
        }
    }

    pub(crate) fn file(path: impl Into<PathBuf>, detail: impl Into<String>) -> Self {
        Self::File {
            path: path.into(),
            detail: fit_to_print(detail.into()),
        }
    }

    pub(crate) fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    /// What is wrong with the adapter at `path`.
    pub fn adapter(path: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::Adapter {
            path: path.into(),
            detail: detail.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_file_holds_does_not_reach_the_terminal() {
        let message = fit_to_print("tensor `\u{1b}[2J\u{7}a\u{9b}` is missing".into());
        assert_eq!(message, r"tensor `\u{1b}[2J\u{7}a\u{9b}` is missing");
        assert_eq!(fit_to_print("zwölf\nZeilen".into()), "zwölf\nZeilen");
        let long = fit_to_print(format!("tensor `{}` is missing", "ä".repeat(50_000)));
        assert!(long.len() < 1300 && long.contains(" … "), "{}", long.len());
        assert!(long.starts_with("tensor `ä") && long.ends_with("ä` is missing"));
    }
}
