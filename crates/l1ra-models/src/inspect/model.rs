//! [`ModelInspection`]: what a model's files hold.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    chat::ChatTemplate,
    config::{ModelConfig, RopeScaling},
    error::ModelError,
    inspect::{
        files,
        text::{bytes, grouped, line, table},
    },
    json,
    load::{ModelFiles, Source},
    tokenizer::TextTokenizer,
    weights::{
        ParameterCount, SafetensorsFiles, WeightSource, check_names_and_shapes, parameter_count,
    },
};

/// What a model's files hold.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelInspection {
    /// The folder or file.
    pub path: PathBuf,
    /// `safetensors`, `gguf`, or `config` where there are no weights.
    pub format: String,
    /// What the model is built from.
    pub config: ModelConfig,
    /// Parameters, from the configuration.
    pub parameters: ParameterCount,
    /// Stored tensors by number type, the largest share first.
    pub stored: Vec<StoredBytes>,
    /// The tokenizer, where there is one.
    pub tokenizer: Option<TokenizerInspection>,
    /// First line of the chat template, where there is one.
    pub chat_template: Option<String>,
    /// Names and bytes of the files.
    pub files: Vec<(String, u64)>,
    /// What is missing or does not fit: such a model does not load.
    pub problems: Vec<String>,
}

/// Tensors of one number type.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StoredBytes {
    /// The type, as the file names it.
    pub dtype: String,
    /// Tensors.
    pub tensors: usize,
    /// Bytes.
    pub bytes: u64,
}

/// What a tokenizer is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TokenizerInspection {
    /// Its model: `byte-level BPE`, `BPE with byte fallback`, …
    pub kind: String,
    /// Tokens, added ones included.
    pub vocabulary: usize,
    /// First token of a text.
    pub bos: Option<String>,
    /// Tokens that end a text.
    pub eos: Vec<String>,
    /// Token for padding.
    pub pad: Option<String>,
}

pub(super) fn inspect(path: &Path) -> Result<ModelInspection, ModelError> {
    if path.is_dir() && path.join("config.json").is_file() {
        return folder(path);
    }
    gguf(path)
}

/// A Hugging Face folder, of which everything but `config.json` may be missing.
fn folder(dir: &Path) -> Result<ModelInspection, ModelError> {
    let config = ModelConfig::from_file(&dir.join("config.json"))?;
    let mut problems = Vec::new();
    let mut stored = Vec::new();
    let mut format = "safetensors";
    match SafetensorsFiles::open(dir) {
        Ok(weights) => {
            let described = |name: &String| weights.described(name);
            stored = by_type(weights.names().iter().filter_map(described));
            if let Err(error) = check_names_and_shapes(&weights, &config) {
                problems.push(error.to_string());
            }
        }
        Err(error) => {
            format = "config";
            problems.push(error.to_string());
        }
    }
    let mut tokenizer = None;
    match TextTokenizer::from_dir(dir) {
        Ok(text) => {
            let text = with_config(text, &config);
            tokenizer = Some(describe(&text, kind(&dir.join("tokenizer.json"))?));
        }
        Err(error) => problems.push(error.to_string()),
    }
    let template = ChatTemplate::from_dir(dir)?;
    Ok(ModelInspection {
        path: dir.into(),
        format: format.into(),
        parameters: parameter_count(&config),
        config,
        stored,
        tokenizer,
        chat_template: template.as_ref().map(first_line),
        files: files(dir)?,
        problems,
    })
}

fn gguf(path: &Path) -> Result<ModelInspection, ModelError> {
    let files = ModelFiles::open(path)?;
    let Source::Gguf(weights) = files.source() else {
        return Err(ModelError::format(path, "is no GGUF file"));
    };
    let file = &weights.file;
    let stored = by_type(file.tensor_names().iter().filter_map(|name| {
        let (_, kind) = file.tensor_info(name)?;
        Some((format!("{kind:?}"), file.stored_bytes(name)?))
    }));
    let problems = check_names_and_shapes(files.weights(), &files.config)
        .err()
        .map(|error| error.to_string());
    let value = |key: &str| file.value(key).and_then(|value| value.as_str());
    let model = match value("tokenizer.ggml.model") {
        Some("llama") => "BPE with byte fallback",
        _ => "byte-level BPE",
    };
    let kind = match value("tokenizer.ggml.pre") {
        Some(pre) => format!("{model} ({pre})"),
        None => model.to_string(),
    };
    let name = file.path().file_name().unwrap_or_default();
    Ok(ModelInspection {
        path: file.path().into(),
        format: "gguf".into(),
        parameters: parameter_count(&files.config),
        stored,
        tokenizer: Some(describe(&files.tokenizer, kind)),
        chat_template: files.template.as_ref().map(first_line),
        files: vec![(name.to_string_lossy().into_owned(), file.file_bytes())],
        problems: problems.into_iter().collect(),
        config: files.config,
    })
}

/// As [`ModelFiles::open`] completes a tokenizer.
fn with_config(mut tokenizer: TextTokenizer, config: &ModelConfig) -> TextTokenizer {
    tokenizer.eos.extend(&config.eos_token_ids);
    tokenizer.bos = tokenizer.bos.or(config.bos_token_id);
    tokenizer.pad = tokenizer.pad.or(config.pad_token_id);
    tokenizer
}

fn describe(tokenizer: &TextTokenizer, kind: String) -> TokenizerInspection {
    let text = |id: u32| tokenizer.token(id).unwrap_or_else(|| format!("id {id}"));
    TokenizerInspection {
        kind,
        vocabulary: tokenizer.vocab_size(),
        bos: tokenizer.bos.map(text),
        eos: tokenizer.eos.iter().copied().map(text).collect(),
        pad: tokenizer.pad.map(text),
    }
}

