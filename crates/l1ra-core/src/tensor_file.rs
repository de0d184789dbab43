//! [`TensorFile`]: a safetensors file, its header checked against the file, its tensors read one by
//! one.
//!
//! Format: `README.md` of huggingface/safetensors. Eight bytes hold the length of a JSON header, the
//! rest is data, which the tensors cover without gaps. What the reference implementation refuses is
//! refused here too, with the tensor, the numbers seen and those expected; and so is a tensor that is
//! there twice, of which a JSON reader would take the last.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    fs::File,
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use safetensors::{Dtype, tensor::TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};

use crate::error::CoreError;

/// Longest header, as the reference implementation has it.
const MAX_HEADER: u64 = 100_000_000;
/// Bytes that hold the length of the header.
const LENGTH: u64 = 8;
/// Bytes of a tensor that are read at a time.
const CHUNK: usize = 1 << 16;

/// A safetensors file, opened and checked. Its data stays in the file until it is asked for.
#[derive(Debug)]
pub struct TensorFile {
    path: PathBuf,
    file: File,
    metadata: HashMap<String, String>,
    tensors: BTreeMap<String, StoredEntry>,
}

/// Where a tensor lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredEntry {
    /// Number type.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Byte range in the file; as long as type and shape say.
    pub range: Range<usize>,
}

impl TensorFile {
    /// Opens a file and checks its header.
    ///
    /// # Errors
    /// A file that cannot be read, is cut off, or whose header contradicts itself or the file.
    pub fn open(path: &Path) -> Result<Self, CoreError> {
        let io = |error| CoreError::io(path, error);
        let mut file = File::open(path).map_err(io)?;
        let size = file.metadata().map_err(io)?.len();
        let wrong = |detail: String| CoreError::file(path, detail);
        let mut length = [0; LENGTH as usize];
        if size < LENGTH {
            let detail = format!(
                "has {size} bytes; a safetensors file begins with {LENGTH} that hold the length of \
                 its header"
            );
            return Err(wrong(detail));
        }
        file.read_exact(&mut length).map_err(io)?;
        let length = u64::from_le_bytes(length);
        if length > MAX_HEADER.min(size - LENGTH) {
            let detail = format!(
                "its first {LENGTH} bytes say that its header has {length} bytes; the file has \
                 {} after them, and a header {MAX_HEADER} at most (is it cut off, or no safetensors \
                 file?)",
                size - LENGTH
            );
            return Err(wrong(detail));
        }
        // No more than the file has: checked above.
        let mut header = vec![0; length as usize];
        file.read_exact(&mut header).map_err(io)?;
        let header: Header = serde_json::from_slice(&header)
            .map_err(|error| wrong(format!("its header cannot be read: {error}")))?;
        let start = LENGTH + length;
        let tensors = locate(header.tensors, start, size).map_err(wrong)?;
        Ok(Self {
            path: path.into(),
            file,
            metadata: header.metadata,
            tensors,
        })
    }

    /// The entries of `__metadata__`.
    pub fn metadata(&self) -> &HashMap<String, String> {
        &self.metadata
    }

    /// Every tensor, by name.
    pub fn tensors(&self) -> &BTreeMap<String, StoredEntry> {
        &self.tensors
    }

    /// The file, and every tensor in it.
    pub fn into_parts(self) -> (File, BTreeMap<String, StoredEntry>) {
        (self.file, self.tensors)
    }

