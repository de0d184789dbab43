//! The runs of a comparison, one after the other.

use std::{path::Path, time::Instant};

use l1ra_core::device::guard;
use l1ra_models::{CausalLm, LoadOptions};

use crate::{
    checkpoint::{CHECKPOINT_FOLDER, CheckpointFolder},
    compare::{
        Cell, Comparison, RESULT_FILE, RunResult, Table,
        comparison::{RUNS_FOLDER, Run, State},
    },
    data::PreparedData,
    error::TrainError,
    job::{first_of, write_recipe},
    lock::RunLock,
    memory::{device_bytes, reset_peak, return_freed_memory},
    observe::Observer,
    recompute::Recompute,
    run::{KnownBy, RunInput, finetune},
    stop::StopSignal,
};

use burn::tensor::Device;

/// Where a comparison is.
#[derive(Clone, Debug)]
pub struct Place {
    /// The run, from 1.
    pub run: usize,
    /// Runs of the grid.
    pub runs: usize,
    /// Seconds since the comparison was begun or gone on with.
    pub seconds: f64,
    /// Seconds to its end, by the runs that were finished since; `None` before the first.
    pub left: Option<f64>,
}

/// Who wants to know how far a comparison is.
pub trait CompareProgress {
    /// A run is about to begin, or to go on where it was interrupted; what is returned is told its steps.
    fn begins(&mut self, place: &Place, cell: &Cell, resumed: bool) -> Vec<Box<dyn Observer>> {
        let _ = (place, cell, resumed);
        Vec::new()
    }

    /// A run has ended.
    fn ends(&mut self, place: &Place, result: &RunResult) {
        let _ = (place, result);
    }
}

/// Nobody is told.
impl CompareProgress for () {}

/// What all runs share.
struct Shared {
    model: CausalLm,
    model_name: String,
    data: PreparedData,
    pad: u32,
    devices: Vec<Device>,
    recompute: Recompute,
    stop: StopSignal,
}

impl Comparison {
    /// Makes the runs that are not there yet, and writes the table into the folder.
    ///
    /// # Errors
    /// A folder that another comparison holds; weights that cannot be read; a file that cannot be
    /// written; [`TrainError::Interrupted`] when [`stop`](Self::stop) was requested: what was begun is
    /// saved, and the same call goes on there, to the bit. A run whose numbers are not finite is a result,
    /// not an error.
    pub fn run(self, progress: &mut dyn CompareProgress) -> Result<Table, TrainError> {
        let (grid, output, count) = (self.grid, self.output, self.runs.len());
        let folder = output.join(RUNS_FOLDER);
        std::fs::create_dir_all(&folder).map_err(|error| TrainError::io(&folder, error))?;
        let _lock = RunLock::take(&output)?;
        let finished = |run: &Run| matches!(run.state, State::Finished(_));
        let mut remaining = self.runs.iter().filter(|run| !finished(run)).count();
        let started = Instant::now();
        let (mut made, mut shared, mut unloaded) = (0, None, Some((self.job, self.plan)));
        let mut results = Vec::with_capacity(count);
        for (index, run) in self.runs.into_iter().enumerate() {
            if let State::Finished(result) = run.state {
                results.push(*result);
                continue;
            }
            if let Some((job, plan)) = unloaded.take() {
                shared = Some(load(job, plan.recompute, self.stop.clone())?);
            }
            let Some(shared) = &shared else { continue };
            let seconds = started.elapsed().as_secs_f64();
            let pace = (made > 0).then(|| seconds / f64::from(made));
            let mut place = Place {
                run: index + 1,
                runs: count,
                seconds,
                left: pace.map(|pace| pace * remaining as f64),
            };
            let resumed = matches!(run.state, State::Interrupted(_));
            let observers = progress.begins(&place, &run.cell, resumed);
            let result = shared.train(run, observers)?;
            (made, remaining) = (made + 1, remaining - 1);
            place.seconds = started.elapsed().as_secs_f64();
            place.left = Some(place.seconds / f64::from(made) * remaining as f64);
            progress.ends(&place, &result);
            results.push(result);
        }
        let table = Table::new(&grid, results);
        table.write(&output)?;
        Ok(table)
    }
}

fn load(job: crate::Job, recompute: Recompute, stop: StopSignal) -> Result<Shared, TrainError> {
    let crate::Job {
        recipe,
        data,
        model,
        devices,
        ..
    } = job;
    let storage = recipe.model.dtype;
    let (device, _) = first_of(&devices)?;
    let loaded = guard(|| model.load(LoadOptions { storage }, device))
        .map_err(|failure| TrainError::device_failed("while the model was loaded", failure))??;
    Ok(Shared {
        pad: loaded.tokenizer.pad.unwrap_or(0),
        model: loaded.model,
        model_name: recipe.model.path,
        data,
        devices,
        recompute,
        stop,
    })
}

impl Shared {
    fn train(&self, run: Run, observers: Vec<Box<dyn Observer>>) -> Result<RunResult, TrainError> {
        let Run {
            cell,
            recipe,
            mut options,
            identity,
            state,
        } = run;
        if let Some(reason) = self.stop.requested() {
            return Err(TrainError::Interrupted {
                step: 0,
                steps: options.steps,
                checkpoint: None,
                reason,
            });
        }
        options.recompute = self.recompute;
        let folder = recipe.output.clone();
        std::fs::create_dir_all(&folder).map_err(|error| TrainError::io(&folder, error))?;
        remove(&folder.join(RESULT_FILE))?;
        write_recipe(&recipe, &folder)?;
        let (device, further) = first_of(&self.devices)?;
        let resume = match state {
            State::Interrupted(found) => Some(Box::new(found.checkpoint)),
            _ => None,
        };
        let input = RunInput {
            model: self.model.clone(),
            model_name: &self.model_name,
            train: self.data.train.clone(),
            packing: self.data.packing.clone(),
            eval: self.data.eval.clone(),
            pad: self.pad,
            device,
            further_devices: further.to_vec(),
            layout: recipe.layout,
            output: &folder,
            known_by: KnownBy {
                settings: identity.settings.clone(),
                model: identity.model.clone(),
            },
            stop: self.stop.clone(),
            resume,
        };
        // Burn keeps what a GPU gave it, so that only the largest run would be seen there.
        return_freed_memory();
        let is_own_peak = reset_peak() && device_bytes(device).is_none();
        let result = match finetune(&options, input, observers) {
            Ok((_, report)) => {
                let mut result = RunResult::new(&cell, report, identity);
                result.peak_bytes = result.peak_bytes.filter(|_| is_own_peak);
                result
            }
            Err(TrainError::Stopped { step, detail }) => {
                RunResult::failed(&cell, step, detail, identity)
            }
            Err(TrainError::NoEffect { steps, detail }) => {
                RunResult::failed(&cell, steps, detail.to_string(), identity)
            }
            Err(error) => return Err(error),
        };
        result.write(&folder)?;
        CheckpointFolder::of_run(&folder).clear()?;
        // Files that are not ours may lie there.
        let _ = std::fs::remove_dir(folder.join(CHECKPOINT_FOLDER));
        Ok(result)
    }
}

fn remove(path: &Path) -> Result<(), TrainError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(TrainError::io(path, error))
        }
        _ => Ok(()),
    }
}
