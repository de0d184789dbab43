//! [`SourceFile`]: a data file's records, read and checked without a tokenizer.

use std::path::PathBuf;

use rayon::prelude::*;
use serde::{
    Deserializer, Serialize,
    de::{self, DeserializeSeed, IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::{
    data::{
        DataFile, DataForm, DataOptions, Record,
        files::FileKind,
        record::{self, Content, Flaw},
    },
    error::TrainError,
    plural::plural,
};

/// Bytes of lines whose values are in memory at once; a line counts as its own bytes and these.
const BATCH_BYTES: usize = 1 << 22;
const LINE_BYTES: usize = 64;
/// Values of a list that are in memory at once.
const BATCH: usize = 1024;
/// Records that cannot be used before a file is given up: each takes more memory than a line may have
/// bytes.
const MOST_MALFORMED: usize = 10_000;

/// The records of one file.
#[derive(Clone, Debug, PartialEq)]
pub struct SourceFile {
    /// The file.
    pub path: PathBuf,
    /// How often each sample is seen in an epoch.
    pub weight: f64,
    /// The form of its records.
    pub form: DataForm,
    /// Whether the form was recognised from the first record, and not said.
    pub recognised: bool,
    /// The records that can be used.
    pub records: Vec<Record>,
    /// The others.
    pub malformed: Vec<Malformed>,
    kind: FileKind,
}

/// A record that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Malformed {
    /// Line of the file, or number of the record, from 1.
    pub place: usize,
    /// What was seen and what was expected.
    pub detail: String,
}

/// A record's object, or why it is none.
type ReadObject = Result<Map<String, Value>, Flaw>;

/// What [`read_sources`] found.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sources {
    /// Training files.
    pub train: Vec<SourceFile>,
    /// Evaluation files; empty where samples are held out.
    pub eval: Vec<SourceFile>,
}

/// Reads all data of a run without a tokenizer: records can be counted, and every one that cannot be
/// used is in its file's [`malformed`](SourceFile::malformed).
///
/// # Errors
/// Options outside their range; a file that is not there, cannot be read or is empty; a first record
/// whose form is not known.
pub fn read_sources(options: &DataOptions) -> Result<Sources, TrainError> {
    options.validate()?;
    let files = options.files()?;
    let read = |files: &[DataFile]| {
        let read: Vec<_> = files.par_iter().map(SourceFile::read).collect();
        read.into_iter().collect::<Result<Vec<_>, _>>()
    };
    Ok(Sources {
        train: read(&files.train)?,
        eval: read(&files.eval)?,
    })
}

impl SourceFile {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read or is empty, or a first record whose form is not known.
    pub fn read(file: &DataFile) -> Result<Self, TrainError> {
        let path = &file.path;
        let bytes = match FileKind::of(path, file.form)? {
            // Its reader opens the file itself.
            FileKind::Parquet => Vec::new(),
            _ => std::fs::read(path).map_err(|error| TrainError::io(path, error))?,
        };
        Self::parse(file, &bytes)
    }

    /// Reads the records of a file that holds `bytes`.
    pub(crate) fn parse(file: &DataFile, bytes: &[u8]) -> Result<Self, TrainError> {
        let kind = FileKind::of(&file.path, file.form)?;
        let mut source = Self {
            path: file.path.clone(),
            weight: file.weight,
            form: file.form,
            recognised: file.form == DataForm::Auto,
            records: Vec::new(),
            malformed: Vec::new(),
            kind,
        };
        match kind {
            FileKind::Text => source.read_text(bytes)?,
            FileKind::Lines => source.read_lines(source.text(bytes)?)?,
            FileKind::Json => source.read_json(bytes)?,
            FileKind::Parquet => source.read_parquet()?,
        }
        if source.records.is_empty() && source.malformed.is_empty() {
            return Err(source.wrong("holds no samples; training needs at least one"));
        }
        Ok(source)
    }

    /// Letters of all records.
    pub fn characters(&self) -> usize {
        let records = self.records.par_iter();
        records.map(|record| record.content.characters()).sum()
    }

    /// What is wrong with the file, if a record cannot be used: the first one in full, and where the
    /// others are.
    pub fn error(&self) -> Option<TrainError> {
        const SHOWN: usize = 8;
        let (first, others) = self.malformed.split_first()?;
        let mut detail = first.detail.clone();
        if !others.is_empty() {
            let shown = others.iter().take(SHOWN).map(|m| m.place.to_string());
            let places: Vec<String> = shown.collect();
            let more = if others.len() > SHOWN { ", …" } else { "" };
            detail += &format!(
                " ({} more {}{} cannot be used: {}{more})",
                others.len(),
                self.kind.unit(),
                plural(others.len()),
                places.join(", ")
            );
        }
        Some(self.wrong_at(first.place, detail))
    }

