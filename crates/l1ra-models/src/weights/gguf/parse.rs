//! The header, read without trusting a single number in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use super::quant::GgmlType;

/// A metadata value.
#[derive(Clone, Debug, PartialEq)]
pub enum GgufValue {
    /// Any unsigned integer.
    Unsigned(u64),
    /// Any signed integer.
    Signed(i64),
    /// f32 or f64.
    Float(f64),
    /// Truth value.
    Bool(bool),
    /// Text.
    Text(String),
    /// Several values of one type.
    Array(Vec<GgufValue>),
}

impl GgufValue {
    /// The value as an index or count.
    pub fn as_usize(&self) -> Option<usize> {
        match self {
            Self::Unsigned(value) => usize::try_from(*value).ok(),
            Self::Signed(value) => usize::try_from(*value).ok(),
            _ => None,
        }
    }

    /// The value as a number.
    pub fn as_f64(&self) -> Option<f64> {
        match self {
            Self::Unsigned(value) => Some(*value as f64),
            Self::Signed(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The value as text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value as a truth value.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Self::Bool(value) => Some(*value),
            _ => None,
        }
    }

    /// The values of an array.
    pub fn as_array(&self) -> Option<&[GgufValue]> {
        match self {
            Self::Array(values) => Some(values),
            _ => None,
        }
    }
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) struct TensorInfo {
    /// Row-major, as Hugging Face has it: ggml's dimensions reversed.
    pub(super) shape: Vec<usize>,
    pub(super) kind: GgmlType,
    /// Byte range in the file.
    pub(super) range: Range<usize>,
}

pub(super) struct Header {
    pub(super) metadata: BTreeMap<String, GgufValue>,
    pub(super) tensors: Vec<(String, TensorInfo)>,
}

type Parsed<T> = Result<T, String>;

/// Arrays of arrays deeper than this are refused.
const MAX_DEPTH: usize = 4;
const DEFAULT_ALIGNMENT: usize = 32;

/// Reads the header of a file that lies in memory.
pub(super) fn header(file: &[u8]) -> Parsed<Header> {
    let mut reader = Reader { file, at: 0 };
    if reader.take(4, "the magic")? != b"GGUF" {
        return Err("does not start with `GGUF`; it is no GGUF file".into());
    }
    let version = reader.u32("the version")?;
    if !(2..=3).contains(&version) {
        return Err(format!(
            "has GGUF version {version}; versions 2 and 3 are supported"
        ));
    }
    let tensor_count = reader.count("the number of tensors", 24)?;
    let value_count = reader.count("the number of metadata values", 13)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..value_count {
        let key = reader.text("a metadata key")?;
        let kind = reader.u32(&key)?;
        let value = reader.value(kind, &key, 0)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(format!("metadata key `{key}` is there twice"));
        }
    }
    let mut stored = Vec::with_capacity(tensor_count);
    for _ in 0..tensor_count {
        stored.push(reader.tensor()?);
    }
    let data = data_start(&metadata, reader.at)?;
    let tensors = locate(stored, data, file.len())?;
    Ok(Header { metadata, tensors })
}

fn data_start(metadata: &BTreeMap<String, GgufValue>, header_end: usize) -> Parsed<usize> {
    let alignment = match metadata.get("general.alignment") {
        Some(value) => value
            .as_usize()
            .filter(|value| value.is_power_of_two())
            .ok_or_else(|| format!("general.alignment is {value:?}; expected a power of two"))?,
        None => DEFAULT_ALIGNMENT,
    };
    header_end
        .checked_next_multiple_of(alignment)
        .ok_or_else(|| format!("general.alignment {alignment} is larger than the file"))
}

struct Stored {
    name: String,
    shape: Vec<usize>,
    kind: GgmlType,
    offset: usize,
}

/// Byte ranges of all tensors, each checked to lie in the file.
fn locate(stored: Vec<Stored>, data: usize, file_len: usize) -> Parsed<Vec<(String, TensorInfo)>> {
    let mut names = BTreeSet::new();
    let mut tensors = Vec::with_capacity(stored.len());
    for Stored {
        name,
        shape,
        kind,
        offset,
    } in stored
    {
        if !names.insert(name.clone()) {
            return Err(format!("tensor `{name}` is there twice"));
        }
        let bytes = kind.byte_len(&shape).ok_or_else(|| {
            format!(
                "tensor `{name}` of type {kind:?} has shape {shape:?}, which is too large or \
                 whose rows are no multiple of {}",
                kind.block()
            )
        })?;
        let start = data.checked_add(offset);
        let range = start.and_then(|start| Some(start..start.checked_add(bytes)?));
        let range = range.filter(|range| range.end <= file_len).ok_or_else(|| {
            format!(
                "tensor `{name}` needs {bytes} bytes at offset {offset} of the data, which begins \
                 at byte {data}; the file has {file_len} bytes (is it cut off?)"
            )
        })?;
        tensors.push((name, TensorInfo { shape, kind, range }));
    }
    Ok(tensors)
}

