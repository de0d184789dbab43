//! [`Job`]: everything that can be wrong with a recipe's input is found before weights are read.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use burn::tensor::Device;
use l1ra_core::{
    adapter::check_rank,
    device::guard,
    files::write_whole,
    open_devices,
    peft::{CONFIG_FILE, SIDECAR_FILE, WEIGHTS_FILE},
    target::{AdapterSpec, adapter_specs},
};
use l1ra_models::{
    CausalLm, ChatTemplate, LoadOptions, ModelConfig, ModelRef, TextTokenizer, fetch_model,
    load::ModelFiles, weights::linear_dims,
};

use crate::{
    checkpoint::{CHECKPOINT_FOLDER, CheckpointFolder, Found, check_resume},
    data::{DataProgress, PreparedData, prepare_data},
    error::TrainError,
    job::{Plan, RunSummary, SUMMARY_FILE, plan::check_gates},
    lock::RunLock,
    observe::{Observer, TensorBoard},
    options::TrainOptions,
    recipe::{Recipe, RecipeFile},
    report::{RunRecord, write_report},
    run::{KnownBy, RunInput, RunReport, finetune},
    stop::StopSignal,
};

/// A run that is ready: its recipe resolved, its data tokenised, its input checked. Weights are
/// not loaded yet.
#[derive(Debug)]
pub struct Job {
    /// The recipe, its steps and warm-up written out.
    pub recipe: Recipe,
    /// The settings of the training loop.
    pub options: TrainOptions,
    /// Training and evaluation samples.
    pub data: PreparedData,
    /// The adapters that will be made.
    pub adapters: Vec<AdapterSpec>,
    /// Configuration, tokenizer and template of the model.
    pub model: ModelFiles,
    /// Where the run will be; of several devices, the first holds the optimizer.
    pub devices: Vec<Device>,
    /// Asks the run to stop after its step, saved.
    pub stop: StopSignal,
    resume: Option<Found>,
    /// Made once: it reads the model's files from end to end.
    known_by: Option<KnownBy>,
}

/// What a job leaves behind.
#[derive(Debug)]
pub struct Finished {
    /// The model with its adapters, on a plain device.
    pub model: CausalLm,
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The chat template, where there is one.
    pub template: Option<ChatTemplate>,
    /// What happened.
    pub report: RunReport,
    /// What `run.json` holds.
    pub summary: RunSummary,
    /// Every file of the report; empty where the recipe wants none.
    pub report_files: Vec<PathBuf>,
}

/// Who wants to know how far the preparation is.
pub trait JobProgress: DataProgress {
    /// `done` of `total` bytes of a file of the model were fetched.
    fn fetch(&self, file: &str, done: u64, total: u64) {
        let _ = (file, done, total);
    }
}

/// Nobody is told.
impl JobProgress for () {}

impl Job {
    /// Makes a recipe ready: opens the device and the model's files (a hub name is fetched), checks
    /// targets, reads and tokenises the data, and counts the steps.
    ///
    /// # Errors
    /// Whatever is wrong with the recipe's input, with the place where it was said.
    pub fn prepare(file: &RecipeFile, progress: &dyn JobProgress) -> Result<Self, TrainError> {
        Self::build(&file.recipe, progress).map_err(|error| file.explain(error))
    }

    fn build(recipe: &Recipe, progress: &dyn JobProgress) -> Result<Self, TrainError> {
        recipe.validate()?;
        let devices = devices_of(recipe)?;
        check_output(&recipe.output)?;
        RunLock::check(&recipe.output)?;
        let reference = ModelRef::parse(&recipe.model.path)?;
        let path = fetch_model(&reference, &mut |file, done, total| {
            progress.fetch(file, done, total);
        })?;
        let mut model = ModelFiles::open(&path)?;
        model.check()?;
        if let Some(template) = &recipe.model.chat_template {
            model.template = Some(ChatTemplate::from_file(template, &model.tokenizer)?);
        }
        let adapters = adapters_of(recipe, &model.config)?;
        let template = model.template.as_ref();
        let data = prepare_data(&recipe.data, &model.tokenizer, template, &Both(progress))?;
        let context = model.config.max_position_embeddings;
        for stats in [&data.train_stats, &data.eval_stats] {
            stats.check_context(context, recipe.data.max_length)?;
        }
        let options = recipe.options(recipe.train.steps_for(data.train_rows()));
        options.validate()?;
        options.check_devices(devices.len())?;
        check_gates(&options)?;
        Ok(Self {
            recipe: recipe.resolved(&options),
            options,
            data,
            adapters,
            model,
            devices,
            stop: StopSignal::default(),
            resume: None,
            known_by: None,
        })
    }

