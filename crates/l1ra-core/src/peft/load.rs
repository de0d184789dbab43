//! Adapter files in: our own (with the sidecar) and plain PEFT LoRA.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
};

use burn::tensor::{Device, TensorData};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    adapter::{AdaptedModule, GatedLora, linear_paths},
    config::L1raConfig,
    error::{ConfigError, CoreError},
    peft::{CONFIG_FILE, PREFIX, SIDECAR_FILE, WEIGHTS_FILE, files, sidecar},
    target::{first_values, unknown},
    tensor_file::TensorFile,
    walk::AdapterData,
};

/// Adapters as they were read from files.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSet {
    /// One entry an adapter.
    pub adapters: Vec<AdapterData>,
    /// Dropout probability that the adapter was trained with.
    pub dropout: f64,
    /// The configuration it was trained with, where a sidecar told it.
    pub config: Option<L1raConfig>,
}

/// The keys of `adapter_config.json` that change what the adapter means.
#[derive(Deserialize)]
pub(super) struct PeftConfig {
    peft_type: String,
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    #[serde(default)]
    lora_dropout: f64,
    #[serde(default)]
    pub(super) use_rslora: bool,
    pub(super) base_model_name_or_path: Option<String>,
    #[serde(default)]
    pub(super) rank_pattern: IndexMap<String, usize>,
    #[serde(default)]
    pub(super) alpha_pattern: IndexMap<String, f64>,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Reads the adapter in the folder `dir`: from the sidecar where there is one (gates and unfolded
/// matrices, to the bit), else from PEFT's files (gates of one).
///
/// # Errors
/// A file that is missing or damaged, or an option of PEFT that this crate does not have.
pub fn load_adapter(dir: &Path) -> Result<AdapterSet, CoreError> {
    let loaded = load_all(dir)?;
    Ok(loaded.own.unwrap_or(loaded.plain))
}

/// Everything in an adapter's folder.
pub(super) struct Loaded {
    pub(super) config: PeftConfig,
    /// From PEFT's files.
    pub(super) plain: AdapterSet,
    /// From the sidecar, where there is one.
    pub(super) own: Option<AdapterSet>,
}

pub(super) fn load_all(dir: &Path) -> Result<Loaded, CoreError> {
    let path = dir.join(CONFIG_FILE);
    if !path.is_file() {
        return Err(no_adapter(dir));
    }
    let config: PeftConfig = files::read_json(&path, "PEFT configuration")?;
    check_supported(&path, &config)?;
    let plain = read_peft(dir, &config)?;
    let beside = dir.join(SIDECAR_FILE);
    let mut own = None;
    if beside.is_file() {
        let read = sidecar::read(&beside)?;
        check_pair(&beside, &plain, &read)?;
        own = Some(read);
    }
    Ok(Loaded { config, plain, own })
}

/// What a folder without an adapter is, and where one may be.
fn no_adapter(dir: &Path) -> CoreError {
    let below = dir.join("adapter");
    let detail = if below.join(CONFIG_FILE).is_file() {
        format!("holds no {CONFIG_FILE}; did you mean {}?", below.display())
    } else if dir.is_dir() {
        format!("holds no {CONFIG_FILE}; give the folder of a saved adapter")
    } else {
        format!("no such folder; an adapter is a folder with {CONFIG_FILE} and {WEIGHTS_FILE}")
    };
    CoreError::file(dir, detail)
}

/// Options that would change the formula are refused by name, and a dropout that is none.
fn check_supported(path: &Path, config: &PeftConfig) -> Result<(), CoreError> {
    if config.peft_type != "LORA" {
        let detail = format!("peft_type is {}; only LORA is supported", config.peft_type);
        return Err(CoreError::file(path, detail));
    }
    let neutral = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text == "none",
        Value::Array(items) => items.is_empty(),
        Value::Object(items) => items.is_empty(),
        _ => false,
    };
    let refused = [
        "use_dora",
        "use_qalora",
        "fan_in_fan_out",
        "bias",
        "lora_bias",
        "modules_to_save",
        "layer_replication",
        "trainable_token_indices",
        "target_parameters",
        "alora_invocation_tokens",
    ];
    for key in refused {
        if let Some(value) = config.others.get(key).filter(|value| !neutral(value)) {
            let detail = format!("`{key}` is {value}, which is not supported");
            return Err(CoreError::file(path, detail));
        }
    }
    if !(0.0..1.0).contains(&config.lora_dropout) {
        let detail = format!(
            "`lora_dropout` is {}; expected a number in [0, 1)",
            config.lora_dropout
        );
        return Err(CoreError::file(path, detail));
    }
    Ok(())
}

fn read_peft(dir: &Path, config: &PeftConfig) -> Result<AdapterSet, CoreError> {
    let path = dir.join(WEIGHTS_FILE);
    if !path.is_file() {
        let detail = format!(
            "holds no {WEIGHTS_FILE}, only {CONFIG_FILE}; copy the whole folder (adapters in .bin \
             files must be converted first)"
        );
        return Err(CoreError::file(dir, detail));
    }
    let file = TensorFile::open(&path)?;
    let in_config = |error: ConfigError| CoreError::file(dir.join(CONFIG_FILE), error.to_string());
    let modules = modules(&path, &file)?;
    let names = || modules.iter().map(String::as_str);
    let ranks = first_values("rank_pattern", &config.rank_pattern, names()).map_err(in_config)?;
    let alphas = first_values("alpha_pattern", &config.alpha_pattern, names());
    let alphas = alphas.map_err(in_config)?;
    let mut adapters = Vec::with_capacity(modules.len());
    for module in &modules {
        let rank = ranks.get(module.as_str()).copied().unwrap_or(config.r);
        let alpha = alphas.get(module.as_str()).copied();
        let alpha = alpha.unwrap_or(config.lora_alpha);
        let divisor = if config.use_rslora {
            (rank as f64).sqrt()
        } else {
            rank as f64
        };
        let scale = (alpha / divisor) as f32;
        if rank > 0 && !scale.is_finite() {
            let detail = format!(
                "module `{module}`: alpha {alpha} and rank {rank} give it the scale {scale}; \
                 expected a finite one"
            );
            return Err(CoreError::file(dir.join(CONFIG_FILE), detail));
        }
        adapters.push(read_module(&path, &file, module, rank, scale)?);
    }
    Ok(AdapterSet {
        adapters,
        dropout: config.lora_dropout,
        config: None,
    })
}

/// Module paths of the file, each once; a tensor that is no LoRA matrix is refused.
fn modules(path: &Path, file: &TensorFile) -> Result<BTreeSet<String>, CoreError> {
    let module = |name: &String| {
        let module = name.strip_prefix(PREFIX).and_then(|rest| {
            rest.strip_suffix(".lora_A.weight")
                .or_else(|| rest.strip_suffix(".lora_B.weight"))
        });
        module.map(String::from).ok_or_else(|| {
            let detail = format!(
                "tensor `{name}` is not `{PREFIX}<module>.lora_A.weight` or `.lora_B.weight`"
            );
            CoreError::file(path, detail)
        })
    };
    file.tensors().keys().map(module).collect()
}

fn read_module(
    path: &Path,
    file: &TensorFile,
    module: &str,
    rank: usize,
    scale: f32,
) -> Result<AdapterData, CoreError> {
    let read = |part: &str| {
        let name = format!("{PREFIX}{module}.{part}.weight");
        let (shape, values) = file.values(&name)?;
        match shape[..] {
            // A rank needs no bytes where the other side is 0, and could be any number.
            [rows, columns] if rows > 0 && columns > 0 => Ok((rows, columns, values)),
            _ => Err(CoreError::file(
                path,
                format!("tensor `{name}` has shape {shape:?}; expected rows and columns"),
            )),
        }
    };
    let (rank_a, d_in, a) = read("lora_A")?;
    let (d_out, rank_b, b) = read("lora_B")?;
    if rank_a != rank || rank_b != rank || rank == 0 {
        let detail = format!(
            "module `{module}`: A is [{rank_a}, {d_in}] and B [{d_out}, {rank_b}], \
             but {CONFIG_FILE} gives it rank {rank}"
        );
        return Err(CoreError::file(path, detail));
    }
    Ok(AdapterData {
        path: module.into(),
        d_in,
        d_out,
        a: transpose(&a, rank, d_in),
        c: vec![1.0; rank],
        b: transpose(&b, d_out, rank),
        scale,
    })
}

fn transpose(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|j| (0..rows).map(move |i| values[i * columns + j]))
        .collect()
}

