//! Model weights in safetensors.
#![no_main]

use l1ra_fuzz::with_files;
use l1ra_models::weights::{SafetensorsFiles, WeightSource};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    with_files(&[("model.safetensors", input)], |dir| {
        let Ok(files) = SafetensorsFiles::open(dir) else {
            return;
        };
        for name in files.names() {
            let _ = (files.shape(&name), files.stored_type(&name));
            if let Ok(read) = files.read(&name) {
                let _ = read.dtype.decode(&read.bytes);
            }
        }
    });
});