    pub(super) fn add_flaw(&mut self, place: usize, flaw: Flaw) {
        let detail = flaw.0;
        self.malformed.push(Malformed { place, detail });
    }

    fn wrong(&self, detail: impl Into<String>) -> TrainError {
        TrainError::Data {
            path: self.path.clone(),
            detail: detail.into(),
        }
    }

    fn wrong_at(&self, place: usize, detail: String) -> TrainError {
        match self.kind {
            FileKind::Lines => TrainError::Line {
                path: self.path.clone(),
                line: place,
                detail,
            },
            _ => self.wrong(format!("record {place}: {detail}")),
        }
    }

    fn text<'a>(&self, bytes: &'a [u8]) -> Result<&'a str, TrainError> {
        let text = std::str::from_utf8(bytes).map_err(|error| {
            let place = error.valid_up_to();
            self.wrong(format!(
                "is not UTF-8 text (byte {place} is not); save it as UTF-8"
            ))
        })?;
        Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
    }

    fn read_text(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        if !matches!(self.form, DataForm::Auto | DataForm::Text) {
            let detail = format!(
                "is read as plain text by its name; records of the form {} are in .jsonl, .json or \
                 .parquet files",
                self.form
            );
            return Err(self.wrong(detail));
        }
        self.form = DataForm::Text;
        let text = self.text(bytes)?;
        if !text.trim().is_empty() {
            let content = Content::Document(text.into());
            self.records.push(Record { place: 1, content });
        }
        Ok(())
    }

    /// An array of records, alone or as `data` of an object; lines after all, as many a file with
    /// this name holds.
    fn read_json(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let text = self.text(bytes)?;
        if text.trim_start().starts_with('{') {
            let value = serde_json::from_str(text);
            return match value {
                Ok(mut value @ Value::Object(_)) => match value.get_mut("data").map(Value::take) {
                    Some(Value::Array(records)) => self.read_values(records),
                    Some(other) => {
                        value["data"] = other;
                        self.read_values(vec![value])
                    }
                    None => self.read_values(vec![value]),
                },
                _ => {
                    self.kind = FileKind::Lines;
                    self.read_lines(text)
                }
            };
        }
        if text.trim_start().starts_with('[') {
            return self.read_list(text);
        }
        match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => Err(self.wrong("is no list of records: [{…}, …]")),
            Err(_) if text.trim().is_empty() => Ok(()),
            Err(error) => Err(self.wrong(format!("is not JSON: {error}"))),
        }
    }

    /// A value a line. Values are made of a batch of lines at a time, so that beside the file no more
    /// than its records are in memory.
    fn read_lines(&mut self, text: &str) -> Result<(), TrainError> {
        let lines = text.lines().enumerate();
        let mut lines = lines.filter(|(_, line)| !line.trim().is_empty()).peekable();
        let parse = |line: &str| {
            let value = serde_json::from_str(line).map_err(|error| not_json(&error))?;
            record::object(value)
        };
        while lines.peek().is_some() {
            let mut bytes = 0;
            let mut batch = Vec::new();
            while let Some((number, line)) = lines.next_if(|_| bytes < BATCH_BYTES) {
                bytes += line.len() + LINE_BYTES;
                batch.push((number, line));
            }
            let values = batch
                .into_par_iter()
                .map(|(number, line)| (number + 1, parse(line)));
            self.keep(values.collect())?;
        }
        Ok(())
    }

    /// A list of values, made a batch at a time.
    fn read_list(&mut self, text: &str) -> Result<(), TrainError> {
        let mut json = serde_json::Deserializer::from_str(text);
        let mut list = ListReader {
            place: 0,
            source: self,
            failed: None,
        };
        let read = (&mut list).deserialize(&mut json).and_then(|()| json.end());
        match (list.failed, read) {
            (Some(error), _) => Err(error),
            (None, Ok(())) => Ok(()),
            (None, Err(error)) => Err(self.wrong(format!("is not JSON: {error}"))),
        }
    }

    #[cfg(feature = "parquet")]
    fn read_parquet(&mut self) -> Result<(), TrainError> {
        let (path, mut place) = (self.path.clone(), 0);
        crate::data::parquet::each_batch(&path, BATCH, |rows| {
            let numbered = rows.into_iter().map(|row| {
                place += 1;
                (place, record::object(row))
            });
            self.keep(numbered.collect())
        })
    }

    #[cfg(not(feature = "parquet"))]
    fn read_parquet(&mut self) -> Result<(), TrainError> {
        let detail = "reading Parquet was not compiled in; build again with `--features parquet`";
        Err(self.wrong(detail))
    }

    fn read_values(&mut self, values: Vec<Value>) -> Result<(), TrainError> {
        let numbered = values.into_par_iter().enumerate();
        let values = numbered.map(|(index, value)| (index + 1, record::object(value)));
        self.keep(values.collect())
    }

    /// Recognises the form and sorts the records.
    fn keep(&mut self, values: Vec<(usize, ReadObject)>) -> Result<(), TrainError> {
        let first = values
            .iter()
            .find_map(|(place, value)| Some((*place, value.as_ref().ok()?)));
        if let (DataForm::Auto, Some((place, first))) = (self.form, first) {
            self.form = DataForm::recognise(first)
                .ok_or_else(|| self.wrong_at(place, record::unknown(first).0))?;
        }
        let (form, recognised) = (self.form, self.recognised);
        let read: Vec<_> = values
            .into_par_iter()
            .map(|(place, value)| {
                let content = value.and_then(|value| {
                    record::parse(form, &value)
                        .map_err(|flaw| explained(form, recognised, &value, flaw))
                });
                (place, content)
            })
            .collect();
        for (place, content) in read {
            match content {
                Ok(content) => self.records.push(Record { place, content }),
                Err(Flaw(detail)) => self.malformed.push(Malformed { place, detail }),
            }
        }
        match self.malformed.first() {
            Some(Malformed { place, detail }) if self.malformed.len() > MOST_MALFORMED => {
                let detail = format!(
                    "{detail} ({} more {}s cannot be used, and what follows them was not read)",
                    self.malformed.len() - 1,
                    self.kind.unit()
                );
                Err(self.wrong_at(*place, detail))
            }
            _ => Ok(()),
        }
    }
}