    /// Shape and values of a tensor, which are all finite. Beside them no more than a few pages are
    /// in memory.
    ///
    /// # Errors
    /// A tensor that is missing or of another type than F32, F16 or BF16, or a value that is not
    /// finite.
    pub(crate) fn values(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), CoreError> {
        let wrong = |detail: String| CoreError::file(&self.path, detail);
        let io = |error| CoreError::io(&self.path, error);
        let entry = self.tensors.get(name);
        let entry = entry.ok_or_else(|| wrong(format!("tensor `{name}` is missing")))?;
        let (width, decode) = decoder(entry.dtype).ok_or_else(|| {
            let seen = entry.dtype;
            wrong(format!(
                "tensor `{name}` is stored as {seen}; supported: F32, F16, BF16"
            ))
        })?;
        let mut file = &self.file;
        file.seek(SeekFrom::Start(entry.range.start as u64))
            .map_err(io)?;
        let mut values = Vec::with_capacity(entry.range.len() / width);
        let mut left = entry.range.len();
        let mut buffer = vec![0; CHUNK.min(left)];
        while left > 0 {
            let bytes = &mut buffer[..CHUNK.min(left)];
            file.read_exact(bytes).map_err(io)?;
            values.extend(bytes.chunks_exact(width).map(decode));
            left -= bytes.len();
        }
        match values.iter().position(|value| !value.is_finite()) {
            None => Ok((entry.shape.clone(), values)),
            Some(place) => Err(wrong(format!(
                "tensor `{name}` of shape {:?} holds {} as its value {}; expected finite numbers \
                 (did the training diverge?)",
                entry.shape,
                values[place],
                place + 1
            ))),
        }
    }
}

type Decode = fn(&[u8]) -> f32;

/// Bytes of a value, and what they stand for.
fn decoder(dtype: Dtype) -> Option<(usize, Decode)> {
    match dtype {
        Dtype::F32 => Some((4, |b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))),
        Dtype::F16 => Some((2, |b| {
            burn::tensor::f16::from_le_bytes([b[0], b[1]]).to_f32()
        })),
        Dtype::BF16 => Some((2, |b| {
            burn::tensor::bf16::from_le_bytes([b[0], b[1]]).to_f32()
        })),
        _ => None,
    }
}

/// Byte ranges of all tensors: as long as type and shape say, one after the other, up to the end of
/// the file. What is wrong is told of the first that breaks this.
fn locate(
    tensors: Vec<(String, TensorInfo)>,
    start: u64,
    size: u64,
) -> Result<BTreeMap<String, StoredEntry>, String> {
    let mut tensors = tensors;
    tensors.sort_by(|a, b| (a.1.data_offsets, &a.0).cmp(&(b.1.data_offsets, &b.0)));
    let data = size - start;
    let mut located = BTreeMap::new();
    let mut end = 0;
    let mut before = String::from("the header");
    for (name, info) in tensors {
        let TensorInfo {
            dtype,
            shape,
            data_offsets: (first, last),
        } = info;
        let bytes = byte_len(&shape, dtype).ok_or_else(|| {
            format!(
                "tensor `{name}` of type {dtype} has the shape {shape:?}; expected whole bytes, and \
                 no more than memory can address"
            )
        })?;
        if last.checked_sub(first) != Some(bytes) {
            return Err(format!(
                "tensor `{name}` of type {dtype} and shape {shape:?} takes {bytes} bytes; its \
                 data_offsets are [{first}, {last}]"
            ));
        }
        if first != end {
            return Err(format!(
                "tensor `{name}` begins at byte {first} of the data; expected byte {end}, where \
                 {before} ends"
            ));
        }
        if last as u64 > data {
            return Err(format!(
                "tensor `{name}` ends at byte {last} of the data, and the file has {data} (is it cut \
                 off? fetch it again)"
            ));
        }
        end = last;
        before = format!("`{name}`");
        // No more than the file has: checked above.
        let range = start as usize + first..start as usize + last;
        let entry = StoredEntry {
            dtype,
            shape,
            range,
        };
        if located.insert(name, entry).is_some() {
            return Err(format!("tensor {before} is there twice"));
        }
    }
    if end as u64 != data {
        return Err(format!(
            "its tensors end at byte {end} of the data, and the file has {data}; expected nothing \
             after them"
        ));
    }
    Ok(located)
}