/// A sidecar must belong to the PEFT files beside it.
fn check_pair(path: &Path, plain: &AdapterSet, own: &AdapterSet) -> Result<(), CoreError> {
    let by_path: HashMap<&str, &AdapterData> = own
        .adapters
        .iter()
        .map(|adapter| (adapter.path.as_str(), adapter))
        .collect();
    let alive = own
        .adapters
        .iter()
        .filter(|a| a.c.iter().any(|gate| *gate != 0.0))
        .count();
    let known = plain
        .adapters
        .iter()
        .all(|plain| by_path.contains_key(plain.path.as_str()));
    if !known || alive != plain.adapters.len() {
        let detail = format!(
            "does not belong to the {WEIGHTS_FILE} beside it ({alive} modules here, {} there); \
             remove it to load the PEFT files alone",
            plain.adapters.len()
        );
        return Err(CoreError::file(path, detail));
    }
    let differs = |plain: &&AdapterData| !is_folded_from(plain, by_path[plain.path.as_str()]);
    if let Some(adapter) = plain.adapters.iter().find(differs) {
        let detail = format!(
            "does not belong to the {WEIGHTS_FILE} beside it (module `{}` has other values there); \
             remove it to load the PEFT files alone",
            adapter.path
        );
        return Err(CoreError::file(path, detail));
    }
    Ok(())
}

