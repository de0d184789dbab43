//! GGUF: header, configuration, tokenizer, chat template, tensors.
#![no_main]

use l1ra_fuzz::with_files;
use l1ra_models::{ModelFiles, TextTokenizer, weights::gguf::GgufFile};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    with_files(&[("model.gguf", input)], |dir| {
        let path = dir.join("model.gguf");
        let Ok(file) = GgufFile::open(&path) else {
            return;
        };
        let _ = (file.config(), file.rope_freqs(), file.special_tokens());
        for name in file.tensor_names() {
            let _ = file.tensor(&name);
        }
        if let Ok(tokenizer) = file.tokenizer() {
            let tokenizer = TextTokenizer::new(tokenizer);
            if let Ok(ids) = tokenizer.encode_text("the world, 2024!\n ▁é") {
                let _ = tokenizer.decode(&ids);
            }
        }
        let _ = ModelFiles::open(&path).and_then(|files| files.check());
    });
});
