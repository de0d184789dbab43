//! The structure of a Parquet file, looked at before the library reads it.
//!
//! A footer and the header before every page are structures in Thrift's compact protocol. The
//! library passes over fields that it does not know, and where such a field is a list of truth values
//! it takes no byte for an element: a few bytes that announce lists of two thousand million within
//! one another keep it busy for years. So every count is held against the bytes that are left first.
//!
//! Source: <https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md>

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
};

use parquet::file::metadata::ParquetMetaData;

/// Structures within structures; those of Parquet are 8 deep.
const MAX_DEPTH: usize = 32;
/// Bytes after the footer: its length, and `PAR1`.
const TAIL: u64 = 8;
/// Bytes of a page header that are read at first; most have some ten.
const FIRST: u64 = 1 << 10;
/// `compressed_page_size` in `PageHeader`.
const COMPRESSED_SIZE: i64 = 3;

/// What is wrong with a structure.
#[derive(Debug, PartialEq, Eq)]
enum Flaw {
    /// It goes on after its last byte.
    Cut,
    Wrong(&'static str),
}

/// Looks at the footer. What the library sees by itself is left to it.
pub(super) fn check_footer(file: &mut File) -> Result<(), String> {
    let read = |error: io::Error| error.to_string();
    let size = file.metadata().map_err(read)?.len();
    let Some(end) = size.checked_sub(TAIL) else {
        return Ok(());
    };
    file.seek(SeekFrom::Start(end)).map_err(read)?;
    let mut length = [0; 4];
    file.read_exact(&mut length).map_err(read)?;
    let length = u64::from(u32::from_le_bytes(length));
    let Some(start) = end.checked_sub(length) else {
        return Ok(());
    };
    let bytes = part(file, start, length).map_err(read)?;
    match Walk::new(&bytes).structure(None) {
        Ok(_) => Ok(()),
        Err(Flaw::Cut) => Err("its footer is cut off".into()),
        Err(Flaw::Wrong(why)) => Err(format!("its footer {why}")),
    }
}

/// Looks at the header of every page.
pub(super) fn check_pages(file: &mut File, metadata: &ParquetMetaData) -> Result<(), String> {
    for (group, columns) in metadata.row_groups().iter().enumerate() {
        for (index, column) in columns.columns().iter().enumerate() {
            let first = column.data_page_offset();
            let first = column.dictionary_page_offset().unwrap_or(first).min(first);
            let place = u64::try_from(first)
                .ok()
                .zip(u64::try_from(column.compressed_size()).ok());
            let checked = match place {
                Some((start, length)) => check_column(file, start, length),
                None => Err("lies before the file's beginning".into()),
            };
            checked.map_err(|why| format!("column {index} of row group {group} {why}"))?;
        }
    }
    Ok(())
}

fn check_column(file: &mut File, start: u64, length: u64) -> Result<(), String> {
    let read = |error: io::Error| format!("cannot be read: {error}");
    let size = file.metadata().map_err(read)?.len();
    let end = start.checked_add(length).filter(|end| *end <= size);
    let end = end.ok_or("ends after the file")?;
    let mut at = start;
    while at < end {
        let mut wanted = FIRST;
        let (header, page) = loop {
            let bytes = part(file, at, wanted.min(end - at)).map_err(read)?;
            let mut walk = Walk::new(&bytes);
            match walk.structure(Some(COMPRESSED_SIZE)) {
                Ok(page) => break (walk.read as u64, page),
                Err(Flaw::Cut) if wanted < end - at => wanted *= 16,
                Err(Flaw::Cut) => return Err("has a page header that is cut off".into()),
                Err(Flaw::Wrong(why)) => return Err(format!("has a page header that {why}")),
            }
        };
        let page = page.and_then(|page| u64::try_from(page).ok());
        let page = page.ok_or("has a page without a size")?;
        at = at.saturating_add(header).saturating_add(page);
    }
    Ok(())
}

fn part(file: &mut File, start: u64, length: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Goes through a structure without keeping any of it.
struct Walk<'a> {
    rest: &'a [u8],
    read: usize,
}

impl<'a> Walk<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self {
            rest: bytes,
            read: 0,
        }
    }

    fn skip(&mut self, count: usize) -> Result<(), Flaw> {
        self.rest = self.rest.get(count..).ok_or(Flaw::Cut)?;
        self.read += count;
        Ok(())
    }

    fn byte(&mut self) -> Result<u8, Flaw> {
        let byte = *self.rest.first().ok_or(Flaw::Cut)?;
        self.skip(1)?;
        Ok(byte)
    }

    /// An unsigned number, seven bits a byte.
    fn varint(&mut self) -> Result<u64, Flaw> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Flaw::Wrong("has a number without an end"))
    }

    /// A signed number: 0, −1, 1, −2, …
    fn zigzag(&mut self) -> Result<i64, Flaw> {
        let number = self.varint()?;
        Ok((number >> 1) as i64 ^ -((number & 1) as i64))
    }

    /// A structure; the number in its field `wanted`, if it has it.
    fn structure(&mut self, wanted: Option<i64>) -> Result<Option<i64>, Flaw> {
        self.fields(wanted, MAX_DEPTH)
    }

    fn fields(&mut self, wanted: Option<i64>, depth: usize) -> Result<Option<i64>, Flaw> {
        let (mut id, mut found) = (0_i64, None);
        loop {
            let head = self.byte()?;
            if head == 0 {
                return Ok(found);
            }
            id = match head >> 4 {
                0 => self.zigzag()?,
                step => id.saturating_add(i64::from(step)),
            };
            match head & 0xf {
                5 if Some(id) == wanted => found = Some(self.zigzag()?),
                1 | 2 => {} // The value is in the type.
                kind => self.value(kind, depth)?,
            }
        }
    }

    fn value(&mut self, kind: u8, depth: usize) -> Result<(), Flaw> {
        let depth = depth
            .checked_sub(1)
            .ok_or(Flaw::Wrong("nests structures too deep"))?;
        match kind {
            3 => self.skip(1),
            4..=6 => self.varint().map(|_| ()),
            7 => self.skip(8),
            8 => {
                let length = self.varint()?;
                self.skip(usize::try_from(length).unwrap_or(usize::MAX))
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = match head >> 4 {
                    15 => self.varint()?,
                    count => u64::from(count),
                };
                self.elements(count, &[head & 0xf], depth)
            }
            11 => match self.varint()? {
                0 => Ok(()),
                count => {
                    let kinds = self.byte()?;
                    self.elements(count, &[kinds >> 4, kinds & 0xf], depth)
                }
            },
            12 => self.fields(None, depth).map(|_| ()),
            13 => self.skip(16),
            _ => Err(Flaw::Wrong("has a value of an unknown type")),
        }
    }

    /// That many elements of these kinds in turn; each has a byte at least.
    fn elements(&mut self, count: u64, kinds: &[u8], depth: usize) -> Result<(), Flaw> {
        if count == 0 {
            return Ok(());
        }
        if kinds.iter().any(|kind| matches!(kind, 1 | 2)) {
            return Err(Flaw::Wrong("lists truth values where Parquet has none"));
        }
        if count > i32::MAX as u64 {
            return Err(Flaw::Wrong("has a list without an end"));
        }
        if count > self.rest.len() as u64 {
            return Err(Flaw::Cut);
        }
        for _ in 0..count {
            for kind in kinds {
                self.value(*kind, depth)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(bytes: &[u8]) -> Result<(Option<i64>, usize), Flaw> {
        let mut walk = Walk::new(bytes);
        walk.structure(Some(COMPRESSED_SIZE))
            .map(|found| (found, walk.read))
    }

    #[test]
    fn a_page_header_is_gone_through() {
        // type = 0, uncompressed = 13, compressed = 200, a structure with two numbers, then a page.
        let header = [
            0x15, 0, 0x15, 26, 0x15, 0x90, 3, 0x2c, 0x15, 6, 0x15, 0, 0, 0,
        ];
        let page = [&header[..], b"page"].concat();
        assert_eq!(walk(&page), Ok((Some(200), header.len())));
        for cut in 0..header.len() {
            assert_eq!(walk(&header[..cut]), Err(Flaw::Cut), "{cut}");
        }
    }

    #[test]
    fn what_has_no_end_is_told() {
        let wrong = |bytes: &[u8]| match walk(bytes) {
            Err(Flaw::Wrong(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(wrong(&[0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0]).contains("truth values"));
        assert!(wrong(&[0x1b, 5, 0x11]).contains("truth values"));
        assert!(wrong(&[0x19, 0xf5, 0xff, 0xff, 0xff, 0xff, 0x7f, 0]).contains("without an end"));
        assert!(
            wrong(&[
                0x15, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80
            ])
            .contains("number")
        );
        assert!(wrong(&[0x1c; 64]).contains("too deep"));
        assert!(wrong(&[0x1e, 0]).contains("unknown type"));
        assert_eq!(walk(&[0x19, 0xf5, 0xff, 7, 0]), Err(Flaw::Cut));
    }
}
