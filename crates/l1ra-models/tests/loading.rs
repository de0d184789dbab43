//! Hugging Face folders load in every lay-out and stored type with the same logits, what is wrong
//! with one is told in one message, and damage never causes a panic.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use l1ra_core::{GatedLora, Init, init::SeededNoise, target::AdapterSpec};
use l1ra_models::{
    CausalLm, LoadOptions, ModelConfig, ModelError, TextTokenizer, load_model,
    weights::{
        SafetensorsFiles, Storage, StoredTensor, StoredType, WeightSource, build_model,
        save_weights,
    },
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/tiny-llama")
        .join(name)
}

type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn tiny() -> Tensors {
    let bytes = std::fs::read(fixture("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensor = |(name, view): (&str, TensorView<'_>)| {
        (
            name.to_string(),
            (view.shape().to_vec(), floats(view.data())),
        )
    };
    file.iter().map(tensor).collect()
}

fn tiny_config() -> Value {
    serde_json::from_slice(&std::fs::read(fixture("config.json")).unwrap()).unwrap()
}

/// Writes tensors as a safetensors file.
fn write(path: &Path, tensors: &Tensors, dtype: Dtype) {
    let bytes = |values: &[f32]| -> Vec<u8> {
        let each = |value: &f32| match dtype {
            Dtype::F32 => value.to_le_bytes().to_vec(),
            Dtype::F16 => half::f16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::BF16 => half::bf16::from_f32(*value).to_le_bytes().to_vec(),
            Dtype::I64 => (*value as i64).to_le_bytes().to_vec(),
            other => panic!("{other:?}"),
        };
        values.iter().flat_map(each).collect()
    };
    let stored: Vec<(&String, &Vec<usize>, Vec<u8>)> = tensors
        .iter()
        .map(|(name, (shape, values))| (name, shape, bytes(values)))
        .collect();
    let views = stored.iter().map(|(name, shape, bytes)| {
        (
            name.as_str(),
            TensorView::new(dtype, shape.to_vec(), bytes).unwrap(),
        )
    });
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A folder with a tokenizer; `config.json` and weights as they are given.
fn folder(config: &Value, tensors: &Tensors, dtype: Dtype) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let vocab: BTreeMap<String, u32> = (0..256).map(|id| (format!("t{id}"), id)).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"}
    });
    std::fs::write(dir.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    write(&dir.path().join("model.safetensors"), tensors, dtype);
    dir
}

fn tiny_folder() -> TempDir {
    folder(&tiny_config(), &tiny(), Dtype::F32)
}

fn load(dir: &Path, storage: Storage) -> Result<CausalLm, String> {
    load_model(dir, LoadOptions { storage }, &Device::flex())
        .map(|loaded| loaded.model)
        .map_err(|error| {
            error
                .to_string()
                .replace(&dir.display().to_string(), "[DIR]")
        })
}

fn error(dir: &Path) -> String {
    load(dir, Storage::F32).expect_err("the folder loaded")
}

