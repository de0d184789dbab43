//! Parquet files as JSON values, some rows at a time.

mod thrift;

use std::{
    fs::{self, File},
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::mpsc::{self, RecvTimeoutError, SyncSender},
    thread,
    time::Duration,
};

use l1ra_core::aside;
use parquet::{
    errors::ParquetError,
    file::reader::{FileReader, SerializedFileReader},
    record::{Field, Row},
};
use serde_json::{Map, Value};

use crate::error::TrainError;

/// Time for a batch of rows of the smallest file, and for each byte of a file besides. Reading takes
/// less than a hundredth of it.
const LIMIT: Duration = Duration::from_secs(4);
const LIMIT_OF_BYTE: Duration = Duration::from_micros(1);

/// Hands the rows of a Parquet file to `take` as objects, `size` at a time: texts, numbers, lists and
/// structures of them. Anything else, a date say, is the text that Parquet makes of it.
///
/// Rows that are all null need next to no bytes: a file may say that it has any number of them, so
/// they are never all in memory. And a few bytes may keep the library busy for years, where
/// [`thrift`] does not see it: so it reads in a thread, which is left to itself when its time is over.
pub(super) fn each_batch(
    path: &Path,
    size: usize,
    mut take: impl FnMut(Vec<Value>) -> Result<(), TrainError>,
) -> Result<(), TrainError> {
    let failed = |error| TrainError::io(path, error);
    let bytes = fs::metadata(path).map_err(failed)?.len();
    let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
    let limit = LIMIT + LIMIT_OF_BYTE.saturating_mul(bytes);
    let (batches, read) = mpsc::sync_channel(1);
    let place = path.to_path_buf();
    let reader = thread::Builder::new().name("parquet".into());
    let reader = reader.spawn(move || {
        let sent = send_batches(&place, size, &batches);
        if let Err(error) = sent {
            let _ = batches.send(Err(error)); // Nobody listens any more where an error came before.
        }
    });
    let reader = reader.map_err(failed)?;
    let mut all = || loop {
        match read.recv_timeout(limit) {
            Ok(batch) => take(batch?)?,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                let why = format!("{size} rows are not read after {} s", limit.as_secs());
                return Err(unreadable(path, &why));
            }
        }
    };
    let result = all();
    match &result {
        Ok(()) => aside::end(reader),
        Err(_) => aside::leave(reader),
    }
    result
}

/// Reads on until the end, an error, or nobody listens.
fn send_batches(
    path: &Path,
    size: usize,
    batches: &SyncSender<Result<Vec<Value>, TrainError>>,
) -> Result<(), TrainError> {
    let open = || File::open(path).map_err(|error| TrainError::io(path, error));
    let wrong = |why: String| unreadable(path, &why);
    let mut file = open()?;
    thrift::check_footer(&mut file).map_err(wrong)?;
    let reader = guarded(path, || SerializedFileReader::new(file))?;
    thrift::check_pages(&mut open()?, reader.metadata()).map_err(wrong)?;
    let mut rows = guarded(path, || reader.get_row_iter(None))?;
    loop {
        let batch = || {
            rows.by_ref()
                .take(size)
                .map(|row| row.map(object))
                .collect()
        };
        let batch: Vec<Value> = guarded(path, batch)?;
        if batch.is_empty() || batches.send(Ok(batch)).is_err() {
            return Ok(());
        }
    }
}

/// What the library says, and where it panics an error as well: it trusts its files here and there.
fn guarded<T>(
    path: &Path,
    read: impl FnOnce() -> Result<T, ParquetError>,
) -> Result<T, TrainError> {
    match panic::catch_unwind(AssertUnwindSafe(read)) {
        Ok(read) => read.map_err(|error| unreadable(path, &error.to_string())),
        Err(_) => Err(unreadable(path, "its parts do not fit together")),
    }
}

fn unreadable(path: &Path, why: &str) -> TrainError {
    TrainError::Data {
        path: path.into(),
        detail: format!("is no Parquet file that can be read: {why}"),
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
