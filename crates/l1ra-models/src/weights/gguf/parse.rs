//! The header, read without trusting a single number in it.

use std::{collections::BTreeMap, path::Path};

use super::{
    GgufValue,
    layout::{Stored, TensorInfo, alignment, locate},
    quant::{GgmlType, type_name},
};
use crate::error::ModelError;

pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, GgufValue>,
    /// llama.cpp's names, each once.
    pub(super) tensors: Vec<(String, TensorInfo)>,
}

pub(super) type Parsed<T> = Result<T, ModelError>;

/// Arrays of arrays deeper than this are refused.
const MAX_DEPTH: usize = 4;
/// Values in all arrays together, whatever the file's size. A value takes 32 bytes of memory and may
/// take one in the file, so there may be one for every 16 bytes of the file besides; vocabularies of a
/// million tokens, in files of gigabytes, stay far below.
const MAX_VALUES: usize = 1 << 21;
const BYTES_OF_VALUE: usize = 16;
/// Bytes of the smallest metadata entry: key length, type, one byte.
const MIN_ENTRY: usize = 13;
/// Bytes of the smallest tensor entry: name length, number of axes, one axis, type, offset.
const MIN_TENSOR: usize = 32;

/// Reads the header of a file that lies in memory; `path` is for messages.
pub(super) fn header(path: &Path, file: &[u8]) -> Parsed<Header> {
    let mut reader = Reader {
        path,
        file,
        at: 0,
        values: 0,
    };
    let (tensor_count, value_count) = reader.preamble()?;
    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let at = reader.at;
        let (key, value) = reader.entry()?;
        if metadata.contains_key(&key) {
            return reader.fail(format!("metadata key `{key}` at byte {at} is there twice"));
        }
        metadata.insert(key, value);
    }
    let mut stored = Vec::new();
    for _ in 0..tensor_count {
        stored.push(reader.tensor()?);
    }
    let tensors = locate(&reader, stored, alignment(&reader, &metadata)?)?;
    Ok(Header { metadata, tensors })
}

