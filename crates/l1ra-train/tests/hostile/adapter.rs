//! Adapter folders: PEFT's configuration and matrices, and the sidecar.

use std::{fs, path::Path};

use l1ra_core::{
    L1raConfig,
    peft::{
        CONFIG_FILE, Layout, SIDECAR_FILE, WEIGHTS_FILE, describe_adapter, load_adapter,
        save_adapter_data,
    },
    walk::AdapterData,
};
use l1ra_models::inspect;
use serde_json::{Value, json};

use crate::{
    damage::{Shell, header_and_data, with_header},
    format::{Crafted, Format, Outcome, Seed, run, run_crafted, write_fuzz_seed},
};

const FILES: [(&str, Shell); 3] = [
    (CONFIG_FILE, Shell::Text),
    (WEIGHTS_FILE, Shell::Safetensors),
    (SIDECAR_FILE, Shell::Safetensors),
];

fn load(dir: &Path) -> Outcome {
    let set = load_adapter(dir)?;
    if let Some(config) = &set.config {
        config.validate()?;
    }
    assert!((0.0..1.0).contains(&set.dropout), "dropout {}", set.dropout);
    let _ = describe_adapter(dir)?;
    let _ = inspect(dir)?.to_string();
    Ok(())
}

fn adapters() -> Vec<AdapterData> {
    let adapter = |path: &str, rank: usize, scale: f32| AdapterData {
        path: format!("model.layers.0.self_attn.{path}"),
        d_in: 3,
        d_out: 2,
        a: vec![0.5; 3 * rank],
        c: vec![1.0; rank],
        b: vec![0.25; rank * 2],
        scale,
    };
    vec![adapter("q_proj", 1, 1.0), adapter("v_proj", 3, 2.0)]
}

/// The folder of an adapter, as a seed for each of its files.
fn saved(layout: Layout) -> Vec<Seed> {
    let dir = tempfile::tempdir().unwrap();
    save_adapter_data(
        &adapters(),
        &L1raConfig::default(),
        layout,
        "org/base",
        dir.path(),
    )
    .unwrap();
    Seed::each_of(dir.path(), &FILES)
}

/// PEFT's two files without a sidecar.
fn plain() -> Vec<Seed> {
    let mut seeds = saved(Layout::Exact);
    seeds.pop();
    for seed in &mut seeds {
        seed.beside.retain(|(name, _)| name != SIDECAR_FILE);
    }
    seeds
}

fn format() -> Format {
    let mut format = Format::new("adapter", load);
    // The file itself, and its values twice while they are turned over; of 16 bits, twice as much.
    format.factor = 6;
    format.inputs = 2000;
    format.seeds = saved(Layout::Folded);
    format.seeds.extend(saved(Layout::Exact));
    format.seeds.extend(plain());
    format
}

#[test]
fn adapter() {
    run(format);
}

/// PEFT's files with other matrices: name, shape, number of values.
fn of_shapes(config: &Value, shapes: &[(&str, [usize; 2])]) -> Seed {
    let mut entries = serde_json::Map::new();
    let mut at = 0;
    for (name, shape) in shapes {
        let end = at + 4 * shape[0] * shape[1];
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [at, end]});
        entries.insert(format!("base_model.model.q_proj.{name}.weight"), entry);
        at = end;
    }
    let header = Value::Object(entries).to_string();
    Seed::new(
        Shell::Safetensors,
        WEIGHTS_FILE,
        with_header(header.as_bytes(), &vec![0; at]),
    )
    .beside(CONFIG_FILE, config.to_string())
}

fn config(rank: usize) -> Value {
    json!({"peft_type": "LORA", "r": rank, "lora_alpha": 1, "target_modules": ["q_proj"]})
}

/// A folder whose file `name` is `bytes`.
fn with(name: &str, bytes: Vec<u8>) -> Seed {
    let seed = saved(Layout::Folded)
        .into_iter()
        .find(|seed| seed.name == name);
    Seed {
        bytes,
        ..seed.unwrap()
    }
}

