//! GGUF files give the values, logits, token ids and configuration that the reference tools give,
//! are refused by name where they are not supported, and never cause a panic, however damaged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use l1ra_models::{
    LoadOptions, Message, Role, TextTokenizer,
    config::RopeScaling,
    load::ModelFiles,
    weights::gguf::{GgmlType, GgufDType, GgufFile, GgufValue},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap().data().to_vec();
    data.chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

// ---- what the reference tools give --------------------------------------------------------------

#[test]
fn every_type_has_the_values_of_the_reference() {
    let file = GgufFile::open(&fixture("gguf/quants.gguf")).unwrap();
    let bytes = std::fs::read(fixture("gguf/quants.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let mut kinds = Vec::new();
    for name in file.tensor_names() {
        let (shape, kind) = file.tensor_info(&name).unwrap();
        assert_eq!(shape, expected.tensor(&name).unwrap().shape(), "{name}");
        kinds.push(format!("{kind:?}"));
        let tensor = file.tensor(&name).unwrap();
        assert_eq!(tensor.shape, shape);
        let pairs = tensor.bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
        let values: Vec<f32> = match tensor.dtype {
            GgufDType::F32 => tensor
                .bytes
                .chunks_exact(4)
                .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
                .collect(),
            GgufDType::F16 => pairs
                .map(|b| half::f16::from_le_bytes(b).to_f32())
                .collect(),
            GgufDType::BF16 => pairs
                .map(|b| half::bf16::from_le_bytes(b).to_f32())
                .collect(),
        };
        let quantised = !matches!(kind, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
        assert!(!quantised || tensor.dtype == GgufDType::F32, "{name}");
        // Products of an f16 scale and a small integer, and sums with an f16 minimum: the same
        // operations in the same order, so equal to the last bit.
        let wanted = floats(&expected, &name);
        assert_eq!(values.len(), wanted.len());
        let first = values.iter().zip(&wanted).position(|(a, b)| a != b);
        assert_eq!(first, None, "{name} of type {kind:?}");
    }
    kinds.sort();
    kinds.dedup();
    assert_eq!(
        kinds,
        [
            "BF16", "F16", "F32", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0"
        ]
    );
    assert_eq!(
        file.rope_freqs().unwrap().unwrap(),
        floats(&expected, "rope_freqs")
    );
}

#[test]
fn a_converted_model_gives_transformers_logits() {
    let files = ModelFiles::open(&fixture("gguf/tiny-llama.gguf")).unwrap();
    let loaded = files.load(LoadOptions::default(), &Device::flex()).unwrap();
    let bytes = std::fs::read(fixture("tiny-llama/golden.safetensors")).unwrap();
    let golden = SafeTensors::deserialize(&bytes).unwrap();
    let ids = golden.tensor("input_ids").unwrap();
    let shape = [ids.shape()[0], ids.shape()[1]];
    let ids = ids
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    let data = TensorData::new(ids.collect::<Vec<_>>(), shape);
    let input = Tensor::<2, Int>::from_data(data, &Device::flex());
    let logits = loaded
        .model
        .forward(input, None)
        .into_data()
        .try_into_vec::<f32>()
        .unwrap();
    let wanted = floats(&golden, "logits");
    assert_eq!(logits.len(), wanted.len());
    let difference = logits
        .iter()
        .zip(&wanted)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    println!("largest difference of logits {difference:.2e}");
    assert!(difference < 1e-4, "logits differ by {difference}");
}

#[test]
fn a_folder_with_one_file_is_that_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(fixture("gguf/tiny-llama.gguf"), dir.path().join("a.gguf")).unwrap();
    assert_eq!(ModelFiles::open(dir.path()).unwrap().config.vocab_size, 256);
    std::fs::copy(fixture("gguf/tiny-llama.gguf"), dir.path().join("b.gguf")).unwrap();
    let error = ModelFiles::open(dir.path()).unwrap_err().to_string();
    assert!(
        error.ends_with("holds 2 .gguf files; name one of them"),
        "{error}"
    );
}

#[rstest::rstest]
#[case("tiny-llama.gguf", "gpt2")]
#[case("sentencepiece.gguf", "llama")]
fn token_ids_equal_the_reference(#[case] file: &str, #[case] key: &str) {
    let file = GgufFile::open(&fixture("gguf").join(file)).unwrap();
    let tokenizer = TextTokenizer::new(file.tokenizer().unwrap());
    let tokens = std::fs::read(fixture("gguf/tokens.json")).unwrap();
    let tokens: serde_json::Value = serde_json::from_slice(&tokens).unwrap();
    let bos = file.special_tokens().bos.unwrap();
    for case in tokens[key].as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
        if !text.contains("<|") && !text.contains('▁') {
            assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        }
        // `add_bos_token` is true in one file and absent in the other, whose kind has no default.
        let with_bos = if key == "llama" {
            [&[bos], ids.as_slice()].concat()
        } else {
            ids
        };
        assert_eq!(tokenizer.encode_text(text).unwrap(), with_bos, "{text:?}");
    }
}

#[test]
fn special_tokens_written_out_are_recognised() {
    let file = GgufFile::open(&fixture("gguf/sentencepiece.gguf")).unwrap();
    let tokenizer = TextTokenizer::new(file.tokenizer().unwrap());
    assert_eq!(
        tokenizer.encode("<s>the world</s>").unwrap(),
        [1, 15, 31, 2]
    );
    assert_eq!(tokenizer.decode(&[1, 15, 31, 2]).unwrap(), "the world");
}

#[test]
fn the_chat_template_and_special_tokens_are_the_file_s() {
    let files = ModelFiles::open(&fixture("gguf/tiny-llama.gguf")).unwrap();
    let tokenizer = &files.tokenizer;
    assert_eq!((tokenizer.bos, tokenizer.pad), (Some(1), Some(2)));
    assert_eq!(tokenizer.eos, [2].into());
    assert_eq!(tokenizer.vocab_size(), 256);
    let messages = [Message::new(Role::User, "hello")];
    let text = files
        .template
        .as_ref()
        .unwrap()
        .render(&messages, true)
        .unwrap();
    assert_eq!(
        text,
        "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n"
    );
}

#[test]
fn the_configuration_is_hugging_face_s() {
    let path = fixture("gguf/tiny-llama.gguf");
    same_where_both_say_it(&path, &fixture("tiny-llama/config.json"));
    let mut config = ModelFiles::open(&path).unwrap().config;
    let folder = l1ra_models::ModelConfig::from_file(&fixture("tiny-llama/config.json")).unwrap();
    config.pad_token_id = None; // tiny-llama's config.json does not name it
    assert_eq!(config, folder);
}

/// Every key that the file's configuration and `config.json` both have holds the same.
fn same_where_both_say_it(gguf: &Path, json: &Path) {
    let seen = GgufFile::open(gguf).unwrap().config().unwrap();
    let wanted: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let mut compared = 0;
    for (key, value) in seen.as_object().unwrap() {
        let Some(wanted) = wanted.get(key) else {
            continue;
        };
        compared += 1;
        let same = match (value.as_f64(), wanted.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => value == wanted,
        };
        assert!(same, "{key}: {value}, config.json has {wanted}");
    }
    println!("{compared} keys compared");
    assert!(compared >= 15, "{compared}");
}

#[test]
fn the_real_smollm2_has_its_ids_and_configuration() {
    let path = std::env::var_os("L1RA_SMOLLM2")
        .map_or_else(|| fixture("../../models/smollm2"), PathBuf::from);
    let path = if path.is_dir() {
        path.join("model.gguf")
    } else {
        path
    };
    if !path.is_file() {
        println!(
            "skipped: {} is not there (cargo xtask fetch smollm2)",
            path.display()
        );
        return;
    }
    same_where_both_say_it(&path, &fixture("smollm2/config.json"));
    let start = std::time::Instant::now();
    let files = ModelFiles::open(&path).unwrap();
    println!("header, configuration and tokenizer: {:?}", start.elapsed());
    let ids = files.tokenizer.encode("Hello world 2024!").unwrap();
    assert_eq!(ids, [19556, 905, 216, 34, 32, 34, 36, 17]);
    assert_eq!(files.tokenizer.decode(&ids).unwrap(), "Hello world 2024!");
    let start = std::time::Instant::now();
    let loaded = files.load(LoadOptions::default(), &Device::flex()).unwrap();
    println!("weights as f32: {:?}", start.elapsed());
    assert!(loaded.model.lm_head.is_none());
}

// ---- files made by hand -------------------------------------------------------------------------

/// A GGUF file put together piece by piece; nothing in it need be right.
#[derive(Clone)]
struct Made {
    version: u32,
    tensor_count: Option<u64>,
    value_count: Option<u64>,
    values: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<(String, Vec<u64>, u32, u64)>,
    data: usize,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes(), value.as_bytes()].concat()
}

