//! Every message of the adapter loader, as it is printed: file, place, what was seen, what was
//! expected.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use l1ra_core::{
    L1raConfig,
    peft::{CONFIG_FILE, Layout, SIDECAR_FILE, WEIGHTS_FILE, load_adapter, save_adapter_data},
    walk::AdapterData,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const QUERY: &str = "base_model.model.layers.0.q_proj.lora_A.weight";

/// The folder of an adapter of one layer.
fn adapter() -> TempDir {
    let dir = TempDir::new().unwrap();
    let adapter = AdapterData {
        path: "layers.0.q_proj".into(),
        d_in: 3,
        d_out: 4,
        a: vec![0.5; 6],
        c: vec![1.0; 2],
        b: vec![0.25; 8],
        scale: 1.0,
    };
    let config = L1raConfig::default();
    save_adapter_data(&[adapter], &config, Layout::Folded, "org/base", dir.path()).unwrap();
    dir
}

/// What the loader says after `spoil`; the folder is written as `[dir]`.
fn said(spoil: impl FnOnce(&Path)) -> String {
    let dir = adapter();
    spoil(dir.path());
    let error = load_adapter(dir.path()).unwrap_err();
    assert!(error.is_users_mistake(), "{error}");
    let folder = dir.path().display().to_string();
    error.to_string().replace(&folder, "[dir]")
}

/// A name, and what is done to a folder.
type Case<'a> = (&'a str, &'a dyn Fn(&Path));

