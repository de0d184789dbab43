//! `l1ra bench`: what a step costs on this machine.

use std::{path::Path, time::Instant};

use anyhow::{Context, Result};
use l1ra_core::{device::Device, open_device};
use l1ra_models::{
    CausalLm, ModelConfig,
    weights::{RandomWeights, build_model},
};
use l1ra_train::bench::{BenchOptions, BenchResult, bench as measure};
use serde::Serialize;

use crate::{
    args::BenchArgs,
    failure::{as_flag, mistake},
    load::Opened,
    output::Output,
};

/// Of weights that are drawn.
const SEED: u64 = 0;
/// Their standard deviation, that of Llama's `initializer_range`.
const SIGMA: f32 = 0.02;

/// A result with what only the program knows.
#[derive(Serialize)]
struct Line {
    #[serde(flatten)]
    result: BenchResult,
    dtype: String,
    device: String,
    /// Seconds from the program's start until the weights were there.
    load_s: f64,
}

pub(crate) fn bench(args: &BenchArgs, output: &Output) -> Result<()> {
    let began = Instant::now();
    if args.threads > 0 {
        rayon::ThreadPoolBuilder::new()
            .num_threads(args.threads)
            .build_global()
            .context("the threads could not be made")?;
    }
    if args.model.adapter.is_some() {
        return Err(mistake(
            "--adapter: bench makes adapters of its own, see --rank",
        ));
    }
    let options = BenchOptions {
        method: args.method,
        length: args.seq,
        rows: args.batch,
        steps: args.steps,
        warmup: args.warmup,
        rank: args.rank,
        targets: args.targets,
        recompute: args.recompute,
        activations: args.activations,
    };
    let path = Path::new(&args.model.model);
    let is_configuration = path
        .extension()
        .is_some_and(|extension| extension == "json");
    let (model, device) = if is_configuration {
        random(path, &options, args)?
    } else {
        let opened = Opened::new(&args.model, *output)?;
        options.check(&opened.files.config).map_err(as_flag)?;
        let device = opened.device.clone();
        (opened.load()?.model, device)
    };
    let load_s = began.elapsed().as_secs_f64();
    let result = measure(model, &options, &device)?;
    let text = describe(&result, load_s);
    let line = Line {
        result,
        dtype: args.model.dtype.to_string(),
        device: args.model.device.clone(),
        load_s,
    };
    output.result(text, &line)
}

/// A model of the configuration in `path`, its weights drawn.
fn random(path: &Path, options: &BenchOptions, args: &BenchArgs) -> Result<(CausalLm, Device)> {
    let device = open_device(&args.model.device)?;
    let config = ModelConfig::from_file(path)?;
    options.check(&config).map_err(as_flag)?;
    let weights = RandomWeights::new(&config, SEED, SIGMA);
    let model = build_model(&weights, &config, args.model.dtype, &device)?;
    Ok((model, device))
}

fn describe(result: &BenchResult, load_s: f64) -> String {
    let on_device = result
        .device_mb
        .map_or_else(String::new, |mb| format!(", {mb} MB of the device"));
    let mut text = format!(
        "step        {:.3} s (fastest {:.3}, slowest {:.3}), {} steps\n\
         speed       {:.1} tokens/s, {} × {} tokens, {} threads\n\
         memory      {} MB at the peak, {} MB after loading{on_device}\n\
         start       {load_s:.2} s for weights, {:.2} s for adapters; first step {:.2} s",
        result.median_step_s,
        result.min_step_s,
        result.max_step_s,
        result.steps,
        result.tokens_per_s,
        result.batch,
        result.seq,
        result.threads,
        result.peak_rss_mb,
        result.rss_after_load_mb,
        result.setup_s,
        result.first_step_s,
    );
    if let Some(parts) = &result.breakdown {
        text += &format!(
            "\nparts       forward {:.3} s, loss {:.3} s, backward {:.3} s, optimizer {:.3} s, \
             a rank update {:.3} s",
            parts.forward, parts.loss, parts.backward, parts.optimizer, parts.reallocation
        );
    }
    text
}
