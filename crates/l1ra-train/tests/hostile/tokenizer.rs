//! `tokenizer.json` and the files of special tokens beside it.

use std::path::Path;

use l1ra_models::{TextTokenizer, weights::gguf::GgufFile};
use serde_json::{Value, json};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, repository, run, run_crafted},
};

const FILE: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const GENERATION: &str = "generation_config.json";

fn load(dir: &Path) -> Outcome {
    let tokenizer = TextTokenizer::from_dir(dir)?;
    let _ = (
        tokenizer.vocab_size(),
        tokenizer.end_of_text(),
        tokenizer.token(1),
    );
    for text in [
        "",
        "ab ba",
        "  the ▁world,\n2024! é 日本 🙂</s>",
        "a\0b\u{1e}",
    ] {
        let ids = tokenizer.encode_text(text)?;
        let spans = tokenizer.encode_spans(text)?;
        let _ = (tokenizer.decode(&ids), tokenizer.decode(&spans.ids));
    }
    let _ = tokenizer.decode(&[0, 1, 2, 3, 4, u32::MAX]);
    let _ = (tokenizer.affixes()?, tokenizer.to_json()?);
    Ok(())
}

/// A tokenizer with these parts.
fn made(model: &Value, parts: &[(&str, Value)]) -> Value {
    let mut made = json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": [{"id": 0, "content": "<s>", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true}],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null,
        "model": model,
    });
    for (name, part) in parts {
        made[*name] = part.clone();
    }
    made
}

fn bpe() -> Value {
    json!({"type": "BPE", "dropout": null, "unk_token": "<s>", "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
        "ignore_merges": false, "vocab": {"<s>": 0, "a": 1, "b": 2, "ab": 3, " ": 4},
        "merges": [["a", "b"]]})
}

/// BPE with a part of every kind.
fn many_parts() -> Value {
    let piece = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    made(
        &bpe(),
        &[
            (
                "normalizer",
                json!({"type": "Sequence", "normalizers": [{"type": "NFC"},
                    {"type": "Replace", "pattern": {"Regex": "c{1,3}"}, "content": "b"},
                    {"type": "Prepend", "prepend": "a"},
                    {"type": "Strip", "strip_left": true, "strip_right": true}]}),
            ),
            (
                "pre_tokenizer",
                json!({"type": "Sequence", "pretokenizers": [
                    {"type": "Split", "pattern": {"Regex": "\\s+(?!\\S)|\\w+"},
                        "behavior": "Isolated", "invert": false},
                    {"type": "FixedLength", "length": 3},
                    {"type": "Digits", "individual_digits": true}]}),
            ),
            (
                "post_processor",
                json!({"type": "TemplateProcessing", "single": [piece("<s>"), text("A")],
                    "pair": [text("A"), text("B")],
                    "special_tokens": {"<s>": {"id": "<s>", "ids": [0], "tokens": ["<s>"]}}}),
            ),
            (
                "decoder",
                json!({"type": "Sequence", "decoders": [
                    {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
                    {"type": "ByteFallback"}, {"type": "Fuse"},
                    {"type": "Strip", "content": " ", "start": 1, "stop": 0}]}),
            ),
            (
                "truncation",
                json!({"direction": "Right", "max_length": 5, "strategy": "LongestFirst", "stride": 0}),
            ),
            (
                "padding",
                json!({"strategy": {"Fixed": 9}, "direction": "Right",
                "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<s>"}),
            ),
        ],
    )
}

/// What SentencePiece's normaliser compiles its rules to: here none, over 256 units.
fn charsmap() -> String {
    format!("AAQA{}AABhAGIA", "AAAA".repeat(341))
}

fn unigram() -> Value {
    made(
        &json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false,
            "vocab": [["<s>", 0.0], ["▁", -1.5], ["a", -1.0], ["b", -2.0], ["▁ab", -3.0]]}),
        &[
            (
                "normalizer",
                json!({"type": "Precompiled", "precompiled_charsmap": charsmap()}),
            ),
            (
                "pre_tokenizer",
                json!({"type": "Metaspace", "replacement": "▁",
                "prepend_scheme": "always", "split": true}),
            ),
            (
                "decoder",
                json!({"type": "Metaspace", "replacement": "▁",
                "prepend_scheme": "always", "split": true}),
            ),
        ],
    )
}

