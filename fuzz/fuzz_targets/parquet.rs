//! Training data in Parquet.
#![no_main]

use l1ra_fuzz::with_files;
use l1ra_train::data::{DataOptions, DataSource, read_sources};
use libfuzzer_sys::fuzz_target;

// The library panics at some files, which the reader answers with an error; so a panic counts only
// where it comes out.
fuzz_target!(init: std::panic::set_hook(Box::new(|_| {})), |input: &[u8]| {
    with_files(&[("data.parquet", input)], |dir| {
        let options = DataOptions {
            train: vec![DataSource::new(
                dir.join("data.parquet").display().to_string(),
            )],
            ..Default::default()
        };
        let _ = read_sources(&options);
    });
});
