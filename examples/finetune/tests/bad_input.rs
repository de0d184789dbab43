//! Every mistake a user of `finetune` can make ends with exit code 2 and a message that names the
//! remedy, before anything is trained; and a run without a mistake leaves every file it promises.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use insta::assert_snapshot;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// A conversation that is as it should be.
const GOOD: &str = r#"{"messages": [{"role": "user", "content": "Define the noun \"current\"."}, {"role": "assistant", "content": "A flow of electricity through a conductor."}]}"#;

/// A folder of a test's own, with small data in it.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(TempDir::new().unwrap());
        place.write("good.jsonl", &format!("{GOOD}\n").repeat(8));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// The repository's model in `model`, with its tensors as `damage` leaves them.
    fn model(&self, damage: impl FnOnce(&mut HashMap<String, TensorView<'_>>)) {
        let to = self.path("model");
        fs::create_dir(&to).unwrap();
        for name in ["config.json", "generation_config.json", "tokenizer.json"]
            .into_iter()
            .chain(["tokenizer_config.json"])
        {
            fs::copy(own("model").join(name), to.join(name)).unwrap();
        }
        let bytes = fs::read(own("model/model.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: HashMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
        damage(&mut tensors);
        let bytes = safetensors::serialize(&tensors, None).unwrap();
        fs::write(to.join("model.safetensors"), bytes).unwrap();
    }

    fn run(&self, args: &[&str]) -> Output {
        let mut command = assert_cmd::Command::cargo_bin("finetune").unwrap();
        let good = self.text("good.jsonl");
        let output = self.text("out");
        let mut all: Vec<&str> = args.to_vec();
        for (flag, value) in [("--data", good.as_str()), ("--output", output.as_str())] {
            if !args.contains(&flag) {
                all.extend([flag, value]);
            }
        }
        command.args(all).output().unwrap()
    }

    /// What the program says of the mistake in `args`, paths of this machine left out.
    fn mistake(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.starts_with("error: "), "{stderr}");
        for sign in ["panicked", "RUST_BACKTRACE", "eval loss", "step 1"] {
            assert!(!stderr.contains(sign), "`{sign}` in: {stderr}");
        }
        assert!(!self.path("out/adapter").exists() && !self.path("out/metrics.jsonl").exists());
        let temporary = self.0.path().display().to_string();
        stderr
            .replace(&temporary, "[dir]")
            .replace(env!("CARGO_MANIFEST_DIR"), "[finetune]")
            .trim_end()
            .to_string()
    }

    /// [`mistake`](Self::mistake) in a data file that holds `text`.
    fn data_mistake(&self, text: &str) -> String {
        self.write("data.jsonl", text);
        self.mistake(&["--data", &self.text("data.jsonl")])
    }
}

/// A path beside this example's manifest.
fn own(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn json_lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

#[test]
fn a_model_path_that_is_not_there() {
    let place = Place::new();
    let said = place.mistake(&["--model", &place.text("nothing")]);
    assert_snapshot!(said, @"error: [dir]/nothing: no such file or folder; a model is a Hugging Face folder (config.json, tokenizer.json, model.safetensors) or a .gguf file");
}

#[test]
fn a_model_without_a_tokenizer() {
    let place = Place::new();
    place.model(|_| {});
    fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    let said = place.mistake(&["--model", &place.text("model")]);
    assert_snapshot!(said, @"error: [dir]/model: holds no tokenizer.json; this model comes without a tokenizer (tokenizer.model files must be converted first)");
}

#[test]
fn a_model_without_a_tensor() {
    let place = Place::new();
    place.model(|tensors| {
        tensors.remove("model.layers.3.mlp.up_proj.weight").unwrap();
    });
    let said = place.mistake(&["--model", &place.text("model")]);
    assert_snapshot!(said, @"error: [dir]/model: tensor `model.layers.3.mlp.up_proj.weight` is missing; nearest: model.layers.0.mlp.up_proj.weight, model.layers.1.mlp.up_proj.weight, model.layers.2.mlp.up_proj.weight");
}

#[test]
fn a_model_with_a_tensor_of_another_shape() {
    let place = Place::new();
    place.model(|tensors| {
        let name = "model.layers.0.self_attn.k_proj.weight";
        let view = &tensors[name];
        let turned = vec![view.shape()[1], view.shape()[0]];
        let turned = TensorView::new(view.dtype(), turned, view.data()).unwrap();
        tensors.insert(name.into(), turned);
    });
    let said = place.mistake(&["--model", &place.text("model")]);
    assert_snapshot!(said, @"error: [dir]/model: tensor `model.layers.0.self_attn.k_proj.weight` has shape [192, 64], the configuration asks for [64, 192]");
}

#[test]
fn a_model_of_another_architecture() {
    let place = Place::new();
    place.model(|_| {});
    let path = place.path("model/config.json");
    let config = fs::read_to_string(&path).unwrap();
    fs::write(&path, config.replace("\"llama\"", "\"gpt2\"")).unwrap();
    let said = place.mistake(&["--model", &place.text("model")]);
    assert_snapshot!(said, @"error: [dir]/model/config.json: model_type is not supported: found `gpt2`; supported: llama, mistral");
}

#[test]
fn a_chat_template_that_is_not_there_or_does_not_parse() {
    let place = Place::new();
    let said = place.mistake(&["--chat-template", &place.text("nothing.jinja")]);
    // Once: what the system says is not repeated.
    assert_eq!(said.matches("[dir]/nothing.jinja: ").count(), 1, "{said}");
    assert_eq!(said.matches("os error").count(), 1, "{said}");
    place.write("bad.jinja", "{% for %}");
    let said = place.mistake(&["--chat-template", &place.text("bad.jinja")]);
    assert!(said.starts_with("error: chat template: "), "{said}");
}

#[test]
fn data_that_is_not_there() {
    let place = Place::new();
    let said = place.mistake(&["--data", &place.text("nothing.jsonl")]);
    assert_snapshot!(said, @r#"error: [dir]/nothing.jsonl: no such file; give a .jsonl file with conversations ({"messages": [{"role": "user", "content": …}, …]}) or a text file"#);
}

#[test]
fn a_line_that_is_not_json() {
    let said = Place::new().data_mistake(&format!("{GOOD}\n\n{{\"messages\": [\n"));
    assert_snapshot!(said, @"error: [dir]/data.jsonl, line 3: is not JSON: EOF while parsing a list (column 14)");
}

#[test]
fn a_line_without_messages() {
    let said = Place::new().data_mistake("{\"prompt\": \"a\", \"completion\": \"b\"}\n");
    assert_snapshot!(said, @r#"error: [dir]/data.jsonl, line 1: has no list `messages` (seen: prompt, completion); expected {"messages": [{"role": …, "content": …}, …]}"#);
}

#[test]
fn a_line_with_no_message_in_its_list() {
    let said = Place::new().data_mistake(&format!("{GOOD}\n{{\"messages\": []}}\n"));
    assert_snapshot!(said, @"error: [dir]/data.jsonl, line 2: its `messages` are empty");
}

#[test]
fn a_role_that_is_unknown() {
    let said = Place::new().data_mistake(&GOOD.replace("\"assistant\"", "\"gpt\""));
    assert_snapshot!(said, @"error: [dir]/data.jsonl, line 1: message 2 has the unknown role `gpt`; known: system, user, assistant, tool");
}

#[test]
fn a_message_without_content() {
    let place = Place::new();
    let said = place.data_mistake(r#"{"messages": [{"role": "user", "text": "Hi"}]}"#);
    assert_snapshot!(said, @"error: [dir]/data.jsonl, line 1: message 1 has no text `content`");
    // Content in parts, as for pictures, is no text either.
    let said =
        place.data_mistake(r#"{"messages": [{"role": "user", "content": [{"type": "text"}]}]}"#);
    assert_snapshot!(said, @"error: [dir]/data.jsonl, line 1: message 1 has no text `content`");
}

#[test]
fn data_without_an_assistant() {
    let said = Place::new().data_mistake(&GOOD.replace("\"assistant\"", "\"user\""));
    assert_snapshot!(said, @"error: [dir]/data.jsonl, line 1: has no message of the assistant, so nothing to learn");
}

#[test]
fn data_that_is_empty() {
    let place = Place::new();
    assert_snapshot!(place.data_mistake("\n  \n"), @"error: [dir]/data.jsonl: holds no samples; training needs at least one");
    place.write("empty.txt", "");
    assert_snapshot!(place.mistake(&["--data", &place.text("empty.txt")]), @"error: [dir]/empty.txt: holds no samples; training needs at least one");
}

#[test]
fn one_sample_for_training_and_evaluation() {
    let said = Place::new().data_mistake(GOOD);
    assert_snapshot!(said, @"error: [dir]/data.jsonl: holds 1 sample; training and evaluation need one each (or give --eval-data)");
}

#[test]
fn rows_too_short_to_hold_a_target() {
    let said = Place::new().mistake(&["--max-length", "4"]);
    assert_snapshot!(said, @"error: [dir]/good.jsonl: holds no sample with a target within the first 4 tokens; raise max_length or train on all tokens");
}

#[test]
fn a_target_that_the_model_does_not_have() {
    let said = Place::new().mistake(&["--targets", "q_proj,w_proj"]);
    assert_snapshot!(said, @"error: target `w_proj` matches no linear layer of this model; nearest: k_proj, o_proj, q_proj, v_proj");
}

#[test]
fn a_target_expression_that_does_not_compile() {
    let said = Place::new().mistake(&["--targets", "re:.*(q_proj"]);
    assert!(
        said.contains("`.*(q_proj` is not a regular expression"),
        "{said}"
    );
}

#[test]
fn a_rank_that_no_adapter_can_have() {
    let place = Place::new();
    assert_snapshot!(place.mistake(&["--rank", "0"]), @"error: rank = 0: an adapter has a rank of at least 1");
    assert_snapshot!(place.mistake(&["--rank", "65"]), @"error: rank = 65: at most 64 for `model.layers.0.self_attn.k_proj` ([192, 64])");
}

#[test]
fn a_schedule_without_an_update() {
    let said = Place::new().mistake(&["--update-ratio", "0.9", "--steps", "10", "--warmup", "2"]);
    assert_snapshot!(said, @r#"error: rank reallocation cannot work with this schedule: no update would ever happen: 10 optimizer steps, one update every 9 (update_ratio = 0.9), a warm-up of 2 steps and none in the last 20 % (settle_ratio). Train for more steps, lower update_ratio, warmup or settle_ratio, or set policy = "fixed""#);
}

#[test]
fn a_schedule_with_more_updates_than_steps() {
    let said = Place::new().mistake(&["--update-ratio", "0.01", "--steps", "20", "--warmup", "2"]);
    assert_snapshot!(said, @r#"error: rank reallocation cannot work with this schedule: update_ratio = 0.01 asks for more updates than the 20 optimizer steps of this run. Use an update_ratio of at least 0.050, train for more steps, or set policy = "fixed""#);
}

#[test]
fn a_warm_up_as_long_as_the_run() {
    let place = Place::new();
    let said = place.mistake(&["--steps", "20", "--warmup", "20"]);
    assert_snapshot!(said, @"error: warmup_steps = 20: fewer than the 20 steps of the run");
}

#[test]
fn a_learning_rate_that_is_none() {
    let place = Place::new();
    assert_snapshot!(place.mistake(&["--lr", "0"]), @"error: lr = 0: a positive number");
    assert_snapshot!(place.mistake(&["--lr", "nan"]), @"error: lr = NaN: a positive number");
    assert_snapshot!(place.mistake(&["--lr=-1e-3"]), @"error: lr = -0.001: a positive number");
}

#[test]
fn a_device_that_is_none() {
    let place = Place::new();
    // What else is compiled in depends on what is built along with it.
    if !cfg!(feature = "cuda") {
        let said = place.mistake(&["--device", "cuda"]);
        let start = "error: device `cuda` was not compiled in; build again with `--features cuda` (compiled in: flex";
        assert!(said.starts_with(start), "{said}");
    }
    assert_snapshot!(place.mistake(&["--device", "gpu"]), @"error: device `gpu` is unknown; known: flex, ndarray, wgpu[:i], vulkan[:i], metal[:i], cuda[:i], rocm[:i]");
    assert_snapshot!(place.mistake(&["--device", "flex:1"]), @"error: device `flex:1`: `flex` is a CPU device and takes no index");
    assert_snapshot!(place.mistake(&["--device", "cuda:one"]), @"error: device `cuda:one`: the part after `:` is a device index, a number from 0");
}

#[test]
fn words_that_are_not_known() {
    let place = Place::new();
    let words = [
        ("--dtype", "q4", "f32"),
        ("--policy", "adalora", "known: l1ra, reference, fixed"),
        ("--budget", "bytes", "known: ranks, parameters"),
        ("--schedule", "step", "known: cosine, linear, constant"),
        ("--train-on", "user", "known: completions, all"),
    ];
    for (flag, word, remedy) in words {
        let said = place.mistake(&[flag, word]);
        assert!(
            said.contains(flag) && said.contains(word) && said.contains(remedy),
            "{said}"
        );
    }
    assert_snapshot!(place.mistake(&["--dtype", "q4"]), @"
    error: invalid value 'q4' for '--dtype <DTYPE>': type `q4` is unknown; known: f32, bf16, f16, stored

    For more information, try '--help'.
    ");
}

#[test]
fn an_output_folder_that_is_a_file() {
    let place = Place::new();
    place.write("file", "mine\n");
    let said = place.mistake(&["--output", &place.text("file")]);
    assert_snapshot!(said, @"error: [dir]/file: is a file; --output takes a folder, which is made if it is not there");
    assert_eq!(fs::read_to_string(place.path("file")).unwrap(), "mine\n");
}

#[test]
fn a_run_without_a_mistake_leaves_what_it_says() {
    let place = Place::new();
    let output = place.run(&[
        "--data",
        &own("data/eval.jsonl").display().to_string(),
        "--steps=12",
        "--warmup=2",
        "--eval-rows=8",
        "--batch-size=2",
        "--max-length=48",
        "--update-ratio=0.2",
    ]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{stderr}");
    let stdout = String::from_utf8(output.stdout).unwrap();
    let number = |label: &str| {
        let line = stdout
            .lines()
            .find(|line| line.starts_with(label))
            .expect(label);
        let (before, after) = line[label.len()..].trim().split_once(" → ").expect(line);
        (
            before.parse::<f64>().unwrap(),
            after.parse::<f64>().unwrap(),
        )
    };
    let (before, after) = number("eval loss");
    assert!(before.is_finite() && after < before, "{before} → {after}");
    assert!(number("perplexity").1.is_finite());
    let adapter = place.text("out/adapter");
    for part in [
        "parameters  ",
        "tokens/s",
        "layer     q_proj     k_proj",
        "ranks, ",
        "\nprompt   Define ",
        "\nbefore   ",
        "\nafter    ",
        adapter.as_str(),
    ] {
        assert!(stdout.contains(part), "no `{part}` in\n{stdout}");
    }

    let config: Value =
        serde_json::from_slice(&fs::read(place.path("out/adapter/adapter_config.json")).unwrap())
            .unwrap();
    assert_eq!(config["peft_type"], "LORA");
    for (name, least) in [
        ("adapter_model.safetensors", 2),
        ("l1ra_adapter.safetensors", 3),
    ] {
        let bytes = fs::read(place.path("out/adapter").join(name)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        assert!(
            file.len() >= least * 42,
            "{name}: {} tensors of 42 adapters",
            file.len()
        );
    }

    let metrics = json_lines(&place.path("out/metrics.jsonl"));
    let (evaluations, steps): (Vec<_>, Vec<_>) = metrics
        .iter()
        .partition(|line| line.get("eval_loss").is_some());
    let numbers: Vec<u64> = steps
        .iter()
        .map(|line| line["step"].as_u64().unwrap())
        .collect();
    assert_eq!(numbers, (1..=12).collect::<Vec<u64>>());
    assert!(
        steps
            .iter()
            .all(|line| line["loss"].as_f64().unwrap().is_finite())
    );
    let at: Vec<&Value> = evaluations.iter().map(|line| &line["step"]).collect();
    assert_eq!(at, [0, 12]);
    let loss = evaluations[1]["eval_loss"].as_f64().unwrap();
    assert!(
        (loss - after).abs() < 1e-4,
        "{loss} in the file, {after} printed"
    );

    // A period of ⌊0.2 · 12⌋ = 2 steps, none in the warm-up of 2 nor in the last 20 %.
    let updates = json_lines(&place.path("out/ranks.jsonl"));
    let at: Vec<&Value> = updates.iter().map(|line| &line["step"]).collect();
    assert_eq!(at, [4, 6, 8]);
    for update in &updates {
        let ranks = update["ranks"].as_array().unwrap();
        let total: u64 = ranks.iter().map(|rank| rank.as_u64().unwrap()).sum();
        assert_eq!((ranks.len(), total), (42, 42 * 8));
    }
    let options: Value =
        serde_json::from_slice(&fs::read(place.path("out/options.json")).unwrap()).unwrap();
    assert_eq!(options["steps"], 12);
    assert_eq!(options["adapters"]["update_ratio"], 0.2);
}
