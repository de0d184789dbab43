//! GGUF: header, configuration, tokenizer, tensors.

use std::{fs, path::Path};

use l1ra_models::{ModelFiles, TextTokenizer, inspect, weights::gguf::GgufFile};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, repository, run, run_crafted},
};

const FILE: &str = "model.gguf";

/// The header alone, and what is read from it.
fn open(dir: &Path) -> Outcome {
    let file = GgufFile::open(&dir.join(FILE))?;
    let _ = (file.special_tokens(), file.chat_template());
    let _ = (file.rope_freqs()?, file.metadata().count());
    for name in file.tensor_names() {
        let _ = (file.tensor_info(&name), file.stored_bytes(&name));
    }
    file.config()?;
    Ok(())
}

/// The tensors, the tokenizer and the whole as a model.
fn load(dir: &Path) -> Outcome {
    let file = GgufFile::open(&dir.join(FILE))?;
    for name in file.tensor_names() {
        let _ = file.tensor(&name);
    }
    if let Ok(tokenizer) = file.tokenizer() {
        let tokenizer = TextTokenizer::new(tokenizer);
        let ids = tokenizer.encode_text("the world, 2024!\n ▁é")?;
        let _ = (tokenizer.decode(&ids), tokenizer.affixes()?);
    }
    let _ = inspect(&dir.join(FILE)).map(|seen| seen.to_string());
    // A file may hold a tokenizer and no model.
    let _ = ModelFiles::open(&dir.join(FILE))?.check();
    Ok(())
}

fn seed(path: &str) -> Seed {
    Seed::new(Shell::Binary, FILE, fs::read(repository(path)).unwrap())
}

fn header() -> Format {
    let mut format = Format::new("gguf-header", open);
    let own = "crates/l1ra-models/tests/fixtures/gguf";
    format.inputs = 1500;
    format.seeds = vec![
        seed(&format!("{own}/tiny.gguf")),
        seed(&format!("{own}/spm.gguf")),
    ];
    format
}

fn whole() -> Format {
    let mut format = Format::new("gguf", load);
    let own = "crates/l1ra-models/tests/fixtures/gguf";
    // 18 bytes of Q4_0 are 128 as f32, twice while rows of q and k are put in order; a token of the
    // vocabulary is in several tables of the tokenizer.
    format.factor = 40;
    format.inputs = 1000;
    format.seeds = vec![
        seed(&format!("{own}/tiny.gguf")),
        seed(&format!("{own}/spm.gguf")),
    ];
    format
}

#[test]
fn gguf_header() {
    run(header);
}

#[test]
fn gguf() {
    run(whole);
}

/// A GGUF file of metadata entries, written out, and no tensors.
fn made(entries: &[(&str, u32, Vec<u8>)]) -> Seed {
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend(0_u64.to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    for (key, kind, value) in entries {
        bytes.extend((key.len() as u64).to_le_bytes());
        bytes.extend(key.as_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(value);
    }
    Seed::new(Shell::Binary, FILE, bytes)
}

fn array(kind: u32, count: u64, values: &[u8]) -> Vec<u8> {
    [&kind.to_le_bytes()[..], &count.to_le_bytes(), values].concat()
}

fn crafted() -> Crafted {
    const MANY: u64 = 1_000_000;
    let zeros = vec![0; 8 * MANY as usize];
    let texts = array(8, MANY, &zeros);
    let bytes = array(0, MANY, &zeros[..MANY as usize]);
    let empty = array(0, 0, &[]);
    let lists: Vec<u8> = (0..MANY / 2).flat_map(|_| empty.clone()).collect();
    let lists = array(9, MANY / 2, &lists);
    let names: Vec<String> = (0..20_000).map(|at| format!("{at:x}")).collect();
    let entries: Vec<(&str, u32, Vec<u8>)> =
        names.iter().map(|n| (n.as_str(), 7, vec![1])).collect();
    let mut format = header();
    // A value of a list takes 32 bytes, and there may be two million of them in any file.
    format.allowance = 64 << 20;
    (
        format,
        vec![
            ("a list of many bytes", made(&[("a", 9, bytes)])),
            ("a list of many empty texts", made(&[("a", 9, texts)])),
            ("a list of many empty lists", made(&[("a", 9, lists)])),
            ("many entries", made(&entries)),
            ("an empty file", Seed::new(Shell::Binary, FILE, "")),
        ],
    )
}

#[test]
fn gguf_crafted() {
    run_crafted(crafted);
}