/// The golden ids and transformers' logits for them.
fn golden() -> (Tensor<2, Int>, Vec<f32>) {
    let bytes = std::fs::read(fixture("golden.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor("input_ids").unwrap();
    let ids = view
        .data()
        .chunks_exact(8)
        .map(|b| i64::from_le_bytes(b.try_into().unwrap()));
    let data = TensorData::new(ids.collect::<Vec<_>>(), [view.shape()[0], view.shape()[1]]);
    let ids = Tensor::from_data(data, &Device::flex());
    (ids, floats(file.tensor("logits").unwrap().data()))
}

fn logits(model: &CausalLm) -> Vec<f32> {
    model
        .forward(golden().0, None)
        .into_data()
        .try_into_vec()
        .unwrap()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// Splits a folder's weights into two shards with an index, as transformers writes them.
fn shard(dir: &Path, tensors: &Tensors) {
    std::fs::remove_file(dir.join("model.safetensors")).unwrap();
    let names = [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ];
    let mut shards = [Tensors::new(), Tensors::new()];
    let mut map = serde_json::Map::new();
    for (i, (name, tensor)) in tensors.iter().enumerate() {
        shards[i % 2].insert(name.clone(), tensor.clone());
        map.insert(name.clone(), json!(names[i % 2]));
    }
    for (name, tensors) in names.iter().zip(&shards) {
        write(&dir.join(name), tensors, Dtype::F32);
    }
    write_index(
        dir,
        &json!({"metadata": {"total_size": 1}, "weight_map": map}),
    );
}

fn write_index(dir: &Path, index: &Value) {
    std::fs::write(dir.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

// ---- lay-outs -----------------------------------------------------------------------------------

#[test]
fn a_folder_loads_with_transformers_logits() {
    let dir = tiny_folder();
    let loaded = load_model(dir.path(), LoadOptions::default(), &Device::flex()).unwrap();
    assert!(largest_difference(&logits(&loaded.model), &golden().1) < 1e-4);
    assert_eq!(loaded.tokenizer.encode("t7 t9").unwrap(), [7, 9]);
    assert_eq!(loaded.tokenizer.bos, Some(1));
    assert_eq!(loaded.tokenizer.eos, [2].into());
    assert!(loaded.template.is_none());
}

#[test]
fn special_tokens_and_template_come_from_the_files_beside() {
    let dir = tiny_folder();
    let template = "{% for m in messages %}{{ m.content }}{{ eos_token }}{% endfor %}";
    let config = json!({
        "bos_token": "t5", "eos_token": {"content": "t6"}, "pad_token": null,
        "chat_template": [{"name": "other", "template": ""}, {"name": "default", "template": template}]
    });
    std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    let generation = json!({"eos_token_id": [2, 8]}).to_string();
    std::fs::write(dir.path().join("generation_config.json"), generation).unwrap();
    let render = || {
        let loaded = load_model(dir.path(), LoadOptions::default(), &Device::flex()).unwrap();
        let message = l1ra_models::Message::new(l1ra_models::Role::User, "hi");
        (
            loaded.tokenizer,
            loaded.template.unwrap().render(&[message], false).unwrap(),
        )
    };
    let (tokenizer, text) = render();
    assert_eq!((tokenizer.bos, tokenizer.pad), (Some(5), None));
    assert_eq!(tokenizer.eos, [2, 6, 8].into());
    assert_eq!(text, "hit6");
    std::fs::write(dir.path().join("chat_template.jinja"), "{{ bos_token }}!\n").unwrap();
    assert_eq!(render().1, "t5!");
}

#[test]
fn shards_load_with_the_same_logits() {
    let whole = tiny_folder();
    let sharded = tiny_folder();
    shard(sharded.path(), &tiny());
    let [whole, sharded] =
        [whole, sharded].map(|dir| logits(&load(dir.path(), Storage::F32).unwrap()));
    assert_eq!(whole, sharded);
}

#[rstest::rstest]
#[case(Dtype::F32, 1e-4, 0.3, 0.05)]
#[case(Dtype::F16, 0.02, 0.3, 0.05)]
#[case(Dtype::BF16, 0.2, 0.3, 0.3)]
fn every_stored_type_loads_into_every_storage(
    #[case] stored: Dtype,
    #[case] f32: f32,
    #[case] bf16: f32,
    #[case] f16: f32,
) {
    let dir = folder(&tiny_config(), &tiny(), stored);
    let as_stored = match stored {
        Dtype::F16 => f16,
        Dtype::BF16 => bf16,
        _ => f32,
    };
    let cases = [
        (Storage::F32, f32),
        (Storage::BF16, bf16),
        (Storage::F16, f16),
        (Storage::AsStored, as_stored),
    ];
    let wanted = golden().1;
    for (storage, tolerance) in cases {
        let model = load(dir.path(), storage).unwrap();
        let difference = largest_difference(&logits(&model), &wanted);
        println!("{stored:?} as {storage:?}: logits differ by {difference:.2e}");
        assert!(
            difference < tolerance,
            "{stored:?} as {storage:?}: {difference}"
        );
        let kept = FloatDType::from(model.model.embed_tokens.weight.val().dtype());
        let base = match (storage, stored) {
            (Storage::F32, _) | (Storage::AsStored, Dtype::F32) => FloatDType::F32,
            (Storage::BF16, _) | (Storage::AsStored, Dtype::BF16) => FloatDType::BF16,
            _ => FloatDType::F16,
        };
        assert_eq!(model.base_type(), base);
        // bf16 in f32 says nothing more than bf16.
        let expected = match (storage, stored) {
            (Storage::F32, Dtype::BF16) => FloatDType::BF16,
            _ => base,
        };
        assert_eq!(kept, expected);
        let norm = FloatDType::from(model.model.norm.gamma.val().dtype());
        assert_eq!(norm, FloatDType::F32, "norms are f32 in any case");
    }
}

/// A file in bf16 and the same numbers in f32, in which that file would be read: the same model.
#[test]
fn what_is_kept_in_bf16_is_multiplied_as_f32() {
    let narrow = folder(&tiny_config(), &tiny(), Dtype::BF16);
    let files = SafetensorsFiles::open(narrow.path()).unwrap();
    let wide = Widened(files);
    let config = ModelConfig::from_file(&narrow.path().join("config.json")).unwrap();
    let models = [
        load(narrow.path(), Storage::F32).unwrap(),
        build_model(&wide, &config, Storage::F32, &Device::flex()).unwrap(),
    ];
    let kept = models
        .each_ref()
        .map(|model| FloatDType::from(model.model.embed_tokens.weight.val().dtype()));
    assert_eq!(kept, [FloatDType::BF16, FloatDType::F32]);
    let [seen, wanted] = models.each_ref().map(logits);
    let difference = largest_difference(&seen, &wanted);
    assert!(difference < 1e-5, "{difference}");

    // Folding an adapter in does not round the sum to 16 bits.
    let [mut first, _] = models;
    let mut layer = first.model.layers.remove(0).self_attn.q_proj;
    layer.adapter = Some(GatedLora::init(
        &AdapterSpec {
            path: "q".into(),
            rank: 2,
            initial_rank: 2,
            alpha: 2.0,
        },
        layer.dims()[0],
        layer.dims()[1],
        (0.0, Init::Gaussian),
        &SeededNoise::new(1),
        &Device::flex(),
    ));
    let before = layer.weight.val().dtype();
    let undo = layer.merge().unwrap();
    assert_eq!(layer.weight.val().dtype(), DType::F32);
    layer.unmerge(undo);
    assert_eq!(layer.weight.val().dtype(), before);
}

/// Weights in f32, whatever the files hold.
#[derive(Debug)]
struct Widened(SafetensorsFiles);

impl WeightSource for Widened {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn names(&self) -> Vec<String> {
        self.0.names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.0.shape(name)
    }

    fn read(&self, name: &str) -> Result<StoredTensor, ModelError> {
        let stored = self.0.read(name)?;
        let values = stored.dtype.decode(&stored.bytes);
        Ok(StoredTensor {
            bytes: StoredType::F32.encode(&values),
            dtype: StoredType::F32,
            ..stored
        })
    }
}

#[test]
fn the_head_may_be_the_embedding() {
    let (mut config, mut tensors) = (tiny_config(), tiny());
    let embedding = tensors["model.embed_tokens.weight"].clone();
    tensors.insert("lm_head.weight".into(), embedding);
    let untied = load(folder(&config, &tensors, Dtype::F32).path(), Storage::F32).unwrap();
    assert!(untied.lm_head.is_some());
    config["tie_word_embeddings"] = json!(true);
    let spare = load(folder(&config, &tensors, Dtype::F32).path(), Storage::F32).unwrap();
    tensors.remove("lm_head.weight");
    let tied = load(folder(&config, &tensors, Dtype::F32).path(), Storage::F32).unwrap();
    assert!(spare.lm_head.is_none() && tied.lm_head.is_none());
    let wanted = logits(&untied);
    assert!(largest_difference(&logits(&tied), &wanted) < 1e-5);
    assert!(largest_difference(&logits(&spare), &wanted) < 1e-5);
}

/// Tensors of tiny-llama with a bias on every projection, drawn by `value`.
fn with_biases(mut value: impl FnMut() -> f32) -> (Value, Tensors) {
    let mut config = tiny_config();
    config["attention_bias"] = json!(true);
    config["mlp_bias"] = json!(true);
    let mut tensors = tiny();
    let weights: Vec<(String, usize)> = tensors
        .iter()
        .filter(|(name, _)| name.contains("_proj.weight"))
        .map(|(name, (shape, _))| (name.replace(".weight", ".bias"), shape[0]))
        .collect();
    assert_eq!(weights.len(), 14);
    for (name, length) in weights {
        tensors.insert(name, (vec![length], (0..length).map(|_| value()).collect()));
    }
    (config, tensors)
}

#[test]
fn biases_are_used() {
    let (config, tensors) = with_biases(|| 0.0);
    let zero = load(folder(&config, &tensors, Dtype::F32).path(), Storage::F32).unwrap();
    assert!(largest_difference(&logits(&zero), &golden().1) < 1e-4);

    let mut generator = ChaCha8Rng::seed_from_u64(3);
    let (config, tensors) = with_biases(|| generator.random_range(-0.5..0.5));
    let model = load(folder(&config, &tensors, Dtype::F32).path(), Storage::F32).unwrap();
    assert!(largest_difference(&logits(&model), &golden().1) > 0.1);
    // Each of them: y = W x + b, by hand, for one x.
    let block = &model.model.layers[1];
    let (attention, mlp) = (&block.self_attn, &block.mlp);
    let linears = [
        ("self_attn.q_proj", &attention.q_proj),
        ("self_attn.k_proj", &attention.k_proj),
        ("self_attn.v_proj", &attention.v_proj),
        ("self_attn.o_proj", &attention.o_proj),
        ("mlp.gate_proj", &mlp.gate_proj),
        ("mlp.up_proj", &mlp.up_proj),
        ("mlp.down_proj", &mlp.down_proj),
    ];
    for (name, linear) in linears {
        let (shape, weight) = &tensors[&format!("model.layers.1.{name}.weight")];
        let (_, bias) = &tensors[&format!("model.layers.1.{name}.bias")];
        let x: Vec<f32> = (0..shape[1]).map(|i| (i as f32 * 0.37).sin()).collect();
        let product = |row: &[f32]| row.iter().zip(&x).map(|(w, x)| w * x).sum::<f32>();
        let rows = weight.chunks_exact(shape[1]).zip(bias);
        let wanted: Vec<f32> = rows.map(|(row, bias)| product(row) + bias).collect();
        let data = TensorData::new(x.clone(), [1, shape[1]]);
        let y = linear.forward(Tensor::<2>::from_data(data, &Device::flex()));
        let y = y.into_data().try_into_vec::<f32>().unwrap();
        assert!(largest_difference(&y, &wanted) < 1e-4, "{name}");
    }
}

#[test]
fn what_is_saved_loads_again() {
    for biased in [false, true] {
        let (config, tensors) = if biased {
            with_biases(|| 0.25)
        } else {
            (tiny_config(), tiny())
        };
        let dir = folder(&config, &tensors, Dtype::F32);
        let model = load(dir.path(), Storage::F32).unwrap();
        let again = tiny_folder();
        std::fs::write(again.path().join("config.json"), config.to_string()).unwrap();
        save_weights(&model, FloatDType::F32, again.path()).unwrap();
        let bytes = std::fs::read(again.path().join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.len(), tensors.len());
        for (name, view) in file.iter() {
            let (shape, values) = &tensors[name];
            assert_eq!(view.shape(), shape, "{name}");
            assert_eq!(&floats(view.data()), values, "{name}");
        }
        let loaded = load(again.path(), Storage::F32).unwrap();
        assert_eq!(logits(&loaded), logits(&model));
        for (dtype, tolerance) in [(FloatDType::F16, 0.02), (FloatDType::BF16, 0.2)] {
            save_weights(&model, dtype, again.path()).unwrap();
            let loaded = load(again.path(), Storage::F32).unwrap();
            assert!(largest_difference(&logits(&loaded), &logits(&model)) < tolerance);
        }
        assert!(!again.path().join("model.safetensors.tmp").exists());
    }
    let model = load(tiny_folder().path(), Storage::F32).unwrap();
    let nowhere = tempfile::tempdir().unwrap();
    let error = save_weights(&model, FloatDType::F32, &nowhere.path().join("absent")).unwrap_err();
    assert!(
        error.to_string().contains("absent/model.safetensors: "),
        "{error}"
    );
}

// ---- what is told --------------------------------------------------------------------------------

/// The message for tiny-llama with its tensors changed.
fn error_of_tensors(change: impl FnOnce(&mut Tensors)) -> String {
    let mut tensors = tiny();
    change(&mut tensors);
    error(folder(&tiny_config(), &tensors, Dtype::F32).path())
}

/// The message for tiny-llama with its configuration changed.
fn error_of_config(key: &str, value: Value) -> String {
    let mut config = tiny_config();
    config[key] = value;
    error(folder(&config, &tiny(), Dtype::F32).path())
}

#[test]
fn wrong_tensors_are_told_by_name() {
    let missing = error_of_tensors(|tensors| {
        tensors.remove("model.layers.1.mlp.up_proj.weight");
    });
    insta::assert_snapshot!(missing, @"[DIR]: tensor `model.layers.1.mlp.up_proj.weight` is missing; nearest: model.layers.0.mlp.up_proj.weight");
    let alone = error_of_tensors(|tensors| {
        tensors.remove("lm_head.weight");
    });
    insta::assert_snapshot!(alone, @"[DIR]: tensor `lm_head.weight` is missing (the file holds 20 others)");
    let shape = error_of_tensors(|tensors| {
        tensors
            .get_mut("model.layers.0.self_attn.k_proj.weight")
            .unwrap()
            .0 = vec![64, 32];
    });
    insta::assert_snapshot!(shape, @"[DIR]: tensor `model.layers.0.self_attn.k_proj.weight` has shape [64, 32], the configuration asks for [32, 64]");
    let axes = error_of_tensors(|tensors| {
        tensors.get_mut("model.norm.weight").unwrap().0 = vec![1, 64];
    });
    insta::assert_snapshot!(axes, @"[DIR]: tensor `model.norm.weight` has shape [1, 64], the configuration asks for [64]");
    let extra = error_of_tensors(|tensors| {
        tensors.insert(
            "model.layers.0.self_attn.q_norm.weight".into(),
            (vec![1], vec![1.0]),
        );
        tensors.insert(
            "model.layers.2.mlp.up_proj.weight".into(),
            (vec![1], vec![1.0]),
        );
    });
    insta::assert_snapshot!(extra, @"[DIR]: a model with 2 tensors that its configuration does not mention is not supported: found `model.layers.0.self_attn.q_norm.weight, model.layers.2.mlp.up_proj.weight`; supported: files whose every tensor is used (is config.json the right one?)");
    let bias = error_of_config("attention_bias", json!(true));
    insta::assert_snapshot!(bias, @"[DIR]: tensor `model.layers.0.self_attn.q_proj.bias` is missing; nearest: model.layers.0.self_attn.q_proj.weight, model.layers.1.self_attn.q_proj.weight");
    let integers = error(folder(&tiny_config(), &tiny(), Dtype::I64).path());
    insta::assert_snapshot!(integers, @"[DIR]/model.safetensors: the type of tensor `model.embed_tokens.weight` is not supported: found `I64`; supported: F32, F16, BF16");
    // Older files carry the frequencies; they are computed here.
    let mut tensors = tiny();
    let name = "model.layers.0.self_attn.rotary_emb.inv_freq";
    tensors.insert(name.into(), (vec![8], vec![0.0; 8]));
    load(
        folder(&tiny_config(), &tensors, Dtype::F32).path(),
        Storage::F32,
    )
    .unwrap();
}

#[test]
fn missing_files_are_told() {
    let nothing = tempfile::tempdir().unwrap();
    insta::assert_snapshot!(error(nothing.path()), @"[DIR]: holds neither config.json nor a .gguf file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
    insta::assert_snapshot!(error(&nothing.path().join("absent")), @"[DIR]: no such file or folder; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
    let without = |name: &str| {
        let dir = tiny_folder();
        std::fs::remove_file(dir.path().join(name)).unwrap();
        error(dir.path())
    };
    insta::assert_snapshot!(without("tokenizer.json"), @"[DIR]: holds no tokenizer.json; this model comes without a tokenizer (tokenizer.model files must be converted first)");
    insta::assert_snapshot!(without("model.safetensors"), @"[DIR]: holds neither model.safetensors nor model.safetensors.index.json (weights in .bin files must be converted first)");
    insta::assert_snapshot!(without("config.json"), @"[DIR]: holds neither config.json nor a .gguf file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
    // A file that is no GGUF.
    let dir = tiny_folder();
    let file = dir.path().join("model.safetensors");
    insta::assert_snapshot!(error(&file), @"[DIR]: is no GGUF file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
}

#[test]
fn wrong_shards_are_told() {
    let sharded = || {
        let dir = tiny_folder();
        shard(dir.path(), &tiny());
        dir
    };
    let dir = sharded();
    std::fs::remove_file(dir.path().join("model-00002-of-00002.safetensors")).unwrap();
    insta::assert_snapshot!(error(dir.path()), @"[DIR]/model-00002-of-00002.safetensors: is missing; model.safetensors.index.json lists it (is the download complete?)");
    let dir = sharded();
    let twice = Tensors::from([("lm_head.weight".to_string(), (vec![1], vec![1.0]))]);
    write(
        &dir.path().join("model-00002-of-00002.safetensors"),
        &twice,
        Dtype::F32,
    );
    insta::assert_snapshot!(error(dir.path()), @"[DIR]/model-00002-of-00002.safetensors: tensor `lm_head.weight` is also in model-00001-of-00002.safetensors; expected it in one of the shards");
    let indexed = |index: Value| {
        let dir = sharded();
        write_index(dir.path(), &index);
        error(dir.path())
    };
    let outside = indexed(json!({"weight_map": {"a": "../x"}}));
    insta::assert_snapshot!(outside, @r#"[DIR]/model.safetensors.index.json: tensor `a` is in "../x"; expected the name of a file beside it"#);
    for name in ["/etc/passwd", "sub/x.safetensors", "..", ".", "", "x/"] {
        let message = indexed(json!({"weight_map": {"a": name}}));
        assert!(
            message.ends_with("expected the name of a file beside it"),
            "{name}: {message}"
        );
    }
    insta::assert_snapshot!(indexed(json!({"weight_map": {"a": 1}})), @"[DIR]/model.safetensors.index.json: tensor `a` is in 1; expected the name of a file beside it");
    // The column depends on how serde_json was built.
    let list = indexed(json!({"weight_map": []}));
    let (list, _) = list.split_once(" at line 1 column ").unwrap();
    insta::assert_snapshot!(list, @"[DIR]/model.safetensors.index.json: is no list of shards: `weight_map`: invalid type: sequence, expected a map");
    insta::assert_snapshot!(indexed(json!({"weight_map": {}})), @"[DIR]/model.safetensors.index.json: its `weight_map` is empty; expected a file name for every tensor");
    let dir = sharded();
    std::fs::write(dir.path().join("model.safetensors.index.json"), "{").unwrap();
    insta::assert_snapshot!(error(dir.path()), @"[DIR]/model.safetensors.index.json: is not JSON: EOF while parsing an object at line 1 column 1");
}

#[test]
fn damaged_files_are_told() {
    let with = |name: &str, bytes: &[u8]| {
        let dir = tiny_folder();
        std::fs::write(dir.path().join(name), bytes).unwrap();
        error(dir.path())
    };
    let whole = std::fs::read(fixture("model.safetensors")).unwrap();
    insta::assert_snapshot!(with("model.safetensors", &whole[..whole.len() - 1]), @"[DIR]/model.safetensors: tensor `model.norm.weight` ends at byte 427264 of the data, and the file has 427263 (is it cut off? fetch it again)");
    insta::assert_snapshot!(with("model.safetensors", b""), @"[DIR]/model.safetensors: has 0 bytes; a safetensors file begins with 8 that hold the length of its header");
    insta::assert_snapshot!(with("model.safetensors", &[0xff; 64]), @"[DIR]/model.safetensors: its first 8 bytes say that its header has 18446744073709551615 bytes; the file has 56 after them, and a header 100000000 at most (is it cut off, or no safetensors file?)");
    insta::assert_snapshot!(with("config.json", b"model_type: llama"), @"[DIR]/config.json: is not JSON: expected value at line 1 column 1");
    insta::assert_snapshot!(with("config.json", b"[]"), @"[DIR]/config.json: is no model config: invalid length 0, expected struct Family with 1 element at line 1 column 2");
    insta::assert_snapshot!(with("tokenizer.json", b"{}"), @"[DIR]/tokenizer.json: is no tokenizer: missing field `model` at line 1 column 2");
    insta::assert_snapshot!(with("tokenizer_config.json", b"{"), @"[DIR]/tokenizer_config.json: is not JSON: EOF while parsing an object at line 1 column 1");
    insta::assert_snapshot!(with("chat_template.jinja", b"{% if %}"), @"[DIR]/chat_template.jinja: chat template: syntax error: unexpected end of block (line 1)");
    let deep = "[".repeat(100_000);
    let message = with("config.json", deep.as_bytes());
    assert!(
        message.contains("is not JSON: recursion limit exceeded"),
        "{message}"
    );
}

#[test]
fn options_that_are_not_supported_are_told() {
    let of = error_of_config;
    insta::assert_snapshot!(of("model_type", json!("qwen3")), @"[DIR]/config.json: model_type is not supported: found `qwen3`; supported: llama, mistral");
    insta::assert_snapshot!(of("hidden_act", json!("gelu")), @"[DIR]/config.json: hidden_act is not supported: found `gelu`; supported: silu");
    insta::assert_snapshot!(of("rope_scaling", json!({"rope_type": "yarn", "factor": 2.0})), @"[DIR]/config.json: rope scaling is not supported: found `yarn`; supported: default, linear, llama3");
    insta::assert_snapshot!(of("rope_scaling", json!({"rope_type": "linear"})), @"[DIR]/config.json: `rope_scaling.factor` is missing; expected a positive number");
    insta::assert_snapshot!(of("quantization_config", json!({"quant_method": "awq"})), @"[DIR]/config.json: quantization_config is not supported: found `awq`; supported: unquantised safetensors, or a GGUF file");
    insta::assert_snapshot!(of("partial_rotary_factor", json!(0.5)), @"[DIR]/config.json: partial_rotary_factor is not supported: found `0.5`; supported: 1");
    insta::assert_snapshot!(of("pretraining_tp", json!(2)), @"[DIR]/config.json: pretraining_tp is not supported: found `2`; supported: 1");
    insta::assert_snapshot!(of("num_key_value_heads", json!(3)), @"[DIR]/config.json: sizes do not fit together: hidden_size 64, intermediate_size 128, num_hidden_layers 2, num_attention_heads 4, num_key_value_heads 3, vocab_size 256; all must be positive and heads a multiple of key/value heads");
    insta::assert_snapshot!(of("hidden_size", json!(0)), @"[DIR]/config.json: sizes do not fit together: hidden_size 0, intermediate_size 128, num_hidden_layers 2, num_attention_heads 4, num_key_value_heads 2, vocab_size 256; all must be positive and heads a multiple of key/value heads");
    insta::assert_snapshot!(of("hidden_size", json!(-1)), @"[DIR]/config.json: is no model config: `hidden_size`: invalid value: integer `-1`, expected usize at line 1 column 161");
    insta::assert_snapshot!(of("head_dim", json!(15)), @"[DIR]/config.json: head_dim is not supported: found `15`; supported: even numbers");
    insta::assert_snapshot!(of("rms_norm_eps", json!(0.0)), @"[DIR]/config.json: rms_norm_eps = 0: a positive number");
    insta::assert_snapshot!(of("rope_theta", json!(-1.0)), @"[DIR]/config.json: rope_theta = -1: a positive number");
    insta::assert_snapshot!(of("num_hidden_layers", json!(4_000_000_000_u64)), @"[DIR]/config.json: num_hidden_layers = 4000000000: at most 1024 is possible");
    insta::assert_snapshot!(of("head_dim", json!(u64::MAX - 1)), @"[DIR]/config.json: head_dim = 18446744073709551614: at most 16777216 is possible");
    insta::assert_snapshot!(of("vocab_size", json!(300)), @"[DIR]: tensor `model.embed_tokens.weight` has shape [256, 64], the configuration asks for [300, 64]");
}

#[test]
fn a_template_that_would_panic_is_refused() {
    let opened = |single: Value, nested: bool| {
        let template = json!({
            "type": "TemplateProcessing", "single": single, "pair": [],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}
        });
        let sequence = json!({"type": "Sequence", "processors": [template.clone()]});
        let dir = tiny_folder();
        let path = dir.path().join("tokenizer.json");
        let mut tokenizer: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        tokenizer["post_processor"] = if nested { sequence } else { template };
        std::fs::write(&path, tokenizer.to_string()).unwrap();
        TextTokenizer::from_dir(dir.path())
            .map(|tokenizer| tokenizer.encode_text("t7 t9").unwrap())
            .map_err(|error| error.to_string())
    };
    let text = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
    let token = |id: &str| json!({"SpecialToken": {"id": id, "type_id": 0}});
    for nested in [false, true] {
        let good = opened(json!([token("<s>"), text("A")]), nested);
        assert_eq!(good.unwrap(), [1, 7, 9]);
        let pair = opened(json!([text("A"), text("B")]), nested).unwrap_err();
        assert!(pair.ends_with("one text holds sequence \"B\""), "{pair}");
        let lost = opened(json!([token("</s>"), text("A")]), nested).unwrap_err();
        assert!(
            lost.ends_with("holds `</s>`, which its special tokens lack"),
            "{lost}"
        );
    }
}

// ---- damage -------------------------------------------------------------------------------------

/// tiny-llama without its second block: small enough to load some hundred times.
fn small() -> (Value, Tensors) {
    let mut config = tiny_config();
    config["num_hidden_layers"] = json!(1);
    let mut tensors = tiny();
    tensors.retain(|name, _| !name.starts_with("model.layers.1."));
    (config, tensors)
}

#[test]
fn truncated_files_never_cause_a_panic() {
    let (config, tensors) = small();
    let dir = folder(&config, &tensors, Dtype::BF16);
    for (name, step) in [
        ("model.safetensors", 911),
        ("config.json", 7),
        ("tokenizer.json", 41),
    ] {
        let path = dir.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let header = if name == "model.safetensors" { 1200 } else { 0 };
        let lengths = (0..header)
            .step_by(37)
            .chain((header..whole.len()).step_by(step));
        let mut count = 0;
        for length in lengths {
            std::fs::write(&path, &whole[..length]).unwrap();
            assert!(
                error(dir.path()).starts_with("[DIR]"),
                "{name} cut at {length}"
            );
            count += 1;
        }
        println!("{name}: {count} lengths");
        std::fs::write(&path, &whole).unwrap();
    }
    load(dir.path(), Storage::F32).unwrap();
}

#[test]
fn flipped_bits_never_cause_a_panic() {
    let (config, tensors) = small();
    let dir = folder(&config, &tensors, Dtype::BF16);
    let mut generator = ChaCha8Rng::seed_from_u64(11);
    let (mut opened, mut refused) = (0, 0);
    let ids = TensorData::new(vec![3_i64, 4], [1, 2]);
    for round in 0..400 {
        let (name, end) = match round % 4 {
            0 => ("config.json", usize::MAX),
            1 => ("tokenizer.json", 500),
            _ => ("model.safetensors", 1200),
        };
        let path = dir.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        let mut bytes = whole.clone();
        let at = generator.random_range(0..end.min(bytes.len()));
        bytes[at] ^= 1 << generator.random_range(0..8_u8);
        std::fs::write(&path, &bytes).unwrap();
        match load(dir.path(), Storage::AsStored) {
            Ok(model) => {
                opened += 1;
                let input = Tensor::<2, Int>::from_data(ids.clone(), &Device::flex());
                let _ = model.forward(input, None).into_data();
            }
            Err(error) => {
                refused += 1;
                assert!(error.starts_with("[DIR]"), "{error}");
            }
        }
        std::fs::write(&path, &whole).unwrap();
    }
    println!("{opened} opened, {refused} refused");
    assert!(opened > 20 && refused > 100);
}