/// What is read of a `tokenizer.json` beside the tokenizer itself.
#[derive(Deserialize)]
struct TokenizerFile {
    model: TokenizerModel,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
}

#[derive(Deserialize)]
struct TokenizerModel {
    r#type: Option<String>,
    byte_fallback: Option<bool>,
}

/// The model of a `tokenizer.json`, in words.
fn kind(path: &Path) -> Result<String, ModelError> {
    let bytes = std::fs::read(path).map_err(|error| ModelError::io(path, error))?;
    let file: TokenizerFile = json::parse(path, &bytes, "tokenizer")?;
    let model = file.model.r#type.unwrap_or_else(|| "BPE".into());
    let steps = [file.pre_tokenizer, file.decoder];
    let byte_level = steps.iter().any(|s| s.to_string().contains("ByteLevel"));
    Ok(if byte_level {
        format!("byte-level {model}")
    } else if file.model.byte_fallback == Some(true) {
        format!("{model} with byte fallback")
    } else {
        model
    })
}

fn by_type(tensors: impl Iterator<Item = (String, u64)>) -> Vec<StoredBytes> {
    let mut types: BTreeMap<String, StoredBytes> = BTreeMap::new();
    for (dtype, bytes) in tensors {
        let entry = types.entry(dtype.clone()).or_insert(StoredBytes {
            dtype,
            tensors: 0,
            bytes: 0,
        });
        entry.tensors += 1;
        entry.bytes += bytes;
    }
    let mut types: Vec<StoredBytes> = types.into_values().collect();
    types.sort_by_key(|entry| std::cmp::Reverse(entry.bytes));
    types
}

/// Enough of a template to recognise it.
fn first_line(template: &ChatTemplate) -> String {
    let line = template.source().trim().lines().next().unwrap_or_default();
    let mut shown: String = line.chars().take(60).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    shown
}

fn rope(config: &ModelConfig) -> String {
    let theta = config.rope_theta;
    match &config.rope_scaling {
        RopeScaling::Default => format!("theta {theta}"),
        RopeScaling::Linear { factor } => format!("theta {theta}, linear scaling by {factor}"),
        RopeScaling::Llama3 {
            factor,
            original_max_position_embeddings,
            ..
        } => format!(
            "theta {theta}, Llama 3 scaling by {factor} from {original_max_position_embeddings}"
        ),
        RopeScaling::Divisors { divisors } => {
            let most = divisors.iter().copied().fold(1.0, f32::max);
            format!("theta {theta}, divisors up to {most}")
        }
    }
}

impl fmt::Display for ModelInspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (config, count) = (&self.config, &self.parameters);
        line(f, "model", self.path.display())?;
        line(
            f,
            "format",
            match self.format.as_str() {
                "gguf" => "GGUF file",
                "config" => "Hugging Face folder without weights",
                _ => "Hugging Face folder",
            },
        )?;
        line(f, "family", &config.model_type)?;
        line(f, "parameters", grouped(count.total))?;
        let head = match config.tie_word_embeddings {
            true => "head tied to it".to_string(),
            false => format!("head {}", grouped(count.head)),
        };
        let (embedding, layers) = (grouped(count.embedding), grouped(count.layers));
        line(
            f,
            "",
            format_args!("embedding {embedding}, {head}, layers {layers}"),
        )?;
        line(f, "layers", config.num_hidden_layers)?;
        line(
            f,
            "width",
            format_args!("{}, MLP {}", config.hidden_size, config.intermediate_size),
        )?;
        line(
            f,
            "heads",
            format_args!(
                "{} of {}, {} for keys and values",
                config.num_attention_heads, config.head_dim, config.num_key_value_heads
            ),
        )?;
        line(f, "vocabulary", grouped(config.vocab_size as u64))?;
        line(f, "context", grouped(config.max_position_embeddings as u64))?;
        if let Some(window) = config.sliding_window {
            line(f, "window", grouped(window as u64))?;
        }
        line(f, "rope", rope(config))?;
        self.fmt_tokenizer(f)?;
        self.fmt_lists(f)
    }
}

impl ModelInspection {
    fn fmt_tokenizer(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let none = || "(none)".to_string();
        match &self.tokenizer {
            None => line(f, "tokenizer", "(none)")?,
            Some(tokenizer) => {
                let TokenizerInspection {
                    kind,
                    vocabulary,
                    bos,
                    eos,
                    pad,
                } = tokenizer;
                let count = grouped(*vocabulary as u64);
                line(f, "tokenizer", format_args!("{kind}, {count} tokens"))?;
                let (bos, pad) = (bos.clone().unwrap_or_else(none), pad.clone());
                let (eos, pad) = (eos.join(" "), pad.unwrap_or_else(none));
                line(f, "", format_args!("begin {bos}, end {eos}, padding {pad}"))?;
            }
        }
        line(
            f,
            "chat",
            self.chat_template.as_deref().unwrap_or("(no template)"),
        )
    }

    fn fmt_lists(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.stored.is_empty() {
            writeln!(f, "\ntensors")?;
            let row = |entry: &StoredBytes| {
                vec![
                    entry.dtype.clone(),
                    entry.tensors.to_string(),
                    bytes(entry.bytes),
                ]
            };
            table(f, &self.stored.iter().map(row).collect::<Vec<_>>())?;
        }
        writeln!(f, "\nfiles")?;
        let row = |(name, size): &(String, u64)| vec![name.clone(), bytes(*size)];
        table(f, &self.files.iter().map(row).collect::<Vec<_>>())?;
        if !self.problems.is_empty() {
            writeln!(f, "\nwhat is missing or does not fit")?;
            for problem in &self.problems {
                writeln!(f, "  {problem}")?;
            }
        }
        Ok(())
    }
}
