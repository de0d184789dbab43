//! Parquet files as JSON values, row by row.

use std::{fs::File, path::Path};

use parquet::{
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use crate::error::TrainError;

/// The rows of a Parquet file as objects: texts, numbers, lists and structures of them. Anything
/// else, a date say, is the text that Parquet makes of it.
pub(super) fn rows(path: &Path) -> Result<Vec<Value>, TrainError> {
    let file = File::open(path).map_err(|error| TrainError::io(path, error))?;
    let wrong = |error: parquet::errors::ParquetError| TrainError::Data {
        path: path.into(),
        detail: format!("is no Parquet file that can be read: {error}"),
    };
    let reader = SerializedFileReader::new(file).map_err(wrong)?;
    let rows = reader.get_row_iter(None).map_err(wrong)?;
    rows.map(|row| row.map(object).map_err(wrong)).collect()
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
