//! [`RowCache`]: tokenised files, kept by content.

use std::{
    env, fs,
    path::PathBuf,
    sync::{Mutex, PoisonError},
};

use l1ra_core::files::write_whole;
use sha2::{Digest, Sha256};

use crate::data::{
    DataForm, Sample,
    rows::{FileRows, Row},
    stats::Dropped,
};

/// Raised whenever the same input would give other rows, or the format changes.
const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"l1rarows";

/// Where tokenised files are kept: a folder with one file for each content, which may be deleted at
/// any time.
///
/// A cache never stops a run. A file that is damaged is made again; a folder that cannot be written
/// is said once ([`complaint`](Self::complaint)).
#[derive(Debug)]
pub struct RowCache {
    folder: Option<PathBuf>,
    complaint: Mutex<Option<String>>,
}

/// What rows are a function of, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key([u8; 32]);

impl RowCache {
    /// No cache: everything is tokenised, nothing is kept.
    pub fn off() -> Self {
        Self::new(None)
    }

    /// A cache in `folder`, which is made when it is needed.
    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Self::new(Some(folder.into()))
    }

    /// The user's: `rows` in `$L1RA_CACHE`, else in `l1ra` in the user's cache folder
    /// (`$XDG_CACHE_HOME`, `~/.cache`; `~/Library/Caches` on macOS, `%LOCALAPPDATA%` on Windows).
    /// Off where there is none of them.
    pub fn of_user() -> Self {
        Self::new(user_folder(|name| env::var_os(name).map(PathBuf::from)))
    }

    fn new(folder: Option<PathBuf>) -> Self {
        Self {
            folder,
            complaint: Mutex::new(None),
        }
    }

    /// Whether anything is kept.
    pub fn is_on(&self) -> bool {
        self.folder.is_some()
    }

    /// Why nothing could be kept, if that happened.
    pub fn complaint(&self) -> Option<String> {
        let complaint = self.complaint.lock();
        complaint.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The rows under `key`; nothing where there are none, or where they are not whole.
    pub(crate) fn load(&self, key: &Key) -> Option<FileRows> {
        let bytes = fs::read(self.place(key)?).ok()?;
        decode(&bytes, key)
    }

    /// Keeps rows under `key`.
    pub(crate) fn store(&self, key: &Key, rows: &FileRows) {
        let (Some(folder), Some(place)) = (&self.folder, self.place(key)) else {
            return;
        };
        let written =
            fs::create_dir_all(folder).and_then(|()| write_whole(&place, &encode(rows, key)));
        if let Err(error) = written {
            let text = format!("{}: tokenised data is not kept: {error}", folder.display());
            let mut complaint = self
                .complaint
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            complaint.get_or_insert(text);
        }
    }

    fn place(&self, key: &Key) -> Option<PathBuf> {
        let name: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.folder.as_ref()?.join(name).with_extension("rows"))
    }
}

fn user_folder(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    let set = |name: &str| variable(name).filter(|path| !path.as_os_str().is_empty());
    let base = match set("L1RA_CACHE") {
        Some(folder) => folder,
        None => {
            let home = || set("HOME");
            let of_user = if cfg!(windows) {
                set("LOCALAPPDATA")
            } else if cfg!(target_os = "macos") {
                home().map(|home| home.join("Library/Caches"))
            } else {
                home().map(|home| home.join(".cache"))
            };
            set("XDG_CACHE_HOME").or(of_user)?.join("l1ra")
        }
    };
    Some(base.join("rows"))
}

impl Key {
    /// The key of `parts`, in order. No two lists of parts share one.
    pub(crate) fn new(parts: &[&[u8]]) -> Self {
        let mut hash = Sha256::new();
        hash.update(VERSION.to_le_bytes());
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash.finalize().into())
    }
}

/// Magic, key, length and hash of what follows; then the figures of the file, and of every row its
/// lost tokens, its ids and its targets as bits. Numbers are little-endian.
fn encode(rows: &FileRows, key: &Key) -> Vec<u8> {
    let mut body = Vec::new();
    let mut put = |value: usize| body.extend((value as u64).to_le_bytes());
    put(form_code(rows.form));
    put(rows.records);
    put(rows.characters);
    put(rows.dropped.too_long);
    put(rows.dropped.without_target);
    put(rows.rows.len());
    for row in &rows.rows {
        body.extend((row.lost as u32).to_le_bytes());
        body.extend((row.sample.len() as u32).to_le_bytes());
        body.extend(row.sample.ids.iter().flat_map(|id| id.to_le_bytes()));
        let bits = row.sample.is_target.chunks(8);
        body.extend(bits.map(|bits| {
            let set = bits.iter().enumerate().filter(|(_, bit)| **bit);
            set.fold(0_u8, |byte, (place, _)| byte | 1 << place)
        }));
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(key.0);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&body));
    bytes.extend(body);
    bytes
}

