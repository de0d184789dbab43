//! Proves that adapter files mean the same to every reader they are meant for, come back to the
//! bit, merge into the weights that they stand for, and are refused in words where they are wrong.

#![allow(clippy::unwrap_used)]

mod common;

use std::{collections::HashMap, fs, path::Path};

use burn::tensor::{DType, FloatDType};
use common::{Numbers, SMALL, Small, assert_close, bits, dense, devices, difference, flex, tensor};
use l1ra_core::{
    AdaptedModule, CoreError, L1raConfig,
    adapter::linear_paths,
    merge_adapters,
    peft::{
        AdapterSet, CONFIG_FILE, Layout, Reader, SIDECAR_FILE, WEIGHTS_FILE, install_adapters,
        load_adapter, save_adapter, save_adapter_data,
    },
    unmerge_adapters,
    walk::AdapterData,
};
use regex::Regex;
use safetensors::SafeTensors;
use serde_json::{Value, json};
use tempfile::TempDir;

const READERS: [Reader; 3] = [Reader::Peft, Reader::LlamaCpp, Reader::Vllm];

/// Adapters of mixed ranks, shapes, gates and scales; every third set has one whose gates are zero.
fn random_set(seed: u64) -> (Vec<AdapterData>, L1raConfig) {
    let mut n = Numbers::new(seed);
    // Numbers as people write them.
    let mut decimal = |whole: usize| n.whole(1, whole * 10_000) as f64 / 10_000.0;
    let config = L1raConfig {
        alpha: if seed.is_multiple_of(2) {
            16.0
        } else {
            decimal(30)
        },
        lambda: decimal(1),
        eta_c: decimal(1),
        dropout: decimal(1) / 2.0,
        rank: n.whole(1, 8),
        ..Default::default()
    };
    let names = [
        "self_attn.q_proj",
        "self_attn.o_proj",
        "mlp.up_proj",
        "mlp.down_proj",
    ];
    let mut adapters = Vec::new();
    for layer in 0..2 {
        for (index, name) in names.iter().enumerate() {
            let path = format!("model.layers.{}.{name}", 9 * layer + 1);
            let dims = [n.whole(6, 12), n.whole(6, 12)];
            let rank = if layer + index == 0 { 1 } else { n.whole(1, 6) };
            let mut adapter = common::random_adapter(&path, dims, rank, &mut n);
            if adapter.c.iter().all(|gate| *gate == 0.0) {
                adapter.c[0] = 0.5;
            }
            if layer == 1 && index == 2 && seed.is_multiple_of(3) {
                adapter.c.fill(0.0);
            }
            adapters.push(adapter);
        }
    }
    (adapters, config)
}

fn is_dormant(adapter: &AdapterData) -> bool {
    adapter.c.iter().all(|gate| *gate == 0.0)
}

fn save(set: &(Vec<AdapterData>, L1raConfig), layout: Layout) -> TempDir {
    let dir = TempDir::new().unwrap();
    save_adapter_data(&set.0, &set.1, layout, "tiny/base", dir.path()).unwrap();
    dir
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn edit_config(dir: &Path, edit: impl FnOnce(&mut Value)) {
    let path = dir.join(CONFIG_FILE);
    let mut config = read_json(&path);
    edit(&mut config);
    fs::write(&path, config.to_string()).unwrap();
}

/// A PEFT matrix: rows, columns and values.
type Matrix = (usize, usize, Vec<f32>);

fn matrices(dir: &Path) -> HashMap<String, Matrix> {
    let bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, view)| {
            assert_eq!(view.dtype(), safetensors::Dtype::F32);
            let data = view.data().chunks_exact(4);
            let values = data
                .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
                .collect();
            (name.to_string(), (view.shape()[0], view.shape()[1], values))
        })
        .collect()
}

/// The first pattern whose expression matches, as PEFT's `get_pattern_key` does.
fn pattern(patterns: &Value, path: &str) -> Option<f64> {
    let matches = |key: &str| {
        Regex::new(&format!(r"^(.*\.)?({key})$"))
            .unwrap()
            .is_match(path)
    };
    let mut patterns = patterns.as_object().unwrap().iter();
    patterns
        .find(|(key, _)| matches(key))
        .and_then(|(_, value)| value.as_f64())
}

