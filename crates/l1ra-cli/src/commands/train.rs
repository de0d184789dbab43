//! `l1ra train`: a recipe, top to bottom.

use anyhow::Result;
use l1ra_models::{Sampling, generate::generate_text};
use l1ra_train::{
    data::Sample,
    job::{Finished, Job, Plan, holds_run},
    observe::{Observer, Plain, RunLabels, terminal_observer},
    report::{RunRecord, summary},
};

use crate::{args::TrainArgs, failure::mistake, output::Output, progress::Preparing, recipe};

pub(crate) fn train(args: &TrainArgs, output: &Output) -> Result<()> {
    let file = recipe::read(&args.recipe, None)?;
    let dir = file.recipe.output.clone();
    if holds_run(&dir) && !args.overwrite {
        return Err(mistake(format!(
            "{}: holds a run already; choose another folder with --output, or say --overwrite",
            dir.display()
        )));
    }
    let job = Job::prepare(&file, &Preparing::new(*output))?;
    let plan = job.plan(true)?;
    output.say(plan.to_string());
    check_memory(&plan, args.force, output)?;

    let prompt = job.data.eval.first().map(prompt).unwrap_or_default();
    let observers = observers(args, &job, &plan, output);
    let finished = job.run(&plan, observers)?;
    output.result(text(&finished, &dir, &prompt)?, &finished.summary)
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

fn text(finished: &Finished, dir: &std::path::Path, prompt: &[u32]) -> Result<String> {
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