fn decode(bytes: &[u8], key: &Key) -> Option<FileRows> {
    let mut file = Reader(bytes);
    let known = file.take(MAGIC.len())? == MAGIC && file.take(32)? == key.0;
    let length = file.u64()?;
    let hash = file.take(32)?;
    if !known || file.0.len() != length || Sha256::digest(file.0).as_slice() != hash {
        return None;
    }
    let form = *DataForm::RECORDS.get(file.u64()?)?;
    let (records, characters) = (file.u64()?, file.u64()?);
    let dropped = Dropped {
        too_long: file.u64()?,
        without_target: file.u64()?,
    };
    let count = file.u64()?;
    let rows = (0..count)
        .map(|_| file.row())
        .collect::<Option<Vec<Row>>>()?;
    file.0.is_empty().then_some(FileRows {
        form,
        records,
        characters,
        dropped,
        rows,
    })
}

fn form_code(form: DataForm) -> usize {
    let found = DataForm::RECORDS.iter().position(|known| *known == form);
    found.unwrap_or(DataForm::RECORDS.len())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32::from_le_bytes(self.take(4)?.try_into().ok()?))
    }

    fn u64(&mut self) -> Option<usize> {
        let value = u64::from_le_bytes(self.take(8)?.try_into().ok()?);
        usize::try_from(value).ok()
    }

    fn row(&mut self) -> Option<Row> {
        let (lost, length) = (self.u32()? as usize, self.u32()? as usize);
        let ids = self.take(length.checked_mul(4)?)?.chunks_exact(4);
        let ids: Option<Vec<u32>> = ids
            .map(|id| Some(u32::from_le_bytes(id.try_into().ok()?)))
            .collect();
        let bits = self.take(length.div_ceil(8))?;
        let is_target = (0..length).map(|place| bits[place / 8] >> (place % 8) & 1 == 1);
        let sample = Sample {
            ids: ids?,
            is_target: is_target.collect(),
        };
        Some(Row { sample, lost })
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn rows() -> FileRows {
        let mut sample = Sample::default();
        sample.push(&[70_000, 2, 3], false);
        sample.push(&[4, 5, 6, 7, 8, 9], true);
        let row = |lost, length| Row {
            sample: sample.part(0..length),
            lost,
        };
        FileRows {
            form: DataForm::Alpaca,
            records: 3,
            characters: 100,
            dropped: Dropped {
                too_long: 0,
                without_target: 1,
            },
            rows: vec![row(3, 9), row(0, 8), row(0, 5)],
        }
    }

    #[test]
    fn rows_come_back_whole_or_not_at_all() {
        let key = Key::new(&[b"a", b"b"]);
        let bytes = encode(&rows(), &key);
        assert_eq!(decode(&bytes, &key), Some(rows()));
        assert_eq!(decode(&bytes, &Key::new(&[b"ab"])), None);
        for length in 0..bytes.len() {
            assert_eq!(decode(&bytes[..length], &key), None, "cut to {length}");
        }
        for place in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[place] ^= 0x10;
            assert_eq!(decode(&damaged, &key), None, "byte {place}");
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_a_complaint() {
        let dir = TempDir::new().unwrap();
        let key = Key::new(&[]);
        let cache = RowCache::at(dir.path().join("deep/cache"));
        assert_eq!(cache.load(&key), None);
        cache.store(&key, &rows());
        assert_eq!((cache.load(&key), cache.complaint()), (Some(rows()), None));

        let file = dir.path().join("file");
        fs::write(&file, "mine").unwrap();
        let cache = RowCache::at(&file);
        cache.store(&key, &rows());
        let said = cache.complaint().unwrap();
        assert!(said.contains("tokenised data is not kept"), "{said}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        assert_eq!(RowCache::off().load(&key), None);
    }

    #[cfg(all(unix, not(target_os = "macos")))]
    #[test]
    fn the_user_s_folder() {
        let folder = |set: &[(&str, &str)]| {
            let value = |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, v)| v.into());
            user_folder(value).map(|path| path.display().to_string())
        };
        let (own, cache, home) = (
            ("L1RA_CACHE", "/c"),
            ("XDG_CACHE_HOME", "/x"),
            ("HOME", "/h"),
        );
        assert_eq!(folder(&[own, cache, home]).unwrap(), "/c/rows");
        assert_eq!(folder(&[cache, home]).unwrap(), "/x/l1ra/rows");
        assert_eq!(
            folder(&[("XDG_CACHE_HOME", ""), home]).unwrap(),
            "/h/.cache/l1ra/rows"
        );
        assert_eq!(folder(&[]), None);
    }
}