/// The dense update that `reader` would apply, `[d_in, d_out]`; `None` where it would refuse.
fn as_read(dir: &Path, reader: Reader, path: &str) -> Option<Vec<f64>> {
    let (config, matrices) = (read_json(&dir.join(CONFIG_FILE)), matrices(dir));
    let part = |part: &str| matrices.get(&format!("base_model.model.{path}.{part}.weight"));
    let ((rank, d_in, a), (d_out, rank_b, b)) = (part("lora_A")?, part("lora_B")?);
    assert_eq!(rank, rank_b);
    let (r, alpha) = (config["r"].as_f64()?, config["lora_alpha"].as_f64()?);
    let scale = match reader {
        Reader::Peft => {
            let own_rank = pattern(&config["rank_pattern"], path).unwrap_or(r);
            if own_rank != *rank as f64 {
                return None;
            }
            pattern(&config["alpha_pattern"], path).unwrap_or(alpha) / own_rank
        }
        Reader::LlamaCpp => alpha / *rank as f64,
        Reader::Vllm => {
            if matrices.iter().any(|(name, matrix)| {
                let own_rank = if name.contains(".lora_A.") {
                    matrix.0
                } else {
                    matrix.1
                };
                own_rank as f64 != r
            }) {
                return None;
            }
            alpha / r
        }
    };
    let mut delta = vec![0.0; d_in * d_out];
    for i in 0..*d_in {
        for o in 0..*d_out {
            let terms = (0..*rank).map(|k| f64::from(a[k * d_in + i]) * f64::from(b[o * rank + k]));
            delta[i * d_out + o] = scale * terms.sum::<f64>();
        }
    }
    Some(delta)
}

#[test]
fn every_layout_means_the_same_in_the_readers_it_is_for() {
    let mut wrong: HashMap<String, usize> = HashMap::new();
    for seed in 0..24 {
        let set = random_set(seed);
        for layout in Layout::ALL {
            let dir = save(&set, layout);
            for reader in READERS {
                for adapter in &set.0 {
                    let got = as_read(dir.path(), reader, &adapter.path);
                    let what = format!("{layout} in {reader}");
                    let missing = matrices(dir.path())
                        .keys()
                        .all(|name| !name.contains(&format!("{}.lora", adapter.path)));
                    assert_eq!(missing, is_dormant(adapter), "{what} {}", adapter.path);
                    if missing {
                        continue;
                    }
                    let right = got.is_some_and(|got| difference(&got, &dense(adapter)) <= 1e-6);
                    if layout.is_right_in(reader) {
                        assert!(right, "seed {seed}: {what} {}", adapter.path);
                    } else if !right {
                        *wrong.entry(what).or_default() += 1;
                    }
                }
            }
        }
    }
    let mut wrong: Vec<String> = wrong.into_keys().collect();
    wrong.sort();
    assert_eq!(
        wrong,
        ["exact in llama.cpp", "exact in vLLM", "folded in vLLM"]
    );
}

#[test]
fn the_configuration_is_what_peft_expects() {
    let set = random_set(3);
    let dormant = set.0.iter().find(|adapter| is_dormant(adapter)).unwrap();
    for layout in Layout::ALL {
        let dir = save(&set, layout);
        let config = read_json(&dir.path().join(CONFIG_FILE));
        assert_eq!(config["peft_type"], "LORA");
        assert_eq!(config["task_type"], "CAUSAL_LM");
        assert_eq!(config["base_model_name_or_path"], "tiny/base");
        assert_eq!(config["bias"], "none");
        let targets = config["target_modules"].as_array().unwrap();
        assert_eq!(targets.len(), 7, "the dormant adapter is no target");
        assert!(!targets.contains(&json!(dormant.path)));
        let ranks = config["rank_pattern"].as_object().unwrap();
        assert_eq!(ranks.is_empty(), layout == Layout::Padded);
        assert!(
            ranks
                .values()
                .all(|rank| rank.as_u64().is_some_and(|rank| rank >= 1))
        );
        assert!(
            config
                .as_object()
                .unwrap()
                .keys()
                .all(|key| !key.contains("l1ra"))
        );
        if layout != Layout::Padded {
            assert_eq!(ranks[r"model\.layers\.1\.self_attn\.q_proj"], 1);
        }
    }
    let whole = save(
        &(
            set.0,
            L1raConfig {
                alpha: 16.0,
                ..set.1
            },
        ),
        Layout::Folded,
    );
    assert_eq!(
        read_json(&whole.path().join(CONFIG_FILE))["lora_alpha"].to_string(),
        "16"
    );
}

