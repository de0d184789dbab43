//! A merged model gives the logits of base and adapter, under the names and keys of its base.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Int, Tensor, TensorData};
use l1ra_core::{
    peft::{AdapterSet, install_adapters},
    walk::AdapterData,
};
use l1ra_models::{
    CausalLm, LoadOptions, MergeOptions, MergeReport, ModelConfig, ModelError, ModelFiles,
    load_model, merge_to_dir,
    weights::{Storage, StoredType, linear_paths},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn small_model() -> PathBuf {
    root().join("examples/finetune/model")
}

/// tiny-llama with a tokenizer and the other files of a Hugging Face folder.
fn tiny_llama() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let fixture = root().join("tests/fixtures/tiny-llama");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture.join(name), dir.path().join(name)).unwrap();
    }
    let vocab: BTreeMap<String, u32> = (0..256).map(|id| (format!("t{id}"), id)).collect();
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null,
        "decoder": null, "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "t0"}
    });
    for (name, text) in [
        ("tokenizer.json", tokenizer.to_string()),
        ("tokenizer_config.json", r#"{"eos_token": "t2"}"#.into()),
        (
            "generation_config.json",
            r#"{"eos_token_id": [2, 3]}"#.into(),
        ),
        ("special_tokens_map.json", r#"{"eos_token": "t2"}"#.into()),
        ("chat_template.jinja", "{{ messages[0]['content'] }}".into()),
        ("README.md", "not for a reader of models".into()),
    ] {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    dir
}

/// Adapters of mixed ranks with random gates, some zero, on every layer but the first.
fn adapters(config: &ModelConfig) -> AdapterSet {
    let mut generator = ChaCha8Rng::seed_from_u64(7);
    let mut values = |count: usize, spread: f32| -> Vec<f32> {
        (0..count)
            .map(|_| spread * (2.0 * generator.random::<f32>() - 1.0))
            .collect()
    };
    let shapes: BTreeMap<String, [usize; 2]> = shapes(config);
    let mut all = Vec::new();
    for (i, path) in linear_paths(config).into_iter().enumerate().skip(1) {
        let [d_out, d_in] = shapes[&path];
        let rank = 1 + i % 5;
        let mut c = values(rank, 1.0);
        if rank > 2 {
            c[1] = 0.0;
        }
        all.push(AdapterData {
            path,
            d_in,
            d_out,
            a: values(d_in * rank, 0.3),
            c,
            b: values(rank * d_out, 0.3),
            scale: 0.5 + i as f32 / 10.0,
        });
    }
    AdapterSet {
        adapters: all,
        dropout: 0.0,
        config: None,
    }
}

fn shapes(config: &ModelConfig) -> BTreeMap<String, [usize; 2]> {
    let hidden = config.hidden_size;
    let keys = config.num_key_value_heads * config.head_dim;
    linear_paths(config)
        .into_iter()
        .map(|path| {
            let shape = match path.rsplit('.').next().unwrap() {
                "k_proj" | "v_proj" => [keys, hidden],
                "gate_proj" | "up_proj" => [config.intermediate_size, hidden],
                "down_proj" => [hidden, config.intermediate_size],
                "lm_head" => [config.vocab_size, hidden],
                _ => [hidden, hidden],
            };
            (path, shape)
        })
        .collect()
}

fn merge(
    base: &Path,
    adapter: &AdapterSet,
    output: &Path,
    options: MergeOptions,
) -> Result<MergeReport, ModelError> {
    let files = ModelFiles::open(base).unwrap();
    merge_to_dir(&files, adapter, output, options, &mut |_, _| {})
}

fn load(path: &Path) -> CausalLm {
    let options = LoadOptions {
        storage: Storage::F32,
    };
    load_model(path, options, &Device::flex()).unwrap().model
}

fn logits(model: &CausalLm) -> Vec<f32> {
    let ids: Vec<i64> = (0..24).map(|i| (i * 37 + 5) % 251).collect();
    let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [1, 24]), &Device::flex());
    model.forward(ids, None).into_data().try_into_vec().unwrap()
}

