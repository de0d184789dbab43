//! [`Origins`]: where a recipe's values were said, for messages.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use toml::{Spanned, de::DeValue};

/// Where each key of a recipe was said: a line of its file, or the command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins {
    file: PathBuf,
    places: BTreeMap<String, Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Line(usize),
    CommandLine(String),
}

impl Origins {
    /// The lines of a TOML document that was read from `file`. A document that does not parse has
    /// none.
    pub(super) fn of_document(file: &Path, text: &str) -> Self {
        let mut origins = Self {
            file: file.into(),
            places: BTreeMap::new(),
        };
        if let Ok(document) = toml::de::DeTable::parse(text) {
            for (key, value) in document.get_ref() {
                origins.add("", text, key.get_ref(), key.span().start, value);
            }
        }
        origins
    }

    fn add(
        &mut self,
        prefix: &str,
        text: &str,
        key: &str,
        start: usize,
        value: &Spanned<DeValue<'_>>,
    ) {
        let path = match prefix {
            "" => key.to_string(),
            _ => format!("{prefix}.{key}"),
        };
        let line = line_of(text, start);
        if let DeValue::Table(table) = value.get_ref() {
            for (key, value) in table {
                self.add(&path, text, key.get_ref(), key.span().start, value);
            }
        }
        self.places.insert(path, Place::Line(line));
    }

    /// Notes that `key` was said on the command line, as `said`.
    pub(super) fn note(&mut self, key: &str, said: &str) {
        self.places
            .insert(key.into(), Place::CommandLine(said.into()));
    }

    /// Where `key` was said: `recipe.toml, line 7`, or the words of the command line; the file for
    /// a key that nobody said.
    pub fn place(&self, key: &str) -> String {
        let mut key = key;
        loop {
            match self.places.get(key) {
                Some(Place::Line(line)) => return format!("{}, line {line}", self.file.display()),
                Some(Place::CommandLine(said)) => return said.clone(),
                None => {}
            }
            match key.rfind(['.', '[']) {
                Some(end) => key = &key[..end],
                None => return self.file.display().to_string(),
            }
        }
    }
}

/// Line of the byte at `offset`, from 1.
pub(super) fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before.filter(|byte| **byte == b'\n').count() + 1
}