/// The messages of a table of damages, each under its name.
fn table(cases: &[Case<'_>]) -> String {
    let case = |(name, spoil): &(&str, &dyn Fn(&Path))| format!("{name}:\n  {}", said(spoil));
    cases.iter().map(case).collect::<Vec<_>>().join("\n")
}

fn set(dir: &Path, key: &str, value: Value) {
    let path = dir.join(CONFIG_FILE);
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config[key] = value;
    fs::write(path, config.to_string()).unwrap();
}

/// The header of a safetensors file and its data.
fn parts(path: &Path) -> (Value, Vec<u8>) {
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    (header, bytes[8 + length..].to_vec())
}

fn join(path: &Path, header: &str, data: &[u8]) {
    let length = (header.len() as u64).to_le_bytes();
    fs::write(path, [&length[..], header.as_bytes(), data].concat()).unwrap();
}

/// Edits header and data of a safetensors file.
fn edit(path: &Path, change: impl FnOnce(&mut Value, &mut Vec<u8>)) {
    let (mut header, mut data) = parts(path);
    change(&mut header, &mut data);
    join(path, &header.to_string(), &data);
}

/// Edits the JSON that a sidecar holds among its metadata.
fn edit_sidecar(dir: &Path, change: impl FnOnce(&mut Value)) {
    edit(&dir.join(SIDECAR_FILE), |header, _| {
        let text = header["__metadata__"]["l1ra"].as_str().unwrap();
        let mut own: Value = serde_json::from_str(text).unwrap();
        change(&mut own);
        header["__metadata__"]["l1ra"] = own.to_string().into();
    });
}

#[test]
fn adapter_config() {
    insta::assert_snapshot!(table(&[
        ("no file", &|dir| fs::remove_file(dir.join(CONFIG_FILE))
            .unwrap()),
        ("cut off", &|dir| fs::write(
            dir.join(CONFIG_FILE),
            "{\n \"r\": 2,\n"
        )
        .unwrap()),
        ("a list", &|dir| fs::write(dir.join(CONFIG_FILE), "[]")
            .unwrap()),
        ("text after it", &|dir| {
            let mut text = fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
            text += "{}";
            fs::write(dir.join(CONFIG_FILE), text).unwrap();
        }),
        ("nested without end", &|dir| {
            let text = format!("{{\"a\": {}", "[".repeat(100_000));
            fs::write(dir.join(CONFIG_FILE), text).unwrap();
        }),
        ("a key twice", &|dir| {
            let text = fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
            let text = text.replace("\"lora_alpha\"", "\"r\": 3,\n  \"lora_alpha\"");
            fs::write(dir.join(CONFIG_FILE), text).unwrap();
        }),
        ("a rank below zero", &|dir| set(dir, "r", json!(-1))),
        ("a rank as text", &|dir| set(dir, "r", json!("2"))),
        ("a rank in a pattern with a fraction", &|dir| {
            set(dir, "rank_pattern", json!({"q_proj": 2.5}));
        }),
        ("another kind", &|dir| set(dir, "peft_type", json!("IA3"))),
        ("another formula", &|dir| set(dir, "use_dora", json!(true))),
        ("a dropout of five", &|dir| set(
            dir,
            "lora_dropout",
            json!(5)
        )),
        ("a broken pattern", &|dir| set(
            dir,
            "alpha_pattern",
            json!({"q(": 2})
        )),
        ("an alpha beyond all numbers", &|dir| {
            set(dir, "lora_alpha", json!(1e300));
        }),
        ("a rank beyond all numbers", &|dir| {
            set(dir, "r", json!(u64::MAX));
            set(dir, "rank_pattern", json!({}));
        }),
        ("17 MB", &|dir| {
            let mut text = fs::read_to_string(dir.join(CONFIG_FILE)).unwrap();
            text += &" ".repeat(1 << 24);
            fs::write(dir.join(CONFIG_FILE), text).unwrap();
        }),
    ]));
}

#[test]
fn adapter_weights() {
    let weights = |dir: &Path| dir.join(WEIGHTS_FILE);
    insta::assert_snapshot!(table(&[
        ("no file", &|dir| fs::remove_file(weights(dir)).unwrap()),
        ("empty", &|dir| fs::write(weights(dir), "").unwrap()),
        ("no safetensors", &|dir| fs::write(
            weights(dir),
            "PK\x03\x04 pickled"
        )
        .unwrap()),
        ("cut within the header", &|dir| {
            let bytes = fs::read(weights(dir)).unwrap();
            fs::write(weights(dir), &bytes[..40]).unwrap();
        }),
        ("cut within the data", &|dir| {
            let bytes = fs::read(weights(dir)).unwrap();
            fs::write(weights(dir), &bytes[..bytes.len() - 5]).unwrap();
        }),
        ("a header of 10^18 bytes", &|dir| {
            let mut bytes = fs::read(weights(dir)).unwrap();
            bytes[..8].copy_from_slice(&10_u64.pow(18).to_le_bytes());
            fs::write(weights(dir), bytes).unwrap();
        }),
        ("a header that is no JSON", &|dir| join(
            &weights(dir),
            "{\"a\": nothing}",
            &[]
        )),
        ("an unknown type", &|dir| {
            edit(&weights(dir), |header, _| {
                header[QUERY]["dtype"] = "F31".into();
            });
        }),
        ("a type of no adapter", &|dir| {
            edit(&weights(dir), |header, _| {
                header[QUERY]["dtype"] = "I32".into();
            });
        }),
        ("a shape larger than its bytes", &|dir| {
            edit(&weights(dir), |header, _| {
                header[QUERY]["shape"] = json!([2, 1_000_000]);
            });
        }),
        ("a shape beyond all numbers", &|dir| {
            edit(&weights(dir), |header, _| {
                header[QUERY]["shape"] = json!([1_u64 << 40, 1_u64 << 40]);
            });
        }),
        ("a shape below zero", &|dir| {
            edit(&weights(dir), |header, _| {
                header[QUERY]["shape"] = json!([-2, 3]);
            });
        }),
        ("two tensors over one another", &|dir| {
            edit(&weights(dir), |header, data| {
                let b = QUERY.replace("lora_A", "lora_B");
                header[b]["data_offsets"] = json!([8, 40]);
                data.truncate(40);
            });
        }),
        ("a gap", &|dir| {
            edit(&weights(dir), |header, data| {
                let b = QUERY.replace("lora_A", "lora_B");
                header[b]["data_offsets"] = json!([32, 64]);
                data.resize(64, 0);
            });
        }),
        ("data after the tensors", &|dir| {
            edit(&weights(dir), |_, data| data.extend([0; 8]));
        }),
        ("a tensor twice", &|dir| {
            let empty = r#"{"dtype":"F32","shape":[0],"data_offsets":[0,0]}"#;
            join(
                &weights(dir),
                &format!("{{\"a\":{empty},\"a\":{empty}}}"),
                &[],
            );
        }),
        ("another rank", &|dir| set(dir, "rank_pattern", json!({}))),
        ("a rank without bytes", &|dir| {
            set(dir, "r", json!(1_u64 << 40));
            set(dir, "rank_pattern", json!({}));
            let entry =
                |shape: Value| json!({"dtype": "F32", "shape": shape, "data_offsets": [0, 0]});
            let header = json!({
                QUERY: entry(json!([1_u64 << 40, 0])),
                QUERY.replace("lora_A", "lora_B"): entry(json!([0, 1_u64 << 40])),
            });
            join(&weights(dir), &header.to_string(), &[]);
        }),
        ("a vector", &|dir| {
            edit(&weights(dir), |header, _| {
                header[QUERY]["shape"] = json!([6]);
            });
        }),
        ("only one of two", &|dir| {
            edit(&weights(dir), |header, data| {
                header
                    .as_object_mut()
                    .unwrap()
                    .shift_remove(&QUERY.replace("lora_A", "lora_B"));
                data.truncate(24);
            });
        }),
        ("a tensor of another kind", &|dir| {
            edit(&weights(dir), |header, _| {
                let entry = header.as_object_mut().unwrap().shift_remove(QUERY).unwrap();
                header["base_model.model.layers.0.q_proj.lora_magnitude"] = entry;
            });
        }),
        ("a value that is none", &|dir| {
            edit(&weights(dir), |_, data| {
                data[4..8].copy_from_slice(&f32::NAN.to_le_bytes());
            });
        }),
        ("an infinite value", &|dir| {
            edit(&weights(dir), |_, data| {
                data[24..28].copy_from_slice(&f32::INFINITY.to_le_bytes());
            });
        }),
        ("a name that clears the screen", &|dir| {
            edit(&weights(dir), |header, _| {
                let entry = header.as_object_mut().unwrap().shift_remove(QUERY).unwrap();
                header["\u{1b}[2Jq_proj"] = entry;
            });
        }),
    ]));
}

#[test]
fn sidecar() {
    let sidecar = |dir: &Path| dir.join(SIDECAR_FILE);
    insta::assert_snapshot!(table(&[
        ("cut off", &|dir| fs::write(sidecar(dir), "broken").unwrap()),
        ("of another program", &|dir| {
            fs::copy(dir.join(WEIGHTS_FILE), sidecar(dir)).unwrap();
        }),
        ("of a later version", &|dir| edit_sidecar(dir, |own| own
            ["version"] =
            json!(2))),
        ("without its scale", &|dir| {
            edit_sidecar(dir, |own| {
                own["adapters"][0]
                    .as_object_mut()
                    .unwrap()
                    .shift_remove("scale");
            });
        }),
        ("a scale beyond all numbers", &|dir| {
            edit_sidecar(dir, |own| own["adapters"][0]["scale"] = json!(1e300));
        }),
        ("an option out of range", &|dir| {
            edit_sidecar(dir, |own| own["config"]["dropout"] = json!(2));
        }),
        ("an unknown option", &|dir| {
            edit_sidecar(dir, |own| own["config"]["speed"] = json!(2));
        }),
        ("an adapter a thousand times", &|dir| {
            edit_sidecar(dir, |own| {
                let entry = own["adapters"][0].clone();
                own["adapters"] = vec![entry; 1000].into();
            });
        }),
        ("an adapter without tensors", &|dir| {
            edit_sidecar(dir, |own| {
                own["adapters"][0]["path"] = "layers.1.q_proj".into();
            });
        }),
        ("a gate that is none", &|dir| {
            edit(&sidecar(dir), |header, data| {
                let at = header["layers.0.q_proj.lora_c"]["data_offsets"][0]
                    .as_u64()
                    .unwrap();
                let at = at as usize;
                data[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
            });
        }),
        ("matrices that do not fit", &|dir| {
            edit(&sidecar(dir), |header, _| {
                header["layers.0.q_proj.lora_a"]["shape"] = json!([2, 3]);
            });
        }),
        ("of other weights", &|dir| set(dir, "lora_alpha", json!(12))),
        ("of no module", &|dir| {
            edit_sidecar(dir, |own| own["adapters"] = json!([]));
        }),
    ]));
}