/// A module whose path is the end of another's: PEFT takes the first pattern that matches.
#[test]
fn a_path_that_ends_another_keeps_its_own_rank_and_alpha() {
    let mut n = Numbers::new(5);
    let adapters: Vec<AdapterData> = [("proj", 2), ("block.proj", 4), ("outer.block.proj", 3)]
        .into_iter()
        .map(|(path, rank)| {
            let mut adapter = common::random_adapter(path, [6, 5], rank, &mut n);
            adapter.c.fill(0.5);
            adapter
        })
        .collect();
    let set = (adapters, L1raConfig::default());
    for layout in Layout::ALL {
        let dir = save(&set, layout);
        for adapter in &set.0 {
            let got = as_read(dir.path(), Reader::Peft, &adapter.path);
            let got = got.unwrap_or_else(|| panic!("{layout}: PEFT refuses {}", adapter.path));
            assert_close(&layout.to_string(), &got, &dense(adapter), 1e-6);
        }
        fs::remove_file(dir.path().join(SIDECAR_FILE)).unwrap();
        assert_eq!(load_adapter(dir.path()).unwrap().adapters.len(), 3);
    }
}

#[track_caller]
fn assert_same_bits(got: &[AdapterData], want: &[AdapterData]) {
    assert_eq!(got.len(), want.len());
    for (got, want) in got.iter().zip(want) {
        assert_eq!(
            (&got.path, got.d_in, got.d_out),
            (&want.path, want.d_in, want.d_out)
        );
        assert_eq!(got.scale.to_bits(), want.scale.to_bits(), "{}", want.path);
        assert_eq!(bits(&got.a), bits(&want.a), "{}", want.path);
        assert_eq!(bits(&got.c), bits(&want.c), "{}", want.path);
        assert_eq!(bits(&got.b), bits(&want.b), "{}", want.path);
    }
}

#[test]
fn the_sidecar_brings_everything_back_to_the_bit() {
    for seed in 0..60 {
        let set = random_set(seed);
        let layout = Layout::ALL[seed as usize % 3];
        let dir = save(&set, layout);
        let loaded = load_adapter(dir.path()).unwrap();
        assert_same_bits(&loaded.adapters, &set.0);
        assert_eq!(loaded.config.as_ref(), Some(&set.1));
        assert_eq!(loaded.dropout.to_bits(), set.1.dropout.to_bits());
    }
}

#[test]
fn the_peft_files_alone_bring_the_same_update() {
    for seed in 0..24 {
        let set = random_set(seed);
        for layout in Layout::ALL {
            let dir = save(&set, layout);
            fs::remove_file(dir.path().join(SIDECAR_FILE)).unwrap();
            let loaded = load_adapter(dir.path()).unwrap();
            assert_eq!(loaded.config, None);
            let alive = set.0.iter().filter(|adapter| !is_dormant(adapter)).count();
            assert_eq!(loaded.adapters.len(), alive);
            for got in &loaded.adapters {
                let want = set
                    .0
                    .iter()
                    .find(|adapter| adapter.path == got.path)
                    .unwrap();
                assert_close(&format!("{layout}"), &dense(got), &dense(want), 1e-6);
            }
        }
    }
}

