//! Parquet files as JSON values, some rows at a time.

use std::{
    fs::File,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use crate::error::TrainError;

/// Hands the rows of a Parquet file to `take` as objects, `size` at a time: texts, numbers, lists and
/// structures of them. Anything else, a date say, is the text that Parquet makes of it.
///
/// Rows that are all null need next to no bytes: a file may say that it has any number of them, so
/// they are never all in memory.
pub(super) fn each_batch(
    path: &Path,
    size: usize,
    mut take: impl FnMut(Vec<Value>) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let file = File::open(path).map_err(|error| TrainError::io(path, error))?;
    let reader = guarded(path, || SerializedFileReader::new(file))?;
    let mut rows = guarded(path, || reader.get_row_iter(None))?;
    loop {
        let batch = || {
            rows.by_ref()
                .take(size)
                .map(|row| row.map(object))
                .collect()
        };
        let batch: Vec<Value> = guarded(path, batch)?;
        if batch.is_empty() {
            return Ok(());
        }
        take(batch)?;
    }
}

/// What the library says, and where it panics an error as well: it trusts its files here and there.
fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, TrainError> {
    let wrong = |why: String| TrainError::Data {
        path: path.into(),
        detail: format!("is no Parquet file that can be read: {why}"),
    };
    match panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| wrong(error.to_string())),
        Err(_) => Err(wrong("its parts do not fit together".into())),
    }
}

fn object(row: Row) -> Value {
    let fields = row.into_columns().into_iter();
    Value::Object(fields.map(|(name, field)| (name, value(field))).collect())
}

fn value(field: Field) -> Value {
    match field {
        Field::Null => Value::Null,
        Field::Bool(value) => value.into(),
        Field::Byte(value) => value.into(),
        Field::Short(value) => value.into(),
        Field::Int(value) => value.into(),
        Field::Long(value) => value.into(),
        Field::UByte(value) => value.into(),
        Field::UShort(value) => value.into(),
        Field::UInt(value) => value.into(),
        Field::ULong(value) => value.into(),
        Field::Float(value) => f64::from(value).into(),
        Field::Double(value) => value.into(),
        Field::Str(text) => text.into(),
        // Texts of files that do not say that their bytes are text.
        Field::Bytes(bytes) => String::from_utf8_lossy(bytes.data()).into(),
        Field::Group(row) => object(row),
        Field::ListInternal(list) => list.elements().iter().cloned().map(value).collect(),
        Field::MapInternal(map) => {
            let key = |key: &Field| match key {
                Field::Str(text) => text.clone(),
                other => other.to_string(),
            };
            let entries = map.entries().iter();
            let entries: Map<String, Value> =
                entries.map(|(k, v)| (key(k), value(v.clone()))).collect();
            Value::Object(entries)
        }
        other => other.to_string().into(),
    }
}