/// Hands the values of a list on, a batch at a time.
struct ListReader<'a> {
    source: &'a mut SourceFile,
    /// Number of the last value.
    place: usize,
    /// Why reading stopped, if the values are at fault and not the JSON.
    failed: Option<TrainError>,
}

impl<'de> DeserializeSeed<'de> for &mut ListReader<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for &mut ListReader<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a list of records")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        loop {
            let mut batch = Vec::new();
            while batch.len() < BATCH
                && let Some(value) = list.next_element()?
            {
                self.place += 1;
                batch.push((self.place, record::object(value)));
            }
            if batch.is_empty() {
                return Ok(());
            }
            if let Err(error) = self.source.keep(batch) {
                self.failed = Some(error);
                return Err(de::Error::custom("not read further"));
            }
        }
    }
}

/// A record that lacks a key of its file's form: where the form comes from.
fn explained(form: DataForm, recognised: bool, record: &Map<String, Value>, flaw: Flaw) -> Flaw {
    if form.keys().iter().all(|key| record.contains_key(*key)) {
        return flaw;
    }
    let why = if recognised {
        "as its first record is"
    } else {
        "as the options say"
    };
    let own = DataForm::recognise(record);
    let own = own.map_or(String::new(), |own| format!("; this record is {own}"));
    Flaw(format!(
        "{}; the file is read as {form}, {why}{own}",
        flaw.0
    ))
}

