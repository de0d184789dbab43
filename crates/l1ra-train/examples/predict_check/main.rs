//! Predictions beside what real runs take, as a markdown table (`docs/results/prediction.md`).
//!
//! ```text
//! cargo build --release --workspace --example predict_check
//! target/release/examples/predict_check                       every row
//! target/release/examples/predict_check embedded f32          the rows whose text holds both words
//! target/release/examples/predict_check --run '{…}'           one run, measured in this process
//! ```
//!
//! Each row is predicted here, then run in a child process, because the peak of a process's memory
//! cannot be set back. SmolLM2 is looked for in `models/smollm2` (`cargo xtask fetch smollm2`).
#![allow(clippy::print_stdout)] // A program: its output is the point.

mod measure;

use std::{env, path::Path, process::Command};

use anyhow::{Context, Result};
use l1ra_core::parse_device;
use l1ra_models::load::ModelFiles;
use l1ra_train::{
    memory::Bytes,
    predict::{Home, MicroBatch, WeightsFrom, Workload, predict_memory, predict_time},
};
use measure::{Measured, Setting};

#[global_allocator]
static ALLOCATOR: measure::Counting = measure::Counting;

const EMBEDDED: &str = "examples/finetune/model";
const SMOLLM2: &str = "models/smollm2/model.gguf";

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [flag, text] = arguments.as_slice()
        && flag == "--run"
    {
        let measured = measure::run(&serde_json::from_str(text)?)?;
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    println!("| run | memory | predicted | ratio | s a step | predicted | ratio | probe |");
    println!("|---|---|---|---|---|---|---|---|");
    for setting in settings() {
        let name = name(&setting);
        if setting.model.exists() && arguments.iter().all(|word| name.contains(word)) {
            println!("{}", row(&name, &setting)?);
        }
    }
    Ok(())
}

fn settings() -> Vec<Setting> {
    let mut settings = Vec::new();
    for model in [EMBEDDED, SMOLLM2] {
        for storage in ["f32", "bf16"] {
            for (batch, length) in [(4, 256), (8, 128), (16, 64)] {
                for share in [1.0, 0.25] {
                    settings.push(Setting {
                        batch,
                        length,
                        share,
                        ..Setting::new(model, storage)
                    });
                }
            }
        }
        let plain = Setting::new(model, "f32");
        settings.extend([
            Setting::new(model, "f16"),
            Setting {
                dropout: 0.1,
                ..plain.clone()
            },
            Setting {
                accumulation: 2,
                ..plain.clone()
            },
            Setting {
                targets: ".*(q|v)_proj".into(),
                ..plain.clone()
            },
            Setting {
                batch: 2,
                length: 512,
                ..plain
            },
        ]);
    }
    settings
}

fn name(setting: &Setting) -> String {
    let Setting {
        storage,
        batch,
        length,
        targets,
        dropout,
        accumulation,
        ..
    } = setting;
    let model = match setting.model == Path::new(EMBEDDED) {
        true => "embedded",
        false => "SmolLM2",
    };
    let share = if setting.share < 1.0 {
        format!("{:.0} % targets", 100.0 * setting.share)
    } else {
        "all targets".into()
    };
    let mut name = format!("{model} {storage}, {batch} × {length}, {share}");
    if *dropout > 0.0 {
        name += &format!(", dropout {dropout}");
    }
    if *accumulation > 1 {
        name += &format!(", accumulation {accumulation}");
    }
    if targets != l1ra_core::target::ALL_LINEAR {
        name += ", q and v only";
    }
    name
}

fn workload(setting: &Setting) -> Result<Workload> {
    let device = parse_device(&setting.device)?;
    let config = ModelFiles::open(&setting.model)?.config;
    let targets = setting.batch * setting.row_targets();
    let batch = MicroBatch::full(setting.batch, setting.length, targets);
    Ok(Workload {
        storage: setting.storage.parse().map_err(anyhow::Error::msg)?,
        source: WeightsFrom::path(&setting.model)?,
        accumulation: setting.accumulation,
        eval: vec![batch],
        home: Home::of(&device),
        ..Workload::new(config, &setting.adapters(), vec![batch])?
    })
}

fn row(name: &str, setting: &Setting) -> Result<String> {
    let workload = workload(setting)?;
    let memory = predict_memory(&workload);
    let time = predict_time(&workload, &parse_device(&setting.device)?)?;
    if env::var_os("VERBOSE").is_some() {
        eprintln!("{name}\n{memory}\n{time}");
        for part in &time.how.parts {
            eprintln!("  {part:?}");
        }
    }
    let child = Command::new(env::current_exe()?)
        .args(["--run", &serde_json::to_string(setting)?])
        .output()?;
    let output = String::from_utf8_lossy(&child.stdout);
    let line = output.lines().last().with_context(|| {
        let error = String::from_utf8_lossy(&child.stderr);
        format!("{name}: the run failed: {error}")
    })?;
    let measured: Measured = serde_json::from_str(line)?;
    if env::var_os("VERBOSE").is_some() {
        eprintln!("  {measured:?}");
    }
    let step = measured.step_seconds();
    Ok(format!(
        "| {name} | {} | {} | {:.3} | {step:.3} | {:.3} | {:.2} | {:.1} s |",
        Bytes(measured.peak),
        Bytes(memory.peak_bytes),
        memory.peak_bytes as f64 / measured.peak as f64,
        time.step_seconds,
        time.step_seconds / step,
        time.how.seconds,
    ))
}