#[test]
fn values_in_half_precision_and_rslora_are_read() {
    let set = random_set(1);
    let dir = save(&set, Layout::Folded);
    fs::remove_file(dir.path().join(SIDECAR_FILE)).unwrap();
    let halves: Vec<(String, Vec<usize>, Vec<u8>)> = matrices(dir.path())
        .into_iter()
        .map(|(name, (rows, columns, values))| {
            let to_bytes = |v: &f32| burn::tensor::bf16::from_f32(*v).to_bits().to_le_bytes();
            (
                name,
                vec![rows, columns],
                values.iter().flat_map(to_bytes).collect(),
            )
        })
        .collect();
    let views = halves.iter().map(|(name, shape, bytes)| {
        let dtype = safetensors::Dtype::BF16;
        (
            name,
            safetensors::tensor::TensorView::new(dtype, shape.clone(), bytes).unwrap(),
        )
    });
    fs::write(
        dir.path().join(WEIGHTS_FILE),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
    for got in &load_adapter(dir.path()).unwrap().adapters {
        let want = set
            .0
            .iter()
            .find(|adapter| adapter.path == got.path)
            .unwrap();
        assert_close("bf16", &dense(got), &dense(want), 0.02);
    }
    edit_config(dir.path(), |config| config["use_rslora"] = json!(true));
    for got in &load_adapter(dir.path()).unwrap().adapters {
        let want = set.1.alpha / (got.rank() as f64).sqrt();
        assert!((f64::from(got.scale) - want).abs() <= 1e-6 * want);
    }
}

fn outputs(module: &Small) -> Vec<f32> {
    let x = tensor(
        &Numbers::new(77).signed(9 * 5),
        [9, 5],
        &module.head.weight.val().device(),
    );
    common::values(&module.forward(x))
}

#[test]
fn installed_adapters_give_the_same_outputs() {
    for (name, device) in devices() {
        for (seed, layout) in (0..6).flat_map(|seed| Layout::ALL.map(|layout| (seed, layout))) {
            let ranks = [1 + seed as usize % 4, 2, 4];
            let (module, config) = Small::trained(seed, ranks, &device);
            let want = outputs(&module);
            let dir = TempDir::new().unwrap();
            save_adapter(&module, &config, layout, "tiny/base", dir.path()).unwrap();

            let mut bare = Small::new(seed, &device);
            assert!(
                difference(&outputs(&bare), &want) > 1e-3,
                "the adapters do something"
            );
            install_adapters(&mut bare, &load_adapter(dir.path()).unwrap(), &device).unwrap();
            assert_eq!(bits(&outputs(&bare)), bits(&want), "{name} {layout}");
            assert_same_bits(&bare.data(), &module.data());

            fs::remove_file(dir.path().join(SIDECAR_FILE)).unwrap();
            let mut bare = Small::new(seed, &device);
            install_adapters(&mut bare, &load_adapter(dir.path()).unwrap(), &device).unwrap();
            assert_close(name, &outputs(&bare), &want, 1e-5);
        }
    }
}

fn base_weights(module: &mut Small) -> Vec<Vec<u32>> {
    let mut weights = Vec::new();
    module.for_each_linear(&mut |_, linear| {
        weights.push(bits(&common::values(&linear.weight.val())));
    });
    weights
}

#[test]
fn a_merge_keeps_the_outputs_and_an_unmerge_the_bits() {
    for (name, device) in devices() {
        for (seed, device) in [(1, device.clone()), (2, device.clone().autodiff())] {
            let (mut module, _) = Small::trained(seed, [2, 3, 4], &device);
            let (want, adapters) = (outputs(&module), module.data());
            let base = base_weights(&mut module);
            let undo = merge_adapters(&mut module);
            assert_eq!(undo.len(), 3);
            assert!(module.data().is_empty());
            assert_close(name, &outputs(&module), &want, 1e-4);
            assert_ne!(base_weights(&mut module), base);
            assert!(
                !module.head.weight.val().is_require_grad(),
                "a merged weight is frozen"
            );

            unmerge_adapters(&mut module, undo);
            assert_eq!(base_weights(&mut module), base);
            assert_same_bits(&module.data(), &adapters);
            assert_eq!(bits(&outputs(&module)), bits(&want));
        }
    }
}

#[test]
fn a_bf16_base_merges_in_bf16_and_comes_back() {
    let (mut module, _) = Small::trained(3, [2, 3, 4], &flex());
    module.for_each_linear(&mut |_, linear| {
        linear.weight = linear
            .weight
            .clone()
            .map(|weight| weight.cast(FloatDType::BF16));
    });
    let (base, want) = (base_weights(&mut module), outputs(&module));
    let undo = merge_adapters(&mut module);
    assert_eq!(module.head.weight.val().dtype(), DType::BF16);
    assert_close("outputs", &outputs(&module), &want, 0.05);
    unmerge_adapters(&mut module, undo);
    assert_eq!(base_weights(&mut module), base);
}

/// The message of what `spoil` does to a saved adapter, the folder written as `DIR`.
fn refusal(spoil: impl FnOnce(&Path)) -> String {
    let (module, config) = Small::trained(11, [2, 3, 4], &flex());
    let dir = TempDir::new().unwrap();
    save_adapter(&module, &config, Layout::Folded, "tiny/base", dir.path()).unwrap();
    load_adapter(dir.path()).unwrap();
    spoil(dir.path());
    message(dir.path(), &load_adapter(dir.path()).unwrap_err())
}

fn message(dir: &Path, error: &CoreError) -> String {
    error.to_string().replace(&dir.display().to_string(), "DIR")
}

/// Writes the weights again without some tensors, or with others' names.
fn rename(dir: &Path, name: impl Fn(&str) -> Option<String>) {
    let renamed: Vec<(String, Matrix)> = matrices(dir)
        .into_iter()
        .filter_map(|(old, matrix)| Some((name(&old)?, matrix)))
        .collect();
    let bytes: Vec<Vec<u8>> = renamed
        .iter()
        .map(|(_, (_, _, values))| values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = renamed
        .iter()
        .zip(&bytes)
        .map(|((name, (rows, columns, _)), bytes)| {
            let shape = vec![*rows, *columns];
            let dtype = safetensors::Dtype::F32;
            (
                name,
                safetensors::tensor::TensorView::new(dtype, shape, bytes).unwrap(),
            )
        });
    fs::write(
        dir.join(WEIGHTS_FILE),
        safetensors::serialize(views, None).unwrap(),
    )
    .unwrap();
}

#[test]
fn a_folder_without_a_configuration_is_no_adapter() {
    insta::assert_snapshot!(
        refusal(|dir| fs::remove_file(dir.join(CONFIG_FILE)).unwrap()),
        @"DIR: holds no adapter_config.json; give the folder of a saved adapter"
    );
    insta::assert_snapshot!(
        refusal(|dir| fs::write(dir.join(CONFIG_FILE), "{\"r\": 2").unwrap()),
        @"DIR/adapter_config.json: is not JSON: EOF while parsing an object at line 1 column 7"
    );
    insta::assert_snapshot!(
        refusal(|dir| fs::write(dir.join(CONFIG_FILE), "{\"r\": 2}").unwrap()),
        @"DIR/adapter_config.json: is no PEFT configuration: missing field `peft_type` at line 1 column 8"
    );
    insta::assert_snapshot!(
        refusal(|dir| edit_config(dir, |config| config["r"] = json!(-2))),
        @"DIR/adapter_config.json: is no PEFT configuration: `r`: invalid value: integer `-2`, expected usize at line 1 column 110"
    );
}

#[test]
fn damaged_weights_are_named() {
    insta::assert_snapshot!(
        refusal(|dir| fs::write(dir.join(WEIGHTS_FILE), b"not tensors").unwrap()),
        @"DIR/adapter_model.safetensors: its first 8 bytes say that its header has 8317697111234998126 bytes; the file has 3 after them, and a header 100000000 at most (is it cut off, or no safetensors file?)"
    );
    insta::assert_snapshot!(
        refusal(|dir| {
            let bytes = fs::read(dir.join(WEIGHTS_FILE)).unwrap();
            fs::write(dir.join(WEIGHTS_FILE), &bytes[..bytes.len() - 5]).unwrap();
        }),
        @"DIR/adapter_model.safetensors: tensor `base_model.model.layers.1.lora_B.weight` ends at byte 412 of the data, and the file has 407 (is it cut off? fetch it again)"
    );
    let gone = refusal(|dir| fs::remove_file(dir.join(WEIGHTS_FILE)).unwrap());
    assert!(
        gone.starts_with("DIR: holds no adapter_model.safetensors"),
        "{gone}"
    );
}

#[test]
fn a_rank_unlike_the_configurations_is_told_with_both() {
    insta::assert_snapshot!(
        refusal(|dir| edit_config(dir, |config| config["rank_pattern"]["layers\\.1"] = json!(5))),
        @"DIR/adapter_model.safetensors: module `layers.1`: A is [3, 7] and B [6, 3], but adapter_config.json gives it rank 5"
    );
}

#[test]
fn a_missing_or_foreign_tensor_is_named() {
    insta::assert_snapshot!(
        refusal(|dir| rename(dir, |name| (!name.contains("head.lora_B")).then(|| name.into()))),
        @"DIR/adapter_model.safetensors: tensor `base_model.model.head.lora_B.weight` is missing"
    );
    insta::assert_snapshot!(
        refusal(|dir| rename(dir, |name| Some(name.replace("head.lora_B", "head.lora_magnitude")))),
        @"DIR/adapter_model.safetensors: tensor `base_model.model.head.lora_magnitude.weight` is not `base_model.model.<module>.lora_A.weight` or `.lora_B.weight`"
    );
}

#[test]
fn options_that_change_the_formula_are_refused_by_name() {
    let with =
        |key: &str, value: Value| refusal(|dir| edit_config(dir, |config| config[key] = value));
    insta::assert_snapshot!(
        with("use_dora", json!(true)),
        @"DIR/adapter_config.json: `use_dora` is true, which is not supported"
    );
    insta::assert_snapshot!(
        with("peft_type", json!("ADALORA")),
        @"DIR/adapter_config.json: peft_type is ADALORA; only LORA is supported"
    );
    for (key, value) in [
        ("fan_in_fan_out", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["head"])),
        ("lora_bias", json!(true)),
    ] {
        let message = with(key, value);
        assert!(
            message.contains(CONFIG_FILE) && message.contains(&format!("`{key}`")),
            "{message}"
        );
    }
}

#[test]
fn a_sidecar_of_other_files_is_refused() {
    // Another module set.
    insta::assert_snapshot!(
        refusal(|dir| {
            let keep = |name: &str| (!name.contains("head")).then(|| name.to_string());
            rename(dir, keep);
        }),
        @"DIR/l1ra_adapter.safetensors: does not belong to the adapter_model.safetensors beside it (3 modules here, 2 there); remove it to load the PEFT files alone"
    );
    // The same modules, trained again by a program that does not know the sidecar.
    let retrained = |ranks: [usize; 3]| {
        refusal(|dir| {
            let (module, config) = Small::trained(12, ranks, &flex());
            let other = TempDir::new().unwrap();
            save_adapter(&module, &config, Layout::Folded, "tiny/base", other.path()).unwrap();
            for file in [CONFIG_FILE, WEIGHTS_FILE] {
                fs::copy(other.path().join(file), dir.join(file)).unwrap();
            }
        })
    };
    insta::assert_snapshot!(
        retrained([2, 3, 4]),
        @"DIR/l1ra_adapter.safetensors: does not belong to the adapter_model.safetensors beside it (module `head` has other values there); remove it to load the PEFT files alone"
    );
    insta::assert_snapshot!(
        retrained([1, 3, 4]),
        @"DIR/l1ra_adapter.safetensors: does not belong to the adapter_model.safetensors beside it (module `head` has other values there); remove it to load the PEFT files alone"
    );
    // The scale changed by hand.
    insta::assert_snapshot!(
        refusal(|dir| edit_config(dir, |config| config["lora_alpha"] = json!(12))),
        @"DIR/l1ra_adapter.safetensors: does not belong to the adapter_model.safetensors beside it (module `head` has other values there); remove it to load the PEFT files alone"
    );
    insta::assert_snapshot!(
        refusal(|dir| fs::write(dir.join(SIDECAR_FILE), b"broken").unwrap()),
        @"DIR/l1ra_adapter.safetensors: has 6 bytes; a safetensors file begins with 8 that hold the length of its header"
    );
    insta::assert_snapshot!(
        refusal(|dir| {
            fs::copy(dir.join(WEIGHTS_FILE), dir.join(SIDECAR_FILE)).unwrap();
        }),
        @"DIR/l1ra_adapter.safetensors: has no `l1ra` entry; it is not a sidecar of this program"
    );
}

fn install(path: &str, dims: [usize; 2]) -> String {
    let mut n = Numbers::new(1);
    let set = AdapterSet {
        adapters: vec![
            common::random_adapter(SMALL[0].0, SMALL[0].1, 2, &mut n),
            common::random_adapter(path, dims, 2, &mut n),
        ],
        dropout: 0.0,
        config: None,
    };
    let mut module = Small::new(1, &flex());
    let error = install_adapters(&mut module, &set, &flex()).unwrap_err();
    assert!(module.data().is_empty(), "the module is as it was");
    error.to_string()
}

#[test]
fn an_adapter_for_another_model_is_told_apart() {
    assert_eq!(
        linear_paths(&mut Small::new(1, &flex())),
        SMALL.map(|(path, _)| path)
    );
    insta::assert_snapshot!(
        install("layers.2", [6, 4]),
        @"target `layers.2` matches no linear layer of this model; nearest: layers.0, layers.1, head"
    );
    insta::assert_snapshot!(
        install("haed", [6, 4]),
        @"target `haed` matches no linear layer of this model; nearest: head, 0, 1"
    );
    // The end of a path is not the path.
    insta::assert_snapshot!(
        install("1", [7, 6]),
        @"target `1` matches no linear layer of this model; nearest: layers.1, head, layers.0"
    );
    insta::assert_snapshot!(
        install("head", [6, 5]),
        @"adapter `head`: was trained for a layer [6, 5]; this layer is [6, 4]"
    );
}

#[test]
fn values_that_are_not_finite_are_not_saved() {
    let (mut adapters, config) = random_set(1);
    adapters[2].b[3] = f32::NAN;
    let dir = TempDir::new().unwrap();
    let error =
        save_adapter_data(&adapters, &config, Layout::Folded, "tiny", dir.path()).unwrap_err();
    insta::assert_snapshot!(
        error.to_string(),
        @"adapter `model.layers.1.mlp.up_proj`: B holds NaN; not saved (has the loss diverged?)"
    );
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

/// Files cut short and files with flipped bits: any answer but a panic.
#[test]
fn damaged_files_never_panic() {
    let mut n = Numbers::new(99);
    let adapters: Vec<AdapterData> = ["a.x", "b"]
        .into_iter()
        .map(|path| common::random_adapter(path, [3, 2], 2, &mut n))
        .collect();
    let (mut cases, mut refused) = (0, 0);
    for layout in Layout::ALL {
        let dir = save(&(adapters.clone(), L1raConfig::default()), layout);
        let mut try_with = |file: &str, bytes: &[u8], name: &str| {
            fs::write(dir.path().join(file), bytes).unwrap();
            cases += 1;
            if let Err(error) = load_adapter(dir.path()) {
                refused += 1;
                let text = error.to_string();
                assert!(text.len() < 2000 && !text.is_empty(), "{name}: {text}");
            }
        };
        for with_sidecar in [true, false] {
            let sidecar = fs::read(dir.path().join(SIDECAR_FILE)).unwrap();
            if !with_sidecar {
                fs::remove_file(dir.path().join(SIDECAR_FILE)).unwrap();
            }
            for file in [CONFIG_FILE, WEIGHTS_FILE, SIDECAR_FILE] {
                if file == SIDECAR_FILE && !with_sidecar {
                    continue;
                }
                let whole = fs::read(dir.path().join(file)).unwrap();
                for length in (0..whole.len()).step_by(37) {
                    try_with(file, &whole[..length], file);
                }
                for _ in 0..60 {
                    let mut bytes = whole.clone();
                    for _ in 0..n.whole(1, 3) {
                        let at = n.whole(0, bytes.len() - 1);
                        bytes[at] ^= 1 << n.whole(0, 7);
                    }
                    try_with(file, &bytes, file);
                }
                fs::write(dir.path().join(file), &whole).unwrap();
            }
            fs::write(dir.path().join(SIDECAR_FILE), sidecar).unwrap();
        }
        load_adapter(dir.path()).unwrap();
    }
    assert!(
        cases > 500 && refused > cases / 2,
        "{refused} of {cases} refused"
    );
}
