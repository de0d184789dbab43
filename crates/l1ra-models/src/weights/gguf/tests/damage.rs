//! Files that are cut off or changed: refused or read, never a panic.

use std::path::Path;

use super::{super::*, fixture, open};

/// Everything that a caller may ask of a file; only panics are of interest.
fn use_everything(path: &Path) {
    let Ok(file) = GgufFile::open(path) else {
        return;
    };
    let _ = (
        file.config(),
        file.rope_freqs(),
        file.tokenizer(),
        file.special_tokens(),
    );
    let _ = (file.chat_template(), file.metadata().count());
    for name in file.tensor_names() {
        let _ = file.tensor(&name);
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let whole = std::fs::read(fixture("tiny.gguf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cut.gguf");
    // The last tensor is followed by padding, which nothing reads.
    let end = open("tiny.gguf")
        .tensors
        .values()
        .map(|info| info.range.end)
        .max()
        .unwrap();
    for length in 0..end {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(GgufFile::open(&path).is_err(), "{length} bytes of {end}");
    }
}

#[test]
fn no_changed_byte_makes_the_reader_panic() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("changed.gguf");
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    for name in ["tiny.gguf", "spm.gguf"] {
        let whole = std::fs::read(fixture(name)).unwrap();
        let header = GgufFile::open(&fixture(name)).unwrap();
        let data = header
            .tensors
            .values()
            .map(|info| info.range.start)
            .min()
            .unwrap();
        for _ in 0..1000 {
            let mut changed = whole.clone();
            let at = random(data);
            changed[at] = match random(4) {
                0 => 0xff,
                1 => 0,
                2 => changed[at] ^ (1 << random(8)),
                _ => random(256) as u8,
            };
            std::fs::write(&path, &changed).unwrap();
            use_everything(&path);
        }
    }
}