/// Whether `plain` is `own` with gates folded into B and perhaps zero ranks after it: the same A,
/// and `s·B` up to rounding.
fn is_folded_from(plain: &AdapterData, own: &AdapterData) -> bool {
    let (rank, width, d_out) = (own.rank(), plain.rank(), own.d_out);
    if (plain.d_in, plain.d_out) != (own.d_in, d_out) || width < rank {
        return false;
    }
    let same_a = |(plain, own): (&[f32], &[f32])| plain[..rank] == *own;
    let same_b = |index: usize| {
        let want = f64::from(own.scale) * f64::from(own.c[index / d_out]) * f64::from(own.b[index]);
        let got = f64::from(plain.scale) * f64::from(plain.b[index]);
        (got - want).abs() <= 1e-5 * want.abs().max(1e-30)
    };
    plain
        .a
        .chunks_exact(width)
        .zip(own.a.chunks_exact(rank))
        .all(same_a)
        && (0..rank * d_out).all(same_b)
        && plain.b[rank * d_out..].iter().all(|value| *value == 0.0)
}

/// Puts the adapters of `set` on the layers of `module`, in place of those it may have.
///
/// # Errors
/// An adapter for a layer that does not exist (with the nearest names) or has another shape;
/// `module` is then as it was.
pub fn install_adapters(
    module: &mut impl AdaptedModule,
    set: &AdapterSet,
    device: &Device,
) -> Result<(), CoreError> {
    let linears = linear_paths(module);
    let mut shapes = BTreeMap::new();
    module.for_each_linear(&mut |path, linear| {
        shapes.insert(path.to_string(), linear.dims());
    });
    for adapter in &set.adapters {
        let seen = [adapter.d_in, adapter.d_out];
        match shapes.get(&adapter.path) {
            None => return Err(unknown(&adapter.path, &linears).into()),
            Some(shape) if *shape != seen => {
                let detail = format!("was trained for a layer {seen:?}; this layer is {shape:?}");
                return Err(CoreError::adapter(&adapter.path, detail));
            }
            Some(_) => {}
        }
    }
    let by_path: BTreeMap<&str, &AdapterData> = set
        .adapters
        .iter()
        .map(|adapter| (adapter.path.as_str(), adapter))
        .collect();
    module.for_each_linear(&mut |path, linear| {
        linear.adapter = by_path
            .get(path)
            .map(|data| module_from(data, set.dropout, device));
    });
    Ok(())
}

fn module_from(data: &AdapterData, dropout: f64, device: &Device) -> GatedLora {
    let rank = data.rank();
    GatedLora::from_data(
        TensorData::new(data.a.clone(), [data.d_in, rank]),
        TensorData::new(data.c.clone(), [rank]),
        TensorData::new(data.b.clone(), [rank, data.d_out]),
        data.scale,
        dropout,
        device,
    )
}
