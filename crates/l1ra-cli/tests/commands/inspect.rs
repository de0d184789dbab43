//! `l1ra inspect`.

use std::fs;

use insta::assert_snapshot;
use serde_json::Value;

use crate::{
    run::trained,
    support::{
        Place,
        adapter::{QUERY, write_adapter},
        model, repository,
    },
};

fn inspect(place: &Place, path: &str) -> String {
    let ran = place.run(&["inspect", path]).well();
    assert_eq!(ran.stderr, "");
    ran.stdout.trim_end().to_string()
}

/// The same as JSON: the kind, and the keys.
fn json(place: &Place, path: &str) -> String {
    let value = place.run(&["--json", "inspect", path]).well().json();
    let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
    format!("{} {keys:?}", value["kind"])
}

#[test]
fn a_model() {
    let place = Place::new();
    assert_snapshot!(inspect(&place, &model()), @"
    model        [repository]/examples/finetune/model
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
    assert_snapshot!(json(&place, &model()), @r#""model" ["kind", "path", "format", "config", "parameters", "stored", "tokenizer", "chat_template", "files", "problems"]"#);
}

#[test]
fn a_model_that_would_not_load() {
    let place = Place::new();
    place.copy_model();
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    let said = inspect(&place, "model");
    let (_, problems) = said
        .split_once("what is missing or does not fit\n")
        .unwrap();
    assert_snapshot!(problems, @"
    model: holds neither model.safetensors nor model.safetensors.index.json (weights in .bin files must be converted first)
    model: holds no tokenizer.json; this model comes without a tokenizer (tokenizer.model files must be converted first)
    ");
}

#[test]
fn a_gguf_file() {
    let place = Place::new();
    let path = repository().join("crates/l1ra-models/tests/fixtures/gguf/tiny.gguf");
    assert_snapshot!(inspect(&place, &path.display().to_string()), @"
    model        [repository]/crates/l1ra-models/tests/fixtures/gguf/tiny.gguf
    format       GGUF file
    family       llama
    parameters   10,368
                 embedding 1,056, head tied to it, layers 9,312
    layers       1
    width        32, MLP 64
    heads        4 of 8, 2 for keys and values
    vocabulary   33
    context      64
    rope         theta 10000, divisors up to 8
    tokenizer    byte-level BPE (smollm), 33 tokens
                 begin <s>, end </s>, padding </s>
    chat         {{ messages[0]['content'] }}

    tensors
      Q4_1  7  5.8 kB
      Q8_0  1  1.1 kB
      F32   3   384 B

    files
      tiny.gguf  9.5 kB
    ");
}

#[test]
fn an_adapter_of_peft() {
    let place = Place::new();
    write_adapter(&place.path("adapter"), QUERY, [192, 192]);
    assert_snapshot!(inspect(&place, "adapter"), @"
    adapter      adapter
    base model   org/base
    lay-out      plain PEFT, one rank for all
    modules      1
    total rank   2
    parameters   770
    alpha        4
    scale        2
    gates        folded into B (no sidecar)

    ranks
      layer  q_proj
      0           2

    readers
      PEFT       right: each module has its own alpha and rank; checked by running PEFT 0.21
      llama.cpp  right: one alpha, divided by each module's own rank; by its formula, read in its source and not run
      vLLM       right: one alpha and one rank for all modules; by its formula, read in its source (2025) and not run

    files
      adapter_config.json         188 B
      adapter_model.safetensors  3.3 kB
    ");
    assert_snapshot!(json(&place, "adapter"), @r#""adapter" ["kind", "path", "base_model", "layout", "alpha", "scale", "dropout", "sidecar", "modules", "total_rank", "parameters", "columns", "ranks", "others", "gates", "readers", "files"]"#);
}

#[test]
fn an_adapter_of_a_run() {
    let place = &trained().place;
    let result = place
        .run(&["--json", "inspect", "out/adapter"])
        .well()
        .json();
    assert_eq!(result["sidecar"], true);
    assert_eq!(result["modules"], 42);
    assert_eq!(result["total_rank"], 42 * 4);
    assert_eq!(result["layout"], "folded");
    let ranks = result["ranks"].as_array().unwrap();
    assert_eq!(ranks.len(), 6);
    let text = inspect(place, "out/adapter");
    assert!(
        text.contains("layer  q_proj  k_proj  v_proj  o_proj  gate_proj  up_proj  down_proj"),
        "{text}"
    );
}

#[test]
fn data_files() {
    let place = Place::new();
    assert_snapshot!(inspect(&place, "good.jsonl"), @"
    data        good.jsonl
    form        messages
    records     8, up to 2 messages each
    letters     560, 70 to 70 a record
    ");
    assert_snapshot!(json(&place, "good.jsonl"), @r#""data" ["kind", "path", "form", "records", "characters", "most_messages", "record_characters", "malformed"]"#);
    place.write(
        "pairs.json",
        r#"[{"prompt": "1 + 1 =", "completion": " 2"}]"#,
    );
    assert_snapshot!(inspect(&place, "pairs.json"), @"
    data        pairs.json
    form        completion
    records     1
    letters     9, 9 to 9 a record
    ");
    place.write("notes.txt", "One text.\n");
    assert_snapshot!(inspect(&place, "notes.txt"), @"
    data        notes.txt
    form        text
    records     1
    letters     10, 10 to 10 a record
    ");
}

/// A file with records that cannot be used is described all the same, and says which.
#[test]
fn a_data_file_with_flaws() {
    let place = Place::new();
    let good = place.read("good.jsonl");
    place.write(
        "flawed.jsonl",
        format!("{good}{{\"messages\": []}}\nnot JSON\n"),
    );
    assert_snapshot!(inspect(&place, "flawed.jsonl"), @"
    data        flawed.jsonl
    form        messages
    records     8, up to 2 messages each
    letters     560, 70 to 70 a record
    unusable    2; training would refuse:
      9: its `messages` are empty
      10: is not JSON: expected ident (column 2)
    ");
}

#[test]
fn a_gguf_s_json_names_its_format() {
    let place = Place::new();
    let path = repository().join("crates/l1ra-models/tests/fixtures/gguf/tiny.gguf");
    let args = ["--json", "inspect", &path.display().to_string()];
    let value: Value = place.run(&args).well().json();
    assert_eq!(value["format"], "gguf");
    assert_eq!(value["config"]["num_hidden_layers"], 1);
}
