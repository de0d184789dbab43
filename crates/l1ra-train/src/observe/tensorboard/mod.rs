//! Event files that TensorBoard reads.

mod events;
#[cfg(test)]
mod tests;

use std::{
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::{
    callback::RankUpdate,
    checkpoint::Progress,
    error::TrainError,
    eval::EvalResult,
    observe::{
        Observer, RunStart, StepMetrics,
        tensorboard::events::{Scalar, record, scalar_event, version_event},
    },
    report::grid::Grid,
    run::RunReport,
};

/// Writes `DIR/tensorboard/events.out.tfevents.SECONDS.HOST.PID`, for `tensorboard --logdir DIR`.
///
/// | scalars | step |
/// |---|---|
/// | `train/loss`, `train/grad_norm`, `train/lr`, `train/tokens_per_second`, `memory/resident_mb` | every optimizer step |
/// | `eval/loss`, `eval/perplexity` | every evaluation |
/// | `ranks/mean/MODULE`, `ranks/total`, `parameters/adapters` | the start, every rank update, the end |
///
/// Values are single precision, as in TensorBoard's own format. Memory is in 10⁶ bytes, and not
/// written where the system does not say.
#[derive(Debug)]
pub struct TensorBoard {
    path: PathBuf,
    file: File,
    start: Option<(RunStart, Grid)>,
    /// Seconds of training at the step before.
    seconds: f64,
}

impl TensorBoard {
    /// Makes `dir/tensorboard` and an event file in it. Event files of earlier runs stay, and
    /// TensorBoard shows them too.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn create(dir: &Path) -> Result<Self, TrainError> {
        let folder = dir.join("tensorboard");
        std::fs::create_dir_all(&folder).map_err(|error| TrainError::io(&folder, error))?;
        let now = wall_time();
        let path = folder.join(format!(
            "events.out.tfevents.{}.{}.{}",
            now as u64,
            host(),
            std::process::id()
        ));
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(|error| TrainError::io(&path, error))?;
        let mut board = Self {
            path,
            file,
            start: None,
            seconds: 0.0,
        };
        board.write(&record(&version_event(now)))?;
        Ok(board)
    }

    /// The event file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// One whole record at a time, so that a reader beside the run sees whole events.
    fn write(&mut self, bytes: &[u8]) -> Result<(), TrainError> {
        let written = self.file.write_all(bytes);
        written.map_err(|error| TrainError::io(&self.path, error))
    }

    fn scalars(&mut self, step: usize, scalars: &[Scalar]) -> Result<(), TrainError> {
        self.write(&record(&scalar_event(wall_time(), step, scalars)))
    }

    fn ranks(&mut self, step: usize, ranks: &[usize]) -> Result<(), TrainError> {
        let Some((start, grid)) = &self.start else {
            return Ok(());
        };
        let modules = grid.modules.iter().enumerate();
        let mean = |(module, name): (usize, &String)| {
            (
                format!("ranks/mean/{name}"),
                grid.module_mean(module, ranks),
            )
        };
        let mut scalars: Vec<Scalar> = modules.map(mean).collect();
        scalars.push(("ranks/total".into(), ranks.iter().sum::<usize>() as f64));
        let parameters = start.parameters(ranks) as f64;
        scalars.push(("parameters/adapters".into(), parameters));
        self.scalars(step, &scalars)
    }
}

impl Observer for TensorBoard {
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.start = Some((start.clone(), Grid::new(&start.adapters)));
        let ranks: Vec<usize> = start.adapters.iter().map(|adapter| adapter.rank).collect();
        self.ranks(0, &ranks)
    }

    fn resumed(&mut self, progress: &Progress, _updates: &[RankUpdate]) -> Result<(), TrainError> {
        self.seconds = progress.seconds;
        Ok(())
    }

    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        let mut scalars = vec![
            ("train/loss".into(), metrics.loss),
            ("train/grad_norm".into(), metrics.grad_norm),
            ("train/lr".into(), metrics.lr),
        ];
        let seconds = metrics.seconds - self.seconds;
        self.seconds = metrics.seconds;
        if seconds > 0.0 {
            let rate = metrics.tokens as f64 / seconds;
            scalars.push(("train/tokens_per_second".into(), rate));
        }
        if metrics.resident_bytes > 0 {
            let memory = metrics.resident_bytes as f64 / 1e6;
            scalars.push(("memory/resident_mb".into(), memory));
        }
        self.scalars(metrics.step, &scalars)
    }

    fn evaluated(&mut self, step: usize, result: &EvalResult) -> Result<(), TrainError> {
        let loss = ("eval/loss".into(), result.loss);
        let perplexity = ("eval/perplexity".into(), result.perplexity);
        self.scalars(step, &[loss, perplexity])
    }

    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        self.ranks(update.step, &update.plan.ranks())
    }

    fn finished(&mut self, report: &RunReport) -> Result<(), TrainError> {
        let entries = report.ranks.entries.iter();
        let ranks: Vec<usize> = entries.map(|entry| entry.after).collect();
        self.ranks(report.losses.len(), &ranks)
    }
}

/// Seconds since 1970.
fn wall_time() -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0.0, |now| now.as_secs_f64())
}

/// This machine's name, as far as a file name can hold it.
fn host() -> String {
    let name = sysinfo::System::host_name().unwrap_or_default();
    let is_plain = |letter: &char| letter.is_ascii_alphanumeric() || *letter == '-';
    let plain: String = name.chars().filter(is_plain).take(64).collect();
    if plain.is_empty() {
        "localhost".into()
    } else {
        plain
    }
}
