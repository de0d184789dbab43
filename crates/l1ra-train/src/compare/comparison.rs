//! [`Comparison`]: everything that can be wrong with a comparison is found before weights are read.

use std::path::{Path, PathBuf};

use l1ra_models::weights::linear_dims;

use crate::{
    checkpoint::{CheckpointFolder, Found, Identity, data_mark},
    compare::{
        Cell, Grid, RunResult,
        check::{check_folder, check_patterns},
        grid::set_rank,
        result::differences,
    },
    error::TrainError,
    job::{Job, JobProgress, Plan, adapters_of, check_gates},
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
        // What the recipe says of the policy is not among what is compared.
        let mut first = file.clone();
        if let Some(policy) = grid.policies.first() {
            first.recipe.adapters.policy = *policy;
        }
        let mut job = Job::prepare(&first, progress)?;
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
            let state = state_of(&folder, &identity, overwrite)?;
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
    check_gates(&options)?;
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

fn state_of(folder: &Path, identity: &Identity, overwrite: bool) -> Result<State, TrainError> {
    let (saved, state) = match RunResult::read(folder)? {
        Some(result) => (result.identity.clone(), State::Finished(Box::new(result))),
        None => match CheckpointFolder::of_run(folder).newest() {
            Ok(found) => (
                found.checkpoint.identity.clone(),
                State::Interrupted(Box::new(found)),
            ),
            // Without a whole checkpoint there is nothing to go on from.
            Err(_) => return Ok(State::New),
        },
    };
    let differences = differences(identity, &saved);
    match differences.is_empty() {
        true => Ok(state),
        false if overwrite => Ok(State::New),
        false => Err(TrainError::OtherRun {
            path: folder.into(),
            detail: format!(
                "{}; choose another folder with --output, or run it again with --overwrite",
                differences.join("; ")
            ),
        }),
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
