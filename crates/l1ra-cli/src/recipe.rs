//! A recipe from the command line: the file, `--set` and the flags over it.

use std::path::Path;

use anyhow::Result;
use l1ra_train::recipe::{Override, RecipeFile};

use crate::{args::RecipeArgs, failure::mistake};

/// Reads the recipe; flags lie over `--set`, which lies over the file.
pub(crate) fn read(args: &RecipeArgs, config: Option<&Path>) -> Result<RecipeFile> {
    let overrides = overrides(args, config)?;
    match &args.recipe {
        Some(path) => Ok(RecipeFile::load(path, &overrides)?),
        None if (args.model.is_none() && config.is_none()) || args.data.is_empty() => Err(mistake(
            "no recipe: give a recipe file, or at least --model and --data",
        )),
        None => Ok(RecipeFile::parse(Path::new("(no recipe)"), "", &overrides)?),
    }
}

fn overrides(args: &RecipeArgs, config: Option<&Path>) -> Result<Vec<Override>> {
    let mut overrides = args
        .set
        .iter()
        .map(|text| Override::set(text))
        .collect::<Result<Vec<_>, _>>()?;
    let texts = [
        ("--model", "model.path", &args.model),
        ("--output", "output", &args.output),
        ("--device", "device", &args.device),
    ];
    for (flag, key, value) in texts {
        if let Some(value) = value {
            overrides.push(Override::flag(flag, key, value.as_str()));
        }
    }
    if let (Some(config), None, None) = (config, &args.model, &args.recipe) {
        let name = config.display().to_string();
        overrides.push(Override::flag("--config", "model.path", name));
    }
    for (flag, key, files) in [
        ("--data", "data.train", &args.data),
        ("--eval-data", "data.eval", &args.eval_data),
    ] {
        if !files.is_empty() {
            overrides.push(Override::flag(flag, key, files.clone()));
        }
    }
    Ok(overrides)
}
