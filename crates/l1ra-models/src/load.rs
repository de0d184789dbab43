//! A model from one path: a Hugging Face folder, a GGUF file, or a folder that holds one.

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use burn::tensor::Device;
use l1ra_core::peft::AdapterSet;

use crate::{
    causal_lm::CausalLm,
    chat::ChatTemplate,
    config::{ModelConfig, RopeScaling},
    error::ModelError,
    fit::check_layers,
    tokenizer::TextTokenizer,
    weights::{
        SafetensorsFiles, Storage, StoredTensor, StoredType, WeightSource, build_model,
        check_names_and_shapes,
        gguf::{GgufDType, GgufFile},
    },
};

const A_MODEL: &str = "a model is a Hugging Face folder (config.json, tokenizer.json, \
                       model.safetensors) or a .gguf file";

/// How a model is loaded.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions {
    /// What matrices are kept in.
    pub storage: Storage,
}

/// A model with its tokenizer and chat template.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model, frozen, without adapters.
    pub model: CausalLm,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The chat template, where the model has one.
    pub template: Option<ChatTemplate>,
}

/// What a path to a model holds, its configuration and tokenizer read and checked, its weights not.
#[derive(Debug)]
pub struct ModelFiles {
    source: Source,
    /// What the model is built from.
    pub config: ModelConfig,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The chat template, where the model has one.
    pub template: Option<ChatTemplate>,
}

/// Where the weights are.
#[derive(Debug)]
pub(crate) enum Source {
    /// A Hugging Face folder.
    Safetensors(SafetensorsFiles),
    /// A GGUF file.
    Gguf(Box<GgufWeights>),
}

impl ModelFiles {
    /// Opens `path`: a folder with `config.json`, a `.gguf` file, or a folder with one such file.
    ///
    /// # Errors
    /// Nothing there, a part missing, or something that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let wrong = |detail: &str| Err(ModelError::format(path, format!("{detail}; {A_MODEL}")));
        if path.is_file() {
            return match is_gguf(path)? {
                true => Self::open_gguf(path),
                false => wrong("is no GGUF file"),
            };
        }
        if !path.is_dir() {
            return wrong("no such file or folder");
        }
        if path.join("config.json").is_file() {
            return Self::open_folder(path);
        }
        match gguf_files(path)?.as_slice() {
            [file] => Self::open_gguf(file),
            [] => wrong("holds neither config.json nor a .gguf file"),
            files => {
                let detail = format!("holds {} .gguf files; name one of them", files.len());
                Err(ModelError::format(path, detail))
            }
        }
    }

    fn open_folder(dir: &Path) -> Result<Self, ModelError> {
        let config = ModelConfig::from_file(&dir.join("config.json"))?;
        let mut tokenizer = TextTokenizer::from_dir(dir)?;
        tokenizer.eos.extend(&config.eos_token_ids);
        tokenizer.bos = tokenizer.bos.or(config.bos_token_id);
        tokenizer.pad = tokenizer.pad.or(config.pad_token_id);
        let template = ChatTemplate::from_dir(dir)?;
        let source = Source::Safetensors(SafetensorsFiles::open(dir)?);
        Ok(Self {
            source,
            config,
            tokenizer,
            template,
        })
    }

    fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let file = GgufFile::open(path)?;
        let mut config = ModelConfig::from_value(path, file.config()?)?;
        if let Some(divisors) = file.rope_freqs()? {
            if divisors.len() != config.head_dim / 2 {
                let detail = format!(
                    "rope_freqs.weight holds {} numbers; a head of {} needs {}",
                    divisors.len(),
                    config.head_dim,
                    config.head_dim / 2
                );
                return Err(ModelError::format(path, detail));
            }
            config.rope_scaling = RopeScaling::Divisors { divisors };
        }
        let special = file.special_tokens();
        let mut tokenizer = TextTokenizer::new(file.tokenizer()?);
        tokenizer.bos = special.bos;
        tokenizer.pad = special.pad;
        tokenizer.eos.extend(special.eos);
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let (bos, eos) = (text(special.bos), text(special.eos));
        let template = file.chat_template();
        let template = template
            .map(|source| ChatTemplate::new(source, bos, eos))
            .transpose()
            .map_err(|error| ModelError::format(path, error.to_string()))?;
        Ok(Self {
            source: Source::Gguf(Box::new(GgufWeights {
                path: path.into(),
                file,
            })),
            config,
            tokenizer,
            template,
        })
    }

    /// Whether the weights have every tensor that the configuration asks for, in its shape. None is
    /// read.
    ///
    /// # Errors
    /// The first tensor that is missing, of another shape, or that this model would not use.
    pub fn check(&self) -> Result<(), ModelError> {
        check_names_and_shapes(self.weights(), &self.config)
    }

    /// Whether every layer of `adapter` is one of this model, with its inputs and outputs.
    ///
    /// # Errors
    /// The first layer that is not.
    pub fn check_adapter(&self, adapter: &AdapterSet) -> Result<(), ModelError> {
        check_layers(&self.config, &adapter.adapters)
    }

    /// The folder or the GGUF file.
    pub fn path(&self) -> &Path {
        self.weights().path()
    }

    /// A CRC-32C of configuration and weight files, hexadecimal. It tells one model from another; it is
    /// no protection against a forger.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn checksum(&self) -> Result<String, ModelError> {
        let mut sum = crc32c::crc32c(format!("{:?}", self.config).as_bytes());
        let files: Vec<(&Path, u64)> = match &self.source {
            Source::Safetensors(files) => files.files().collect(),
            Source::Gguf(weights) => vec![(&weights.path, weights.file.file_bytes())],
        };
        let mut buffer = vec![0; 1 << 20];
        for (path, bytes) in files {
            sum = crc32c::crc32c_append(sum, &bytes.to_le_bytes());
            let failed = |error| ModelError::io(path, error);
            let mut file = std::fs::File::open(path).map_err(failed)?;
            loop {
                match file.read(&mut buffer).map_err(failed)? {
                    0 => break,
                    count => sum = crc32c::crc32c_append(sum, &buffer[..count]),
                }
            }
        }
        Ok(format!("{sum:08x}"))
    }

    /// The weights, to be read tensor by tensor.
    pub fn weights(&self) -> &dyn WeightSource {
        match &self.source {
            Source::Safetensors(files) => files,
            Source::Gguf(weights) => weights.as_ref(),
        }
    }

    pub(crate) fn source(&self) -> &Source {
        &self.source
    }

    /// Number type in which a tensor is read; quantised types are read as f32.
    ///
    /// # Errors
    /// A tensor that is missing, or of a type that is not supported.
    pub fn stored_type(&self, name: &str) -> Result<StoredType, ModelError> {
        match &self.source {
            Source::Safetensors(files) => files.stored_type(name),
            Source::Gguf(weights) => {
                let kind = weights.file.decoded_type(name);
                kind.map(stored).ok_or_else(|| ModelError::MissingTensor {
                    path: weights.path.clone(),
                    name: name.into(),
                    hint: String::new(),
                })
            }
        }
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or damaged.
    pub fn load(self, options: LoadOptions, device: &Device) -> Result<LoadedModel, ModelError> {
        let model = build_model(self.weights(), &self.config, options.storage, device)?;
        Ok(LoadedModel {
            model,
            tokenizer: self.tokenizer,
            template: self.template,
        })
    }
}

