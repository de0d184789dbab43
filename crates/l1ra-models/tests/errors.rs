//! Every message of the model loaders, as it is printed: file, place, what was seen, what was
//! expected.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use l1ra_models::{ChatTemplate, Message, ModelFiles, Role};
use serde_json::{Value, json};
use tempfile::TempDir;

const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// A name, and what is done to a file.
type Damage<'a> = (&'a str, &'a dyn Fn(&mut Vec<u8>));

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// The folder of a small model with a tokenizer.
fn model() -> TempDir {
    let dir = TempDir::new().unwrap();
    let tiny = fixture("../../tests/fixtures/tiny-llama");
    for name in ["config.json", WEIGHTS] {
        fs::copy(tiny.join(name), dir.path().join(name)).unwrap();
    }
    let vocab: Value = (0..256)
        .map(|id| (format!("t{id}"), Value::from(id)))
        .collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"}
    });
    write(dir.path(), "tokenizer.json", tokenizer.to_string());
    dir
}

/// What is said of `path` within `dir`, which is written as `[dir]`.
fn told(dir: &Path, path: &Path) -> String {
    let opened = ModelFiles::open(path).and_then(|files| files.check());
    let error = opened.unwrap_err();
    assert!(error.is_users_mistake(), "{error}");
    error
        .to_string()
        .replace(&dir.display().to_string(), "[dir]")
}

/// What is said of the model after `spoil`.
fn said(spoil: impl FnOnce(&Path)) -> String {
    let dir = model();
    spoil(dir.path());
    told(dir.path(), dir.path())
}

type Case<'a> = (&'a str, &'a dyn Fn(&Path));

