//! What is wrong with a comparison whatever its runs are.

use std::{io::ErrorKind, path::Path};

use crate::{
    compare::{Grid, comparison::RUNS_FOLDER, table::FILES},
    error::TrainError,
    job::check_output,
    lock::{LOCK_FILE, RunLock},
    recipe::RecipeFile,
};

/// A rank for all layers and ranks of single ones cannot both be meant.
pub(super) fn check_patterns(file: &RecipeFile, grid: &Grid) -> Result<(), TrainError> {
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
pub(super) fn check_folder(output: &Path) -> Result<(), TrainError> {
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