fn word_piece() -> Value {
    made(
        &json!({"type": "WordPiece", "unk_token": "<s>", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": {"<s>": 0, "a": 1, "##b": 2, "b": 3}}),
        &[
            ("pre_tokenizer", json!({"type": "BertPreTokenizer"})),
            (
                "normalizer",
                json!({"type": "BertNormalizer", "clean_text": true,
                "handle_chinese_chars": true, "strip_accents": null, "lowercase": true}),
            ),
            (
                "post_processor",
                json!({"type": "BertProcessing", "sep": ["<s>", 0], "cls": ["<s>", 0]}),
            ),
            (
                "decoder",
                json!({"type": "WordPiece", "prefix": "##", "cleanup": true}),
            ),
        ],
    )
}

fn word_level() -> Value {
    made(
        &json!({"type": "WordLevel", "unk_token": "<s>", "vocab": {"<s>": 0, "a": 1, "b": 2}}),
        &[
            (
                "pre_tokenizer",
                json!({"type": "CharDelimiterSplit", "delimiter": " "}),
            ),
            (
                "decoder",
                json!({"type": "CTC", "pad_token": "<s>", "word_delimiter_token": "|", "cleanup": true}),
            ),
            (
                "post_processor",
                json!({"type": "RobertaProcessing", "sep": ["<s>", 0], "cls": ["<s>", 0],
                "trim_offsets": true, "add_prefix_space": true}),
            ),
        ],
    )
}

fn from_gguf(path: &str) -> String {
    let file = GgufFile::open(&repository(path)).unwrap();
    TextTokenizer::new(file.tokenizer().unwrap())
        .to_json()
        .unwrap()
}

fn seed(value: &impl ToString) -> Seed {
    Seed::new(Shell::Text, FILE, value.to_string())
}

fn format() -> Format {
    let own = "crates/l1ra-models/tests/fixtures/gguf";
    let config = json!({"bos_token": "<s>", "eos_token": {"content": "b"}, "pad_token": null});
    let generation = json!({"eos_token_id": [1, 2], "bos_token_id": 0});
    let beside = seed(&many_parts());
    let mut format = Format::new("tokenizer", load);
    // The library keeps its vocabulary and merges as several tables, and a regular expression as
    // programs of its own.
    format.factor = 100;
    format.allowance = 8 << 20;
    format.inputs = 1500;
    format.seeds = vec![
        seed(&many_parts()),
        seed(&unigram()),
        seed(&word_piece()),
        seed(&word_level()),
        seed(&from_gguf(&format!("{own}/tiny.gguf"))),
        seed(&from_gguf(&format!("{own}/spm.gguf"))),
        Seed::new(Shell::Text, CONFIG, config.to_string()).beside(FILE, beside.bytes.clone()),
        Seed::new(Shell::Text, GENERATION, generation.to_string()).beside(FILE, beside.bytes),
    ];
    format
}

#[test]
fn tokenizer() {
    run(format);
}

fn crafted() -> Crafted {
    let part = |name: &str, value: Value| seed(&made(&bpe(), &[(name, value)]));
    let pattern = |regex: &str| {
        part(
            "pre_tokenizer",
            json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false}),
        )
    };
    let mut prefixed = bpe();
    prefixed["continuing_subword_prefix"] = json!("####");
    let mut halved = bpe();
    halved["continuing_subword_prefix"] = json!("a");
    halved["vocab"]["é"] = json!(5);
    halved["merges"] = json!([["a", "é"]]);
    let mut holes = bpe();
    holes["vocab"]["ab"] = json!(2_147_483_648_u64);
    let mut long = unigram();
    long["model"]["vocab"][3] = json!(["0".repeat(100_000), -1.0]);
    let map = |text: &str| {
        part(
            "normalizer",
            json!({"type": "Precompiled", "precompiled_charsmap": text}),
        )
    };
    let nested = |kind: &str, list: &str, depth: usize| {
        let open = format!("{{\"type\": \"Sequence\", \"{list}\": [").repeat(depth);
        let text = made(&bpe(), &[(kind, json!("HERE"))]).to_string();
        seed(&text.replace("\"HERE\"", &format!("{open}{}", "]}".repeat(depth))))
    };
    (
        format(),
        vec![
            (
                "a part of length zero",
                part("pre_tokenizer", json!({"type": "FixedLength", "length": 0})),
            ),
            (
                "a strip beyond the text",
                part(
                    "decoder",
                    json!({"type": "Strip", "content": "a", "start": 0, "stop": 9}),
                ),
            ),
            ("a prefix longer than a token", seed(&made(&prefixed, &[]))),
            (
                "a prefix that ends within a letter",
                seed(&made(&halved, &[])),
            ),
            ("a map that says it is long", map("/////w==")),
            ("a map of nothing", map("AAAAAA==")),
            ("a map that is cut off", map("AAQAAAAA")),
            // One unit whose offset leads out of the map.
            ("a map that leads out of itself", map("BAAAAAD8//8=")),
            // 256 units, `a` a leaf whose value lies beyond the texts.
            ("a map with a place beyond its texts", map(&leaf(0x7fff))),
            ("a map with a place within its texts", map(&leaf(0))),
            (
                "repetition within repetition",
                pattern("(?:(?:(?:(?:(?=a)x){1000}){1000}){1000}){1000}"),
            ),
            ("a long repetition", pattern("(?=a)(?:a|b){1000000000}")),
            ("a repetition of letters", pattern("\\p{L}{100000}")),
            ("a pattern that looks back", pattern("(a*)*\\1b")),
            ("a pattern of nested groups", pattern(&"(".repeat(10_000))),
            (
                "a pattern of nested looks",
                pattern(&format!("{}a{}", "(?=".repeat(10_000), ")".repeat(10_000))),
            ),
            (
                "a pattern of many alternatives",
                pattern(&"(?=a)|".repeat(10_000)),
            ),
            ("a pattern that matches nothing", pattern("")),
            (
                "nested normalizers",
                nested("normalizer", "normalizers", 60),
            ),
            (
                "nested pre-tokenizers",
                nested("pre_tokenizer", "pretokenizers", 60),
            ),
            ("nested decoders", nested("decoder", "decoders", 60)),
            (
                "nested post-processors",
                nested("post_processor", "processors", 60),
            ),
            (
                "nothing put before a text",
                part("normalizer", json!({"type": "Prepend", "prepend": ""})),
            ),
            ("a long token", seed(&long)),
            ("a vocabulary with holes", seed(&made(&holes, &[]))),
            (
                "a map without its text",
                part("normalizer", json!({"type": "Precompiled"})),
            ),
            ("nested lists", seed(&"[".repeat(1_000_000))),
            (
                "a key of nested lists",
                seed(&format!("{{\"model\":{}", "[".repeat(1_000_000))),
            ),
            (
                "a list where special tokens are named",
                Seed::new(
                    Shell::Text,
                    CONFIG,
                    format!("{{\"a\": [{}0]}}", "0,".repeat(500_000)),
                )
                .beside(FILE, many_parts().to_string()),
            ),
        ],
    )
}

#[test]
fn tokenizer_crafted() {
    run_crafted(crafted);
}

/// A map of 256 units in which `a` ends with the value `value`, and the text `b`.
fn leaf(value: u32) -> String {
    let mut units = vec![0_u32; 256];
    // Label `a`, a leaf, an offset of 1: its value is at 97 ^ 1.
    units[97] = 97 | 1 << 8 | 1 << 10;
    units[96] = value | 1 << 31;
    let mut bytes = 1024_u32.to_le_bytes().to_vec();
    bytes.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    bytes.extend(b"b\0");
    base64(&bytes)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let word = three
            .iter()
            .fold(0_usize, |word, byte| word << 8 | usize::from(*byte));
        let word = word << (8 * (3 - three.len()));
        for at in 0..4 {
            let letter = char::from(LETTERS[word >> (18 - 6 * at) & 63]);
            text.push(if at <= three.len() { letter } else { '=' });
        }
    }
    text
}
