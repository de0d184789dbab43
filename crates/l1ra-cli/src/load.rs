//! A model, and perhaps an adapter on it, from the command line's words.

use std::path::PathBuf;

use anyhow::Result;
use l1ra_core::device::Device;
use l1ra_core::{
    open_device,
    peft::{AdapterSet, install_adapters, load_adapter},
};
use l1ra_models::{
    ChatTemplate, LoadOptions, LoadedModel, ModelRef, fetch_model, load::ModelFiles,
    weights::Storage,
};

use crate::{args::ModelArgs, output::Output};

/// Where the model lies; a hub name is fetched first.
pub(crate) fn model_path(model: &str, output: Output) -> Result<PathBuf> {
    let bar = output.bar("fetch");
    let reference = ModelRef::parse(model)?;
    let path = fetch_model(&reference, &mut |file, done, total| {
        bar.bytes(file, done, total);
    })?;
    Ok(path)
}

/// Configuration and tokenizer of the model, with the template that the command line names. What
/// can be wrong with the command line is found here, before weights are read.
pub(crate) struct Opened {
    pub(crate) files: ModelFiles,
    adapter: Option<AdapterSet>,
    storage: Storage,
    pub(crate) device: Device,
}

impl Opened {
    pub(crate) fn new(args: &ModelArgs, output: Output) -> Result<Self> {
        let device = open_device(&args.device)?;
        let adapter = args.adapter.as_deref().map(load_adapter).transpose()?;
        let mut files = ModelFiles::open(&model_path(&args.model, output)?)?;
        files.check()?;
        if let Some(adapter) = &adapter {
            files.check_adapter(adapter)?;
        }
        if let Some(path) = &args.chat_template {
            files.template = Some(ChatTemplate::from_file(path, &files.tokenizer)?);
        }
        Ok(Self {
            files,
            adapter,
            storage: args.dtype,
            device,
        })
    }

    /// Reads the weights and puts the adapter on.
    pub(crate) fn load(self) -> Result<LoadedModel> {
        let storage = self.storage;
        let mut loaded = self.files.load(LoadOptions { storage }, &self.device)?;
        if let Some(adapter) = &self.adapter {
            install_adapters(&mut loaded.model, adapter, &self.device)?;
        }
        Ok(loaded)
    }
}