fn byte_len(shape: &[usize], dtype: Dtype) -> Option<usize> {
    let values = shape
        .iter()
        .try_fold(1_usize, |product, length| product.checked_mul(*length))?;
    let bits = values.checked_mul(dtype.bitsize())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// The header as it stands, tensors in its order.
#[derive(Default)]
struct Header {
    metadata: HashMap<String, String>,
    tensors: Vec<(String, TensorInfo)>,
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Entries)
    }
}

struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Header;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with an entry for every tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let mut header = Header::default();
        while let Some(name) = map.next_key::<String>()? {
            let named = |error: A::Error| A::Error::custom(format!("`{name}`: {error}"));
            if name == "__metadata__" {
                header.metadata = map.next_value().map_err(named)?;
            } else {
                let info = map.next_value().map_err(named)?;
                header.tensors.push((name, info));
            }
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with this header and `data` zeros after it.
    fn open(header: &str, data: usize) -> Result<TensorFile, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.resize(bytes.len() + data, 0);
        std::fs::write(&path, bytes).unwrap();
        let told = |error: CoreError| error.to_string().replace(path.to_str().unwrap(), "t");
        TensorFile::open(&path).map_err(told)
    }

    fn entry(dtype: &str, shape: &str, offsets: [usize; 2]) -> String {
        format!(r#"{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets:?}}}"#)
    }

    #[test]
    fn what_the_reference_reads_is_read_alike() {
        let values: Vec<u8> = (0..6_u16).flat_map(|v| [v as u8, 0x3c]).collect();
        let view =
            |bytes| safetensors::tensor::TensorView::new(Dtype::F16, vec![2, 3], bytes).unwrap();
        let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
        let bytes = safetensors::serialize([("a", view(&values))], Some(metadata)).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        std::fs::write(&path, &bytes).unwrap();
        let file = TensorFile::open(&path).unwrap();
        let entry = &file.tensors()["a"];
        assert_eq!((entry.dtype, &entry.shape[..]), (Dtype::F16, &[2, 3][..]));
        assert_eq!(bytes[entry.range.clone()], values);
        assert_eq!(file.metadata()["format"], "pt");
        let (shape, read) = file.values("a").unwrap();
        assert_eq!((shape, read.len()), (vec![2, 3], 6));
        assert_eq!(read[0], 1.0);
    }

    #[test]
    fn a_tensor_longer_than_a_chunk_is_read_whole() {
        let count = CHUNK / 4 + 3;
        let header = format!(
            "{{\"a\":{}}}",
            entry("F32", &format!("[{count}]"), [0, 4 * count])
        );
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.safetensors");
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend((0..count).flat_map(|i| (i as f32).to_le_bytes()));
        std::fs::write(&path, bytes).unwrap();
        let (_, values) = TensorFile::open(&path).unwrap().values("a").unwrap();
        assert!((0..count).all(|i| values[i] == i as f32));
    }

    #[test]
    fn a_name_that_is_there_twice_is_refused() {
        // Without bytes of their own, both would lie at the same place.
        let empty = entry("F32", "[0]", [0, 0]);
        let twice = open(&format!("{{\"a\":{empty},\"a\":{empty}}}"), 0);
        assert_eq!(twice.unwrap_err(), "t: tensor `a` is there twice");
        open(&format!("{{\"a\":{empty},\"b\":{empty}}}"), 0).unwrap();
    }

    #[test]
    fn no_shape_is_larger_than_its_bytes() {
        for shape in [
            "[4294967296,4294967296]",
            "[18446744073709551615]",
            "[4611686018427387904,4,0]",
        ] {
            let header = format!("{{\"a\":{}}}", entry("F32", shape, [0, 0]));
            let error = open(&header, 0).unwrap_err();
            assert!(error.contains("no more than memory can address"), "{error}");
        }
        for (offsets, data) in [([0, 4], 4), ([8, 0], 8), ([0, usize::MAX], 8)] {
            let header = format!("{{\"a\":{}}}", entry("F32", "[2]", offsets));
            let error = open(&header, data).unwrap_err();
            assert!(error.contains("takes 8 bytes"), "{error}");
        }
    }
}
