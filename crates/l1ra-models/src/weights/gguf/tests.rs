//! What files made elsewhere must give; `tests/fixtures/gguf/make_gguf.py` makes them.

mod damage;
mod made;

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use serde_json::{Value, json};

use super::*;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/gguf")
        .join(name)
}

fn open(name: &str) -> GgufFile {
    GgufFile::open(&fixture(name)).unwrap()
}

/// The numbers of a `.bin` fixture.
fn expected(name: &str) -> Vec<f32> {
    let bytes = std::fs::read(fixture(name)).unwrap();
    bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect()
}

fn numbers(tensor: &GgufTensor) -> Vec<f32> {
    let pairs = || tensor.bytes.as_chunks::<2>().0.iter();
    match tensor.dtype {
        GgufDType::F32 => tensor
            .bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|bytes| f32::from_le_bytes(*bytes))
            .collect(),
        GgufDType::F16 => pairs()
            .map(|bytes| f16::from_le_bytes(*bytes).to_f32())
            .collect(),
        GgufDType::BF16 => pairs()
            .map(|bytes| bf16::from_le_bytes(*bytes).to_f32())
            .collect(),
    }
}

/// Reads `names` one after the other and compares bits with a `.bin` fixture.
fn assert_tensors(file: &GgufFile, names: &[String], bin: &str) {
    let expected = expected(bin);
    let mut rest = expected.as_slice();
    for name in names {
        let tensor = file.tensor(name).unwrap();
        let seen = numbers(&tensor);
        assert_eq!(seen.len(), tensor.shape.iter().product::<usize>(), "{name}");
        let (these, others) = rest.split_at(seen.len());
        let differs = seen
            .iter()
            .zip(these)
            .position(|(a, b)| a.to_bits() != b.to_bits());
        assert_eq!(differs, None, "{name}: {:?}", file.tensor_info(name));
        rest = others;
    }
    assert_eq!(rest, [0.0_f32; 0]);
}

#[test]
fn every_type_decodes_to_the_reference_s_bits() {
    let file = open("types.gguf");
    let name = |i: usize, part: &str| format!("model.layers.{i}.mlp.{part}_proj.weight");
    let names: Vec<_> = (0..8)
        .map(|i| name(i, "up"))
        .chain((0..8).map(|i| name(i, "down")))
        .collect();
    assert_tensors(&file, &names, "types.bin");
    assert_eq!(
        file.tensor_info(&names[15]),
        Some(([3, 512].as_slice(), GgmlType::Q6_K))
    );
}

#[test]
fn q_and_k_come_back_in_hugging_face_s_row_order() {
    let file = open("permuted.gguf");
    let name = |i: usize, part: &str| format!("model.layers.{i}.self_attn.{part}");
    let mut names = Vec::new();
    for i in 0..3 {
        names.extend([name(i, "q_proj.weight"), name(i, "k_proj.weight")]);
    }
    names.extend([name(0, "q_proj.bias"), name(0, "k_proj.bias")]);
    assert_tensors(&file, &names, "permuted.bin");
    assert_eq!(
        file.tensor(&name(1, "q_proj.weight")).unwrap().dtype,
        GgufDType::F16
    );
}

#[test]
fn a_whole_model_is_described_as_config_json_would() {
    let file = open("tiny.gguf");
    let expected = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama",
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "vocab_size": 33,
        "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "rope_scaling": null, "sliding_window": null, "tie_word_embeddings": true,
        "attention_bias": false, "mlp_bias": false, "hidden_act": "silu",
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
    });
    assert_eq!(file.config().unwrap(), expected);
    assert_eq!(file.rope_freqs().unwrap(), Some(vec![1.0, 1.0, 4.0, 8.0]));
    assert_eq!(file.chat_template(), Some("{{ messages[0]['content'] }}"));
    let special = file.special_tokens();
    assert_eq!(
        (special.bos, special.unk, special.add_bos),
        (Some(1), Some(0), Some(true))
    );
    assert_eq!(file.tensor_names().len(), 11);
}

#[test]
fn byte_level_text_becomes_ids_and_text_again() {
    let tokenizer = open("tiny.gguf").tokenizer().unwrap();
    let ids = |text: &str, special| tokenizer.encode(text, special).unwrap().get_ids().to_vec();
    assert_eq!(ids("ab a", false), [30, 31]);
    // smollm takes digits one by one: `12` is in the vocabulary and is not made.
    assert_eq!(ids("12", false), [20, 21]);
    assert_eq!(ids("a</s>", true), [1, 3, 2]);
    assert_eq!(tokenizer.decode(&[1, 30, 31, 2], true).unwrap(), "ab a");
}

#[test]
fn sentencepiece_text_becomes_the_ids_of_sentencepiece() {
    let tokenizer = open("spm.gguf").tokenizer().unwrap();
    let cases: Value =
        serde_json::from_slice(&std::fs::read(fixture("spm.json")).unwrap()).unwrap();
    for case in cases.as_array().unwrap() {
        let text = case["text"].as_str().unwrap();
        let encoding = tokenizer.encode(text, false).unwrap();
        assert_eq!(json!(encoding.get_ids()), case["ids"], "{text:?}");
        assert_eq!(
            tokenizer.decode(encoding.get_ids(), true).unwrap(),
            text.replace('▁', " ")
        );
    }
    // The file does not say whether a text begins with `<s>`; for this kind it does.
    let ids = tokenizer
        .encode("the river", true)
        .unwrap()
        .get_ids()
        .to_vec();
    assert_eq!(ids[0], 1);
    assert_eq!(
        tokenizer.encode("<tool>", false).unwrap().get_ids().len(),
        1
    );
}

/// SmolLM2-135M-Instruct, Q4_1: `L1RA_SMOLLM2` names the file or its folder, `L1RA_SMOLLM2_CONFIG`
/// its `config.json`; without them there is nothing to do.
#[test]
fn smollm2_is_read() {
    let Some(path) = std::env::var_os("L1RA_SMOLLM2").map(PathBuf::from) else {
        return;
    };
    let inside = std::fs::read_dir(&path).into_iter().flatten();
    let mut inside = inside.map(|entry| entry.unwrap().path());
    let path = inside
        .find(|path| path.extension().is_some_and(|e| e == "gguf"))
        .unwrap_or(path);
    let file = GgufFile::open(&path).unwrap();
    let tokenizer = file.tokenizer().unwrap();
    let ids = tokenizer
        .encode("Hello world 2024!", true)
        .unwrap()
        .get_ids()
        .to_vec();
    assert_eq!(ids, [19556, 905, 216, 34, 32, 34, 36, 17]);
    let start = std::time::Instant::now();
    let tensors = file
        .tensor_names()
        .into_iter()
        .map(|name| file.tensor(&name).unwrap());
    let bytes: usize = tensors.map(|tensor| tensor.bytes.len()).sum();
    eprintln!("{bytes} bytes decoded in {:?}", start.elapsed());
    assert_eq!(bytes, 134_515_008 * 4);
    let Some(config) = std::env::var_os("L1RA_SMOLLM2_CONFIG") else {
        return;
    };
    let expected: Value = serde_json::from_slice(&std::fs::read(config).unwrap()).unwrap();
    let seen = file.config().unwrap();
    for (key, value) in expected.as_object().unwrap() {
        match seen.get(key) {
            Some(seen) => assert_eq!(seen, value, "{key}"),
            None => eprintln!("only in config.json: {key} = {value}"),
        }
    }
}
