//! [`DataInspection`]: what a data file holds, without a tokenizer.

use std::{fmt, path::Path};

use serde::Serialize;

use crate::{
    data::{Content, DataFile, DataForm, Malformed, SourceFile},
    error::TrainError,
};

/// What a data file holds.
#[derive(Clone, Debug, Serialize)]
pub struct DataInspection {
    /// The file.
    pub path: String,
    /// The form of its records, recognised from the first.
    pub form: DataForm,
    /// Records that can be used.
    pub records: usize,
    /// Letters of all texts.
    pub characters: usize,
    /// Messages of the longest conversation; `None` where there are none.
    pub most_messages: Option<usize>,
    /// Letters of the shortest and of the longest record.
    pub record_characters: [usize; 2],
    /// Records that cannot be used.
    pub malformed: Vec<Malformed>,
}

/// Malformed records that the text names.
const SHOWN: usize = 5;

/// Reads `path` as training would and says what it holds. Records that cannot be used are counted
/// and named, not an error.
///
/// # Errors
/// A file that cannot be read, is empty or of an unknown kind, or a first record whose form is not
/// known.
pub fn inspect_data(path: &Path) -> Result<DataInspection, TrainError> {
    let source = SourceFile::read(&DataFile {
        path: path.into(),
        weight: 1.0,
        form: DataForm::Auto,
    })?;
    let lengths = source
        .records
        .iter()
        .map(|record| record.content.characters());
    let (min, max) = (lengths.clone().min(), lengths.max());
    let messages = source
        .records
        .iter()
        .filter_map(|record| match &record.content {
            Content::Chat { messages, .. } => Some(messages.len()),
            _ => None,
        });
    Ok(DataInspection {
        path: path.display().to_string(),
        form: source.form,
        records: source.records.len(),
        characters: source.characters(),
        most_messages: messages.max(),
        record_characters: [min.unwrap_or(0), max.unwrap_or(0)],
        malformed: source.malformed,
    })
}

impl fmt::Display for DataInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [shortest, longest] = self.record_characters;
        writeln!(f, "data        {}", self.path)?;
        writeln!(f, "form        {}", self.form)?;
        write!(f, "records     {}", self.records)?;
        if let Some(most) = self.most_messages {
            write!(f, ", up to {most} messages each")?;
        }
        write!(
            f,
            "\nletters     {}, {shortest} to {longest} a record",
            self.characters
        )?;
        if !self.malformed.is_empty() {
            write!(
                f,
                "\nunusable    {}; training would refuse:",
                self.malformed.len()
            )?;
        }
        for Malformed { place, detail } in self.malformed.iter().take(SHOWN) {
            write!(f, "\n  {place}: {detail}")?;
        }
        Ok(())
    }
}
