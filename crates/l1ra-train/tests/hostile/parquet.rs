//! Training data in Parquet.

use std::{path::Path, sync::Arc};

use ::parquet::{
    basic::Compression,
    data_type::{ByteArray, ByteArrayType},
    file::{properties::WriterProperties, writer::SerializedFileWriter},
    schema::parser::parse_message_type,
};
use l1ra_train::data::{SourceFile, read_sources};

use crate::{
    damage::Shell,
    data::options,
    format::{Format, Outcome, Seed, run, run_crafted, write_fuzz_seed},
};

fn load(dir: &Path) -> Outcome {
    let sources = read_sources(&options(dir))?;
    let error = sources.train.iter().find_map(SourceFile::error);
    error.map_or(Ok(()), |error| Err(error.into()))
}

/// A file of two columns of texts.
pub(crate) fn file(compression: Compression) -> Vec<u8> {
    let schema =
        "message data { required binary prompt (UTF8); required binary completion (UTF8); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let properties = WriterProperties::builder()
        .set_compression(compression)
        .build();
    let mut bytes = Vec::new();
    let mut writer = SerializedFileWriter::new(&mut bytes, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    while let Some(mut column) = group.next_column().unwrap() {
        let values: Vec<ByteArray> = ["2 + 2 =", " 4", "2 + 2 ="].map(ByteArray::from).into();
        column
            .typed::<ByteArrayType>()
            .write_batch(&values, None, None)
            .unwrap();
        column.close().unwrap();
    }
    group.close().unwrap();
    writer.close().unwrap();
    bytes
}

fn format() -> Format {
    let mut format = Format::new("parquet", load);
    // The library makes room for a page by the size that the page says it has unpacked.
    format.factor = 60;
    format.allowance = 16 << 20;
    format.inputs = 1500;
    let kinds = [Compression::UNCOMPRESSED, Compression::SNAPPY];
    let seed = |kind| Seed::new(Shell::Binary, "data.parquet", file(kind));
    format.seeds = kinds.into_iter().map(seed).collect();
    format
}

#[test]
fn parquet() {
    run(format);
}

/// What fuzzing found, and a list of the same kind in a page header.
#[test]
fn parquet_crafted() {
    let seed = |bytes: &[u8]| Seed::new(Shell::Binary, "data.parquet", bytes);
    let mut page = file(Compression::UNCOMPRESSED);
    // The first page begins after `PAR1` with its type; a field that no one knows takes its place.
    page.splice(4..12, [0x49, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07, 0x00]);
    run_crafted(|| {
        let crafted = vec![
            (
                "a list in the footer",
                seed(include_bytes!("found/endless-list.parquet")),
            ),
            (
                "a list in the footer that only the library sees",
                seed(include_bytes!("found/endless-list-misread.parquet")),
            ),
            (
                "a column before the file",
                seed(include_bytes!("found/column-before-file.parquet")),
            ),
            ("a list in a page header", seed(&page)),
        ];
        (format(), crafted)
    });
}

pub(crate) fn fuzz_seeds() {
    write_fuzz_seed("parquet", "plain", &file(Compression::UNCOMPRESSED));
    write_fuzz_seed("parquet", "snappy", &file(Compression::SNAPPY));
}
