//! `l1ra compare`: policies × ranks × learning rates × seeds, and what the numbers show.

use std::path::PathBuf;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use l1ra_train::{
    TrainError,
    compare::{Cell, CompareProgress, Comparison, Grid, Place, RunResult, policy, targets},
    observe::{Observer, RunStart, StepMetrics, duration},
    recipe::Recipe,
};

use crate::{
    args::CompareArgs,
    failure::{as_flag, mistake},
    output::Output,
    progress::Preparing,
    recipe, signals,
};

pub(crate) fn compare(args: &CompareArgs, output: &Output) -> Result<()> {
    let mut file = recipe::read(&args.recipe, None)?;
    if args.recipe.output.is_none() {
        file.recipe.output = beside(&file.recipe);
    }
    let dir = file.recipe.output.clone();
    let grid = grid(args, &file.recipe)?;
    let mut comparison = Comparison::prepare(&file, grid, args.overwrite, &Preparing::new(*output))
        .map_err(as_flag_of_grid)?;
    let (runs, finished) = (comparison.len(), comparison.finished());
    output.say(format!("grid      {}", comparison.grid));
    output.say(match finished {
        0 => format!("runs      {runs}, into {}", dir.display()),
        _ if finished == runs => format!(
            "runs      {runs}, all in {} already; nothing to train",
            dir.display()
        ),
        _ => format!(
            "runs      {runs}, of which {finished} are in {} already",
            dir.display()
        ),
    });
    if finished < runs && !comparison.plan.fits() && !args.force {
        output.say(comparison.plan.to_string());
        return Err(mistake(
            "the predicted memory of the largest run is not there (see above for what to change); \
             --force trains all the same",
        ));
    }
    comparison.stop = signals::stop_signal(*output)?;
    let mut progress = Progress::new(*output, args.plain);
    let table = comparison.run(&mut progress);
    drop(progress);
    let table = table.inspect_err(|error| {
        if let TrainError::Interrupted { .. } = error {
            output.say(format!("go on with: {}", again()));
        }
    })?;
    let text = format!(
        "{}\ncompare     {}/compare.html",
        table.markdown(),
        dir.display()
    );
    output.result(text, &table)
}

/// The folder where none is said: the recipe's own is for its training.
fn beside(recipe: &Recipe) -> PathBuf {
    let mut name = recipe.output.clone().into_os_string();
    name.push("-compare");
    name.into()
}

fn grid(args: &CompareArgs, recipe: &Recipe) -> Result<Grid> {
    let mut grid = Grid::of(recipe);
    if let Some(names) = &args.policies {
        let policies = names.iter().map(|name| policy(name.trim()));
        grid.policies = policies.collect::<Result<_, _>>().map_err(as_flag)?;
    }
    if let Some(texts) = &args.targets {
        grid.targets = texts.iter().map(|text| targets(text)).collect();
    }
    grid.ranks = args.ranks.clone().unwrap_or(grid.ranks);
    grid.lrs = args.lrs.clone().unwrap_or(grid.lrs);
    grid.seeds = args.seeds.unwrap_or(grid.seeds);
    Ok(grid)
}

/// An error of the grid in the command line's words; another one as it is.
fn as_flag_of_grid(error: TrainError) -> anyhow::Error {
    match &error {
        TrainError::Option { field, .. }
            if ["policies", "targets", "ranks", "lrs", "seeds"].contains(field) =>
        {
            as_flag(error)
        }
        _ => error.into(),
    }
}

/// The words of this command, to be typed again.
fn again() -> String {
    let words = std::env::args().skip(1).map(|word| quoted(&word));
    ["l1ra".to_string()]
        .into_iter()
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=,:@+".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.into(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// One line that is drawn anew, or a line for every run that ended.
struct Progress {
    output: Output,
    bar: Option<ProgressBar>,
    began: f64,
}

impl Progress {
    fn new(output: Output, plain: bool) -> Self {
        let bar = (output.may_draw() && !plain).then(|| {
            let style = ProgressStyle::with_template("{bar:20} {elapsed} {wide_msg}");
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(0).with_style(style)
        });
        Self {
            output,
            bar,
            began: 0.0,
        }
    }
}

impl CompareProgress for Progress {
    fn begins(&mut self, place: &Place, cell: &Cell, resumed: bool) -> Vec<Box<dyn Observer>> {
        self.began = place.seconds;
        if resumed {
            self.output.say(format!("resumes   {}", cell.name()));
        }
        let Some(bar) = self.bar.clone() else {
            return Vec::new();
        };
        let left = place
            .left
            .map_or(String::new(), |left| format!(" · {} left", duration(left)));
        bar.set_message(format!(
            "run {} of {}  {}{left}",
            place.run,
            place.runs,
            cell.name()
        ));
        vec![Box::new(Steps(bar))]
    }

    fn ends(&mut self, place: &Place, result: &RunResult) {
        let loss = match (result.loss, &result.failure) {
            (Some(loss), _) => format!("eval loss {loss:.4}"),
            (None, failure) => format!("no loss: {}", failure.as_deref().unwrap_or_default()),
        };
        let left = match place.left {
            Some(left) if left > 0.0 => format!("  {} left", duration(left)),
            _ => String::new(),
        };
        let line = format!(
            "run {}/{}  {}  {loss}  {}{left}",
            place.run,
            place.runs,
            result.cell.name(),
            duration(place.seconds - self.began)
        );
        match &self.bar {
            Some(bar) => bar.suspend(|| self.output.say(line)),
            None => self.output.say(line),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The steps of a run on the bar.
struct Steps(ProgressBar);

impl Observer for Steps {
    fn started(&mut self, start: &RunStart) -> Result<(), TrainError> {
        self.0.set_length(start.steps as u64);
        self.0.set_position(0);
        Ok(())
    }

    fn step(&mut self, metrics: &StepMetrics) -> Result<(), TrainError> {
        self.0.set_position(metrics.step as u64);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        let words = ["--lrs", "2e-3,5e-3", "all-linear;q_proj", "it's", ""];
        assert_eq!(
            words.map(quoted).join(" "),
            r"--lrs 2e-3,5e-3 'all-linear;q_proj' 'it'\''s' ''"
        );
    }
}