fn array(kind: u32, values: &[Vec<u8>]) -> Vec<u8> {
    [
        &kind.to_le_bytes(),
        &(values.len() as u64).to_le_bytes()[..],
        &values.concat(),
    ]
    .concat()
}

fn texts(values: &[&str]) -> Vec<u8> {
    array(
        8,
        &values.iter().map(|value| text(value)).collect::<Vec<_>>(),
    )
}

const U32: u32 = 4;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;
const U64: u32 = 10;

impl Made {
    /// Four 32-bit numbers of metadata short of a model: an empty but valid file.
    fn empty() -> Self {
        Self {
            version: 3,
            tensor_count: None,
            value_count: None,
            values: Vec::new(),
            tensors: Vec::new(),
            data: 0,
        }
    }

    /// One block of width 32 with one head, a vocabulary of 4: opens and loads.
    fn model() -> Self {
        let mut made = Self::empty()
            .with("general.architecture", TEXT, text("llama"))
            .with(
                "llama.attention.layer_norm_rms_epsilon",
                F32,
                1e-5_f32.to_le_bytes().into(),
            )
            .with("tokenizer.ggml.model", TEXT, text("gpt2"))
            .with("tokenizer.ggml.pre", TEXT, text("gpt-2"))
            .with(
                "tokenizer.ggml.tokens",
                ARRAY,
                texts(&["a", "b", "ab", "<|end|>"]),
            )
            .with("tokenizer.ggml.merges", ARRAY, texts(&["a b"]))
            .number("tokenizer.ggml.eos_token_id", 3);
        for (key, value) in [
            ("context_length", 64),
            ("embedding_length", 32),
            ("block_count", 1),
            ("feed_forward_length", 32),
            ("attention.head_count", 1),
            ("attention.head_count_kv", 1),
        ] {
            made = made.number(&format!("llama.{key}"), value);
        }
        made.tensor("token_embd.weight", &[32, 4], 0)
            .tensor("output_norm.weight", &[32], 0)
            .tensor("blk.0.attn_norm.weight", &[32], 0)
            .tensor("blk.0.ffn_norm.weight", &[32], 0)
            .tensor("blk.0.attn_q.weight", &[32, 32], 0)
            .tensor("blk.0.attn_k.weight", &[32, 32], 0)
            .tensor("blk.0.attn_v.weight", &[32, 32], 0)
            .tensor("blk.0.attn_output.weight", &[32, 32], 0)
            .tensor("blk.0.ffn_gate.weight", &[32, 32], 0)
            .tensor("blk.0.ffn_up.weight", &[32, 32], 0)
            .tensor("blk.0.ffn_down.weight", &[32, 32], 0)
    }