/// Whether a file says of itself that it is GGUF, or is named so: its reader then says what is wrong.
fn is_gguf(path: &Path) -> Result<bool, ModelError> {
    if path.extension().is_some_and(|ending| ending == "gguf") {
        return Ok(true);
    }
    let io = |error| ModelError::io(path, error);
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(4).read_to_end(&mut start).map_err(io)?;
    Ok(start == b"GGUF")
}

/// [`ModelFiles::open`] and [`ModelFiles::load`] in one.
///
/// # Errors
/// As those.
pub fn load_model(
    path: &Path,
    options: LoadOptions,
    device: &Device,
) -> Result<LoadedModel, ModelError> {
    ModelFiles::open(path)?.load(options, device)
}

fn gguf_files(dir: &Path) -> Result<Vec<PathBuf>, ModelError> {
    let entries = std::fs::read_dir(dir).map_err(|error| ModelError::io(dir, error))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "gguf")
        })
        .collect();
    files.sort();
    Ok(files)
}

/// The weights of a GGUF file.
#[derive(Debug)]
pub(crate) struct GgufWeights {
    pub(crate) path: PathBuf,
    pub(crate) file: GgufFile,
}

fn stored(kind: GgufDType) -> StoredType {
    match kind {
        GgufDType::F32 => StoredType::F32,
        GgufDType::F16 => StoredType::F16,
        GgufDType::BF16 => StoredType::BF16,
    }
}

impl WeightSource for GgufWeights {
    fn path(&self) -> &Path {
        &self.path
    }

    fn names(&self) -> Vec<String> {
        self.file.tensor_names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.tensor_info(name).map(|(shape, _)| shape.to_vec())
    }

    fn read(&self, name: &str) -> Result<StoredTensor, ModelError> {
        let tensor = self.file.tensor(name)?;
        Ok(StoredTensor {
            shape: tensor.shape,
            dtype: stored(tensor.dtype),
            bytes: tensor.bytes,
        })
    }
}
