//! [`ModelRef`]: what `--model` and a recipe's `model` name.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use crate::error::{HubError, HubErrorKind};

/// Longest repository name of the hub.
const MAX_LENGTH: usize = 96;

/// A model as a user names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// A folder or file of this machine, there or not.
    Path(PathBuf),
    /// A repository of the hub.
    Hub {
        /// `org/name`.
        repo: String,
        /// Branch, tag or commit; `None`: `main`.
        revision: Option<String>,
    },
}

impl ModelRef {
    /// Reads a name: a path that exists wins; else `org/name[@revision]` is a hub name (one slash,
    /// letters, digits, `.`, `_` and `-`, no leading `.`, no `.gguf` at its end); anything else is
    /// a path, whose absence the loader tells.
    ///
    /// # Errors
    /// An empty name, or a hub name with a revision that cannot be one.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let refuse = |expected: &str| {
            let subject = format!("model = `{text}`");
            Err(HubError::new(subject, HubErrorKind::Name, expected))
        };
        if text.is_empty() {
            return refuse("a folder, a .gguf file or a hub name (`org/name[@revision]`)");
        }
        let (repo, revision) = match text.split_once('@') {
            Some((repo, revision)) => (repo, Some(revision)),
            None => (text, None),
        };
        if Path::new(text).exists() || !is_repo(repo) {
            return Ok(Self::Path(text.into()));
        }
        if !revision.is_none_or(is_revision) {
            return refuse(
                "after `@` stands a branch, a tag or a commit: letters, digits, `.`, `_`, `-`, `/`",
            );
        }
        Ok(Self::Hub {
            repo: repo.into(),
            revision: revision.map(String::from),
        })
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => write!(f, "{}", path.display()),
            Self::Hub {
                repo,
                revision: None,
            } => f.write_str(repo),
            Self::Hub {
                repo,
                revision: Some(revision),
            } => write!(f, "{repo}@{revision}"),
        }
    }
}

/// As `validate_repo_id` of huggingface_hub has it.
fn is_repo(text: &str) -> bool {
    let part = |part: &str| {
        let edges = ['.', '-'];
        !part.is_empty()
            && part.bytes().all(is_name_byte)
            && !part.starts_with(edges)
            && !part.ends_with(edges)
    };
    let file = text.to_ascii_lowercase().ends_with(".gguf");
    text.len() <= MAX_LENGTH
        && !text.contains("--")
        && !text.contains("..")
        && !file
        && text
            .split_once('/')
            .is_some_and(|(org, name)| part(org) && part(name))
}

fn is_revision(text: &str) -> bool {
    text.split('/').all(|part| {
        let plain = part.bytes().all(is_name_byte) && !part.contains("..");
        plain && !part.is_empty() && !part.starts_with(['.', '-'])
    })
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn hub(repo: &str, revision: Option<&str>) -> ModelRef {
        ModelRef::Hub {
            repo: repo.into(),
            revision: revision.map(String::from),
        }
    }

    #[test]
    fn hub_names_and_paths_are_told_apart() {
        let names = [
            ("org/name", hub("org/name", None)),
            ("Org-1/Na_me-3.1-8B", hub("Org-1/Na_me-3.1-8B", None)),
            ("org/name@v1.0", hub("org/name", Some("v1.0"))),
            ("org/name@refs/pr/1", hub("org/name", Some("refs/pr/1"))),
        ];
        for (text, expected) in names {
            let parsed = ModelRef::parse(text).unwrap();
            assert_eq!(parsed, expected);
            assert_eq!(parsed.to_string(), text);
        }
        let long = format!("org/{}", "n".repeat(93));
        for text in [
            "./org/name",
            "../name",
            "/org/name",
            "a/b/c",
            "name",
            "org/",
            "/",
            "org/name.gguf",
            "org/Name.GGUF",
            "org/na me",
            "~/name",
            "org/-name",
            "org/name.",
            "or--g/name",
            "org/na..me",
            r"org\name",
            "C:/name",
            "name@v1",
            &long,
        ] {
            assert_eq!(
                ModelRef::parse(text).unwrap(),
                ModelRef::Path(text.into()),
                "{text}"
            );
        }
    }

    #[test]
    fn a_path_that_exists_wins() {
        // The tests of a package run in its folder.
        assert_eq!(
            ModelRef::parse("src/lib.rs").unwrap(),
            ModelRef::Path("src/lib.rs".into())
        );
    }

    #[test]
    fn what_can_be_neither_is_refused() {
        let error = |text: &str| ModelRef::parse(text).unwrap_err().to_string();
        insta::assert_snapshot!(error(""), @"model = ``: a folder, a .gguf file or a hub name (`org/name[@revision]`)");
        for text in [
            "org/name@",
            "org/name@a b",
            "org/name@../x",
            "org/name@/x",
            "org/name@a//b",
        ] {
            let error = error(text);
            assert!(
                error.starts_with(&format!("model = `{text}`: after `@` stands")),
                "{error}"
            );
        }
    }
}
