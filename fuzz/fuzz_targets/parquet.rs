//! Training data in Parquet.
#![no_main]

use l1ra_fuzz::with_files;
use l1ra_train::data::{DataOptions, DataSource, read_sources};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
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
