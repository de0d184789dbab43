//! `l1ra train`: a recipe, top to bottom.

use std::path::{Path, PathBuf};

use anyhow::Result;
use l1ra_models::{Sampling, generate::generate_text};
use l1ra_train::{
    TrainError,
    checkpoint::Found,
    data::Sample,
    job::{Finished, Job, Plan, RECIPE_FILE, holds_run},
    observe::{Observer, Plain, RunLabels, terminal_observer},
    recipe::RecipeFile,
    report::{RunRecord, summary},
};

use crate::{
    args::TrainArgs, failure::mistake, output::Output, progress::Preparing, recipe, signals,
};

pub(crate) fn train(args: &TrainArgs, output: &Output) -> Result<()> {
    let (file, found) = open(args)?;
    let dir = file.recipe.output.clone();
    if found.is_none() && holds_run(&dir) && !args.overwrite {
        return Err(mistake(format!(
            "{}: holds a run already; go on with it with --resume, choose another folder with --output, \
             or say --overwrite",
            dir.display()
        )));
    }
    let mut job = Job::prepare(&file, &Preparing::new(*output))?;
    if let Some(found) = found {
        for damaged in &found.damaged {
            output.say(format!("left out  {damaged}"));
        }
        output.say(format!("goes on   from {}", found.file.display()));
        job = job.resume(found).map_err(|error| file.explain(error))?;
    }
    // A run that goes on has shown its pace.
    let plan = job.plan(job.steps_done() == 0)?;
    output.say(plan.to_string());
    check_memory(&plan, args.force, output)?;
    job.stop = signals::stop_signal(*output)?;

    let prompt = job.data.eval.first().map(prompt).unwrap_or_default();
    let observers = observers(args, &job, &plan, output);
    let finished = job.run(&plan, observers).inspect_err(|error| {
        if let TrainError::Interrupted {
            checkpoint: Some(_),
            ..
        } = error
        {
            output.say(format!("go on with: l1ra train --resume {}", dir.display()));
        }
    })?;
    output.result(text(&finished, &dir, &prompt)?, &finished.summary)
}

/// The recipe, and the checkpoint to go on from.
fn open(args: &TrainArgs) -> Result<(RecipeFile, Option<Found>)> {
    let Some(resume) = &args.resume else {
        return Ok((recipe::read(&args.recipe, None)?, None));
    };
    if let (Some(path), None) = (resume, &args.recipe.recipe)
        && path.extension().is_some_and(|ending| ending == "toml")
    {
        return Err(mistake(format!(
            "--resume {0}: is a recipe; say `l1ra train {0} --resume`",
            path.display()
        )));
    }
    let found = resume.as_deref().map(Found::at).transpose()?;
    let mut words = args.recipe.clone();
    if let (Some(found), None) = (&found, &words.recipe) {
        words.recipe = Some(found.run.join(RECIPE_FILE));
    }
    let mut file = recipe::read(&words, None)?;
    let found = match found {
        None => Found::at(&file.recipe.output)?,
        Some(found) => {
            if let Some(said) = words.output.as_deref().map(Path::new)
                && !same_place(said, &found.run)
            {
                return Err(mistake(format!(
                    "--output {}: a run goes on in its own folder, {}; leave --output out",
                    said.display(),
                    found.run.display()
                )));
            }
            file.recipe.output.clone_from(&found.run);
            found
        }
    };
    Ok((file, Some(found)))
}

fn same_place(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| -> Option<PathBuf> { path.canonicalize().ok() };
    one == other || real(one).is_some() && real(one) == real(other)
}

/// Refuses a run whose memory is not there, unless it is forced.
fn check_memory(plan: &Plan, force: bool, output: &Output) -> Result<()> {
    if plan.fits() {
        return Ok(());
    }
    if force {
        output.say("memory    not there, as predicted; going on, as --force says");
        return Ok(());
    }
    Err(mistake(
        "the predicted memory is not there (see above for what to change); \
         --force trains all the same",
    ))
}

fn observers(args: &TrainArgs, job: &Job, plan: &Plan, output: &Output) -> Vec<Box<dyn Observer>> {
    if output.is_quiet() {
        return Vec::new();
    }
    let labels = RunLabels {
        title: job.recipe.model.path.clone(),
        device: job.recipe.device.clone(),
        predicted_peak_bytes: Some(plan.memory.peak_bytes),
    };
    let lines = match job.recipe.log.every {
        0 => Plain::new(job.options.steps),
        every => Plain::new(job.options.steps).every(every),
    };
    vec![terminal_observer(lines, labels, args.plain)]
}

/// What a sample asks: everything before its first target.
fn prompt(sample: &Sample) -> Vec<u32> {
    sample.prompt().to_vec()
}

fn text(finished: &Finished, dir: &Path, prompt: &[u32]) -> Result<String> {
    let mut text = summary(&RunRecord::read(dir)?).trim_end().to_string();
    if !prompt.is_empty() {
        let sampling = Sampling {
            max_new_tokens: 40,
            ..Default::default()
        };
        let tokenizer = &finished.tokenizer;
        let answer = generate_text(&finished.model, tokenizer, prompt, sampling)?;
        let asked = tokenizer.decode(prompt)?;
        text += &format!("\n\nasked       {}", one_line(&asked));
        text += &format!("\nanswers     {}", one_line(&answer));
    }
    let dir = dir.display();
    text += &format!("\n\nadapter     {dir}/adapter (PEFT files; gates beside them)");
    if let Some(report) = finished.report_files.first() {
        text += &format!("\nreport      {}", report.display());
    }
    Ok(text)
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
