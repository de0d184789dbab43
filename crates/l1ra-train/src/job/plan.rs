//! [`Plan`]: what a recipe would do, before it does it.

use std::{fmt, path::Path};

use burn::tensor::Device;
use l1ra_core::{
    BudgetUnit, Policy,
    allocation::{GateOutlook, UpdateSchedule, penalises_gates, policies::Start},
    target::AdapterSpec,
};
use l1ra_models::{
    ModelConfig,
    weights::{ParameterCount, parameter_count},
};
use serde::Serialize;

use crate::{
    data::{
        DataStats, Order, Packing, PaddingReport, Sample, SourceFile, SourceReport, read_sources,
    },
    error::TrainError,
    job::{
        Job, Prediction,
        ready::{adapters_of, devices_of, first_of},
    },
    memory::{Bytes, available_bytes},
    observe::duration,
    options::TrainOptions,
    plural::counted,
    predict::{
        Home, MemoryPrediction, MicroBatch, RowShape, TimePrediction, WeightsFrom, Workload,
        advise, predict_memory, predict_time,
    },
    recipe::{Recipe, RecipeFile},
    recompute::Recompute,
};

/// Most micro-batches that a prediction looks at.
const BATCHES: usize = 4000;

/// What a recipe would do.
#[derive(Clone, Debug, Serialize)]
pub struct Plan {
    /// The recipe, its steps and warm-up written out.
    pub recipe: Recipe,
    /// The model.
    pub model: ModelFacts,
    /// The adapters.
    pub adapters: AdapterFacts,
    /// Optimizer steps.
    pub steps: usize,
    /// Passes over the training rows.
    pub epochs: f64,
    /// Steps after which ranks are updated.
    pub update_steps: Vec<usize>,
    /// What the penalty does to the gates.
    pub gates: GateOutlook,
    /// The data.
    pub data: DataFacts,
    /// What becomes of the recipe's `train.recompute`: off or blocks.
    pub recompute: Recompute,
    /// Predicted peak memory.
    pub memory: MemoryPrediction,
    /// Memory that this process could take now, bytes; `None` where the system does not say.
    pub available_bytes: Option<u64>,
    /// What to change where the memory is not there.
    pub advice: Vec<String>,
    /// Predicted time, where it was measured.
    pub time: Option<TimePrediction>,
}

/// The model of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct ModelFacts {
    /// As the recipe names it.
    pub path: String,
    /// Family.
    pub family: String,
    /// Blocks.
    pub layers: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Parameters of the frozen model.
    pub parameters: ParameterCount,
    /// What matrices are kept in.
    pub dtype: String,
}

/// The adapters of a plan.
#[derive(Clone, Debug, Serialize)]
pub struct AdapterFacts {
    /// Adapters.
    pub count: usize,
    /// Names of the adapted modules, with their number.
    pub modules: Vec<(String, usize)>,
    /// Sum of all ranks.
    pub ranks: usize,
    /// Parameters.
    pub parameters: usize,
    /// Parameters if ranks move to the widest layers that may take them.
    pub parameters_at_most: usize,
    /// What the budget counts.
    pub unit: BudgetUnit,
    /// The policy.
    pub policy: Policy,
}

/// The data of a plan.
#[derive(Clone, Debug, Serialize)]
#[serde(untagged)]
pub enum DataFacts {
    /// Read and tokenised.
    Tokenised(Box<TokenisedData>),
    /// Read only: there is no tokenizer, so rows are taken to have `max_length` tokens.
    Counted {
        /// Training records.
        train_records: usize,
        /// Letters of the training records.
        train_characters: usize,
        /// Evaluation records; 0: held out of the training records.
        eval_records: usize,
    },
}

/// Data that was read and tokenised.
#[derive(Clone, Debug, Serialize)]
pub struct TokenisedData {
    /// Training samples.
    pub train: DataStats,
    /// Evaluation samples.
    pub eval: DataStats,
    /// Padding of training batches.
    pub padding: PaddingReport,
    /// What became of every file.
    pub sources: Vec<SourceReport>,
    /// What the user should know besides.
    pub notes: Vec<String>,
}

