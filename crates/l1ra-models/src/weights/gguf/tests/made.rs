//! Files made here, to be wrong in one place.

use std::io::Write;

use serde_json::json;
use tempfile::NamedTempFile;

use super::{super::*, open};

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

fn entry(key: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(key), &kind.to_le_bytes()[..], value].concat()
}

fn number(key: &str, value: u32) -> Vec<u8> {
    entry(key, 4, &value.to_le_bytes())
}

fn array(key: &str, kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
    let count = (values.len() as u64).to_le_bytes();
    entry(
        key,
        9,
        &[&kind.to_le_bytes()[..], &count, &values.concat()].concat(),
    )
}

fn texts(key: &str, values: &[&str]) -> Vec<u8> {
    array(
        key,
        8,
        &values.iter().map(|value| text(value)).collect::<Vec<_>>(),
    )
}

fn tensor(name: &str, axes: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = [text(name), (axes.len() as u32).to_le_bytes().to_vec()].concat();
    axes.iter()
        .for_each(|axis| bytes.extend(axis.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

fn architecture() -> Vec<u8> {
    entry("general.architecture", 8, &text("llama"))
}

/// A file with `data` zero bytes of data.
fn file(version: u32, entries: &[Vec<u8>], tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut bytes = [b"GGUF".as_slice(), &version.to_le_bytes()].concat();
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((entries.len() as u64).to_le_bytes());
    bytes.extend(entries.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn try_open(bytes: &[u8]) -> Result<GgufFile, ModelError> {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    GgufFile::open(file.path())
}

fn refusal(bytes: &[u8]) -> String {
    try_open(bytes).unwrap_err().to_string()
}

#[test]
fn version_2_is_read() {
    let tensors = [tensor("output_norm.weight", &[4], 0, 0)];
    let file = try_open(&file(2, &[architecture()], &tensors, 16)).unwrap();
    assert_eq!(file.tensor("model.norm.weight").unwrap().shape, [4]);
}

#[test]
fn broken_headers_are_refused_with_what_was_seen() {
    let deep = |depth: usize| {
        let level = [9_u32.to_le_bytes().as_slice(), &1_u64.to_le_bytes()].concat();
        entry(
            "deep",
            9,
            &[
                level.repeat(depth),
                4_u32.to_le_bytes().to_vec(),
                vec![0; 8],
            ]
            .concat(),
        )
    };
    let long = entry("long", 8, &u64::MAX.to_le_bytes());
    let huge = entry(
        "huge",
        9,
        &[&0_u32.to_le_bytes()[..], &u64::MAX.to_le_bytes()].concat(),
    );
    let with = |extra: Vec<u8>| file(3, &[architecture(), extra], &[], 64);
    let cases = [
        (b"GGML1234".to_vec(), "starts with `GGML`, not `GGUF`"),
        (
            file(1, &[], &[], 0),
            "the GGUF version is not supported: found `1`",
        ),
        (
            file(3_u32.swap_bytes(), &[], &[], 0),
            "found `3, big-endian`",
        ),
        (
            file(3, &[], &[], 0),
            "`general.architecture` (a text) is missing",
        ),
        (with(architecture()), "`general.architecture` at byte"),
        (with(deep(5)), "nests arrays more than 4 deep"),
        (with(long), "metadata `long`: the count at byte"),
        (with(huge), "metadata `huge`: the count at byte"),
        (
            with(entry("odd", 13, &[0; 8])),
            "metadata `odd` has the unknown type 13",
        ),
        (with(entry("flag", 7, &[2])), "metadata `flag` at byte"),
        (
            with(number("general.alignment", 48)),
            "expected a power of two",
        ),
        (
            with(number("split.count", 2)),
            "split.count is not supported: found `2`",
        ),
    ];
    for (bytes, message) in cases {
        let seen = refusal(&bytes);
        assert!(seen.contains(message), "{seen}");
    }
}

#[test]
fn broken_tensors_are_refused_by_name() {
    let name = "output_norm.weight";
    let cases = [
        (
            vec![tensor(name, &[], 0, 0)],
            "`output_norm.weight` has 0 axes",
        ),
        (vec![tensor(name, &[4, 0], 0, 0)], "has an axis of length 0"),
        (
            vec![tensor(name, &[1 << 40, 1 << 40], 0, 0)],
            "has shape [1099511627776, 1099511627776]",
        ),
        (
            vec![tensor(name, &[48], 8, 0)],
            "expected rows of a multiple of 32",
        ),
        (
            vec![tensor(name, &[64], 0, 0)],
            "needs 256 bytes at offset 0",
        ),
        (
            vec![tensor(name, &[4], 0, u64::MAX - 31)],
            "needs 16 bytes at offset",
        ),
        (vec![tensor(name, &[4], 0, 8)], "expected a multiple of 32"),
        (vec![tensor(name, &[4], 10, 0)], "found `Q2_K`"),
        (
            vec![tensor("blk.0.ffn_gate_exps.weight", &[4], 0, 0)],
            "`blk.0.ffn_gate_exps.weight`",
        ),
        (
            vec![tensor(name, &[4], 0, 0), tensor(name, &[4], 0, 32)],
            "is there twice",
        ),
        (
            vec![
                tensor(name, &[16], 0, 0),
                tensor("output.weight", &[4], 0, 32),
            ],
            "overlap at byte",
        ),
    ];
    for (tensors, message) in cases {
        let seen = refusal(&file(3, &[architecture()], &tensors, 64));
        assert!(seen.contains(message), "{seen}");
    }
    let missing = open("tiny.gguf")
        .tensor("lm_head.weight")
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("tensor `lm_head.weight` is missing"),
        "{missing}"
    );
}

/// `tiny.gguf`'s keys and an embedding, and one more key.
fn described(extra: Vec<u8>) -> GgufFile {
    let mut entries = vec![architecture(), extra];
    let counts = [
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("block_count", 1),
        ("attention.head_count", 4),
        ("context_length", 64),
    ];
    for (key, count) in counts {
        entries.push(number(&format!("llama.{key}"), count));
    }
    let eps = 1e-6_f32.to_le_bytes();
    entries.push(entry("llama.attention.layer_norm_rms_epsilon", 6, &eps));
    let embedding = tensor("token_embd.weight", &[32, 8], 1, 0);
    try_open(&file(3, &entries, &[embedding], 512)).unwrap()
}

#[test]
fn absent_keys_have_llama_cpp_s_defaults() {
    let config = described(number("general.file_type", 1)).config().unwrap();
    assert_eq!(
        (&config["num_key_value_heads"], &config["head_dim"]),
        (&json!(4), &json!(8))
    );
    assert_eq!(
        (&config["rope_theta"], &config["vocab_size"]),
        (&json!(10000.0), &json!(8))
    );
    let config = described(number("llama.attention.sliding_window", 16))
        .config()
        .unwrap();
    assert_eq!(
        (&config["model_type"], &config["sliding_window"]),
        (&json!("mistral"), &json!(16))
    );
    let factor = entry("llama.rope.scaling.factor", 6, &4_f32.to_le_bytes());
    let config = described(factor).config().unwrap();
    assert_eq!(
        config["rope_scaling"],
        json!({"rope_type": "linear", "factor": 4.0})
    );
}

#[test]
fn options_that_are_not_supported_are_refused_by_name() {
    let yarn = entry("llama.rope.scaling.type", 8, &text("yarn"));
    let nan = entry("llama.rope.freq_base", 6, &f32::NAN.to_le_bytes());
    let cases = [
        (
            yarn,
            "llama.rope.scaling.type is not supported: found `yarn`",
        ),
        (
            number("llama.expert_count", 8),
            "llama.expert_count is not supported: found `8`",
        ),
        (
            array("llama.attention.head_count_kv", 4, &[vec![2, 0, 0, 0]]),
            "is an array",
        ),
        (nan, "`llama.rope.freq_base` is Float(NaN)"),
        (
            number("llama.attention.value_length", 16),
            "llama.attention.value_length",
        ),
        (
            number("tokenizer.ggml.eos_token_id", 8),
            "the embedding has 8 rows",
        ),
    ];
    for (extra, message) in cases {
        let seen = described(extra).config().unwrap_err().to_string();
        assert!(seen.contains(message), "{seen}");
    }
}

/// A byte-level tokenizer of eight tokens.
fn cut_by(pre: &str, merges: &[&str], more: Option<Vec<u8>>) -> Result<GgufFile, ModelError> {
    let tokens = ["<s>", "1", "2", "12", "121", "1212", "!", "12!"];
    let mut entries = vec![
        architecture(),
        entry("tokenizer.ggml.model", 8, &text("gpt2")),
        entry("tokenizer.ggml.pre", 8, &text(pre)),
        number("tokenizer.ggml.bos_token_id", 0),
        texts("tokenizer.ggml.tokens", &tokens),
        texts("tokenizer.ggml.merges", merges),
    ];
    entries.extend(more);
    try_open(&file(
        3,
        &entries,
        &[tensor("token_embd.weight", &[32, 8], 1, 0)],
        512,
    ))
}

#[test]
fn pre_tokenizers_cut_digits_each_in_its_own_way() {
    let merges = ["1 2", "12 1", "12 12"];
    let cases: [(&str, &[u32], bool); 6] = [
        ("gpt-2", &[5, 6], false),
        ("smollm", &[1, 2, 1, 2, 6], false),
        ("qwen2", &[1, 2, 1, 2, 6], false),
        // 3 + 1 digits; Llama 3 begins a text with `bos` where the file does not say.
        ("llama-bpe", &[4, 2, 6], true),
        ("llama3", &[4, 2, 6], true),
        ("default", &[4, 2, 6], false),
    ];
    for (pre, expected, begins) in cases {
        let tokenizer = cut_by(pre, &merges, None).unwrap().tokenizer().unwrap();
        let ids = |special| {
            tokenizer
                .encode("1212!", special)
                .unwrap()
                .get_ids()
                .to_vec()
        };
        assert_eq!(ids(false), expected, "{pre}");
        assert_eq!(
            ids(true).len() - expected.len(),
            usize::from(begins),
            "{pre}"
        );
    }
}

#[test]
fn tokenizers_that_do_not_fit_together_are_refused() {
    let key = "tokenizer.ggml.token_type";
    let refused = |pre: &str, merges: &[&str], more| {
        cut_by(pre, merges, more)
            .unwrap()
            .tokenizer()
            .unwrap_err()
            .to_string()
    };
    let cases = [
        (
            refused("tekken", &[], None),
            "tokenizer.ggml.pre is not supported: found `tekken`",
        ),
        (refused("gpt-2", &["12"], None), "expected a list of pairs"),
        (
            refused("gpt-2", &["1 3"], None),
            "its tokenizer cannot be built",
        ),
        (
            refused("gpt-2", &[], Some(array(key, 5, &[vec![3, 0, 0, 0]]))),
            "a type for each token",
        ),
    ];
    for (seen, message) in cases {
        assert!(seen.contains(message), "{seen}");
    }
}
