//! [`DataFiles`]: the files that the sources of a run name.

use std::path::{Path, PathBuf};

use crate::{
    data::{DataForm, DataOptions, DataSource},
    error::TrainError,
};

/// The files of a run, in the order in which they are read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataFiles {
    /// Training files.
    pub train: Vec<DataFile>,
    /// Evaluation files; empty where samples are held out.
    pub eval: Vec<DataFile>,
}

/// One file.
#[derive(Clone, Debug, PartialEq)]
pub struct DataFile {
    /// Where it is.
    pub path: PathBuf,
    /// How often each of its samples is seen in an epoch.
    pub weight: f64,
    /// What its records look like, as far as that was said.
    pub form: DataForm,
}

/// How a file holds its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileKind {
    /// A JSON value a line.
    Lines,
    /// A JSON array, an object with an array `data`, or lines after all.
    Json,
    /// Parquet.
    Parquet,
    /// One text.
    Text,
}

impl DataOptions {
    /// The files that `train` and `eval` name; those of a pattern in the order of their names.
    ///
    /// # Errors
    /// A file that is not there, a pattern that matches nothing, or a file of an unknown kind.
    pub fn files(&self) -> Result<DataFiles, TrainError> {
        let files = |sources: &[DataSource]| {
            let found = sources.iter().map(|source| self.source_files(source));
            let found: Result<Vec<Vec<DataFile>>, TrainError> = found.collect();
            found.map(|files| files.concat())
        };
        Ok(DataFiles {
            train: files(&self.train)?,
            eval: files(&self.eval)?,
        })
    }

    fn source_files(&self, source: &DataSource) -> Result<Vec<DataFile>, TrainError> {
        let form = source.form.unwrap_or(self.form);
        let file = |path: PathBuf| {
            FileKind::of(&path, form)?;
            Ok(DataFile {
                path,
                weight: source.weight,
                form,
            })
        };
        expand(&source.path)?.into_iter().map(file).collect()
    }
}

/// The files of a path or pattern. A file whose name looks like a pattern is that file.
fn expand(pattern: &str) -> Result<Vec<PathBuf>, TrainError> {
    let wrong = |detail: String| TrainError::Data {
        path: pattern.into(),
        detail,
    };
    let path = Path::new(pattern);
    if path.is_file() {
        return Ok(vec![path.into()]);
    }
    if path.is_dir() {
        let detail = format!(
            "is a folder; give its files, for example {}",
            path.join("*.jsonl").display()
        );
        return Err(wrong(detail));
    }
    if !pattern.contains(['*', '?', '[']) {
        return Err(wrong(
            "no such file; data is .jsonl, .json, .parquet, .txt or .md, by name or by a pattern \
             such as data/*.jsonl"
                .into(),
        ));
    }
    let found = glob::glob(pattern).map_err(|error| {
        let detail = format!(
            "is no pattern: {}; a file whose name holds `[` is written with `[[]`",
            error.msg
        );
        wrong(detail)
    })?;
    let files = found
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| TrainError::io(error.path().to_path_buf(), error.into()))?;
    let files: Vec<PathBuf> = files.into_iter().filter(|path| path.is_file()).collect();
    if files.is_empty() {
        return Err(wrong(
            "this pattern matches no file; it begins in the folder where the command runs".into(),
        ));
    }
    Ok(files)
}

impl FileKind {
    /// The kind of a file, by the end of its name. Any other name will do for plain text if that is
    /// asked for.
    ///
    /// # Errors
    /// An ending that is unknown.
    pub(crate) fn of(path: &Path, form: DataForm) -> Result<Self, TrainError> {
        let ending = path.extension().unwrap_or_default().to_string_lossy();
        match ending.to_lowercase().as_str() {
            "jsonl" | "ndjson" => Ok(Self::Lines),
            "json" => Ok(Self::Json),
            "parquet" => Ok(Self::Parquet),
            "txt" | "md" | "" => Ok(Self::Text),
            _ if form == DataForm::Text => Ok(Self::Text),
            _ => {
                let detail = format!(
                    "data of the kind `.{ending}` is not known; known: .jsonl, .json, .parquet, \
                     .txt, .md (with form = \"text\", any other file is read as plain text)"
                );
                Err(TrainError::Data {
                    path: path.into(),
                    detail,
                })
            }
        }
    }

    /// What the number of a record counts.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Self::Lines => "line",
            Self::Json | Self::Parquet | Self::Text => "record",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(files: &[DataFile]) -> Vec<String> {
        let name = |file: &DataFile| {
            file.path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .into_owned()
        };
        files.iter().map(name).collect()
    }

    #[test]
    fn patterns_give_their_files_in_order() {
        let dir = tempfile::TempDir::new().unwrap();
        for name in ["b.jsonl", "a.jsonl", "c.csv", "d [1].json"] {
            std::fs::write(dir.path().join(name), "x").unwrap();
        }
        std::fs::create_dir(dir.path().join("e.jsonl")).unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        let files = |train: &str| {
            let options = DataOptions {
                train: vec![DataSource::new(at(train))],
                ..Default::default()
            };
            options.files().map(|files| files.train)
        };
        let said = |train: &str| {
            let text = files(train).unwrap_err().to_string();
            text.replace(&dir.path().display().to_string(), "[dir]")
        };
        assert_eq!(names(&files("*.jsonl").unwrap()), ["a.jsonl", "b.jsonl"]);
        assert_eq!(names(&files("d [1].json").unwrap()), ["d [1].json"]);
        insta::assert_snapshot!(said("x*.jsonl"), @"[dir]/x*.jsonl: this pattern matches no file; it begins in the folder where the command runs");
        insta::assert_snapshot!(said("[x.jsonl"), @"[dir]/[x.jsonl: is no pattern: invalid range pattern; a file whose name holds `[` is written with `[[]`");
        insta::assert_snapshot!(said("x.jsonl"), @"[dir]/x.jsonl: no such file; data is .jsonl, .json, .parquet, .txt or .md, by name or by a pattern such as data/*.jsonl");
        insta::assert_snapshot!(said("e.jsonl"), @"[dir]/e.jsonl: is a folder; give its files, for example [dir]/e.jsonl/*.jsonl");
        insta::assert_snapshot!(said("c.csv"), @r#"[dir]/c.csv: data of the kind `.csv` is not known; known: .jsonl, .json, .parquet, .txt, .md (with form = "text", any other file is read as plain text)"#);
        assert_eq!(
            FileKind::of(Path::new("a.rs"), DataForm::Text).unwrap(),
            FileKind::Text
        );
    }
}
