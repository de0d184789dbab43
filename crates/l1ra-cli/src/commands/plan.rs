//! `l1ra plan`: what a recipe would do.

use anyhow::Result;
use l1ra_train::job::{Job, Plan};

use crate::{args::PlanArgs, failure::mistake, output::Output, progress::Preparing, recipe};

pub(crate) fn plan(args: &PlanArgs, output: &Output) -> Result<()> {
    let file = recipe::read(&args.recipe, args.config.as_deref())?;
    if let Some(path) = args.config.as_deref().filter(|path| !path.is_file()) {
        let detail = "no such file; give the config.json of a Hugging Face model";
        return Err(mistake(format!("--config {}: {detail}", path.display())));
    }
    let with_time = !args.no_time;
    let plan = match &args.config {
        Some(config) => Plan::from_config(&file, config, with_time)?,
        None => Job::prepare(&file, &Preparing::new(*output))?.plan(with_time)?,
    };
    output.detail(plan.memory.to_string());
    if let Some(time) = &plan.time {
        output.detail(time.to_string());
    }
    output.result(plan.to_string(), &plan)
}