    /// The job as the one that `found` is a checkpoint of, to go on from there. Its output folder must
    /// be that run's.
    ///
    /// # Errors
    /// When it is another run: settings, model and data are compared.
    pub fn resume(mut self, found: Found) -> Result<Self, TrainError> {
        if self.recipe.output != found.run {
            let expected = format!(
                "{}, the folder of the run that goes on",
                found.run.display()
            );
            let seen = self.recipe.output.display();
            return Err(TrainError::option("output", seen, expected));
        }
        let (known_by, data) = (self.known_by()?, &self.data);
        let identity = known_by.identity(&data.train, data.packing.as_ref(), &data.eval);
        check_resume(&found.checkpoint, &identity, &self.options)
            .map_err(|what| what.in_file(&found.file))?;
        self.resume = Some(found);
        self.known_by = Some(known_by);
        Ok(self)
    }

    /// Optimizer steps that are done before the run begins.
    pub fn steps_done(&self) -> usize {
        let resume = self.resume.as_ref();
        resume.map_or(0, |found| found.checkpoint.progress.step)
    }

    fn known_by(&self) -> Result<KnownBy, TrainError> {
        Ok(KnownBy {
            settings: serde_json::to_value(&self.recipe)
                .map_err(|error| TrainError::recipe(RECIPE_FILE, error.to_string()))?,
            model: self.model.checksum()?,
        })
    }

    /// What the job would do: sizes, steps, updates, data, memory, and with `with_time` the time of
    /// a step, which is measured on the device for a few seconds.
    ///
    /// # Errors
    /// When the device cannot be measured.
    pub fn plan(&self, with_time: bool) -> Result<Plan, TrainError> {
        Plan::of_job(self, with_time)
    }

    /// Trains as `plan` says, and leaves in the output folder: the resolved recipe, metrics, rank
    /// decisions, checkpoints, the adapter, `run.json` and the report. The folder is the run's alone
    /// until then ([`RunLock`]).
    ///
    /// # Errors
    /// A folder that another run holds; weights that cannot be read; a number that is not finite; a
    /// file that cannot be written; [`TrainError::Interrupted`] when [`stop`](Self::stop) was
    /// requested; [`TrainError::NoEffect`], with the report written, when the adapters change nothing.
    pub fn run(
        mut self,
        plan: &Plan,
        mut observers: Vec<Box<dyn Observer>>,
    ) -> Result<Finished, TrainError> {
        self.options.recompute = plan.recompute;
        let output = self.recipe.output.clone();
        std::fs::create_dir_all(&output).map_err(|error| TrainError::io(&output, error))?;
        let _lock = RunLock::take(&output)?;
        let known_by = match self.known_by.take() {
            Some(known_by) => known_by,
            None => self.known_by()?,
        };
        if self.resume.is_none() {
            CheckpointFolder::of_run(&output).clear()?;
        }
        write_recipe(&self.recipe, &output)?;
        if self.recipe.log.tensorboard {
            observers.push(Box::new(TensorBoard::create(&output)?));
        }
        let started = SystemTime::now();
        let storage = self.recipe.model.dtype;
        let (device, further) = first_of(&self.devices)?;
        let loaded = guard(|| self.model.load(LoadOptions { storage }, device));
        let loaded = loaded.map_err(|failure| {
            TrainError::device_failed("while the model was loaded", failure)
                .with_prediction(&plan.memory)
        })??;
        let input = RunInput {
            model: loaded.model,
            model_name: &self.recipe.model.path,
            train: self.data.train,
            packing: self.data.packing,
            eval: self.data.eval,
            pad: loaded.tokenizer.pad.unwrap_or(0),
            device,
            further_devices: further.to_vec(),
            layout: self.recipe.layout,
            output: &output,
            known_by,
            stop: self.stop,
            resume: self.resume.map(|found| Box::new(found.checkpoint)),
        };
        let outcome = finetune(&self.options, input, observers);
        if let Err(TrainError::NoEffect { .. }) = outcome {
            remove_results(&output)?;
            if self.recipe.log.report {
                write_report(&RunRecord::read(&output)?, &output)?;
            }
        }
        let (model, report) = outcome.map_err(|error| error.with_prediction(&plan.memory))?;
        let summary = RunSummary::new(plan, &report, started);
        summary.write(&output)?;
        let mut report_files = Vec::new();
        if self.recipe.log.report {
            report_files = write_report(&RunRecord::read(&output)?, &output)?;
        }
        Ok(Finished {
            model,
            tokenizer: loaded.tokenizer,
            template: loaded.template,
            report,
            summary,
            report_files,
        })
    }
}