    /// Sets a metadata value.
    fn with(mut self, key: &str, kind: u32, bytes: Vec<u8>) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self.values.push((key.into(), kind, bytes));
        self
    }

    fn number(self, key: &str, value: u32) -> Self {
        self.with(key, U32, value.to_le_bytes().into())
    }

    fn without(mut self, key: &str) -> Self {
        self.values.retain(|(known, ..)| known != key);
        self.tensors.retain(|(known, ..)| known != key);
        self
    }

    /// Adds a tensor of f32, whatever its type says, behind the others.
    fn tensor(mut self, name: &str, dims: &[u64], kind: u32) -> Self {
        let offset = self.data as u64;
        let count = dims.iter().fold(1_u64, |a, b| a.wrapping_mul(*b));
        self.data += (count.min(4096) as usize * 4).next_multiple_of(32);
        self.tensors.push((name.into(), dims.into(), kind, offset));
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version.to_le_bytes());
        file.extend(
            self.tensor_count
                .unwrap_or(self.tensors.len() as u64)
                .to_le_bytes(),
        );
        file.extend(
            self.value_count
                .unwrap_or(self.values.len() as u64)
                .to_le_bytes(),
        );
        for (key, kind, bytes) in &self.values {
            file.extend(text(key));
            file.extend(kind.to_le_bytes());
            file.extend(bytes);
        }
        for (name, dims, kind, offset) in &self.tensors {
            file.extend(text(name));
            file.extend((dims.len() as u32).to_le_bytes());
            file.extend(dims.iter().flat_map(|dim| dim.to_le_bytes()));
            file.extend(kind.to_le_bytes());
            file.extend(offset.to_le_bytes());
        }
        file.resize(file.len().next_multiple_of(32) + self.data, 0);
        file
    }

    fn open(&self) -> Result<(), String> {
        open(&self.bytes())
    }

    /// The message of the error, its path left out.
    fn error(&self) -> String {
        self.open().expect_err("the file opened")
    }
}