impl Plan {
    pub(super) fn of_job(job: &Job, with_time: bool) -> Result<Self, TrainError> {
        let (data, batch) = (&job.data, job.options.batch_size);
        let order = Order::Shuffled {
            seed: job.options.seed,
        };
        let facts = DataFacts::Tokenised(Box::new(TokenisedData {
            train: data.train_stats.clone(),
            eval: data.eval_stats.clone(),
            padding: PaddingReport::new(&data.train, data.packing.as_ref(), batch, order),
            sources: data.sources.clone(),
            notes: data.notes.clone(),
        }));
        let train = rows(&data.train, data.packing.as_ref());
        let outline = Outline {
            recipe: &job.recipe,
            options: &job.options,
            config: &job.model.config,
            adapters: &job.adapters,
            source: WeightsFrom::path(job.model.path())?,
            train: micro_batches(&train, order, &job.options),
            packed: data.packing.is_some(),
            eval: MicroBatch::in_order(&rows(&data.eval, None), batch),
            rows: train.len(),
            data: facts,
        };
        outline.plan(&job.devices, with_time)
    }

    /// A plan from a model's `config.json` alone: no weights, no tokenizer. Data is read and
    /// checked; every row is taken to have `max_length` tokens, all of them targets.
    ///
    /// # Errors
    /// Whatever is wrong with the recipe, the configuration or the data.
    pub fn from_config(
        file: &RecipeFile,
        config: &Path,
        with_time: bool,
    ) -> Result<Self, TrainError> {
        Self::build_from_config(&file.recipe, config, with_time)
            .map_err(|error| file.explain(error))
    }

    fn build_from_config(
        recipe: &Recipe,
        config: &Path,
        with_time: bool,
    ) -> Result<Self, TrainError> {
        recipe.validate()?;
        let devices = devices_of(recipe)?;
        let config = ModelConfig::from_file(config)?;
        let adapters = adapters_of(recipe, &config)?;
        let sources = read_sources(&recipe.data)?;
        let count = |files: &[SourceFile]| -> Result<usize, TrainError> {
            let errors = files.iter().filter_map(SourceFile::error);
            errors.into_iter().next().map_or(Ok(()), Err)?;
            Ok(files.iter().map(|file| file.records.len()).sum())
        };
        let (train, eval) = (count(&sources.train)?, count(&sources.eval)?);
        let options = recipe.options(recipe.train.steps_for(train));
        options.validate()?;
        options.check_devices(devices.len())?;
        check_gates(&options)?;
        let (batch, length) = (options.batch_size, recipe.data.max_length);
        let full = MicroBatch::full(batch, length, batch * length);
        let outline = Outline {
            recipe: &recipe.resolved(&options),
            options: &options,
            config: &config,
            adapters: &adapters,
            source: WeightsFrom::Memory,
            train: vec![full],
            packed: recipe.data.packing,
            eval: vec![full],
            rows: train,
            data: DataFacts::Counted {
                train_records: train,
                train_characters: sources.train.iter().map(SourceFile::characters).sum(),
                eval_records: eval,
            },
        };
        outline.plan(&devices, with_time)
    }

    /// Whether the predicted memory is there; `true` where the system does not say what is.
    pub fn fits(&self) -> bool {
        self.available_bytes
            .is_none_or(|available| self.memory.needed_bytes <= available)
    }

    pub(super) fn prediction(&self) -> Prediction {
        Prediction {
            peak_bytes: self.memory.peak_bytes,
            step_seconds: self.time.as_ref().map(|time| time.step_seconds),
        }
    }
}

/// Shapes of the training rows, packed ones together.
fn rows(samples: &[Sample], packing: Option<&Packing>) -> Vec<RowShape> {
    let shape = |sample: &Sample| RowShape {
        length: sample.len(),
        targets: sample.targets(),
    };
    let Some(packing) = packing else {
        return samples.iter().map(shape).collect();
    };
    let sum = |row: &Vec<u32>| {
        let shapes = row.iter().map(|index| shape(&samples[*index as usize]));
        shapes.fold(RowShape::default(), |sum, row| RowShape {
            length: sum.length + row.length,
            targets: sum.targets + row.targets,
        })
    };
    packing.rows().iter().map(sum).collect()
}

/// The micro-batches that the run will see, in its own order.
fn micro_batches(rows: &[RowShape], order: Order, options: &TrainOptions) -> Vec<MicroBatch> {
    let count = (options.steps * options.accumulation).min(BATCHES);
    let epochs = (0..).map(|epoch| order.epoch(epoch, rows.len()));
    let mut batches = Vec::with_capacity(count);
    for order in epochs.take(count) {
        let shuffled: Vec<RowShape> = order.iter().map(|row| rows[*row as usize]).collect();
        batches.extend(MicroBatch::in_order(&shuffled, options.batch_size));
        if batches.len() >= count {
            break;
        }
    }
    batches.truncate(count);
    batches
}