fn adapted(base: &Path, adapter: &AdapterSet) -> Vec<f32> {
    let mut model = load(base);
    let before = logits(&model);
    install_adapters(&mut model, adapter, &Device::flex()).unwrap();
    let after = logits(&model);
    assert!(
        largest_difference(&before, &after) > 0.1,
        "the adapter does something"
    );
    after
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

/// Names, shapes and types of all weights in a folder.
fn tensors(dir: &Path) -> BTreeMap<String, (Vec<usize>, String)> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if name.starts_with("model") && name.ends_with(".safetensors") {
            let bytes = std::fs::read(&path).unwrap();
            for (name, view) in SafeTensors::deserialize(&bytes).unwrap().iter() {
                let kind = format!("{:?}", view.dtype());
                all.insert(name.to_string(), (view.shape().to_vec(), kind));
            }
        }
    }
    all
}

fn json_file(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[rstest::rstest]
#[case::folder(tiny_llama().keep())]
#[case::tied_f16_folder(small_model())]
#[case::gguf(root().join("tests/fixtures/gguf/tiny-llama.gguf"))]
fn merged_logits_are_the_adapter_model_s(#[case] base: PathBuf) {
    let files = ModelFiles::open(&base).unwrap();
    let adapter = adapters(&files.config);
    let wanted = adapted(&base, &adapter);
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("merged");
    let options = MergeOptions {
        dtype: Some(StoredType::F32),
        ..Default::default()
    };
    let mut told = Vec::new();
    let report = merge_to_dir(&files, &adapter, &output, options, &mut |done, total| {
        told.push((done, total));
    })
    .unwrap();
    let difference = largest_difference(&wanted, &logits(&load(&output)));
    println!("{}: largest difference {difference:.2e}", base.display());
    assert!(difference < 1e-4, "{difference}");
    assert_eq!(report.merged, adapter.adapters.len());
    assert_eq!(told.len(), report.tensors);
    assert_eq!(told.last(), Some(&(report.tensors, report.tensors)));
    assert_eq!(names(place.path()), ["merged"], "nothing is left beside it");
}

#[test]
fn names_types_and_files_are_those_of_the_base() {
    let base = tiny_llama();
    let output = tempfile::tempdir().unwrap();
    let files = ModelFiles::open(base.path()).unwrap();
    let adapter = adapters(&files.config);
    // An empty folder is as good as none.
    let report = merge(
        base.path(),
        &adapter,
        output.path(),
        MergeOptions::default(),
    )
    .unwrap();
    assert_eq!(tensors(base.path()), tensors(output.path()));
    assert_eq!(report.dtype, StoredType::F32);
    assert_eq!(
        names(output.path()),
        [
            "chat_template.jinja",
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "special_tokens_map.json",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    for name in names(output.path()) {
        if !name.starts_with("model") && name != "config.json" {
            let read = |dir: &Path| std::fs::read(dir.join(&name)).unwrap();
            assert_eq!(read(base.path()), read(output.path()), "{name}");
        }
    }
    assert_eq!(
        json_file(&base.path().join("config.json")),
        json_file(&output.path().join("config.json"))
    );
    // The layer without an adapter is to the bit as it was.
    let first = "model.layers.0.self_attn.q_proj.weight";
    let bytes = |dir: &Path| {
        let file = std::fs::read(dir.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        file.tensor(first).unwrap().data().to_vec()
    };
    assert_eq!(bytes(base.path()), bytes(output.path()));
}

#[test]
fn a_tied_head_stays_tied_and_16_bits_round_once() {
    let adapter = adapters(&ModelFiles::open(&small_model()).unwrap().config);
    let place = tempfile::tempdir().unwrap();
    let (exact, stored, rounded) = (
        place.path().join("f32"),
        place.path().join("stored"),
        place.path().join("bf16"),
    );
    let with = |dtype| MergeOptions {
        dtype,
        ..Default::default()
    };
    merge(
        &small_model(),
        &adapter,
        &exact,
        with(Some(StoredType::F32)),
    )
    .unwrap();
    merge(&small_model(), &adapter, &stored, with(None)).unwrap();
    let report = merge(
        &small_model(),
        &adapter,
        &rounded,
        with(Some(StoredType::BF16)),
    )
    .unwrap();
    assert_eq!(report.dtype, StoredType::BF16);
    assert!(!tensors(&rounded).contains_key("lm_head.weight"));
    assert_eq!(tensors(&small_model()), tensors(&stored));
    let config = json_file(&rounded.join("config.json"));
    assert_eq!(config["torch_dtype"], "bfloat16");
    assert_eq!(config["tie_word_embeddings"], true);
    assert_eq!(
        json_file(&stored.join("config.json"))["torch_dtype"],
        "float16"
    );
    assert_eq!(
        json_file(&exact.join("config.json"))["torch_dtype"],
        "float32"
    );

    let read = |dir: &Path, kind: StoredType| {
        let file = std::fs::read(dir.join("model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&file).unwrap();
        let each = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
            (name.to_string(), kind.decode(view.data()))
        };
        file.iter().map(each).collect::<BTreeMap<_, _>>()
    };
    let exact = read(&exact, StoredType::F32);
    for (dir, kind, bound) in [
        (&rounded, StoredType::BF16, 2.0_f32.powi(-8)),
        (&stored, StoredType::F16, 2.0_f32.powi(-11)),
    ] {
        for (name, values) in read(dir, kind) {
            for (value, exact) in values.iter().zip(&exact[&name]) {
                // The second term: f16 has subnormal numbers below 6e-5.
                let most = bound * exact.abs() + 3.1e-8;
                assert!((value - exact).abs() <= most, "{name}: {value}, {exact}");
            }
        }
    }
}

#[test]
fn a_gguf_becomes_a_folder_with_everything_in_it() {
    let base = root().join("tests/fixtures/gguf/tiny-llama.gguf");
    let files = ModelFiles::open(&base).unwrap();
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("deep/merged");
    merge(
        &base,
        &adapters(&files.config),
        &output,
        MergeOptions::default(),
    )
    .unwrap();

    let merged = ModelFiles::open(&output).unwrap();
    assert_eq!(merged.config, files.config);
    let text = "Hello world 2024! naïve 日本";
    let ids = |files: &ModelFiles| {
        let tokenizer = &files.tokenizer;
        (
            tokenizer.encode(text).unwrap(),
            tokenizer.encode_text(text).unwrap(),
            (tokenizer.bos, tokenizer.eos.clone(), tokenizer.pad),
        )
    };
    assert_eq!(ids(&files), ids(&merged));
    let messages = [l1ra_models::Message::new(l1ra_models::Role::User, "Hi")];
    let rendered = |files: &ModelFiles| {
        let template = files.template.as_ref().unwrap();
        template.render(&messages, true).unwrap()
    };
    assert_eq!(rendered(&files), rendered(&merged));
    // tiny-llama is the model that the file was made from.
    let original = tensors(&root().join("tests/fixtures/tiny-llama"));
    let names: Vec<String> = tensors(&output).into_keys().collect();
    assert!(original.keys().eq(&names), "{names:?}");
    let config = json_file(&output.join("config.json"));
    let wanted = json_file(&root().join("tests/fixtures/tiny-llama/config.json"));
    for key in [
        "architectures",
        "hidden_size",
        "rms_norm_eps",
        "rope_theta",
        "vocab_size",
    ] {
        assert_eq!(config[key], wanted[key], "{key}");
    }
    assert!(config["torch_dtype"].is_string());
}

#[test]
fn shards_hold_no_more_than_they_may_and_load() {
    let base = tiny_llama();
    let files = ModelFiles::open(base.path()).unwrap();
    let adapter = adapters(&files.config);
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("merged");
    let options = MergeOptions {
        dtype: None,
        max_shard_bytes: 70_000,
    };
    let report = merge(base.path(), &adapter, &output, options).unwrap();
    let shards: Vec<&(String, u64)> = report
        .files
        .iter()
        .filter(|(name, _)| name.starts_with("model-"))
        .collect();
    assert!(shards.len() > 3, "{shards:?}");
    assert!(
        shards.iter().all(|(_, bytes)| *bytes < 72_000),
        "{shards:?}"
    );
    let index = json_file(&output.join("model.safetensors.index.json"));
    assert_eq!(
        index["weight_map"].as_object().unwrap().len(),
        report.tensors
    );
    assert_eq!(
        index["metadata"],
        json!({"total_parameters": report.parameters, "total_size": 4 * report.parameters})
    );
    assert_eq!(tensors(base.path()), tensors(&output));
    let difference = largest_difference(&adapted(base.path(), &adapter), &logits(&load(&output)));
    assert!(difference < 1e-4, "{difference}");
}

#[test]
fn what_does_not_fit_is_refused_before_anything_is_written() {
    let base = tiny_llama();
    let files = ModelFiles::open(base.path()).unwrap();
    let good = adapters(&files.config);
    let place = tempfile::tempdir().unwrap();
    let refused = |base: &Path, change: &dyn Fn(&mut AdapterData)| {
        let mut adapter = good.clone();
        adapter.adapters.truncate(2);
        change(&mut adapter.adapters[0]);
        let output = place.path().join("merged");
        let error = merge(base, &adapter, &output, MergeOptions::default()).unwrap_err();
        assert_eq!(names(place.path()), Vec::<String>::new());
        error.to_string()
    };
    insta::assert_snapshot!(
        refused(base.path(), &|adapter| adapter.path = "model.layers.9.self_attn.k_proj".into()),
        @"adapter `model.layers.9.self_attn.k_proj`: this model has no such layer; nearest: model.layers.0.self_attn.k_proj, model.layers.1.self_attn.k_proj, model.layers.0.self_attn.q_proj (is it the adapter's base?)"
    );
    insta::assert_snapshot!(
        refused(base.path(), &|adapter| adapter.d_in = 32),
        @"adapter `model.layers.0.self_attn.k_proj`: A holds 128 values, not 64"
    );
    insta::assert_snapshot!(
        refused(base.path(), &|adapter| adapter.b[0] = f32::NAN),
        @"adapter `model.layers.0.self_attn.k_proj`: B holds NaN; not merged (did the training diverge?)"
    );
    insta::assert_snapshot!(
        refused(base.path(), &|adapter| adapter.path = "model.layers.0.self_attn.v_proj".into()),
        @"adapter `model.layers.0.self_attn.v_proj`: is there twice; one adapter a layer can be merged"
    );
    insta::assert_snapshot!(
        refused(&small_model(), &|adapter| adapter.path = "lm_head".into()),
        @"adapter `lm_head`: the output head of this model is its embedding (tie_word_embeddings): a change to one would change the other; train without lm_head among the targets"
    );
}

#[test]
fn a_folder_that_holds_something_is_left_alone() {
    let base = tiny_llama();
    let adapter = adapters(&ModelFiles::open(base.path()).unwrap().config);
    let place = tempfile::tempdir().unwrap();
    let shown = |error: ModelError| {
        let place = place.path().canonicalize().unwrap();
        error
            .to_string()
            .replace(&place.display().to_string(), "[DIR]")
    };
    let attempt = |name: &str| {
        let output = place.path().join(name);
        shown(merge(base.path(), &adapter, &output, MergeOptions::default()).unwrap_err())
    };
    std::fs::create_dir(place.path().join("full")).unwrap();
    std::fs::write(place.path().join("full/a"), "a").unwrap();
    std::fs::write(place.path().join("file"), "a").unwrap();
    std::fs::create_dir(place.path().join("broken.partial")).unwrap();
    insta::assert_snapshot!(
        attempt("full"),
        @"[DIR]/full: is not empty; give a folder that is not there yet, or an empty one"
    );
    insta::assert_snapshot!(
        attempt("file"),
        @"[DIR]/file: is a file; give a folder that is not there yet"
    );
    insta::assert_snapshot!(
        attempt("broken"),
        @"[DIR]/broken.partial: was left by a merge that was interrupted, or one is running; remove it if none is"
    );
    assert_eq!(names(place.path()), ["broken.partial", "file", "full"]);
}