/// Everything that is done with a file, down to logits for one token.
fn open(bytes: &[u8]) -> Result<(), String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.gguf");
    std::fs::write(&path, bytes).unwrap();
    let told = |error: &dyn std::fmt::Display| {
        let text = error.to_string();
        text.replace(&format!("{}: ", path.display()), "")
    };
    let files = ModelFiles::open(&path).map_err(|error| told(&error))?;
    if let Some(template) = &files.template {
        let _ = template.render(&[Message::new(Role::User, "hi")], true); // may refuse
    }
    let _ = files
        .tokenizer
        .encode_text("hello ▁ 2024")
        .map_err(|error| told(&error))?;
    let _ = files
        .tokenizer
        .decode(&[0, 1, 2, 300])
        .map_err(|error| told(&error))?;
    let options = LoadOptions::default();
    let loaded = files
        .load(options, &Device::flex())
        .map_err(|error| told(&error))?;
    let input =
        Tensor::<2, Int>::from_data(TensorData::new(vec![0_i64, 1], [1, 2]), &Device::flex());
    let _ = loaded.model.forward(input, None).into_data();
    Ok(())
}

#[test]
fn the_made_model_opens() {
    Made::model().open().unwrap();
    let mut older = Made::model();
    older.version = 2;
    older.open().unwrap();
}

#[test]
fn what_is_not_supported_is_refused_by_name() {
    let model = Made::model;
    let retyped = |kind: u32| {
        model()
            .without("output_norm.weight")
            .tensor("output_norm.weight", &[32], kind)
    };
    let cases = [
        (
            model().with("general.architecture", TEXT, text("gemma3")),
            "general.architecture is not supported: found `gemma3`; supported: llama",
        ),
        (
            model().number("llama.expert_count", 8),
            "llama.expert_count is not supported: found `8`; supported: 0",
        ),
        (
            model().with("llama.rope.scaling.type", TEXT, text("yarn")),
            "llama.rope.scaling.type is not supported: found `yarn`; supported: none, linear, or \
             the tensor rope_freqs.weight",
        ),
        (
            model().with("tokenizer.ggml.model", TEXT, text("t5")),
            "tokenizer.ggml.model is not supported: found `t5`; supported: gpt2, llama",
        ),
        (
            model().with("tokenizer.ggml.pre", TEXT, text("tekken")),
            "tokenizer.ggml.pre is not supported: found `tekken`; supported: smollm, gpt-2, \
             default, llama-bpe, llama3, llama-v3, qwen2",
        ),
        (
            model().tensor("blk.0.attn_q_norm.weight", &[32], 0),
            "a tensor name is not supported: found `blk.0.attn_q_norm.weight`; supported: the \
             tensors of Llama-family models",
        ),
        (
            retyped(10),
            "the type of tensor `output_norm.weight` is not supported: found `Q2_K`; supported: \
             F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
        ),
        (
            retyped(4096),
            "the type of tensor `output_norm.weight` is not supported: found `ggml type 4096`; \
             supported: F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K",
        ),
        (
            model().without("llama.block_count"),
            "metadata `llama.block_count` (a count) is missing",
        ),
        (
            model().with("llama.block_count", TEXT, text("one")),
            "metadata `llama.block_count` is Text(\"one\"); expected a count",
        ),
        (
            model().without("tokenizer.ggml.tokens"),
            "metadata `tokenizer.ggml.tokens` (a list) is missing",
        ),
        (
            model().with("tokenizer.ggml.merges", ARRAY, texts(&["ab"])),
            "metadata `tokenizer.ggml.merges` is an array; expected a list of pairs",
        ),
        (
            model().number("llama.block_count", 2),
            "tensor `model.layers.1.self_attn.q_proj.weight` is missing; nearest: \
             model.layers.0.self_attn.q_proj.weight",
        ),
        (
            model().number("llama.feed_forward_length", 64),
            "tensor `model.layers.0.mlp.gate_proj.weight` has shape [32, 32], the configuration \
             asks for [64, 32]",
        ),
        (
            model().tensor("rope_freqs.weight", &[16], 1),
            "the type of tensor `rope_freqs.weight` is not supported: found `F16`; supported: F32",
        ),
    ];
    for (made, message) in cases {
        assert_eq!(made.error(), message);
    }
}

