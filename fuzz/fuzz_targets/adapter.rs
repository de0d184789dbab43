//! Adapter folders: PEFT's configuration and matrices, and the sidecar, one after the other.
#![no_main]

use l1ra_core::peft::{CONFIG_FILE, SIDECAR_FILE, WEIGHTS_FILE, describe_adapter, load_adapter};
use l1ra_fuzz::{parts, with_files};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [config, weights, sidecar] = parts(input);
    let files = [
        (CONFIG_FILE, config),
        (WEIGHTS_FILE, weights),
        (SIDECAR_FILE, sidecar),
    ];
    with_files(&files, |dir| {
        if load_adapter(dir).is_ok() {
            let described = describe_adapter(dir);
            assert!(described.is_ok(), "an adapter that loads is described");
        }
    });
});
