//! [`Comparison`]: everything that can be wrong with a comparison is found before weights are read.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use l1ra_models::weights::linear_dims;

use crate::{
    checkpoint::{CheckpointFolder, Found, Identity, check_resume, data_mark},
    compare::{Cell, Grid, RunResult, grid::set_rank, table::FILES},
    error::TrainError,
    job::{Job, JobProgress, Plan, adapters_of, check_output},
    lock::{LOCK_FILE, RunLock},
    options::TrainOptions,
    recipe::{Recipe, RecipeFile},
    stop::StopSignal,
};

/// Folder of the runs within that of the comparison.
pub(super) const RUNS_FOLDER: &str = "runs";

/// A comparison that is ready: its data tokenised, the recipe of every run checked, and what is there
/// of earlier runs found. Weights are not loaded yet.
#[derive(Debug)]
pub struct Comparison {
    /// The grid.
    pub grid: Grid,
    /// Asks it to stop after its step, saved.
    pub stop: StopSignal,
    /// What a run with the largest rank takes.
    pub plan: Plan,
    pub(super) job: Job,
    pub(super) runs: Vec<Run>,
    pub(super) output: PathBuf,
}

/// A run of the grid.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) cell: Cell,
    pub(super) recipe: Recipe,
    pub(super) options: TrainOptions,
    pub(super) identity: Identity,
    pub(super) state: State,
}

/// What is there of a run.
#[derive(Debug)]
pub(super) enum State {
    New,
    Interrupted(Box<Found>),
    Finished(Box<RunResult>),
}

impl Comparison {
    /// Makes the comparison of `grid` on a recipe ready, in the recipe's output folder.
    ///
    /// Runs that are finished there are taken as they are. One with other settings, model or data is a
    /// mistake, unless `overwrite`: then it is made again.
    ///
    /// # Errors
    /// Whatever is wrong with the grid, the recipe's input, the recipe of a run or the folder.
    pub fn prepare(
        file: &RecipeFile,
        grid: Grid,
        overwrite: bool,
        progress: &dyn JobProgress,
    ) -> Result<Self, TrainError> {
        grid.validate()?;
        check_patterns(file, &grid)?;
        let output = file.recipe.output.clone();
        check_folder(&output).map_err(|error| file.explain(error))?;
        let mut job = Job::prepare(file, progress)?;
        let model = job.model.checksum()?;
        let train = data_mark(&job.data.train, job.data.packing.as_ref());
        let eval = data_mark(&job.data.eval, None);
        let mut runs = Vec::new();
        let mut folders = Vec::new();
        for cell in grid.cells() {
            let folder = output.join(RUNS_FOLDER).join(cell.name());
            if folders.contains(&folder) {
                let expected =
                    "choices that differ in their letters and digits: runs are named by them";
                return Err(TrainError::option("targets", cell.arm(), expected));
            }
            let (recipe, options) = recipe_of(&cell, &grid, &job, &folder).map_err(|error| {
                TrainError::recipe(format!("run {}", cell.name()), error.to_string())
            })?;
            let identity = Identity {
                settings: serde_json::to_value(&recipe)
                    .map_err(|error| TrainError::io(&folder, error.into()))?,
                model: model.clone(),
                train: train.clone(),
                eval: eval.clone(),
            };
            let state = state_of(&folder, &identity, &options, overwrite)?;
            folders.push(folder);
            runs.push(Run {
                cell,
                recipe,
                options,
                identity,
                state,
            });
        }
        let plan = plan_of(&mut job, &runs)?;
        Ok(Self {
            grid,
            stop: StopSignal::default(),
            plan,
            job,
            runs,
            output,
        })
    }

    /// Runs of the grid.
    pub fn len(&self) -> usize {
        self.runs.len()
    }

    /// Whether the grid has none; it never is.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Runs of the grid that are finished already.
    pub fn finished(&self) -> usize {
        let done = |run: &&Run| matches!(run.state, State::Finished(_));
        self.runs.iter().filter(done).count()
    }
}

/// A rank for all layers and ranks of single ones cannot both be meant.
fn check_patterns(file: &RecipeFile, grid: &Grid) -> Result<(), TrainError> {
    let adapters = &file.recipe.adapters;
    let own_rank = grid.ranks == [adapters.rank] && grid.targets.len() == 1;
    let rank = adapters.rank_pattern.keys().next();
    let rank = rank.map(|layer| format!("adapters.rank_pattern.{layer}"));
    let alpha = adapters.alpha_pattern.keys().next();
    let alpha = alpha.map(|layer| format!("adapters.alpha_pattern.{layer}"));
    if let Some(key) = rank.or(alpha).filter(|_| !own_rank) {
        let detail = format!(
            "{key} gives layers a value of their own, which a comparison of several ranks cannot scale; \
             leave it out, or compare at the recipe's rank alone"
        );
        return Err(TrainError::recipe(file.origins.place(&key), detail));
    }
    Ok(())
}