#[test]
fn rope_scaling_is_read() {
    let scaling = |made: &Made| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made.gguf");
        std::fs::write(&path, made.bytes()).unwrap();
        ModelFiles::open(&path).unwrap().config.rope_scaling
    };
    let model = Made::model;
    assert_eq!(scaling(&model()), RopeScaling::Default);
    let none = model().with("llama.rope.scaling.type", TEXT, text("none"));
    assert_eq!(scaling(&none), RopeScaling::Default);
    let linear = model()
        .with("llama.rope.scaling.type", TEXT, text("linear"))
        .with(
            "llama.rope.scaling.factor",
            F32,
            2.5_f32.to_le_bytes().into(),
        );
    assert_eq!(scaling(&linear), RopeScaling::Linear { factor: 2.5 });
    let zeros = model().tensor("rope_freqs.weight", &[16], 0);
    assert!(
        zeros.error().contains("rope_freqs.weight"),
        "a divisor of 0 is refused"
    );
}

#[test]
fn biases_output_head_and_window_show_in_the_configuration() {
    let config = |made: &Made| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made.gguf");
        std::fs::write(&path, made.bytes()).unwrap();
        ModelFiles::open(&path).unwrap().config
    };
    let plain = config(&Made::model());
    assert!(plain.tie_word_embeddings && !plain.attention_bias && !plain.mlp_bias);
    assert_eq!(
        (plain.model_type.as_str(), plain.sliding_window),
        ("llama", None)
    );
    let mut made = Made::model()
        .number("llama.attention.sliding_window", 16)
        .tensor("output.weight", &[32, 4], 0);
    for module in [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_gate",
        "ffn_up",
        "ffn_down",
    ] {
        made = made.tensor(&format!("blk.0.{module}.bias"), &[32], 0);
    }
    let other = config(&made);
    assert!(!other.tie_word_embeddings && other.attention_bias && other.mlp_bias);
    assert_eq!(
        (other.model_type.as_str(), other.sliding_window),
        ("mistral", Some(16))
    );
    made.open().unwrap();
}

