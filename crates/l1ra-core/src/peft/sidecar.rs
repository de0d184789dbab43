//! The sidecar: what PEFT's files cannot hold.

use std::{
    collections::{BTreeSet, HashMap},
    path::Path,
};

use serde::{Deserialize, Serialize};

use crate::{
    config::L1raConfig,
    error::CoreError,
    peft::{
        files::{self, NamedTensor},
        load::AdapterSet,
    },
    tensor_file::TensorFile,
    walk::AdapterData,
};

/// Key of our JSON in the safetensors metadata.
const KEY: &str = "l1ra";
/// Version of the sidecar's form.
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Header {
    version: u32,
    config: L1raConfig,
    adapters: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    path: String,
    scale: f32,
}

/// The bytes of the sidecar, which is to be `path`.
pub(super) fn encode(
    path: &Path,
    adapters: &[AdapterData],
    config: &L1raConfig,
) -> Result<Vec<u8>, CoreError> {
    let entry = |adapter: &AdapterData| Entry {
        path: adapter.path.clone(),
        scale: adapter.scale,
    };
    let header = Header {
        version: VERSION,
        config: config.clone(),
        adapters: adapters.iter().map(entry).collect(),
    };
    let header = serde_json::to_string(&header)
        .map_err(|error| CoreError::file(path, format!("cannot be encoded: {error}")))?;
    let tensors: Vec<NamedTensor> = adapters.iter().flat_map(tensors).collect();
    files::safetensors(
        path,
        &tensors,
        Some(HashMap::from([(KEY.to_string(), header)])),
    )
}

fn tensors(adapter: &AdapterData) -> [NamedTensor; 3] {
    let AdapterData {
        path,
        d_in,
        d_out,
        a,
        c,
        b,
        ..
    } = adapter;
    let rank = c.len();
    let named = |part: &str, shape: Vec<usize>, values: &[f32]| NamedTensor {
        name: format!("{path}.{part}"),
        shape,
        values: values.to_vec(),
    };
    [
        named("lora_a", vec![*d_in, rank], a),
        named("lora_c", vec![rank], c),
        named("lora_b", vec![rank, *d_out], b),
    ]
}

pub(super) fn read(path: &Path) -> Result<AdapterSet, CoreError> {
    let file = TensorFile::open(path)?;
    let header = file.metadata().get(KEY).ok_or_else(|| {
        CoreError::file(
            path,
            format!("has no `{KEY}` entry; it is not a sidecar of this program"),
        )
    })?;
    let header: Header = serde_json::from_str(header)
        .map_err(|error| CoreError::file(path, format!("its `{KEY}` entry is damaged: {error}")))?;
    if header.version != VERSION {
        let detail = format!(
            "has version {}; this program reads {VERSION}",
            header.version
        );
        return Err(CoreError::file(path, detail));
    }
    header.config.validate().map_err(|error| {
        CoreError::file(path, format!("its configuration cannot be used: {error}"))
    })?;
    check_entries(path, &header.adapters)?;
    let adapters = header
        .adapters
        .iter()
        .map(|entry| adapter(path, &file, entry))
        .collect::<Result<Vec<_>, _>>()?;
    Ok(AdapterSet {
        adapters,
        dropout: header.config.dropout,
        config: Some(header.config),
    })
}

/// Every adapter once: a list could otherwise ask for the same values any number of times.
fn check_entries(path: &Path, entries: &[Entry]) -> Result<(), CoreError> {
    let mut seen = BTreeSet::new();
    for Entry { path: name, scale } in entries {
        if !seen.insert(name) {
            let detail = format!("adapter `{name}` is listed twice; expected every one once");
            return Err(CoreError::file(path, detail));
        }
        if !scale.is_finite() {
            let detail = format!("adapter `{name}` has the scale {scale}; expected a finite one");
            return Err(CoreError::file(path, detail));
        }
    }
    Ok(())
}

fn adapter(path: &Path, file: &TensorFile, entry: &Entry) -> Result<AdapterData, CoreError> {
    let tensor = |part: &str| file.values(&format!("{}.{part}", entry.path));
    let ((a_shape, a), (c_shape, c), (b_shape, b)) =
        (tensor("lora_a")?, tensor("lora_c")?, tensor("lora_b")?);
    match (a_shape.as_slice(), c_shape.as_slice(), b_shape.as_slice()) {
        ([d_in, r], [rank], [rank_b, d_out])
            if r == rank && rank == rank_b && [rank, d_in, d_out].iter().all(|n| **n > 0) =>
        {
            let (d_in, d_out) = (*d_in, *d_out);
            Ok(AdapterData {
                path: entry.path.clone(),
                d_in,
                d_out,
                a,
                c,
                b,
                scale: entry.scale,
            })
        }
        _ => {
            let detail = format!(
                "adapter `{}`: A {a_shape:?}, c {c_shape:?} and B {b_shape:?} do not fit together; \
                 expected [in, rank], [rank] and [rank, out]",
                entry.path
            );
            Err(CoreError::file(path, detail))
        }
    }
}