/// The parser's message without its own line number: there is one line, and the caller names it.
fn not_json(error: &serde_json::Error) -> Flaw {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    Flaw(format!(
        "is not JSON: {message} (column {})",
        error.column()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, form: DataForm, text: &str) -> Result<SourceFile, String> {
        let file = DataFile {
            path: name.into(),
            weight: 1.0,
            form,
        };
        SourceFile::parse(&file, text.as_bytes()).map_err(|error| error.to_string())
    }

    fn places(source: &SourceFile) -> (Vec<usize>, Vec<usize>) {
        (
            source.records.iter().map(|record| record.place).collect(),
            source.malformed.iter().map(|m| m.place).collect(),
        )
    }

    const TEXTS: &str = r#"[{"text": "a"}, {"text": "b"}]"#;

    #[test]
    fn json_is_a_list_an_object_with_one_or_lines_after_all() {
        let nested = format!("{{\"version\": 1, \"data\": {TEXTS}}}");
        let lines = "{\"text\": \"a\"}\n\n{\"text\": \"b\"}\n";
        for text in [TEXTS, &nested, lines, &format!("\u{feff}{TEXTS}")] {
            let source = read("a.json", DataForm::Auto, text).unwrap();
            assert_eq!((source.form, source.recognised), (DataForm::Text, true));
            assert_eq!((source.records.len(), source.characters()), (2, 2));
        }
        assert_eq!(
            read("a.json", DataForm::Auto, r#"{"text": "a"}"#)
                .unwrap()
                .records
                .len(),
            1
        );
        let said = |text: &str| read("a.json", DataForm::Auto, text).unwrap_err();
        insta::assert_snapshot!(said("3"), @"a.json: is no list of records: [{…}, …]");
        insta::assert_snapshot!(said("[{\"text\":\n 3"), @"a.json: is not JSON: EOF while parsing an object at line 2 column 2");
        insta::assert_snapshot!(said("[]"), @"a.json: holds no samples; training needs at least one");
        insta::assert_snapshot!(said(" \n"), @"a.json: holds no samples; training needs at least one");
        insta::assert_snapshot!(said("[{\"txt\": 3}]"), @"a.json: record 1: has the key `txt`, and so no known form; nearest: text, which needs `text`; others need `messages`, or `conversations`, or `prompt` and `completion`, or `instruction` and `output`");
    }

    #[test]
    fn every_record_that_cannot_be_used_is_named() {
        let text = "{\"text\": \"a\"}\n{\"text\": 3}\n{\"txt\": \"b\"}\nno JSON\n\n[]\n\
                    {\"prompt\": \"a\", \"completion\": \"b\"}\n{\"text\": \"c\"}\r\n";
        let source = read("a.jsonl", DataForm::Auto, text).unwrap();
        assert_eq!(places(&source), (vec![1, 8], vec![2, 3, 4, 6, 7]));
        let details: Vec<&str> = source.malformed.iter().map(|m| m.detail.as_str()).collect();
        insta::assert_snapshot!(details.join("\n"), @"
        its `text` is a number; expected a text
        has no `text` (seen: the key `txt`); the file is read as text, as its first record is
        is not JSON: expected ident (column 2)
        is a list; a record is an object: {…}
        has no `text` (seen: the keys `prompt`, `completion`); the file is read as text, as its first record is; this record is completion
        ");
        insta::assert_snapshot!(source.error().unwrap(), @"a.jsonl, line 2: its `text` is a number; expected a text (4 more lines cannot be used: 3, 4, 6, 7)");
        assert!(
            read("a.json", DataForm::Auto, TEXTS)
                .unwrap()
                .error()
                .is_none()
        );

        let forced = read("a.json", DataForm::Alpaca, TEXTS).unwrap();
        insta::assert_snapshot!(forced.error().unwrap(), @"a.json: record 1: has no `instruction` (seen: the key `text`); the file is read as alpaca, as the options say; this record is text (1 more record cannot be used: 2)");
    }

    #[test]
    fn plain_text_is_one_record() {
        let source = read("a.md", DataForm::Auto, "# Title\n\nText.\n").unwrap();
        assert_eq!(source.form, DataForm::Text);
        assert_eq!(
            source.records[0].content,
            Content::Document("# Title\n\nText.\n".into())
        );
        assert!(read("a.py", DataForm::Text, "print(1)\n").is_ok());
        let said = |text: &str| read("a.txt", DataForm::Auto, text).unwrap_err();
        insta::assert_snapshot!(said(" \n"), @"a.txt: holds no samples; training needs at least one");
        insta::assert_snapshot!(read("a.txt", DataForm::Alpaca, "a").unwrap_err(), @"a.txt: is read as plain text by its name; records of the form alpaca are in .jsonl, .json or .parquet files");
        let file = DataFile {
            path: "a.txt".into(),
            weight: 1.0,
            form: DataForm::Auto,
        };
        let error = SourceFile::parse(&file, b"abc\xff").unwrap_err();
        assert_eq!(
            error.to_string(),
            "a.txt: is not UTF-8 text (byte 3 is not); save it as UTF-8"
        );
    }

    #[cfg(not(feature = "parquet"))]
    #[test]
    fn parquet_names_its_feature() {
        let said = read("a.parquet", DataForm::Auto, "PAR1").unwrap_err();
        insta::assert_snapshot!(said, @"a.parquet: reading Parquet was not compiled in; build again with `--features parquet`");
    }
}