pub(super) struct Reader<'a> {
    path: &'a Path,
    pub(super) file: &'a [u8],
    /// The next byte; after the last entry, the end of the header.
    pub(super) at: usize,
    /// Array values read so far.
    values: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn fail<T>(&self, detail: String) -> Parsed<T> {
        Err(ModelError::format(self.path, detail))
    }

    fn take(&mut self, count: usize, what: &str) -> Parsed<&'a [u8]> {
        let bytes = self.file.get(self.at..).and_then(|rest| rest.get(..count));
        let Some(bytes) = bytes else {
            return self.fail(format!(
                "ends within {what}: {count} bytes needed at byte {}, the file has {}",
                self.at,
                self.file.len()
            ));
        };
        self.at += count;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Parsed<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    fn u32(&mut self, what: &str) -> Parsed<u32> {
        Ok(u32::from_le_bytes(self.array(what)?))
    }

    fn u64(&mut self, what: &str) -> Parsed<u64> {
        Ok(u64::from_le_bytes(self.array(what)?))
    }

    /// A number of things of at least `size` bytes each, which must fit into the rest of the file.
    fn count(&mut self, what: &str, size: usize) -> Parsed<usize> {
        let at = self.at;
        let count = self.u64(what)?;
        let possible = (self.file.len() - self.at) / size;
        match usize::try_from(count)
            .ok()
            .filter(|count| *count <= possible)
        {
            Some(count) => Ok(count),
            None => self.fail(format!(
                "{what}: the count at byte {at} is {count}; the rest of the file can hold \
                 {possible} at most (is it cut off?)"
            )),
        }
    }

    fn text(&mut self, what: &str) -> Parsed<String> {
        let length = self.count(what, 1)?;
        let at = self.at;
        match str::from_utf8(self.take(length, what)?) {
            Ok(text) => Ok(text.into()),
            Err(_) => self.fail(format!("{what} at byte {at} is not UTF-8 text")),
        }
    }

    /// Magic and version; the numbers of tensors and of metadata entries.
    fn preamble(&mut self) -> Parsed<(usize, usize)> {
        let magic = self.take(4, "the magic")?;
        if magic != b"GGUF" {
            let seen = magic.escape_ascii();
            return self.fail(format!(
                "starts with `{seen}`, not `GGUF`; it is no GGUF file"
            ));
        }
        let version = self.u32("the version")?;
        if !(2..=3).contains(&version) {
            let seen = match version.swap_bytes() {
                swapped @ 1..=3 => format!("{swapped}, big-endian"),
                _ => version.to_string(),
            };
            let known = "2 and 3, little-endian";
            return Err(ModelError::unsupported(
                self.path,
                "the GGUF version",
                seen,
                known,
            ));
        }
        let tensors = self.count("the number of tensors", MIN_TENSOR)?;
        Ok((
            tensors,
            self.count("the number of metadata entries", MIN_ENTRY)?,
        ))
    }

    fn entry(&mut self) -> Parsed<(String, GgufValue)> {
        let key = self.text("a metadata key")?;
        let what = format!("metadata `{key}`");
        let kind = self.u32(&what)?;
        let value = self.value(kind, &what, 0)?;
        Ok((key, value))
    }

    fn value(&mut self, kind: u32, what: &str, depth: usize) -> Parsed<GgufValue> {
        Ok(match kind {
            0 => GgufValue::Unsigned(u64::from(self.array::<1>(what)?[0])),
            1 => GgufValue::Signed(i64::from(i8::from_le_bytes(self.array(what)?))),
            2 => GgufValue::Unsigned(u64::from(u16::from_le_bytes(self.array(what)?))),
            3 => GgufValue::Signed(i64::from(i16::from_le_bytes(self.array(what)?))),
            4 => GgufValue::Unsigned(u64::from(self.u32(what)?)),
            5 => GgufValue::Signed(i64::from(i32::from_le_bytes(self.array(what)?))),
            6 => GgufValue::Float(f64::from(f32::from_le_bytes(self.array(what)?))),
            7 => GgufValue::Bool(self.truth(what)?),
            8 => GgufValue::Text(self.text(what)?),
            9 => self.values(what, depth)?,
            10 => GgufValue::Unsigned(self.u64(what)?),
            11 => GgufValue::Signed(i64::from_le_bytes(self.array(what)?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.array(what)?)),
            other => {
                let at = self.at;
                return self.fail(format!(
                    "{what} has the unknown type {other} before byte {at}; expected 0 to 12"
                ));
            }
        })
    }

    fn truth(&mut self, what: &str) -> Parsed<bool> {
        let at = self.at;
        match self.array::<1>(what)?[0] {
            0 => Ok(false),
            1 => Ok(true),
            other => self.fail(format!("{what} at byte {at} is {other}; expected 0 or 1")),
        }
    }

    fn values(&mut self, what: &str, depth: usize) -> Parsed<GgufValue> {
        if depth == MAX_DEPTH {
            return self.fail(format!("{what} nests arrays more than {MAX_DEPTH} deep"));
        }
        let kind = self.u32(what)?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            9 => 12,
            _ => 8,
        };
        let count = self.count(what, size)?;
        self.values = self.values.saturating_add(count);
        let most = MAX_VALUES + self.file.len() / BYTES_OF_VALUE;
        if self.values > most {
            let at = self.at;
            return self.fail(format!(
                "{what}: its {count} values before byte {at} bring the arrays to more than {most}, \
                 the most that a file of {} bytes may have",
                self.file.len()
            ));
        }
        let values = (0..count).map(|_| self.value(kind, what, depth + 1));
        Ok(GgufValue::Array(values.collect::<Parsed<_>>()?))
    }

    fn tensor(&mut self) -> Parsed<Stored> {
        let name = self.text("a tensor name")?;
        let what = format!("tensor `{name}`");
        let shape = self.shape(&what)?;
        let id = self.u32(&what)?;
        let Some(kind) = GgmlType::from_id(id) else {
            let what = format!("the type of {what}");
            let known = GgmlType::SUPPORTED;
            return Err(ModelError::unsupported(
                self.path,
                what,
                type_name(id),
                known,
            ));
        };
        let offset = self.u64(&what)?;
        match usize::try_from(offset) {
            Ok(offset) => Ok(Stored {
                name,
                shape,
                kind,
                offset,
            }),
            Err(_) => self.fail(format!("{what} has the offset {offset}, past any memory")),
        }
    }

    fn shape(&mut self, what: &str) -> Parsed<Vec<usize>> {
        let axes = self.u32(what)?;
        if !(1..=4).contains(&axes) {
            return self.fail(format!("{what} has {axes} axes; 1 to 4 are possible"));
        }
        let mut shape = Vec::with_capacity(4);
        for _ in 0..axes {
            let length = self.u64(what)?;
            match usize::try_from(length).ok().filter(|length| *length > 0) {
                Some(length) => shape.push(length),
                None => return self.fail(format!("{what} has an axis of length {length}")),
            }
        }
        shape.reverse();
        Ok(shape)
    }
}