/// The folder must be new, empty or that of a comparison.
fn check_folder(output: &Path) -> Result<(), TrainError> {
    check_output(output)?;
    let entries = match std::fs::read_dir(output) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(TrainError::io(output, error)),
    };
    RunLock::check(output)?;
    if output.join(FILES[0]).is_file() {
        return Ok(());
    }
    for entry in entries {
        let name = entry
            .map_err(|error| TrainError::io(output, error))?
            .file_name();
        let ours = [RUNS_FOLDER, LOCK_FILE].iter().chain(&FILES);
        if !ours.into_iter().any(|known| name == *known) {
            return Err(TrainError::Data {
                path: output.into(),
                detail: format!(
                    "holds `{}`, which is no part of a comparison; choose another folder with --output",
                    name.display()
                ),
            });
        }
    }
    Ok(())
}

/// The recipe and options of a run, checked.
fn recipe_of(
    cell: &Cell,
    grid: &Grid,
    job: &Job,
    folder: &Path,
) -> Result<(Recipe, TrainOptions), TrainError> {
    let mut recipe = cell.recipe(&job.recipe, folder);
    if let (Some(targets), [first, _, ..]) = (&cell.targets, &grid.targets[..])
        && targets != first
    {
        let mut full = recipe.clone();
        full.adapters.targets = first.clone();
        let (most, one) = (
            parameters(&full, job)?,
            parameters(&with_rank(&recipe, 1), job)?,
        );
        let rank = most / one.max(1);
        if rank == 0 {
            let expected = format!(
                "layers of which rank 1 takes no more parameters than the {most} of `{first}` at rank {}; \
                 this takes {one}",
                cell.rank
            );
            return Err(TrainError::option("targets", targets, expected));
        }
        set_rank(&mut recipe, rank);
    }
    recipe.validate()?;
    adapters_of(&recipe, &job.model.config)?;
    let options = recipe.options(recipe.train.steps_for(job.data.train_rows()));
    options.validate()?;
    options.check_devices(job.devices.len())?;
    Ok((recipe, options))
}

fn with_rank(recipe: &Recipe, rank: usize) -> Recipe {
    let mut recipe = recipe.clone();
    set_rank(&mut recipe, rank);
    recipe
}

/// Adapter parameters of a recipe at its start: `rank · (d_in + d_out + 1)` over its adapters.
fn parameters(recipe: &Recipe, job: &Job) -> Result<usize, TrainError> {
    let dims = linear_dims(&job.model.config);
    let specs = adapters_of(recipe, &job.model.config)?;
    let of_spec = specs.iter().filter_map(|spec| {
        let (_, [d_in, d_out]) = dims.iter().find(|(path, _)| *path == spec.path)?;
        Some(spec.rank * (d_in + d_out + 1))
    });
    Ok(of_spec.sum())
}

fn state_of(
    folder: &Path,
    identity: &Identity,
    options: &TrainOptions,
    overwrite: bool,
) -> Result<State, TrainError> {
    let other = |differences: Vec<String>| TrainError::OtherRun {
        path: folder.into(),
        detail: format!(
            "{}; choose another folder with --output, or run it again with --overwrite",
            differences.join("; ")
        ),
    };
    if let Some(result) = RunResult::read(folder)? {
        let differences = result.differences(identity);
        return match differences.is_empty() {
            true => Ok(State::Finished(Box::new(result))),
            false if overwrite => Ok(State::New),
            false => Err(other(differences)),
        };
    }
    // Without a whole checkpoint there is nothing to go on from.
    let Ok(found) = CheckpointFolder::of_run(folder).newest() else {
        return Ok(State::New);
    };
    match check_resume(&found.checkpoint, identity, options) {
        Ok(()) => Ok(State::Interrupted(Box::new(found))),
        Err(_) if overwrite => Ok(State::New),
        Err(_) => Err(other(identity.differences(&found.checkpoint.identity))),
    }
}

/// The plan of the run with the most ranks.
fn plan_of(job: &mut Job, runs: &[Run]) -> Result<Plan, TrainError> {
    let largest = runs.iter().max_by_key(|run| run.recipe.adapters.rank);
    if let Some(run) = largest {
        job.adapters = adapters_of(&run.recipe, &job.model.config)?;
        job.recipe.adapters = run.recipe.adapters.clone();
        job.options.adapters = run.options.adapters.clone();
    }
    job.plan(false)
}
