//! Model weights in safetensors: one file, shards with an index, a whole folder.

use std::path::Path;

use ::safetensors::{Dtype, tensor::TensorView};
use l1ra_models::{
    inspect,
    weights::{SafetensorsFiles, WeightSource},
};

use crate::{
    damage::{Shell, with_header},
    format::{Crafted, Format, Outcome, Seed, run, run_crafted, write_fuzz_seed},
};

const FILE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const CONFIG: &str = r#"{"model_type": "llama", "hidden_size": 4, "intermediate_size": 6,
    "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 8,
    "tie_word_embeddings": true}"#;

/// The tensors of a model of [`CONFIG`].
fn tensors() -> Vec<(String, Vec<usize>)> {
    let block = [
        ("self_attn.q_proj", vec![4, 4]),
        ("self_attn.k_proj", vec![2, 4]),
        ("self_attn.v_proj", vec![2, 4]),
        ("self_attn.o_proj", vec![4, 4]),
        ("mlp.gate_proj", vec![6, 4]),
        ("mlp.up_proj", vec![6, 4]),
        ("mlp.down_proj", vec![4, 6]),
        ("input_layernorm", vec![4]),
        ("post_attention_layernorm", vec![4]),
    ];
    let block = block.map(|(name, shape)| (format!("model.layers.0.{name}.weight"), shape));
    let ends = [
        ("model.embed_tokens.weight".to_string(), vec![8, 4]),
        ("model.norm.weight".to_string(), vec![4]),
    ];
    block.into_iter().chain(ends).collect()
}

pub(crate) fn file(tensors: &[(String, Vec<usize>)], dtype: Dtype) -> Vec<u8> {
    let size = if dtype == Dtype::F32 { 4 } else { 2 };
    let bytes = vec![0x3c; 4 * 1024];
    let views = tensors.iter().map(|(name, shape)| {
        let length = shape.iter().product::<usize>() * size;
        let view = TensorView::new(dtype, shape.clone(), &bytes[..length]).unwrap();
        (name.as_str(), view)
    });
    ::safetensors::serialize(views, None).unwrap()
}

fn load(dir: &Path) -> Outcome {
    if dir.join("config.json").is_file() {
        let _ = inspect(dir)?.to_string();
    }
    let files = SafetensorsFiles::open(dir)?;
    for name in files.names() {
        let _ = (files.shape(&name), files.stored_type(&name));
        let read = files.read(&name)?;
        let _ = read.dtype.decode(&read.bytes);
    }
    Ok(())
}

fn format() -> Format {
    let all = tensors();
    let (first, second) = all.split_at(5);
    let map: Vec<String> = all
        .iter()
        .enumerate()
        .map(|(at, (name, _))| format!("\"{name}\": \"{}.safetensors\"", ["a", "b"][at / 5 % 2]))
        .collect();
    // The second half of the names is in the second file.
    let map = map.join(", ").replace(
        "a.safetensors\", \"model.embed",
        "b.safetensors\", \"model.embed",
    );
    let index = format!("{{\"metadata\": {{\"total_size\": 600}}, \"weight_map\": {{{map}}}}}");
    let (first, second) = (file(first, Dtype::F32), file(second, Dtype::BF16));
    let mut format = Format::new("safetensors", load);
    // A tensor is copied out, and its values are made 32 bits wide.
    format.factor = 4;
    format.inputs = 2000;
    format.seeds = vec![
        Seed::new(Shell::Safetensors, FILE, file(&all, Dtype::F32)),
        Seed::new(Shell::Safetensors, FILE, file(&all, Dtype::F16)).beside("config.json", CONFIG),
        Seed::new(Shell::Text, INDEX, index.clone())
            .beside("a.safetensors", first.clone())
            .beside("b.safetensors", second.clone()),
        Seed::new(Shell::Safetensors, "b.safetensors", second)
            .beside(INDEX, index)
            .beside("a.safetensors", first),
    ];
    format
}

#[test]
fn safetensors() {
    run(format);
}

fn crafted() -> Crafted {
    let raw = |header: &str, data: &[u8]| {
        Seed::new(
            Shell::Safetensors,
            FILE,
            with_header(header.as_bytes(), data),
        )
    };
    let entry =
        |at: usize| format!("\"{at}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}");
    let many: Vec<String> = (0..4000).map(entry).collect();
    let axes = vec!["1"; 20_000].join(",");
    let wide = format!("{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{axes}],\"data_offsets\":[0,4]}}}}");
    (
        format(),
        vec![
            ("an empty file", Seed::new(Shell::Binary, FILE, "")),
            (
                "a length and no more",
                Seed::new(Shell::Binary, FILE, vec![255; 8]),
            ),
            ("nested lists", raw(&"[".repeat(100_000), b"")),
            (
                "many tensors of nothing",
                raw(&format!("{{{}}}", many.join(",")), b""),
            ),
            ("a tensor of many axes", raw(&wide, &[0; 4])),
            (
                "a shape that overflows",
                raw(
                    "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4],\"data_offsets\":[0,0]}}",
                    b"",
                ),
            ),
            (
                "an index that names itself",
                Seed::new(
                    Shell::Text,
                    INDEX,
                    format!("{{\"weight_map\": {{\"a\": \"{INDEX}\"}}}}"),
                ),
            ),
            (
                "an index with a path",
                Seed::new(Shell::Text, INDEX, "{\"weight_map\": {\"a\": \"../a\"}}"),
            ),
            (
                "an index of nested lists",
                Seed::new(Shell::Text, INDEX, "[".repeat(1_000_000)),
            ),
        ],
    )
}

#[test]
fn safetensors_crafted() {
    run_crafted(crafted);
}

pub(crate) fn fuzz_seeds() {
    let (all, one) = (tensors(), [("a".to_string(), vec![2, 2])]);
    write_fuzz_seed("safetensors", "model", &file(&all, Dtype::F32));
    write_fuzz_seed("safetensors", "halves", &file(&one, Dtype::F16));
    write_fuzz_seed("safetensors", "nothing", &with_header(b"{}", b""));
}
