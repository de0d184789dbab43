//! [`Job`]: everything that can be wrong with a recipe's input is found before weights are read.

use std::{
    path::{Path, PathBuf},
    time::SystemTime,
};

use burn::tensor::Device;
use l1ra_core::{
    adapter::check_rank,
    parse_device,
    peft::write_whole,
    target::{AdapterSpec, adapter_specs},
};
use l1ra_models::{
    CausalLm, ChatTemplate, LoadOptions, ModelConfig, ModelRef, TextTokenizer, fetch_model,
    load::ModelFiles, weights::linear_dims,
};

use crate::{
    data::{DataProgress, PreparedData, prepare_data},
    error::TrainError,
    job::{Plan, RunSummary, SUMMARY_FILE},
    observe::{Observer, TensorBoard},
    options::TrainOptions,
    recipe::{Recipe, RecipeFile},
    report::{RunRecord, write_report},
    run::{RunInput, RunReport, finetune},
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
    /// Where the run will be.
    pub device: Device,
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
        let device = open_device(recipe)?;
        check_output(&recipe.output)?;
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
        Ok(Self {
            recipe: recipe.resolved(&options),
            options,
            data,
            adapters,
            model,
            device,
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
    /// decisions, the adapter, `run.json` and the report.
    ///
    /// # Errors
    /// Weights that cannot be read; a number that is not finite; a file that cannot be written.
    pub fn run(
        mut self,
        plan: &Plan,
        mut observers: Vec<Box<dyn Observer>>,
    ) -> Result<Finished, TrainError> {
        self.options.recompute = plan.recompute;
        let output = self.recipe.output.clone();
        std::fs::create_dir_all(&output).map_err(|error| TrainError::io(&output, error))?;
        write_recipe(&self.recipe, &output)?;
        if self.recipe.log.tensorboard {
            observers.push(Box::new(TensorBoard::create(&output)?));
        }
        let started = SystemTime::now();
        let storage = self.recipe.model.dtype;
        let loaded = self.model.load(LoadOptions { storage }, &self.device)?;
        let input = RunInput {
            model: loaded.model,
            model_name: &self.recipe.model.path,
            train: self.data.train,
            packing: self.data.packing,
            eval: self.data.eval,
            pad: loaded.tokenizer.pad.unwrap_or(0),
            device: &self.device,
            layout: self.recipe.layout,
            output: &output,
        };
        let (model, report) = finetune(&self.options, input, observers)?;
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

pub(super) fn open_device(recipe: &Recipe) -> Result<Device, TrainError> {
    Ok(parse_device(&recipe.device)?)
}

/// The adapters that a recipe asks for, none with more ranks than its layer can hold.
pub(super) fn adapters_of(
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
fn check_output(output: &Path) -> Result<(), TrainError> {
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

/// Name of the resolved recipe in a run's folder.
pub const RECIPE_FILE: &str = "recipe.toml";

fn write_recipe(recipe: &Recipe, output: &Path) -> Result<(), TrainError> {
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
    [SUMMARY_FILE, "metrics.jsonl", "adapter"]
        .iter()
        .any(|name| output.join(name).exists())
}