struct Reader<'a> {
    file: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize, what: &str) -> Parsed<&'a [u8]> {
        let bytes = self
            .file
            .get(self.at..)
            .and_then(|rest| rest.get(..count))
            .ok_or_else(|| {
                format!(
                    "ends within {what}: {count} bytes needed at byte {}, the file has {}",
                    self.at,
                    self.file.len()
                )
            })?;
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
        let count = self.u64(what)?;
        let left = (self.file.len() - self.at) / size.max(1);
        usize::try_from(count)
            .ok()
            .filter(|count| *count <= left)
            .ok_or_else(|| {
                format!(
                    "{what} is {count} at byte {}, more than the file can hold",
                    self.at
                )
            })
    }

    fn text(&mut self, what: &str) -> Parsed<String> {
        let length = self.count(what, 1)?;
        let at = self.at;
        let bytes = self.take(length, what)?;
        String::from_utf8(bytes.to_vec())
            .map_err(|_| format!("{what} at byte {at} is not UTF-8 text"))
    }

    fn value(&mut self, kind: u32, key: &str, depth: usize) -> Parsed<GgufValue> {
        Ok(match kind {
            0 => GgufValue::Unsigned(u64::from(self.array::<1>(key)?[0])),
            1 => GgufValue::Signed(i64::from(i8::from_le_bytes(self.array(key)?))),
            2 => GgufValue::Unsigned(u64::from(u16::from_le_bytes(self.array(key)?))),
            3 => GgufValue::Signed(i64::from(i16::from_le_bytes(self.array(key)?))),
            4 => GgufValue::Unsigned(u64::from(self.u32(key)?)),
            5 => GgufValue::Signed(i64::from(i32::from_le_bytes(self.array(key)?))),
            6 => GgufValue::Float(f64::from(f32::from_le_bytes(self.array(key)?))),
            7 => GgufValue::Bool(self.array::<1>(key)?[0] != 0),
            8 => GgufValue::Text(self.text(key)?),
            9 => self.values(key, depth)?,
            10 => GgufValue::Unsigned(self.u64(key)?),
            11 => GgufValue::Signed(i64::from_le_bytes(self.array(key)?)),
            12 => GgufValue::Float(f64::from_le_bytes(self.array(key)?)),
            other => return Err(format!("metadata `{key}` has the unknown type {other}")),
        })
    }

    fn values(&mut self, key: &str, depth: usize) -> Parsed<GgufValue> {
        if depth == MAX_DEPTH {
            return Err(format!(
                "metadata `{key}` nests arrays more than {MAX_DEPTH} deep"
            ));
        }
        let kind = self.u32(key)?;
        let size = match kind {
            0 | 1 | 7 => 1,
            2 | 3 => 2,
            4..=6 => 4,
            9 => 12,
            _ => 8,
        };
        let count = self.count(key, size)?;
        let values = (0..count).map(|_| self.value(kind, key, depth + 1));
        Ok(GgufValue::Array(values.collect::<Parsed<_>>()?))
    }

    fn tensor(&mut self) -> Parsed<Stored> {
        let name = self.text("a tensor name")?;
        let axes = self.u32(&name)?;
        if !(1..=4).contains(&axes) {
            return Err(format!(
                "tensor `{name}` has {axes} axes; 1 to 4 are possible"
            ));
        }
        let mut shape = Vec::with_capacity(4);
        for _ in 0..axes {
            let length = self.u64(&name)?;
            let length = usize::try_from(length).ok().filter(|length| *length > 0);
            shape.push(length.ok_or_else(|| format!("tensor `{name}` has an axis of length 0"))?);
        }
        shape.reverse();
        let kind = self.u32(&name)?;
        let kind = GgmlType::from_id(kind).ok_or_else(|| {
            format!(
                "tensor `{name}` has ggml type {}; supported: {}",
                GgmlType::describe(kind),
                GgmlType::SUPPORTED
            )
        })?;
        let offset = self.u64(&name)?;
        let offset = usize::try_from(offset)
            .map_err(|_| format!("tensor `{name}` has the impossible offset {offset}"))?;
        Ok(Stored {
            name,
            shape,
            kind,
            offset,
        })
    }
}
