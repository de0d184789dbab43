//! The sidecar: what PEFT's files cannot hold.

use std::{collections::HashMap, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    config::L1raConfig,
    error::CoreError,
    peft::{
        files::{self, NamedTensor},
        load::AdapterSet,
    },
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

pub(super) fn write(
    path: &Path,
    adapters: &[AdapterData],
    config: &L1raConfig,
) -> Result<(), CoreError> {
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
    files::write_safetensors(
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
    let bytes = files::read(path)?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes)
        .map_err(|error| CoreError::file(path, format!("is not a safetensors file: {error}")))?;
    let header = metadata.metadata().as_ref().and_then(|map| map.get(KEY));
    let header = header.ok_or_else(|| {
        CoreError::file(
            path,
            format!("has no `{KEY}` entry; it is not a sidecar of this program"),
        )
    })?;
    let header: Header = serde_json::from_str(header)
        .map_err(|error| CoreError::file(path, format!("its header is damaged: {error}")))?;
    if header.version != VERSION {
        let detail = format!(
            "has version {}; this program reads {VERSION}",
            header.version
        );
        return Err(CoreError::file(path, detail));
    }
    let file = files::parse_safetensors(path, &bytes)?;
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

fn adapter(
    path: &Path,
    file: &safetensors::SafeTensors<'_>,
    entry: &Entry,
) -> Result<AdapterData, CoreError> {
    let tensor = |part: &str| {
        let name = format!("{}.{part}", entry.path);
        let view = file
            .tensor(&name)
            .map_err(|_| CoreError::file(path, format!("tensor `{name}` is missing")))?;
        Ok::<_, CoreError>((view.shape().to_vec(), files::values(path, &name, &view)?))
    };
    let ((a_shape, a), (c_shape, c), (b_shape, b)) =
        (tensor("lora_a")?, tensor("lora_c")?, tensor("lora_b")?);
    match (a_shape.as_slice(), c_shape.as_slice(), b_shape.as_slice()) {
        ([d_in, r], [rank], [rank_b, d_out]) if r == rank && rank == rank_b && *rank > 0 => {
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
                "adapter `{}`: A {a_shape:?}, c {c_shape:?} and B {b_shape:?} do not fit together",
                entry.path
            );
            Err(CoreError::file(path, detail))
        }
    }
}