/// What a plan is made from.
struct Outline<'a> {
    recipe: &'a Recipe,
    options: &'a TrainOptions,
    config: &'a ModelConfig,
    adapters: &'a [AdapterSpec],
    source: WeightsFrom,
    train: Vec<MicroBatch>,
    packed: bool,
    eval: Vec<MicroBatch>,
    rows: usize,
    data: DataFacts,
}

impl Outline<'_> {
    fn plan(self, devices: &[Device], with_time: bool) -> Result<Plan, TrainError> {
        let (device, _) = first_of(devices)?;
        let (recipe, options) = (self.recipe, self.options);
        let schedule = UpdateSchedule::new(&recipe.adapters, options.steps, options.warmup_steps)?;
        let mut workload = Workload {
            config: self.config.clone(),
            storage: recipe.model.dtype,
            source: self.source,
            adapters: self.adapters.to_vec(),
            options: recipe.adapters.clone(),
            accumulation: options.accumulation,
            devices: devices.len(),
            train: self.train,
            packed: self.packed,
            recompute: options.recompute == Recompute::Blocks,
            activations: options.activations,
            eval: self.eval,
            home: Home::of(device),
        };
        // What a GPU has free is not known.
        let available_bytes = match workload.home {
            Home::Flex | Home::OtherCpu => available_bytes(),
            Home::Gpu => None,
        };
        let mut memory = predict_memory(&workload);
        let fits = |memory: &MemoryPrediction| {
            available_bytes.is_none_or(|there| memory.needed_bytes <= there)
        };
        if options.recompute == Recompute::Auto && !fits(&memory) {
            workload.recompute = true;
            memory = predict_memory(&workload);
        }
        let recompute = if workload.recompute {
            Recompute::Blocks
        } else {
            Recompute::Off
        };
        let advice = match available_bytes {
            Some(available) if memory.needed_bytes > available => {
                advise(&memory, available, &workload)
            }
            _ => Vec::new(),
        };
        let time = with_time
            .then(|| predict_time(&workload, device))
            .transpose()?;
        let window = (options.batch_size * options.accumulation * options.steps) as f64;
        Ok(Plan {
            model: model_facts(recipe, self.config),
            adapters: adapter_facts(recipe, self.adapters, &workload),
            steps: options.steps,
            epochs: window / self.rows.max(1) as f64,
            update_steps: schedule.steps().collect(),
            gates: gate_outlook(options)?,
            recipe: recipe.clone(),
            data: self.data,
            recompute,
            memory,
            available_bytes,
            advice,
            time,
        })
    }
}

fn gate_outlook(options: &TrainOptions) -> Result<GateOutlook, TrainError> {
    let (steps, warmup) = (options.steps, options.warmup_steps);
    Ok(GateOutlook::new(&options.adapters, steps, warmup)?)
}

/// Refuses settings under which every gate reaches zero.
pub(crate) fn check_gates(options: &TrainOptions) -> Result<(), TrainError> {
    let outlook = gate_outlook(options)?;
    Ok(outlook.check(&options.adapters, options.steps)?)
}

fn model_facts(recipe: &Recipe, config: &ModelConfig) -> ModelFacts {
    ModelFacts {
        path: recipe.model.path.clone(),
        family: config.model_type.clone(),
        layers: config.num_hidden_layers,
        hidden: config.hidden_size,
        parameters: parameter_count(config),
        dtype: recipe.model.dtype.to_string(),
    }
}

fn adapter_facts(recipe: &Recipe, adapters: &[AdapterSpec], workload: &Workload) -> AdapterFacts {
    let mut modules: Vec<(String, usize)> = Vec::new();
    for adapter in adapters {
        let name = adapter.path.rsplit('.').next().unwrap_or(&adapter.path);
        match modules.iter_mut().find(|(known, _)| known == name) {
            Some((_, count)) => *count += 1,
            None => modules.push((name.into(), 1)),
        }
    }
    AdapterFacts {
        count: adapters.len(),
        modules,
        ranks: adapters.iter().map(|adapter| adapter.rank).sum(),
        parameters: workload.adapter_parameters(),
        parameters_at_most: workload.adapter_parameters_at_most(),
        unit: recipe.adapters.budget_unit(),
        policy: recipe.adapters.policy,
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_model(f)?;
        self.write_adapters(f)?;
        self.write_data(f)?;
        self.write_steps(f)?;
        self.write_cost(f)
    }
}

