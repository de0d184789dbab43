//! What `l1ra inspect` says of models and adapters.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::path::{Path, PathBuf};

use l1ra_core::{
    L1raConfig,
    peft::{Layout, save_adapter_data},
    walk::AdapterData,
};
use l1ra_models::{Inspection, inspect};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn shown(path: &Path) -> String {
    inspect(path)
        .unwrap()
        .to_string()
        .replace(&path.parent().unwrap().display().to_string(), "[DIR]")
}

#[test]
fn a_folder_shows_its_model() {
    insta::assert_snapshot!(shown(&root().join("examples/finetune/model")), @r"
    model        [DIR]/model
    format       Hugging Face folder
    family       llama
    parameters   3,148,224
                 embedding 786,432, head tied to it, layers 2,361,792
    layers       6
    width        192, MLP 512
    heads        6 of 32, 2 for keys and values
    vocabulary   4,096
    context      512
    rope         theta 10000
    tokenizer    byte-level BPE, 4,096 tokens
                 begin <|endoftext|>, end <|im_end|>, padding <|endoftext|>
    chat         {% for message in messages %}{{ '<|im_start|>' + message['ro…

    tensors
      F16  56  6.3 MB

    files
      README.md                  908 B
      config.json                574 B
      generation_config.json      66 B
      model.safetensors         6.3 MB
      tokenizer.json          109.9 kB
      tokenizer_config.json      436 B
    ");
}

#[test]
fn a_gguf_shows_its_model() {
    insta::assert_snapshot!(shown(&root().join("tests/fixtures/gguf/tiny-llama.gguf")), @r"
    model        [DIR]/tiny-llama.gguf
    format       GGUF file
    family       llama
    parameters   106,816
                 embedding 16,384, head 16,384, layers 74,048
    layers       2
    width        64, MLP 128
    heads        4 of 16, 2 for keys and values
    vocabulary   256
    context      512
    rope         theta 10000
    tokenizer    byte-level BPE (smollm), 256 tokens
                 begin <|im_start|>, end <|im_end|>, padding <|im_end|>
    chat         {% for message in messages %}{{'<|im_start|>' + message['rol…

    tensors
      F32  21  427.3 kB

    files
      tiny-llama.gguf  433.3 kB
    ");
}

#[test]
fn a_configuration_alone_is_enough() {
    insta::assert_snapshot!(shown(&root().join("tests/fixtures/smollm2")), @"
    model        [DIR]/smollm2
    format       Hugging Face folder without weights
    family       llama
    parameters   134,515,008
                 embedding 28,311,552, head tied to it, layers 106,203,456
    layers       30
    width        576, MLP 1536
    heads        9 of 64, 3 for keys and values
    vocabulary   49,152
    context      8,192
    rope         theta 100000
    tokenizer    (none)
    chat         {% for message in messages %}{% if loop.first and messages[0…

    files
      config.json                649 B
      generation_config.json      65 B
      golden.safetensors      199.4 kB
      tokenizer_config.json      665 B

    what is missing or does not fit
      [DIR]/smollm2: holds neither model.safetensors nor model.safetensors.index.json (weights in .bin files must be converted first)
      [DIR]/smollm2: holds no tokenizer.json; this model comes without a tokenizer (tokenizer.model files must be converted first)
    ");
    let Inspection::Model(model) = inspect(&root().join("tests/fixtures/smollm2")).unwrap() else {
        panic!("a model");
    };
    assert_eq!(model.parameters.total, 134_515_008);
    assert_eq!(model.format, "config");
}

#[test]
fn weights_that_do_not_fit_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let model = root().join("examples/finetune/model");
    for name in ["model.safetensors", "tokenizer.json"] {
        std::fs::copy(model.join(name), dir.path().join(name)).unwrap();
    }
    let config = std::fs::read_to_string(model.join("config.json")).unwrap();
    let config = config.replace("\"intermediate_size\": 512", "\"intermediate_size\": 500");
    std::fs::write(dir.path().join("config.json"), config).unwrap();
    let Inspection::Model(model) = inspect(dir.path()).unwrap() else {
        panic!("a model");
    };
    let problem = model.problems[0].replace(&dir.path().display().to_string(), "[DIR]");
    insta::assert_snapshot!(problem, @"[DIR]: tensor `model.layers.0.mlp.gate_proj.weight` has shape [512, 192], the configuration asks for [500, 192]");
}

fn adapter(path: &str, rank: usize, gates: &[f32]) -> AdapterData {
    AdapterData {
        path: path.into(),
        d_in: 4,
        d_out: 6,
        a: vec![0.5; 4 * rank],
        c: gates.to_vec(),
        b: vec![0.25; rank * 6],
        scale: 2.0,
    }
}

/// An adapter in the folder `adapter` of a new place.
fn saved(layout: Layout) -> (tempfile::TempDir, PathBuf) {
    let place = tempfile::tempdir().unwrap();
    let dir = place.path().join("adapter");
    let adapters = [
        adapter("model.layers.10.mlp.down_proj", 3, &[1.0, 0.5, 0.25]),
        adapter("model.layers.2.self_attn.q_proj", 2, &[0.75, 0.0]),
        adapter("model.layers.2.mlp.down_proj", 1, &[1.0]),
        adapter("lm_head", 1, &[-0.5]),
    ];
    let config = L1raConfig {
        rank: 2,
        alpha: 4.0,
        ..Default::default()
    };
    save_adapter_data(&adapters, &config, layout, "org/base", &dir).unwrap();
    (place, dir)
}

#[test]
fn an_adapter_shows_ranks_gates_and_readers() {
    let (_place, dir) = saved(Layout::Folded);
    // Sizes of the files are no matter of this test.
    let text = shown(&dir);
    let (text, _) = text.split_once("\nfiles\n").unwrap();
    insta::assert_snapshot!(text, @r"
    adapter      [DIR]/adapter
    base model   org/base
    lay-out      folded
    modules      4
    total rank   7
    parameters   77
    alpha        4
    scale        2
    gates        1 of 7 are zero; -0.500 to 1.000, mean 0.429

    ranks
      layer  q_proj  down_proj
      2           2          1
      10          -          3
      lm_head  1

    readers
      PEFT       right: each module has its own alpha and rank; checked by running PEFT 0.21
      llama.cpp  right: one alpha, divided by each module's own rank; by its formula, read in its source and not run
      vLLM       WRONG: one alpha and one rank for all modules; by its formula, read in its source (2025) and not run
    ");
}

#[test]
fn an_adapter_without_a_sidecar_is_plain_peft() {
    let (_place, dir) = saved(Layout::Padded);
    std::fs::remove_file(dir.join("l1ra_adapter.safetensors")).unwrap();
    let Inspection::Adapter(adapter) = inspect(&dir).unwrap() else {
        panic!("an adapter");
    };
    assert_eq!(adapter.layout, Some(Layout::Padded));
    assert_eq!((adapter.gates, adapter.total_rank), (None, 12));
    assert!(adapter.readers.iter().all(|verdict| verdict.right));
    let value = serde_json::to_value(Inspection::Adapter(adapter)).unwrap();
    assert_eq!(value["kind"], "adapter");
    assert_eq!(value["base_model"], "org/base");
    assert_eq!(value["readers"][1]["reader"], "llama.cpp");
    assert_eq!(
        value["ranks"][0],
        serde_json::json!({"layer": 2, "ranks": [3, 3]})
    );
}

#[test]
fn nothing_to_inspect_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let seen = |path: &Path| {
        let error = inspect(path).unwrap_err().to_string();
        error.replace(&dir.path().display().to_string(), "[DIR]")
    };
    insta::assert_snapshot!(seen(dir.path()), @"[DIR]: holds neither config.json nor a .gguf file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
    insta::assert_snapshot!(seen(&dir.path().join("absent")), @"[DIR]/absent: no such file or folder; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
}