/// The sidecar, with its own JSON changed.
fn sidecar(change: impl Fn(&mut Value)) -> Seed {
    let seed = with(SIDECAR_FILE, Vec::new());
    let dir = tempfile::tempdir().unwrap();
    save_adapter_data(
        &adapters(),
        &L1raConfig::default(),
        Layout::Folded,
        "",
        dir.path(),
    )
    .unwrap();
    let file = fs::read(dir.path().join(SIDECAR_FILE)).unwrap();
    let (header, data) = header_and_data(&file).unwrap();
    let mut header: Value = serde_json::from_slice(header).unwrap();
    let mut own: Value =
        serde_json::from_str(header["__metadata__"]["l1ra"].as_str().unwrap()).unwrap();
    change(&mut own);
    header["__metadata__"]["l1ra"] = own.to_string().into();
    let bytes = with_header(header.to_string().as_bytes(), data);
    Seed { bytes, ..seed }
}

fn crafted() -> Crafted {
    let huge = 1 << 50;
    let with_config = |change: &dyn Fn(&mut Value)| {
        let mut value = config(1);
        change(&mut value);
        of_shapes(&value, &[("lora_A", [1, 3]), ("lora_B", [2, 1])])
    };
    let patterns = |pattern: &str, count: usize| {
        let entries = (0..count).map(|at| (format!("{at}|{pattern}"), json!(1)));
        let entries: serde_json::Map<_, _> = entries.collect();
        with_config(&|value| value["rank_pattern"] = Value::Object(entries.clone()))
    };
    let zeros = json!(vec![0; 300_000]);
    let crafted = vec![
        (
            "a rank of nothing",
            of_shapes(
                &config(huge),
                &[("lora_A", [huge, 0]), ("lora_B", [0, huge])],
            ),
        ),
        (
            "outputs of nothing",
            of_shapes(&config(1), &[("lora_A", [1, 3]), ("lora_B", [0, 1])]),
        ),
        (
            "inputs of nothing",
            of_shapes(&config(1), &[("lora_A", [1, 0]), ("lora_B", [2, 1])]),
        ),
        (
            "a rank of zero",
            of_shapes(&config(0), &[("lora_A", [0, 3]), ("lora_B", [2, 0])]),
        ),
        (
            "a dropout of two",
            with_config(&|value| value["lora_dropout"] = json!(2.0)),
        ),
        (
            "an alpha beyond f32",
            with_config(&|value| value["lora_alpha"] = json!(1e308)),
        ),
        (
            "a long unknown key",
            with_config(&|value| value["x"] = zeros.clone()),
        ),
        (
            "a long refused key",
            with_config(&|value| value["use_dora"] = zeros.clone()),
        ),
        ("many large patterns", patterns(r"(\pL{50}|\d{40})", 300)),
        ("a pattern too large", patterns(r"(\pL{1000}){100}", 1)),
        ("many patterns", patterns("q_proj", 20_000)),
        (
            "a module a thousand times",
            sidecar(|own| {
                let entries = own["adapters"].as_array().unwrap().clone();
                own["adapters"] = entries.iter().cycle().take(4000).cloned().collect();
            }),
        ),
        (
            "a sidecar with a dropout of two",
            sidecar(|own| own["config"]["dropout"] = json!(2.0)),
        ),
        (
            "a sidecar with a rank of zero",
            sidecar(|own| own["config"]["rank"] = json!(0)),
        ),
        (
            "a sidecar with a scale beyond f32",
            sidecar(|own| own["adapters"][0]["scale"] = json!(1e300)),
        ),
        ("an empty sidecar", with(SIDECAR_FILE, Vec::new())),
    ];
    let mut format = format();
    // JSON that is kept as it is becomes a tree of values.
    format.factor = 100;
    (format, crafted)
}

#[test]
fn adapter_crafted() {
    run_crafted(crafted);
}

/// The three files in one: a length before each but the last, as the fuzzer's target takes them.
pub(crate) fn fuzz_seeds() {
    for layout in Layout::ALL {
        let dir = tempfile::tempdir().unwrap();
        save_adapter_data(&adapters(), &L1raConfig::default(), layout, "", dir.path()).unwrap();
        let [config, weights, sidecar] =
            FILES.map(|(name, _)| fs::read(dir.path().join(name)).unwrap());
        let length = |bytes: &[u8]| (bytes.len() as u32).to_le_bytes().to_vec();
        let parts = [length(&config), config, length(&weights), weights, sidecar];
        write_fuzz_seed("adapter", &layout.to_string(), &parts.concat());
    }
}