#[test]
fn impossible_headers_are_errors_that_say_what_was_seen() {
    let model = Made::model;
    let set = |change: &dyn Fn(&mut Made)| {
        let mut made = model();
        change(&mut made);
        made
    };
    let nested = |depth: usize| {
        let mut value = array(U32, &[vec![1, 0, 0, 0]]);
        for _ in 1..depth {
            value = array(ARRAY, &[value]);
        }
        model().with("nested", ARRAY, value)
    };
    let aligned = |value: u64| model().with("general.alignment", U64, value.to_le_bytes().into());
    let cases = [
        (
            set(&|m| m.version = 1),
            "the GGUF version is not supported: found `1`; supported: 2 and 3, little-endian",
        ),
        (
            set(&|m| m.version = 3_u32.swap_bytes()),
            "the GGUF version is not supported: found `3, big-endian`",
        ),
        (
            set(&|m| m.tensor_count = Some(u64::MAX)),
            "the number of tensors: the count at byte 8 is 18446744073709551615",
        ),
        (
            set(&|m| m.tensor_count = Some(1 << 40)),
            "the number of tensors: the count at byte 8 is 1099511627776",
        ),
        (
            set(&|m| m.value_count = Some(u64::MAX)),
            "the number of metadata entries: the count at byte 16 is 18446744073709551615",
        ),
        (
            set(&|m| m.value_count = Some(1 << 62)),
            "the number of metadata entries: the count at byte 16 is 4611686018427387904",
        ),
        (
            model().with("a", TEXT, u64::MAX.to_le_bytes().into()),
            "metadata `a`: the count at byte 645 is 18446744073709551615",
        ),
        (
            model().with("a", TEXT, (1_u64 << 33).to_le_bytes().into()),
            "metadata `a`: the count at byte 645 is 8589934592",
        ),
        (
            model().with("a", 13, vec![0; 8]),
            "metadata `a` has the unknown type 13",
        ),
        (model().with("a", ARRAY, array(13, &[])), ""), // an empty list of anything
        (nested(5), "metadata `nested` nests arrays more than 4 deep"),
        (
            nested(3000),
            "metadata `nested` nests arrays more than 4 deep",
        ),
        (
            model().with(
                "a",
                ARRAY,
                [&U32.to_le_bytes(), &u64::MAX.to_le_bytes()[..]].concat(),
            ),
            "metadata `a`: the count at byte 649 is 18446744073709551615",
        ),
        (
            model().with(
                "a",
                ARRAY,
                [&U32.to_le_bytes(), &(1_u64 << 61).to_le_bytes()[..]].concat(),
            ),
            "metadata `a`: the count at byte 649 is 2305843009213693952",
        ),
        (
            model().with(
                "a",
                TEXT,
                [&2_u64.to_le_bytes(), &[0xff, 0xfe][..]].concat(),
            ),
            "UTF-8",
        ),
        (aligned(0), "general.alignment is Unsigned(0)"),
        (aligned(3), "general.alignment is Unsigned(3)"),
        (aligned(1 << 63), "which begins at byte 9223372036854775808"),
        (aligned(1 << 62), "which begins at byte 4611686018427387904"),
        (
            set(&|m| {
                m.values
                    .push(("llama.block_count".into(), U32, vec![1, 0, 0, 0]));
            }),
            "metadata key `llama.block_count` at byte 632 is there twice",
        ),
        (
            model().tensor("output_norm.weight", &[32], 0),
            "tensor `output_norm.weight` is there twice",
        ),
        (
            model().tensor("output.weight", &[32, 0], 0),
            "tensor `output.weight` has an axis of length 0",
        ),
        (
            model().tensor("output.weight", &[], 0),
            "has 0 axes; 1 to 4 are possible",
        ),
        (
            model().tensor("output.weight", &[1; 5], 0),
            "has 5 axes; 1 to 4 are possible",
        ),
        (
            model().tensor("output.weight", &[1 << 32, 1 << 32], 0),
            "of type F32 has shape [4294967296, 4294967296]; expected",
        ),
        (
            model().tensor("output.weight", &[u64::MAX, 1], 0),
            "expected rows of a multiple of 1 and a size that fits into memory",
        ),
        (
            model().tensor("output.weight", &[1 << 62, 1], 0),
            "expected rows of a multiple of 1 and a size that fits into memory",
        ),
        (
            model().tensor("output.weight", &[31, 4], 2),
            "of type Q4_0 has shape [4, 31]; expected rows of a multiple of 32",
        ),
        (
            model().tensor("output.weight", &[32, 1 << 40], 0),
            "is it cut off?",
        ),
        (
            set(&|m| m.tensors[0].3 = u64::MAX),
            "lies at offset 18446744073709551615 of the data; expected a multiple of 32",
        ),
        (set(&|m| m.tensors[0].3 = u64::MAX - 31), "is it cut off?"),
        (set(&|m| m.tensors[0].3 = 1 << 63), "is it cut off?"),
        (
            set(&|m| m.tensors[0].1 = vec![4, 32]),
            "has shape [32, 4], the configuration asks for",
        ),
        (
            set(&|m| m.tensors[0].1 = vec![128]),
            "has shape [128], the configuration asks for",
        ),
    ];
    for (i, (made, message)) in cases.iter().enumerate() {
        match made.open() {
            Ok(()) => assert!(message.is_empty(), "case {i} opened, not: {message}"),
            Err(error) => assert!(
                !message.is_empty() && error.contains(message),
                "{i}: {error}"
            ),
        }
    }
    for bytes in [
        &b""[..],
        b"G",
        b"GGU",
        b"GGML",
        b"\x7fELF and much more",
        b"GGUF",
    ] {
        open(bytes).unwrap_err();
    }
}

