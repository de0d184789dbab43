//! Character vectors out of an R package's lazy-load data (`Rdata.rdb`), without R.
//!
//! Such a file is a row of records: the uncompressed length (u32, big-endian), then a zlib stream
//! that holds one serialised object in R's XDR form. Only plain character vectors are read; that
//! is all a package of texts holds.

use std::io::Read;

use anyhow::{Context, Result, bail, ensure};
use flate2::bufread::ZlibDecoder;

const CHARACTER_VECTOR: u32 = 16;
const CHARACTER_STRING: u32 = 9;
/// Version 3 of the form names its native encoding after the three version numbers.
const VERSION_WITH_ENCODING: u32 = 3;

/// Every character vector of the file, in file order, one `Vec` of lines each.
pub(crate) fn character_vectors(mut file: &[u8]) -> Result<Vec<Vec<String>>> {
    let mut vectors = Vec::new();
    while !file.is_empty() {
        let length = Xdr(&mut file).u32()? as usize;
        let mut object = Vec::with_capacity(length.min(1 << 26));
        ZlibDecoder::new(&mut file)
            .read_to_end(&mut object)
            .context("a record is no zlib")?;
        ensure!(
            object.len() == length,
            "a record holds {} bytes, not {length}",
            object.len()
        );
        vectors.push(character_vector(&object)?);
    }
    Ok(vectors)
}

fn character_vector(object: &[u8]) -> Result<Vec<String>> {
    let mut rest = object
        .strip_prefix(b"X\n")
        .context("an object is not in R's XDR form")?;
    let mut xdr = Xdr(&mut rest);
    let version = xdr.u32()?;
    xdr.bytes(8)?; // the R that wrote it, the oldest R that reads it
    if version == VERSION_WITH_ENCODING {
        let length = xdr.u32()? as usize;
        xdr.bytes(length)?;
    }
    let kind = xdr.u32()? & 0xff;
    ensure!(
        kind == CHARACTER_VECTOR,
        "an object has type {kind}, not a character vector"
    );
    let count = xdr.u32()?;
    (0..count).map(|_| xdr.string()).collect()
}

struct Xdr<'a, 'b>(&'a mut &'b [u8]);

impl<'b> Xdr<'_, 'b> {
    fn bytes(&mut self, count: usize) -> Result<&'b [u8]> {
        let Some((head, tail)) = self.0.split_at_checked(count) else {
            bail!(
                "the R data ends early: {count} bytes wanted, {} left",
                self.0.len()
            );
        };
        *self.0 = tail;
        Ok(head)
    }

    fn u32(&mut self) -> Result<u32> {
        let bytes = self.bytes(4)?;
        Ok(bytes
            .iter()
            .fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    fn string(&mut self) -> Result<String> {
        let kind = self.u32()? & 0xff;
        ensure!(
            kind == CHARACTER_STRING,
            "an element has type {kind}, not a string"
        );
        let length = self.u32()? as usize;
        let text = self.bytes(length)?;
        String::from_utf8(text.to_vec()).context("a string is not UTF-8")
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::{Compression, write::ZlibEncoder};

    use super::*;

    fn record(lines: &[&str]) -> Vec<u8> {
        let mut object = b"X\n\0\0\0\x02\0\x04\x02\x01\0\x02\x03\0\0\0\0\x10".to_vec();
        object.extend((lines.len() as u32).to_be_bytes());
        for line in lines {
            object.extend([0, 4, 0, 9]);
            object.extend((line.len() as u32).to_be_bytes());
            object.extend(line.as_bytes());
        }
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(&object).unwrap();
        let mut record = (object.len() as u32).to_be_bytes().to_vec();
        record.extend(encoder.finish().unwrap());
        record
    }

    #[test]
    fn reads_records_that_follow_each_other() {
        let file = [record(&["EMMA", "", "by £"]), record(&["PERSUASION"])].concat();
        let vectors = character_vectors(&file).unwrap();
        assert_eq!(vectors, [vec!["EMMA", "", "by £"], vec!["PERSUASION"]]);
    }

    #[test]
    fn refuses_a_file_that_ends_early() {
        let file = record(&["EMMA"]);
        assert!(character_vectors(&file[..file.len() - 6]).is_err());
        assert!(character_vectors(&file[..3]).is_err());
    }
}
