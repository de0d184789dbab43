//! A run as one call, with an observer of its own: what `docs/embed.md` shows.

use std::{io::Write, path::Path};

use l1ra_train::{
    TrainError,
    callback::RankUpdate,
    job::{Finished, Job},
    observe::Observer,
    recipe::{Override, RecipeFile},
};

/// Trains what a recipe says, with `sets` (`train.steps=20`) laid over it.
pub fn train(
    recipe: &Path,
    sets: &[String],
    observer: Box<dyn Observer>,
) -> Result<Finished, TrainError> {
    let overrides = sets
        .iter()
        .map(|set| Override::set(set))
        .collect::<Result<Vec<_>, _>>()?;
    let file = RecipeFile::load(recipe, &overrides)?;
    let job = Job::prepare(&file, &())?; // All input is checked, the data tokenised.
    let plan = job.plan(false)?; // Sizes, steps, updates, predicted memory.
    job.run(&plan, vec![observer]) // Weights are loaded only here.
}

/// Writes every change of a rank as a line.
pub struct RankLog<W>(pub W);

impl<W: Write + Send> Observer for RankLog<W> {
    fn ranks_moved(&mut self, update: &RankUpdate) -> Result<(), TrainError> {
        let changes = update.plan.changes.iter();
        for change in changes.filter(|change| change.is_change()) {
            let (step, path) = (update.step, &change.path);
            let (before, after) = (change.before, change.after());
            let written = writeln!(self.0, "step {step}  {path}  {before} → {after}");
            written.map_err(|source| TrainError::Io {
                path: "rank log".into(),
                source,
            })?;
        }
        Ok(())
    }
}