/// The messages of a table of damages, each under its name.
fn table(cases: &[Case<'_>]) -> String {
    let case = |(name, spoil): &Case<'_>| format!("{name}:\n  {}", said(spoil));
    cases.iter().map(case).collect::<Vec<_>>().join("\n")
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(dir.join(name), content).unwrap();
}

fn remove(dir: &Path, name: &str) {
    fs::remove_file(dir.join(name)).unwrap();
}

fn cut(dir: &Path, name: &str, length: usize) {
    let bytes = fs::read(dir.join(name)).unwrap();
    write(dir, name, &bytes[..length]);
}

/// Sets a key of a JSON file.
fn set(dir: &Path, name: &str, key: &str, value: Value) {
    let bytes = fs::read(dir.join(name)).unwrap();
    let mut object: Value = serde_json::from_slice(&bytes).unwrap();
    object[key] = value;
    write(dir, name, object.to_string());
}

/// Edits header and data of a safetensors file.
fn edit(dir: &Path, name: &str, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let bytes = fs::read(dir.join(name)).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let mut data = bytes[8 + length..].to_vec();
    change(&mut header, &mut data);
    write_parts(dir, name, &header.to_string(), &data);
}

fn write_parts(dir: &Path, name: &str, header: &str, data: &[u8]) {
    let length = (header.len() as u64).to_le_bytes();
    write(dir, name, [&length[..], header.as_bytes(), data].concat());
}

#[test]
fn folders() {
    let dir = TempDir::new().unwrap();
    write(dir.path(), "a.bin", "weights");
    let mut lines = vec![
        told(dir.path(), &dir.path().join("absent")),
        told(dir.path(), &dir.path().join("a.bin")),
        told(dir.path(), dir.path()),
    ];
    write(dir.path(), "a.gguf", "");
    write(dir.path(), "b.gguf", "");
    lines.push(told(dir.path(), dir.path()));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn config() {
    let text = |text: &'static str| move |dir: &Path| write(dir, "config.json", text);
    let with = |key: &'static str, value: Value| {
        move |dir: &Path| set(dir, "config.json", key, value.clone())
    };
    let rope = |scaling: Value| with("rope_scaling", scaling);
    insta::assert_snapshot!(table(&[
        ("no JSON", &text("model_type: llama")),
        ("cut off", &text("{\"model_type\": \"llama\",\n")),
        ("a list", &text("[]")),
        ("lists without end", &|dir| write(
            dir,
            "config.json",
            "[".repeat(100_000)
        )),
        ("40 MB", &|dir| write(
            dir,
            "config.json",
            " ".repeat(40 << 20)
        )),
        (
            "a key twice",
            &text("{\"model_type\": \"llama\", \"hidden_size\": 8, \"hidden_size\": 9}")
        ),
        ("no family", &with("model_type", json!(null))),
        ("another family", &with("model_type", json!("gpt2"))),
        (
            "a key that is missing",
            &text("{\"model_type\": \"llama\"}")
        ),
        (
            "layers without number",
            &with("num_hidden_layers", json!(1_000_000_000_000_u64))
        ),
        ("layers below zero", &with("num_hidden_layers", json!(-2))),
        ("a width with a fraction", &with("hidden_size", json!(64.5))),
        ("a width as a text", &with("hidden_size", json!("64"))),
        ("a width of zero", &with("hidden_size", json!(0))),
        ("heads of zero", &with("head_dim", json!(0))),
        ("no heads", &with("num_attention_heads", json!(0))),
        (
            "more keys than heads",
            &with("num_key_value_heads", json!(8))
        ),
        (
            "a vocabulary of 2^63",
            &with("vocab_size", json!(1_u64 << 63))
        ),
        ("a head of 2^64 - 2", &with("head_dim", json!(u64::MAX - 1))),
        ("a product beyond all numbers", &|dir| {
            for key in ["num_attention_heads", "num_key_value_heads", "head_dim"] {
                set(dir, "config.json", key, json!(1 << 24));
            }
        }),
        ("more parameters than memory", &|dir| {
            for key in ["hidden_size", "intermediate_size"] {
                set(dir, "config.json", key, json!(1 << 23));
            }
        }),
        ("an activation", &with("hidden_act", json!("gelu"))),
        (
            "a quantisation",
            &with("quantization_config", json!({"quant_method": "awq"}))
        ),
        ("an epsilon of zero", &with("rms_norm_eps", json!(0))),
        ("a base below zero", &with("rope_theta", json!(-1))),
        ("a scaling as a text", &rope(json!("linear"))),
        ("a scaling of no kind", &rope(json!({"rope_type": 3}))),
        ("an unknown scaling", &rope(json!({"rope_type": "yarn"}))),
        (
            "a scaling without factor",
            &rope(json!({"rope_type": "linear"}))
        ),
        (
            "a scaling with a factor of zero",
            &rope(json!({"rope_type": "linear", "factor": 0}))
        ),
        (
            "a ramp without width",
            &rope(json!({
                "rope_type": "llama3", "factor": 8, "low_freq_factor": 4, "high_freq_factor": 4,
                "original_max_position_embeddings": 8192
            }))
        ),
        (
            "an end that is no token",
            &with("eos_token_id", json!([2, "</s>"]))
        ),
        (
            "another vocabulary than the weights'",
            &with("vocab_size", json!(300))
        ),
        (
            "more layers than the weights",
            &with("num_hidden_layers", json!(3))
        ),
        (
            "fewer layers than the weights",
            &with("num_hidden_layers", json!(1))
        ),
    ]));
}

#[test]
fn safetensors() {
    let header =
        |change: fn(&mut Value)| move |dir: &Path| edit(dir, WEIGHTS, |header, _| change(header));
    insta::assert_snapshot!(table(&[
        ("no weights", &|dir| remove(dir, WEIGHTS)),
        ("empty", &|dir| write(dir, WEIGHTS, "")),
        ("no safetensors", &|dir| write(
            dir,
            WEIGHTS,
            "<html>404 Not Found</html>"
        )),
        ("cut within the header", &|dir| cut(dir, WEIGHTS, 100)),
        ("cut within the data", &|dir| cut(dir, WEIGHTS, 20_000)),
        ("a header beyond the file", &|dir| {
            let mut bytes = fs::read(dir.join(WEIGHTS)).unwrap();
            bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
            write(dir, WEIGHTS, bytes);
        }),
        ("a header that is no UTF-8", &|dir| {
            let mut bytes = fs::read(dir.join(WEIGHTS)).unwrap();
            bytes[12] = 0xff;
            write(dir, WEIGHTS, bytes);
        }),
        ("lists without end", &|dir| write_parts(
            dir,
            WEIGHTS,
            &"[".repeat(100_000),
            &[]
        )),
        (
            "an entry that is none",
            &header(|h| h[EMBEDDING] = json!(3))
        ),
        (
            "an entry without shape",
            &header(|h| h[EMBEDDING] = json!({"dtype": "F32"}))
        ),
        (
            "an unknown type",
            &header(|h| h[EMBEDDING]["dtype"] = json!("F31"))
        ),
        (
            "a shape larger than its bytes",
            &header(|h| h[EMBEDDING]["shape"] = json!([256, 65]))
        ),
        (
            "a shape of terabytes",
            &header(|h| h[EMBEDDING]["shape"] = json!([1_u64 << 40, 64]))
        ),
        (
            "a shape beyond all numbers",
            &header(|h| h[EMBEDDING]["shape"] = json!([1_u64 << 40, 1_u64 << 40]))
        ),
        (
            "an end before the beginning",
            &header(|h| {
                let [start, end] = offsets(h, EMBEDDING);
                h[EMBEDDING]["data_offsets"] = json!([end, start]);
            })
        ),
        (
            "tensors over one another",
            &header(|h| {
                h["model.norm.weight"]["data_offsets"] = h[EMBEDDING]["data_offsets"].clone();
                h["model.norm.weight"]["shape"] = h[EMBEDDING]["shape"].clone();
            })
        ),
        ("something after the tensors", &|dir| edit(
            dir,
            WEIGHTS,
            |_, data| data.extend([0; 9])
        )),
        ("a tensor twice", &|dir| {
            let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
            write_parts(
                dir,
                WEIGHTS,
                &format!("{{\"a\":{empty},\"a\":{empty}}}"),
                &[],
            );
        }),
        (
            "a tensor that is missing",
            &header(|h| rename(h, "model.norm.weight", "model.norm.bias"))
        ),
        (
            "a tensor of another name",
            &header(|h| rename(h, EMBEDDING, "transformer.wte.weight"))
        ),
        (
            "a name that clears the screen",
            &header(|h| {
                rename(h, EMBEDDING, "\u{1b}[2J");
                h["\u{1b}[2J"]["shape"] = json!([1]);
            })
        ),
        (
            "another shape",
            &header(|h| h[EMBEDDING]["shape"] = json!([64, 256]))
        ),
    ]));
}

fn offsets(header: &Value, name: &str) -> [u64; 2] {
    serde_json::from_value(header[name]["data_offsets"].clone()).unwrap()
}

fn rename(header: &mut Value, from: &str, to: &str) {
    let entry = header.as_object_mut().unwrap().shift_remove(from).unwrap();
    header[to] = entry;
}

/// What is said on reading a tensor of a type that no model is kept in.
#[test]
fn a_type_of_no_model() {
    let dir = model();
    edit(dir.path(), WEIGHTS, |header, _| {
        header[EMBEDDING]["dtype"] = json!("I32");
    });
    let files = ModelFiles::open(dir.path()).unwrap();
    let error = files.weights().read(EMBEDDING).unwrap_err().to_string();
    insta::assert_snapshot!(error.replace(&dir.path().display().to_string(), "[dir]"));
}

#[test]
fn shards() {
    /// The weights as one shard of this name, with an index over it.
    fn shard(dir: &Path, index: &str) {
        fs::rename(dir.join(WEIGHTS), dir.join("a.safetensors")).unwrap();
        write(dir, INDEX, index);
    }
    let index = |text: &'static str| move |dir: &Path| shard(dir, text);
    insta::assert_snapshot!(table(&[
        ("no JSON", &index("{")),
        ("no map", &index("{}")),
        ("a list for a map", &index("{\"weight_map\": []}")),
        ("an empty map", &index("{\"weight_map\": {}}")),
        (
            "a path outside",
            &index("{\"weight_map\": {\"a\": \"../../etc/passwd\"}}")
        ),
        (
            "an absolute path",
            &index("{\"weight_map\": {\"a\": \"/etc/passwd\"}}")
        ),
        (
            "a path below",
            &index("{\"weight_map\": {\"a\": \"b/a.safetensors\"}}")
        ),
        (
            "the folder above",
            &index("{\"weight_map\": {\"a\": \"..\"}}")
        ),
        (
            "a number for a name",
            &index("{\"weight_map\": {\"a\": 3}}")
        ),
        (
            "a shard that is missing",
            &index("{\"weight_map\": {\"a\": \"b.safetensors\"}}")
        ),
        ("a shard that is cut off", &|dir| {
            shard(dir, "{\"weight_map\": {\"a\": \"a.safetensors\"}}");
            cut(dir, "a.safetensors", 20_000);
        }),
        ("a tensor in two shards", &|dir| {
            shard(
                dir,
                "{\"weight_map\": {\"a\": \"a.safetensors\", \"b\": \"b.safetensors\"}}",
            );
            fs::copy(dir.join("a.safetensors"), dir.join("b.safetensors")).unwrap();
        }),
    ]));
}

#[test]
fn tokenizer() {
    let file = |name: &'static str, text: &'static str| move |dir: &Path| write(dir, name, text);
    let config = |text: &'static str| file("tokenizer_config.json", text);
    insta::assert_snapshot!(table(&[
        ("none", &|dir| remove(dir, "tokenizer.json")),
        ("no JSON", &file("tokenizer.json", "{")),
        ("an empty object", &file("tokenizer.json", "{}")),
        (
            "an unknown model",
            &file("tokenizer.json", "{\"model\": {\"type\": \"GPT\"}}")
        ),
        ("a template with a token of no kind", &|dir| {
            let processor = json!({
                "type": "TemplateProcessing", "pair": [], "special_tokens": {},
                "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}]
            });
            set(dir, "tokenizer.json", "post_processor", processor);
        }),
        ("a configuration that is no JSON", &config("{")),
        ("a configuration that is a list", &config("[]")),
        ("a token that is a number", &config("{\"bos_token\": 3}")),
        (
            "a token without content",
            &config("{\"eos_token\": {\"lstrip\": true}}")
        ),
        (
            "a template that is a number",
            &config("{\"chat_template\": 3}")
        ),
        (
            "templates without names",
            &config("{\"chat_template\": [{\"template\": \"a\"}]}")
        ),
        (
            "an end that is a text",
            &file("generation_config.json", "{\"eos_token_id\": \"2\"}")
        ),
        (
            "an end beyond all tokens",
            &file("generation_config.json", "{\"eos_token_id\": 4294967296}")
        ),
    ]));
}

#[test]
fn chat_templates() {
    let jinja = |text: &'static str| move |dir: &Path| write(dir, "chat_template.jinja", text);
    insta::assert_snapshot!(table(&[
        (
            "a block that does not end",
            &jinja("a\n{% if messages %}\nb")
        ),
        ("a block of no name", &jinja("a\n\n{% whlie true %}")),
        ("an expression that is none", &jinja("{{ messages[ }}")),
        ("no UTF-8", &|dir| write(
            dir,
            "chat_template.jinja",
            b"ab\xff"
        )),
        ("2 MB", &|dir| write(
            dir,
            "chat_template.jinja",
            "a".repeat(2 << 20)
        )),
        ("50 MB", &|dir| write(
            dir,
            "chat_template.jinja",
            "a".repeat(50 << 20)
        )),
        ("brackets without end", &|dir| {
            write(
                dir,
                "chat_template.jinja",
                format!("{{{{ {}", "[".repeat(10_000)),
            );
        }),
        ("one of several in the configuration", &|dir| {
            let text =
                "{\"chat_template\": [{\"name\": \"default\", \"template\": \"\\n{% if %}\"}]}";
            write(dir, "tokenizer_config.json", text);
        }),
    ]));
}

#[test]
fn conversations() {
    let said = |source: &str| {
        let template = ChatTemplate::new(source, "<s>", "</s>").unwrap();
        let messages = [Message::new(Role::User, "Hi")];
        template.render(&messages, true).unwrap_err().to_string()
    };
    let cases = [
        ("refused", "{{ raise_exception('roles must alternate') }}"),
        ("an unknown function", "\n{{ strftime('%Y') }}"),
        ("an unknown filter", "\n\n{{ messages|shuffle }}"),
        ("an unknown method", "{{ 'a'.encode() }}"),
        ("a key of nothing", "{{ tools[0].name }}"),
        (
            "a loop without end",
            "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}",
        ),
        (
            "a text that doubles",
            "{% set n = namespace(a='ab') %}{% for i in range(60) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        ),
        ("a long range", "{{ range(10 ** 12) }}"),
        ("a long text", "{{ 'a' * 10 ** 12 }}"),
        (
            "a macro that calls itself",
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        ),
        ("a file", "{% include '/etc/passwd' %}"),
        ("another template", "{% extends 'base' %}"),
        ("a day in another notation", "{{ strftime_now('%c') }}"),
    ];
    let lines = cases.map(|(case, source)| format!("{case}:\n  {}", said(source)));
    insta::assert_snapshot!(lines.join("\n"));
}

// ---- GGUF ---------------------------------------------------------------------------------------

/// Where the value of a metadata key begins, after its type.
fn value(file: &[u8], key: &str) -> usize {
    let length = (key.len() as u64).to_le_bytes();
    place(file, &[&length[..], key.as_bytes()].concat()) + 8 + key.len() + 4
}

/// Where the number of axes of a tensor stands.
fn axes(file: &[u8], name: &str) -> usize {
    let length = (name.len() as u64).to_le_bytes();
    place(file, &[&length[..], name.as_bytes()].concat()) + 8 + name.len()
}

fn place(file: &[u8], bytes: &[u8]) -> usize {
    file.windows(bytes.len())
        .position(|window| window == bytes)
        .unwrap()
}

fn put(at: usize, file: &mut [u8], bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Writes one name for another of the same length.
fn swap(file: &mut [u8], from: &str, to: &str) {
    assert_eq!(from.len(), to.len());
    let at = place(file, from.as_bytes());
    put(at, file, to.as_bytes());
}

#[test]
fn gguf() {
    let whole = fs::read(fixture("tests/fixtures/gguf/tiny.gguf")).unwrap();
    let said = |change: &dyn Fn(&mut Vec<u8>)| {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("m.gguf");
        let mut file = whole.clone();
        change(&mut file);
        fs::write(&path, file).unwrap();
        told(dir.path(), &path)
    };
    let number = |key: &'static str, number: u32| {
        move |file: &mut Vec<u8>| put(value(file, key), file, &number.to_le_bytes())
    };
    let float = |key: &'static str, number: f32| {
        move |file: &mut Vec<u8>| put(value(file, key), file, &number.to_le_bytes())
    };
    let kind = |key: &'static str, kind: u32| {
        move |file: &mut Vec<u8>| put(value(file, key) - 4, file, &kind.to_le_bytes())
    };
    let other =
        |from: &'static str, to: &'static str| move |file: &mut Vec<u8>| swap(file, from, to);
    let at = |at: usize, bytes: &'static [u8]| move |file: &mut Vec<u8>| put(at, file, bytes);
    let cases: &[Damage<'_>] = &[
        ("empty", &|file| file.clear()),
        ("another magic", &at(0, b"GGML")),
        ("version 1", &at(4, &[1, 0, 0, 0])),
        ("big-endian", &at(4, &[0, 0, 0, 3])),
        ("tensors without number", &at(8, &[0xff; 8])),
        ("keys without number", &at(16, &[0xff; 8])),
        ("cut within a key", &|file| file.truncate(40)),
        ("cut within a list", &|file| file.truncate(700)),
        ("cut within the tensors", &|file| file.truncate(1600)),
        ("cut within the data", &|file| file.truncate(9000)),
        ("a key without end", &at(24, &[0xff; 8])),
        ("a key that is no UTF-8", &at(33, &[0xff])),
        (
            "a key twice",
            &other("llama.context_length", "general.architecture"),
        ),
        ("an unknown type of a value", &kind("llama.block_count", 13)),
        ("a truth value of 2", &|file| {
            put(value(file, "tokenizer.ggml.add_bos_token"), file, &[2]);
        }),
        ("a list without end", &|file| {
            put(value(file, "tokenizer.ggml.tokens") + 4, file, &[0xff; 8]);
        }),
        ("a list of nothing known", &|file| {
            put(
                value(file, "tokenizer.ggml.tokens"),
                file,
                &99_u32.to_le_bytes(),
            );
        }),
        ("another architecture", &other("llama\u{c}", "qwen2\u{c}")),
        (
            "a key that is missing",
            &other("llama.block_count", "llama.block_cound"),
        ),
        ("a float for a count", &kind("llama.block_count", 6)),
        (
            "layers without number",
            &number("llama.block_count", u32::MAX),
        ),
        ("no heads", &number("llama.attention.head_count", 0)),
        ("a head of zero", &number("llama.rope.dimension_count", 0)),
        (
            "an epsilon that is none",
            &float("llama.attention.layer_norm_rms_epsilon", f32::NAN),
        ),
        ("a base below zero", &float("llama.rope.freq_base", -1.0)),
        (
            "a begin beyond the vocabulary",
            &number("tokenizer.ggml.bos_token_id", 33),
        ),
        ("an unknown tokenizer", &other("gpt2", "bert")),
        ("an unknown pre-tokenizer", &other("smollm", "viking")),
        (
            "no merges",
            &other("tokenizer.ggml.merges", "tokenizer.ggml.mergez"),
        ),
        (
            "no tokens",
            &other("tokenizer.ggml.tokens", "tokenizer.ggml.tokenz"),
        ),
        (
            "a template that is none",
            &other("{{ messages", "{% messages"),
        ),
        (
            "an unknown tensor",
            &other("blk.0.attn_q.weight", "blk.0.attn_x.weight"),
        ),
        (
            "a tensor twice",
            &other("blk.0.attn_k.weight", "blk.0.attn_v.weight"),
        ),
        (
            "a tensor that is missing",
            &other("blk.0.attn_q.weight", "blk.1.attn_q.weight"),
        ),
        ("no axes", &|file| {
            put(axes(file, "blk.0.attn_q.weight"), file, &[0]);
        }),
        ("nine axes", &|file| {
            put(axes(file, "blk.0.attn_q.weight"), file, &[9]);
        }),
        ("an axis of zero", &|file| {
            put(axes(file, "blk.0.attn_q.weight") + 4, file, &[0; 8]);
        }),
        ("a row that is no whole block", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 4,
                file,
                &33_u64.to_le_bytes(),
            );
        }),
        ("a shape of exabytes", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 4,
                file,
                &(1_u64 << 60).to_le_bytes(),
            );
        }),
        ("a shape beyond all numbers", &|file| {
            put(axes(file, "blk.0.attn_q.weight") + 4, file, &[0xff; 8]);
        }),
        ("a type that is not read", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 20,
                file,
                &10_u32.to_le_bytes(),
            );
        }),
        ("an unknown type of a tensor", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 20,
                file,
                &99_u32.to_le_bytes(),
            );
        }),
        ("an offset beside the alignment", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 24,
                file,
                &1313_u64.to_le_bytes(),
            );
        }),
        ("an offset beyond the file", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 24,
                file,
                &(1_u64 << 40).to_le_bytes(),
            );
        }),
        ("tensors over one another", &|file| {
            put(
                axes(file, "blk.0.attn_q.weight") + 24,
                file,
                &1952_u64.to_le_bytes(),
            );
        }),
        ("a divisor of zero", &|file| {
            let data = file.len() - 7328;
            assert!(data.is_multiple_of(32));
            put(data + 1280, file, &0_f32.to_le_bytes());
        }),
    ];
    let case = |(name, change): &Damage<'_>| format!("{name}:\n  {}", said(change));
    let lines: Vec<String> = cases.iter().map(case).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