/// The data's progress within the job's.
struct Both<'a>(&'a dyn JobProgress);

impl DataProgress for Both<'_> {
    fn advance(&self, done: usize, total: usize) {
        self.0.advance(done, total);
    }
}

/// The devices that a recipe names, each tried; at least one.
pub(super) fn devices_of(recipe: &Recipe) -> Result<Vec<Device>, TrainError> {
    Ok(open_devices(&recipe.device)?)
}

/// The device that holds the optimizer, and the others.
pub(crate) fn first_of(devices: &[Device]) -> Result<(&Device, &[Device]), TrainError> {
    devices
        .split_first()
        .ok_or_else(|| TrainError::option("device", "(none)", "at least one device"))
}

/// The adapters that a recipe asks for, none with more ranks than its layer can hold.
pub(crate) fn adapters_of(
    recipe: &Recipe,
    config: &ModelConfig,
) -> Result<Vec<AdapterSpec>, TrainError> {
    let layers = linear_dims(config);
    let paths: Vec<String> = layers.iter().map(|(path, _)| path.clone()).collect();
    let specs = adapter_specs(&recipe.adapters, &paths)?;
    for spec in &specs {
        let layer = layers.iter().find(|(path, _)| *path == spec.path);
        layer.map_or(Ok(()), |(_, dims)| check_rank(spec, *dims))?;
    }
    Ok(specs)
}

/// The folder, or the nearest one above it that is there, must be a folder.
pub(crate) fn check_output(output: &Path) -> Result<(), TrainError> {
    let wrong = |expected: String| TrainError::Option {
        field: "output",
        seen: output.display().to_string(),
        expected,
    };
    match output.ancestors().find(|path| path.exists()) {
        Some(path) if path.is_dir() => Ok(()),
        Some(path) if path == output => Err(wrong(
            "a folder, made if it is not there; this is a file".into(),
        )),
        Some(path) => Err(wrong(format!(
            "cannot be made, as {} is a file",
            path.display()
        ))),
        None => Ok(()),
    }
}

const ADAPTER_FILES: [&str; 3] = [CONFIG_FILE, WEIGHTS_FILE, SIDECAR_FILE];

/// Removes what a former run in `output` ended with, so that it is not taken for this one's.
fn remove_results(output: &Path) -> Result<(), TrainError> {
    let adapter = ADAPTER_FILES.map(|name| output.join("adapter").join(name));
    for path in adapter.into_iter().chain([output.join(SUMMARY_FILE)]) {
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(TrainError::io(path, error));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Name of the resolved recipe in a run's folder.
pub const RECIPE_FILE: &str = "recipe.toml";

pub(crate) fn write_recipe(recipe: &Recipe, output: &Path) -> Result<(), TrainError> {
    let path = output.join(RECIPE_FILE);
    let text = format!(
        "# The recipe of this run, with everything that was laid over it (l1ra {}).\n\
         # Again: l1ra train {} --output ANOTHER\n\n{}",
        env!("CARGO_PKG_VERSION"),
        path.display(),
        recipe.to_toml()?
    );
    write_whole(&path, text.as_bytes()).map_err(|error| TrainError::io(path, error))
}

/// Whether `output` holds a run already.
pub fn holds_run(output: &Path) -> bool {
    [SUMMARY_FILE, "metrics.jsonl", "adapter", CHECKPOINT_FOLDER]
        .iter()
        .any(|name| output.join(name).exists())
}
