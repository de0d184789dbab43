//! The model: where it is, what it is, its tensors, its chat template.

use std::fs;

use insta::assert_snapshot;
use safetensors::tensor::TensorView;

use crate::{
    support::{Place, model},
    train, train_anew,
};

#[test]
fn a_model_that_is_not_there() {
    assert_snapshot!(train_anew(&["--model", "nothing/at/all"]), @"error: --model nothing/at/all: no such file or folder; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
}

#[test]
fn a_folder_without_a_model() {
    let place = Place::new();
    fs::create_dir(place.path("empty")).unwrap();
    assert_snapshot!(train(&place, &["--model", "empty"]), @"error: --model empty: holds neither config.json nor a .gguf file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
}

#[test]
fn a_file_that_is_no_model() {
    let place = Place::new();
    place.write("model.bin", "PK");
    assert_snapshot!(train(&place, &["--model", "model.bin"]), @"error: --model model.bin: is no GGUF file; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
    place.write("model.gguf", "this is no GGUF file, whatever its name");
    assert_snapshot!(train(&place, &["--model", "model.gguf"]), @"error: --model model.gguf: starts with `this`, not `GGUF`; it is no GGUF file");
}

#[test]
fn a_folder_with_several_gguf_files() {
    let place = Place::new();
    fs::create_dir(place.path("many")).unwrap();
    place.write("many/a.gguf", "");
    place.write("many/b.gguf", "");
    assert_snapshot!(train(&place, &["--model", "many"]), @"error: --model many: holds 2 .gguf files; name one of them");
}

/// A name of the hub, in a program without the hub, or with it and without a network.
#[test]
fn a_hub_name_that_cannot_be_fetched() {
    let said = train_anew(&["--model", "org/name"]);
    if said.contains("--features hub") {
        assert_snapshot!(said, @"error: --model org/name: there is no such file or folder, and to fetch a hub name (`org/name[@revision]`) needs a build with `--features hub`; a Hugging Face folder or a .gguf file works without");
    } else {
        assert!(
            said.contains("org/name") && said.contains("HF_HUB_OFFLINE"),
            "{said}"
        );
    }
}

#[test]
fn a_model_without_a_tokenizer() {
    let place = Place::new();
    place.copy_model();
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    assert_snapshot!(train(&place, &["--model", "model"]), @"error: --model model: holds no tokenizer.json; this model comes without a tokenizer (tokenizer.model files must be converted first)");
}

#[test]
fn a_model_without_weights() {
    let place = Place::new();
    place.copy_model();
    fs::remove_file(place.path("model/model.safetensors")).unwrap();
    assert_snapshot!(train(&place, &["--model", "model"]), @"error: --model model: holds neither model.safetensors nor model.safetensors.index.json (weights in .bin files must be converted first)");
}

#[test]
fn a_model_without_a_tensor() {
    let place = Place::new();
    place.damaged_model(|tensors| {
        tensors.remove("model.layers.3.mlp.up_proj.weight").unwrap();
    });
    assert_snapshot!(train(&place, &["--model", "model"]), @"error: --model model: tensor `model.layers.3.mlp.up_proj.weight` is missing; nearest: model.layers.0.mlp.up_proj.weight, model.layers.1.mlp.up_proj.weight, model.layers.2.mlp.up_proj.weight");
}

#[test]
fn a_model_with_a_tensor_of_another_shape() {
    let place = Place::new();
    place.damaged_model(|tensors| {
        let name = "model.layers.0.self_attn.k_proj.weight";
        let view = &tensors[name];
        let turned = vec![view.shape()[1], view.shape()[0]];
        let turned = TensorView::new(view.dtype(), turned, view.data()).unwrap();
        tensors.insert(name.into(), turned);
    });
    assert_snapshot!(train(&place, &["--model", "model"]), @"error: --model model: tensor `model.layers.0.self_attn.k_proj.weight` has shape [192, 64], the configuration asks for [64, 192]");
}

#[test]
fn a_weights_file_that_was_cut_off() {
    let place = Place::new();
    place.copy_model();
    let path = place.path("model/model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert_snapshot!(train(&place, &["--model", "model"]), @"error: model/model.safetensors: tensor `model.layers.1.self_attn.v_proj.weight` ends at byte 3147264 of the data, and the file has 3145240 (is it cut off? fetch it again)");
}

/// What is said of a model whose `config.json` has `to` in place of `from`.
fn configured(from: &str, to: &str) -> String {
    let place = Place::new();
    place.copy_model();
    place.change("model/config.json", from, to);
    train(&place, &["--model", "model"])
}

#[test]
fn a_model_of_another_architecture() {
    assert_snapshot!(configured("\"model_type\": \"llama\"", "\"model_type\": \"gpt2\""), @"error: model/config.json: model_type is not supported: found `gpt2`; supported: llama, mistral");
}

#[test]
fn a_model_that_is_quantised() {
    let quantised = r#""quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}, "model_type""#;
    assert_snapshot!(configured("\"model_type\"", quantised), @"error: model/config.json: quantization_config is not supported: found `bitsandbytes`; supported: unquantised safetensors, or a GGUF file");
}

#[test]
fn a_configuration_that_is_no_json() {
    assert_snapshot!(configured("\"model_type\": \"llama\",", "model_type: llama"), @"error: model/config.json: is not JSON: key must be a string at line 5 column 3");
}

#[test]
fn a_configuration_that_does_not_fit_itself() {
    assert_snapshot!(configured("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4"), @"error: model/config.json: sizes do not fit together: hidden_size 192, intermediate_size 512, num_hidden_layers 6, num_attention_heads 6, num_key_value_heads 4, vocab_size 4096; all must be positive and heads a multiple of key/value heads");
}

#[test]
fn a_chat_template_that_is_not_there() {
    assert_snapshot!(train_anew(&["--set", "model.chat_template=nothing.jinja"]), @"error: --set model.chat_template=nothing.jinja: no such file; a chat template is a text file with Jinja");
    let said = Place::new().mistake(&[
        "generate",
        "--model",
        &model(),
        "--prompt",
        "Hi",
        "--chat-template",
        "nothing.jinja",
    ]);
    assert_snapshot!(said, @"error: nothing.jinja: no such file; a chat template is a text file with Jinja");
}

#[test]
fn a_chat_template_that_does_not_parse() {
    let place = Place::new();
    place.write(
        "bad.jinja",
        "{% for message in messages %}\n{{ message.content }\n",
    );
    assert_snapshot!(train(&place, &["--set", "model.chat_template=bad.jinja"]), @"error: --set model.chat_template=bad.jinja: chat template: syntax error: unexpected `}`, expected end of variable block (line 2)");
}

#[test]
fn a_chat_template_that_refuses_the_data() {
    let place = Place::new();
    place.write(
        "strict.jinja",
        "{{ raise_exception('a system message comes first') }}",
    );
    assert_snapshot!(train(&place, &["--set", "model.chat_template=strict.jinja"]), @"error: good.jsonl, line 1: chat template: invalid operation: a system message comes first (line 1) (7 more lines cannot be used: 2, 3, 4, 5, 6, 7, 8)");
}

#[test]
fn conversations_without_a_chat_template() {
    let place = Place::new();
    place.copy_model();
    place.change(
        "model/tokenizer_config.json",
        "\"chat_template\"",
        "\"former_template\"",
    );
    assert_snapshot!(train(&place, &["--model", "model"]), @"error: good.jsonl, line 1: is a conversation, and this model has no chat template; give one (model.chat_template or --chat-template), or use data with prompt and completion, or plain text (7 more lines cannot be used: 2, 3, 4, 5, 6, 7, 8)");
}
