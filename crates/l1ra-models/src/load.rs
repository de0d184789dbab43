//! A model from one path: a Hugging Face folder, a GGUF file, or a folder that holds one.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::{
    causal_lm::CausalLm,
    chat::ChatTemplate,
    config::{ModelConfig, RopeScaling},
    error::ModelError,
    tokenizer::TextTokenizer,
    weights::{
        SafetensorsFiles, Storage, StoredTensor, StoredType, WeightSource, build_model,
        gguf::{GgufDType, GgufFile},
    },
};

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

#[derive(Debug)]
enum Source {
    Safetensors(SafetensorsFiles),
    Gguf(PathBuf, Box<GgufFile>),
}

impl ModelFiles {
    /// Opens `path`: a folder with `config.json`, a `.gguf` file, or a folder with one such file.
    ///
    /// # Errors
    /// Nothing there, a part missing, or something that is not supported.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        if path.is_file() {
            return Self::open_gguf(path);
        }
        if !path.is_dir() {
            let detail = "no such file or folder; a model is a Hugging Face folder \
                          (config.json, tokenizer.json, model.safetensors) or a .gguf file";
            return Err(ModelError::format(path, detail));
        }
        if path.join("config.json").is_file() {
            return Self::open_folder(path);
        }
        match gguf_files(path)?.as_slice() {
            [file] => Self::open_gguf(file),
            [] => Err(ModelError::format(
                path,
                "holds neither config.json nor a .gguf file",
            )),
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
            source: Source::Gguf(path.into(), Box::new(file)),
            config,
            tokenizer,
            template,
        })
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// A tensor that is missing, of another shape or damaged.
    pub fn load(self, options: LoadOptions, device: &Device) -> Result<LoadedModel, ModelError> {
        let storage = options.storage;
        let model = match &self.source {
            Source::Safetensors(files) => build_model(files, &self.config, storage, device)?,
            Source::Gguf(path, file) => {
                build_model(&GgufWeights { path, file }, &self.config, storage, device)?
            }
        };
        Ok(LoadedModel {
            model,
            tokenizer: self.tokenizer,
            template: self.template,
        })
    }
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

struct GgufWeights<'a> {
    path: &'a Path,
    file: &'a GgufFile,
}

impl WeightSource for GgufWeights<'_> {
    fn path(&self) -> &Path {
        self.path
    }

    fn names(&self) -> Vec<String> {
        self.file.tensor_names()
    }

    fn shape(&self, name: &str) -> Option<Vec<usize>> {
        self.file.tensor_info(name).map(|(shape, _)| shape.to_vec())
    }

    fn read(&self, name: &str) -> Result<StoredTensor, ModelError> {
        let tensor = self.file.tensor(name)?;
        let dtype = match tensor.dtype {
            GgufDType::F32 => StoredType::F32,
            GgufDType::F16 => StoredType::F16,
            GgufDType::BF16 => StoredType::BF16,
        };
        Ok(StoredTensor {
            shape: tensor.shape,
            dtype,
            bytes: tensor.bytes,
        })
    }
}