#[test]
fn impossible_sizes_are_errors_and_ask_for_no_memory() {
    let keys = [
        "context_length",
        "embedding_length",
        "block_count",
        "feed_forward_length",
        "attention.head_count",
        "attention.head_count_kv",
        "attention.key_length",
        "rope.dimension_count",
        "attention.sliding_window",
        "vocab_size",
    ];
    for key in keys {
        for value in [
            0,
            1,
            2,
            3,
            1 << 20,
            u64::from(u32::MAX),
            1 << 40,
            1 << 62,
            1 << 63,
            u64::MAX,
        ] {
            let key = format!("llama.{key}");
            let made = Made::model().with(&key, U64, value.to_le_bytes().into());
            let _ = made.open(); // an error or, where the key is not used, success
        }
        for value in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
            let key = format!("llama.{key}");
            let _ = Made::model()
                .with(&key, F32, value.to_le_bytes().into())
                .open();
        }
    }
    for key in [
        "attention.layer_norm_rms_epsilon",
        "rope.freq_base",
        "rope.scaling.factor",
    ] {
        for value in [f32::NAN, f32::INFINITY, -1.0, 0.0] {
            let key = format!("llama.{key}");
            if key.ends_with("scaling.factor") && value == 0.0 {
                continue; // llama.cpp reads 0 as no scaling.
            }
            let linear = Made::model().with("llama.rope.scaling.type", TEXT, text("linear"));
            let opened = linear.with(&key, F32, value.to_le_bytes().into()).open();
            assert!(opened.is_err(), "{key} = {value}");
        }
    }
    for key in [
        "bos_token_id",
        "eos_token_id",
        "padding_token_id",
        "unknown_token_id",
    ] {
        for value in [4, u64::from(u32::MAX), u64::MAX] {
            let key = format!("tokenizer.ggml.{key}");
            let _ = Made::model()
                .with(&key, U64, value.to_le_bytes().into())
                .open();
        }
    }
}

#[test]
fn odd_tokenizers_are_errors_or_work() {
    let gpt2 = |tokens: &[&str], merges: &[&str]| {
        Made::model()
            .with("tokenizer.ggml.tokens", ARRAY, texts(tokens))
            .with("tokenizer.ggml.merges", ARRAY, texts(merges))
    };
    let _ = gpt2(&[], &[]).open();
    let _ = gpt2(&["", "", "", ""], &[" "]).open();
    let _ = gpt2(&["a", "a", "a", "a"], &["a a"]).open();
    let error = gpt2(&["a", "b", "c", "d"], &["a b"]).error();
    assert!(error.contains("its tokenizer cannot be built"), "{error}");
    let long = "a".repeat(2000);
    let scores = |values: &[f32]| {
        array(
            F32,
            &values
                .iter()
                .map(|value| value.to_le_bytes().into())
                .collect::<Vec<_>>(),
        )
    };
    let llama = |tokens: &[&str], values: &[f32]| {
        Made::model()
            .with("tokenizer.ggml.model", TEXT, text("llama"))
            .with("tokenizer.ggml.tokens", ARRAY, texts(tokens))
            .with("tokenizer.ggml.scores", ARRAY, scores(values))
    };
    let _ = llama(
        &[&long, "a", "aa", "b"],
        &[f32::NAN, 1.0, f32::INFINITY, 0.0],
    )
    .open();
    let _ = llama(&["<0x", "<0xZZ>", "<0x100>", "▁"], &[0.0; 4]).open();
    let error = llama(&["a", "b"], &[0.0]).error();
    assert!(error.contains("tokenizer.ggml.scores"), "{error}");
    for bos in ["$A", "$", ":", "a:b", "$B:1"] {
        let _ = gpt2(&["a", "b", "ab", bos], &["a b"])
            .number("tokenizer.ggml.bos_token_id", 3)
            .with("tokenizer.ggml.add_bos_token", 7, vec![1])
            .open();
    }
    let error = Made::model()
        .number("tokenizer.ggml.bos_token_id", 4)
        .with("tokenizer.ggml.add_bos_token", 7, vec![1])
        .error();
    assert!(error.contains("tokenizer.ggml.bos_token_id"), "{error}");
    let error = Made::model()
        .with("tokenizer.chat_template", TEXT, text("{% for %}"))
        .error();
    assert!(error.starts_with("chat template: "), "{error}");
}

