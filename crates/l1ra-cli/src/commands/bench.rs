//! `l1ra bench`: what a step costs on this machine.

use std::time::Instant;

use anyhow::{Context, Result};
use l1ra_train::bench::{BenchOptions, BenchResult, bench as measure};
use serde::Serialize;

use crate::{
    args::BenchArgs,
    failure::{as_flag, mistake},
    load::Opened,
    output::Output,
};

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
    };
    let opened = Opened::new(&args.model, *output)?;
    options.check(&opened.files.config).map_err(as_flag)?;
    let device = opened.device.clone();
    let loaded = opened.load()?;
    let load_s = began.elapsed().as_secs_f64();
    let result = measure(loaded.model, &options, &device)?;
    let text = describe(&result, load_s);
    let line = Line {
        result,
        dtype: args.model.dtype.to_string(),
        device: args.model.device.clone(),
        load_s,
    };
    output.result(text, &line)
}

fn describe(result: &BenchResult, load_s: f64) -> String {
    let mut text = format!(
        "step        {:.3} s (fastest {:.3}, slowest {:.3}), {} steps\n\
         speed       {:.1} tokens/s, {} × {} tokens, {} threads\n\
         memory      {} MB at the peak, {} MB after loading\n\
         loading     {load_s:.2} s; first step {:.2} s",
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
