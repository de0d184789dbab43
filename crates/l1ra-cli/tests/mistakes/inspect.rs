//! `l1ra inspect` and `l1ra plan`.

use std::fs;

use insta::assert_snapshot;

use crate::support::{Place, model};

fn inspect(place: &Place, path: &str) -> String {
    place.mistake(&["inspect", path])
}

#[test]
fn a_path_that_is_not_there() {
    assert_snapshot!(inspect(&Place::new(), "nothing"), @"error: nothing: no such file or folder; give the folder of a model or adapter, a .gguf file or a data file");
    assert_snapshot!(inspect(&Place::new(), "nothing.jsonl"), @"error: nothing.jsonl: no such file or folder; give the folder of a model or adapter, a .gguf file or a data file");
}

#[test]
fn a_folder_with_nothing_of_the_kind() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    assert_snapshot!(inspect(&place, "empty"), @"error: empty: holds neither config.json nor a .gguf file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
}

#[test]
fn a_file_that_is_none_of_these() {
    let place = Place::new();
    place.write("model.onnx", "");
    assert_snapshot!(inspect(&place, "model.onnx"), @r#"error: model.onnx: data of the kind `.onnx` is not known; known: .jsonl, .json, .parquet, .txt, .md (with form = "text", any other file is read as plain text)"#);
    assert_snapshot!(inspect(&place, "recipe.toml"), @r#"error: recipe.toml: data of the kind `.toml` is not known; known: .jsonl, .json, .parquet, .txt, .md (with form = "text", any other file is read as plain text)"#);
}

#[test]
fn a_gguf_file_that_is_none() {
    let place = Place::new();
    place.write("model.gguf", "GGML and not GGUF");
    assert_snapshot!(inspect(&place, "model.gguf"), @"error: model.gguf: starts with `GGML`, not `GGUF`; it is no GGUF file");
}

#[test]
fn a_plan_without_the_configuration() {
    let place = Place::new();
    let args = ["plan", "recipe.toml", "--config", "config.json"];
    assert_snapshot!(place.mistake(&args), @"error: --config config.json: no such file; give the config.json of a Hugging Face model");
}

#[test]
fn a_plan_of_a_model_and_a_configuration() {
    let place = Place::new();
    let model = model();
    let args = [
        "plan",
        "recipe.toml",
        "--config",
        "config.json",
        "--model",
        &model,
    ];
    assert_snapshot!(place.mistake(&args), @"
    error: the argument '--config <FILE>' cannot be used with '--model <M>'

    Usage: l1ra plan --config <FILE> <RECIPE>

    For more information, try '--help'.
    ");
}

#[test]
fn a_plan_finds_what_training_would() {
    let place = Place::new();
    place.change_recipe("steps = 8", "steps = 2");
    assert_snapshot!(place.mistake(&["plan", "recipe.toml"]), @r#"error: recipe.toml, line 15: rank reallocation cannot work with this schedule: update_ratio = 0.25 asks for more updates than the 2 optimizer steps of this run. Use an update_ratio of at least 0.500, train for more steps, or set policy = "lora""#);
}