#[test]
fn values_keep_their_types() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("made.gguf");
    let made = Made::empty()
        .with("general.architecture", TEXT, text("llama"))
        .with("u8", 0, vec![200])
        .with("i8", 1, vec![200])
        .with("i16", 3, (-300_i16).to_le_bytes().into())
        .with("i64", 11, i64::MIN.to_le_bytes().into())
        .with("u64", 10, u64::MAX.to_le_bytes().into())
        .with("f64", 12, 0.1_f64.to_le_bytes().into())
        .with("bool", 7, vec![1])
        .with(
            "list",
            ARRAY,
            array(ARRAY, &[texts(&["a", ""]), texts(&[])]),
        );
    std::fs::write(&path, made.bytes()).unwrap();
    let file = GgufFile::open(&path).unwrap();
    let text = |text: &str| GgufValue::Text(text.into());
    assert_eq!(file.value("u8"), Some(&GgufValue::Unsigned(200)));
    assert_eq!(file.value("i8"), Some(&GgufValue::Signed(-56)));
    assert_eq!(file.value("i16"), Some(&GgufValue::Signed(-300)));
    assert_eq!(file.value("i64").unwrap().as_usize(), None);
    assert_eq!(file.value("u64"), Some(&GgufValue::Unsigned(u64::MAX)));
    assert_eq!(file.value("f64"), Some(&GgufValue::Float(0.1)));
    assert_eq!(file.value("bool").unwrap().as_bool(), Some(true));
    let list = [
        GgufValue::Array(vec![text("a"), text("")]),
        GgufValue::Array(vec![]),
    ];
    assert_eq!(file.value("list").unwrap().as_array(), Some(&list[..]));
    assert_eq!(file.metadata().count(), 9);
    let error = file.tensor("model.norm.weight").unwrap_err().to_string();
    assert!(
        error.ends_with("tensor `model.norm.weight` is missing"),
        "{error}"
    );
}

// ---- damage ---------------------------------------------------------------------------------------

#[rstest::rstest]
#[case("sentencepiece.gguf")]
#[case("quants.gguf")]
fn a_truncated_file_is_an_error(#[case] name: &str) {
    let bytes = std::fs::read(fixture("gguf").join(name)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.gguf");
    // The last tensor may be followed by padding.
    let needed = bytes.len() - 31;
    for length in (0..needed).step_by(7) {
        std::fs::write(&path, &bytes[..length]).unwrap();
        let error = GgufFile::open(&path)
            .expect_err("a cut file opened")
            .to_string();
        assert!(error.starts_with(&path.display().to_string()), "{error}");
    }
}

#[test]
fn a_truncated_model_is_an_error() {
    let bytes = Made::model().bytes();
    for length in (0..bytes.len()).step_by(7) {
        open(&bytes[..length]).unwrap_err();
    }
}

#[test]
fn one_wrong_byte_never_causes_a_panic() {
    let mut generator = ChaCha8Rng::seed_from_u64(7);
    let sentence_piece = std::fs::read(fixture("gguf/sentencepiece.gguf")).unwrap();
    let quants = std::fs::read(fixture("gguf/quants.gguf")).unwrap();
    let template = "{% for m in messages %}{{ m['role'] ~ m.content | trim }}{% endfor %}";
    let made = Made::model()
        .with("tokenizer.chat_template", TEXT, text(template))
        .bytes();
    let header = made.len() - Made::model().data;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("damaged.gguf");
    let (mut opened, mut refused) = (0, 0);
    for round in 0..3000 {
        let (original, end) = match round % 3 {
            0 => (&made, header),
            1 => (&sentence_piece, sentence_piece.len()),
            _ => (&quants, 1500),
        };
        let mut bytes = original.clone();
        let at = generator.random_range(0..end);
        bytes[at] = match generator.random_range(0..4_u8) {
            0 => bytes[at] ^ (1 << generator.random_range(0..8_u8)),
            1 => 0,
            2 => 0xff,
            _ => generator.random(),
        };
        let result = if round % 3 == 0 {
            open(&bytes)
        } else {
            std::fs::write(&path, &bytes).unwrap();
            GgufFile::open(&path)
                .map_err(|error| error.to_string())
                .and_then(|file| {
                    let _ = file.config();
                    let _ = file.rope_freqs();
                    for name in file.tensor_names() {
                        let _ = file.tensor(&name);
                    }
                    let tokenizer = file.tokenizer().map_err(|error| error.to_string())?;
                    let _ = TextTokenizer::new(tokenizer).encode_text("the world →");
                    Ok(())
                })
        };
        match result {
            Ok(()) => opened += 1,
            Err(error) => {
                assert!(!error.is_empty());
                refused += 1;
            }
        }
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 100 && refused > 100);
}
