//! Files of an adapter: for `eval`, `merge`, `export` and whoever else reads them.

use std::fs;

use insta::assert_snapshot;

use crate::support::{
    Place,
    adapter::{QUERY, write_adapter},
    model,
};

/// What `l1ra eval` says of the repository's model with the adapter in `adapter`.
fn eval(place: &Place) -> String {
    crate::eval(place, &["--data", "good.jsonl", "--adapter", "adapter"])
}

/// What `l1ra merge` says of the same two.
fn merge(place: &Place, output: &str) -> String {
    let model = model();
    let args = [
        "merge",
        "--model",
        &model,
        "--adapter",
        "adapter",
        "--output",
        output,
    ];
    place.mistake(&args)
}

/// A place with an adapter that fits the repository's model.
fn adapted() -> Place {
    let place = Place::new();
    write_adapter(&place.path("adapter"), QUERY, [192, 192]);
    place
}

#[test]
fn an_adapter_that_is_not_there() {
    assert_snapshot!(eval(&Place::new()), @"error: adapter: no such folder; an adapter is a folder with adapter_config.json and adapter_model.safetensors");
}

#[test]
fn the_folder_of_a_run_in_place_of_its_adapter() {
    let place = Place::new();
    write_adapter(&place.path("adapter/adapter"), QUERY, [192, 192]);
    assert_snapshot!(eval(&place), @"error: adapter: holds no adapter_config.json; did you mean adapter/adapter?");
}

#[test]
fn an_adapter_without_weights() {
    let place = adapted();
    fs::remove_file(place.path("adapter/adapter_model.safetensors")).unwrap();
    assert_snapshot!(eval(&place), @"error: adapter: holds no adapter_model.safetensors, only adapter_config.json; copy the whole folder (adapters in .bin files must be converted first)");
}

#[test]
fn an_adapter_whose_weights_are_cut_off() {
    let place = adapted();
    let path = place.path("adapter/adapter_model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_snapshot!(eval(&place), @"error: adapter/adapter_model.safetensors: tensor `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight` ends at byte 1536 of the data, and the file has 1408 (is it cut off? fetch it again)");
}

#[test]
fn an_adapter_of_another_kind() {
    let place = adapted();
    place.change("adapter/adapter_config.json", "\"LORA\"", "\"IA3\"");
    assert_snapshot!(eval(&place), @"error: adapter/adapter_config.json: peft_type is IA3; only LORA is supported");
    let place = adapted();
    place.change(
        "adapter/adapter_config.json",
        "\"bias\"",
        "\"use_dora\":true,\"bias\"",
    );
    assert_snapshot!(eval(&place), @"error: adapter/adapter_config.json: `use_dora` is true, which is not supported");
}

#[test]
fn an_adapter_that_contradicts_its_configuration() {
    let place = adapted();
    place.change("adapter/adapter_config.json", "\"r\":2", "\"r\":3");
    assert_snapshot!(eval(&place), @"error: adapter/adapter_model.safetensors: module `model.layers.0.self_attn.q_proj`: A is [2, 192] and B [192, 2], but adapter_config.json gives it rank 3");
}

#[test]
fn an_adapter_for_a_layer_that_the_model_does_not_have() {
    let place = Place::new();
    write_adapter(
        &place.path("adapter"),
        "model.layers.9.self_attn.q_proj",
        [192, 192],
    );
    assert_snapshot!(eval(&place), @"error: adapter `model.layers.9.self_attn.q_proj`: this model has no such layer; nearest: model.layers.0.self_attn.q_proj, model.layers.1.self_attn.q_proj, model.layers.2.self_attn.q_proj (is it the adapter's base?)");
    assert_snapshot!(merge(&place, "merged"), @"error: adapter `model.layers.9.self_attn.q_proj`: this model has no such layer; nearest: model.layers.0.self_attn.q_proj, model.layers.1.self_attn.q_proj, model.layers.2.self_attn.q_proj (is it the adapter's base?)");
}

#[test]
fn an_adapter_of_a_larger_model() {
    let place = Place::new();
    write_adapter(&place.path("adapter"), QUERY, [576, 576]);
    assert_snapshot!(eval(&place), @"error: adapter `model.layers.0.self_attn.q_proj`: was trained for a layer [576, 576] (in, out); this model's is [192, 192] (is it the adapter's base?)");
    assert_snapshot!(merge(&place, "merged"), @"error: adapter `model.layers.0.self_attn.q_proj`: was trained for a layer [576, 576] (in, out); this model's is [192, 192] (is it the adapter's base?)");
}

#[test]
fn a_merge_into_a_folder_that_is_not_empty() {
    let place = adapted();
    fs::create_dir(place.path("merged")).unwrap();
    place.write("merged/mine.txt", "mine");
    assert_snapshot!(merge(&place, "merged"), @"error: [dir]/merged: is not empty; give a folder that is not there yet, or an empty one");
}

#[test]
fn a_merge_into_a_file() {
    assert_snapshot!(merge(&adapted(), "good.jsonl"), @"error: [dir]/good.jsonl: is a file; give a folder that is not there yet");
}

#[test]
fn a_merge_into_its_own_model() {
    let place = adapted();
    place.copy_model();
    let args = [
        "merge",
        "--model",
        "model",
        "--adapter",
        "adapter",
        "--output",
        "model",
    ];
    assert_snapshot!(place.mistake(&args), @"error: [dir]/model: is not empty; give a folder that is not there yet, or an empty one");
}

#[test]
fn an_export_onto_a_folder_that_is_there() {
    let place = adapted();
    let args = ["export", "--adapter", "adapter", "--output", "adapter"];
    assert_snapshot!(place.mistake(&args), @"error: adapter: is there already; --output takes a folder that is not");
}

#[test]
fn an_export_of_no_adapter() {
    let place = adapted();
    let args = ["export", "--adapter", ".", "--output", "exported"];
    assert_snapshot!(place.mistake(&args), @"error: .: holds no adapter_config.json; did you mean ./adapter?");
}

#[test]
fn a_layout_that_is_unknown() {
    let place = adapted();
    let args = [
        "export",
        "--adapter",
        "adapter",
        "--output",
        "e",
        "--layout",
        "merged",
    ];
    assert_snapshot!(place.mistake(&args), @"
    error: invalid value 'merged' for '--layout <LAYOUT>': lay-out `merged` is unknown; known: exact, folded, padded

    For more information, try '--help'.
    ");
}
