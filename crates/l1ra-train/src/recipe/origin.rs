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

/// Dots of the keys whose lines are noted; those of a recipe have fewer.
const DEEPEST: usize = 4;

impl Origins {
    /// The lines of a TOML document that was read from `file`. A document that does not parse has
    /// none.
    pub(super) fn of_document(file: &Path, text: &str) -> Self {
        let mut origins = Self {
            file: file.into(),
            places: BTreeMap::new(),
        };
        let lines = Lines::new(text);
        if let Ok(document) = toml::de::DeTable::parse(text) {
            for (key, value) in document.get_ref() {
                origins.add("", &lines, key.get_ref(), key.span().start, value);
            }
        }
        origins
    }

    fn add(
        &mut self,
        prefix: &str,
        lines: &Lines,
        key: &str,
        start: usize,
        value: &Spanned<DeValue<'_>>,
    ) {
        let path = match prefix {
            "" => key.to_string(),
            _ => format!("{prefix}.{key}"),
        };
        let line = lines.of(start);
        let depth = path.matches('.').count();
        if let (DeValue::Table(table), true) = (value.get_ref(), depth < DEEPEST) {
            for (key, value) in table {
                self.add(&path, lines, key.get_ref(), key.span().start, value);
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

/// Where the lines of a text end.
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// Line of the byte at `offset`, from 1.
    pub(super) fn of(&self, offset: usize) -> usize {
        self.0.partition_point(|end| *end < offset) + 1
    }
}