impl Plan {
    fn write_model(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ModelFacts {
            path,
            family,
            layers,
            hidden,
            parameters,
            dtype,
        } = &self.model;
        let parameters = millions(parameters.total);
        writeln!(
            f,
            "model     {path}: {family}, {layers} layers, hidden {hidden}, {parameters} parameters, {dtype}"
        )
    }

    fn write_adapters(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let facts = &self.adapters;
        let names: Vec<&str> = facts
            .modules
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        let AdapterFacts {
            count,
            ranks,
            parameters,
            parameters_at_most: most,
            ..
        } = facts;
        writeln!(
            f,
            "adapters  {count} on {}: {}, {parameters} parameters",
            names.join(", "),
            counted(*ranks, "rank")
        )?;
        let mut policy = word(&facts.policy);
        if facts.policy.logic().start() == Start::Gradient {
            policy += ", placed by the gradient before the first step";
        }
        match self.update_steps.as_slice() {
            [] => writeln!(
                f,
                "ranks     policy {policy}: they never move during the run"
            ),
            [first, .., last] => writeln!(
                f,
                "ranks     policy {policy}: {} updates, after steps {first} to {last}; budget in {}, \
                 at most {most} parameters",
                self.update_steps.len(),
                word(&facts.unit)
            ),
            [only] => writeln!(
                f,
                "ranks     policy {policy}: one update, after step {only}; budget in {}, at most \
                 {most} parameters",
                word(&facts.unit)
            ),
        }?;
        if !penalises_gates(facts.policy) {
            return Ok(());
        }
        let gates = self.gates.sentence(&self.recipe.adapters);
        writeln!(f, "gates     {gates}")
    }

    fn write_data(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.data {
            DataFacts::Tokenised(data) => {
                let TokenisedData {
                    train,
                    eval,
                    padding,
                    sources,
                    notes,
                } = data.as_ref();
                for source in sources {
                    writeln!(f, "data      {source}")?;
                }
                writeln!(f, "train     {train}")?;
                writeln!(f, "          {padding}")?;
                writeln!(f, "eval      {eval}")?;
                notes
                    .iter()
                    .try_for_each(|note| writeln!(f, "note      {note}"))
            }
            DataFacts::Counted {
                train_records,
                train_characters,
                eval_records,
            } => {
                let eval = match eval_records {
                    0 => "evaluation records are held out of them".to_string(),
                    count => counted(*count, "evaluation record"),
                };
                let length = self.recipe.data.max_length;
                writeln!(
                    f,
                    "data      {}, {}; {eval}",
                    counted(*train_records, "training record"),
                    counted(*train_characters, "letter")
                )?;
                writeln!(
                    f,
                    "          no tokenizer: every row is taken to have {}",
                    counted(length, "token")
                )
            }
        }
    }

    fn write_steps(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let train = &self.recipe.train;
        let rows = match train.accumulation {
            1 => counted(train.batch_size, "row"),
            n => format!("{n} × {}", counted(train.batch_size, "row")),
        };
        writeln!(
            f,
            "steps     {} of {rows}, {:.2} epochs; warm-up {}, lr {:e}, {}",
            self.steps,
            self.epochs,
            train.warmup_steps.unwrap_or(0),
            train.lr,
            word(&train.schedule)
        )
    }

    fn write_cost(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let peak = Bytes(self.memory.peak_bytes);
        let there = match self.available_bytes {
            Some(bytes) => format!("; {} are available", Bytes(bytes)),
            None if self.memory.home == Home::Gpu => {
                "; what the GPU has free is not known, and recompute = auto is off".into()
            }
            None => String::new(),
        };
        write!(f, "memory    peak {peak} predicted{there}")?;
        if !self.fits() {
            write!(f, "\n          it does not fit; instead:")?;
            for advice in &self.advice {
                write!(f, "\n          - {advice}")?;
            }
        }
        if let Some(time) = &self.time {
            let step = time.step_seconds;
            write!(
                f,
                "\ntime      {step:.3} s a step, {:.0} tokens/s predicted: {} for all steps",
                time.tokens_per_second,
                duration(step * self.steps as f64)
            )?;
        }
        Ok(())
    }
}

/// An enumeration's value as a recipe writes it.
fn word(value: &impl Serialize) -> String {
    let value = serde_json::to_value(value).ok();
    let text = value.as_ref().and_then(serde_json::Value::as_str);
    text.unwrap_or_default().into()
}

/// `3.15 M`, `8.03 G`.
fn millions(count: u64) -> String {
    match count {
        0..1_000_000 => format!("{:.1} k", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.2} M", count as f64 / 1e6),
        _ => format!("{:.2} G", count as f64 / 1e9),
    }
}
