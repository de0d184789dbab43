//! The folder of a run, read for its report.

use std::{fs, path::Path};

use l1ra_train::report::{RunRecord, summary, write_report};
use serde_json::{Value, json};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, run, run_crafted},
    report_run::MadeRun,
};

const FILES: [(&str, Shell); 4] = [
    ("metrics.jsonl", Shell::Text),
    ("ranks.jsonl", Shell::Text),
    ("run.json", Shell::Text),
    ("recipe.toml", Shell::Text),
];

fn load(dir: &Path) -> Outcome {
    let record = RunRecord::read(dir)?;
    let _ = summary(&record);
    let out = dir.join("out");
    fs::create_dir_all(&out)?;
    write_report(&record, &out)?;
    Ok(())
}

fn saved() -> Vec<Seed> {
    let dir = tempfile::tempdir().unwrap();
    let mut small = MadeRun::small();
    small.steps = 30;
    small.updates.truncate(2);
    small.write_all(dir.path());
    Seed::each_of(dir.path(), &FILES)
}

fn format() -> Format {
    let mut format = Format::new("report", load);
    // The page is written from what was read: charts, tables, and the points of every curve.
    format.factor = 80;
    format.allowance = 4 << 20;
    format.inputs = 1500;
    format.seeds = saved();
    format
}

#[test]
fn report() {
    run(format);
}

/// The folder of a run, with the file `name` another.
fn with(name: &str, text: String) -> Seed {
    let seed = saved().into_iter().find(|seed| seed.name == name).unwrap();
    Seed {
        bytes: text.into(),
        ..seed
    }
}

/// `ranks.jsonl` of a run with these adapters, which all keep `rank`.
fn ranks(paths: &[String], rank: usize, width: usize) -> Seed {
    let adapters: Vec<Value> = paths
        .iter()
        .map(|path| json!({"path": path, "d_in": width, "d_out": width, "rank": rank}))
        .collect();
    let start = json!({"steps": 10, "update_steps": [5], "adapters": adapters, "budget": 9,
        "unit": "ranks"});
    let end = json!({"step": 10, "final": true, "ranks": vec![rank; paths.len()], "gates": []});
    with("ranks.jsonl", format!("{start}\n{end}\n"))
}

fn crafted() -> Crafted {
    let names =
        |count: usize, name: &dyn Fn(usize) -> String| (0..count).map(name).collect::<Vec<_>>();
    let few = names(3, &|at| format!("model.layers.{at}.q_proj"));
    let eval = |step: usize, loss: &str| format!("{{\"step\": {step}, \"eval_loss\": {loss}}}\n");
    let step = |step: &str, rest: &str| {
        format!("{{\"step\": {step}, \"loss\": 1.0, \"grad_norm\": 1, \"lr\": 1{rest}}}\n")
    };
    let most = usize::MAX.to_string();
    (
        format(),
        vec![
            (
                "lines of nothing",
                with("metrics.jsonl", "\n".repeat(1_000_000)),
            ),
            (
                "a line with a long list",
                with(
                    "metrics.jsonl",
                    format!("{{\"loss\": [{}0]}}\n", "0,".repeat(500_000)),
                ),
            ),
            (
                "losses that hardly differ",
                with("metrics.jsonl", eval(0, "0.0") + &eval(5, "3e-323")),
            ),
            (
                "losses far apart",
                with("metrics.jsonl", eval(0, "-1e308") + &eval(5, "1e308")),
            ),
            (
                "a small loss far from zero",
                with(
                    "metrics.jsonl",
                    eval(0, "1e300") + &eval(5, "1.0000000000000002e300"),
                ),
            ),
            (
                "the last step there is",
                with("metrics.jsonl", step(&most, "")),
            ),
            (
                "steps that add up to too much",
                with(
                    "metrics.jsonl",
                    step("1", &format!(", \"tokens\": {most}"))
                        + &step("2", &format!(", \"tokens\": {most}")),
                ),
            ),
            (
                "seconds without end",
                with("metrics.jsonl", step("1", ", \"seconds\": 1e308")),
            ),
            ("ranks that add up to too much", ranks(&few, usize::MAX, 8)),
            ("widths that add up to too much", ranks(&few, 8, usize::MAX)),
            ("ranks beyond signed numbers", ranks(&few, 1 << 63, 8)),
            ("no adapters", ranks(&[], 1, 1)),
            (
                "a module and a layer for each adapter",
                ranks(&names(4000, &|at| format!("l.{at}.m{at}")), 1, 8),
            ),
            (
                "many adapters",
                ranks(&names(12_000, &|at| format!("layers.{at}.q")), 1, 8),
            ),
            (
                "many adapters without a layer",
                ranks(&names(12_000, &|at| format!("m{at}x")), 1, 8),
            ),
            (
                "adapters of one name",
                ranks(&vec!["a".to_string(); 5000], 1, 8),
            ),
            ("a long name", ranks(&["n".repeat(300_000)], 1, 8)),
            (
                "nested lists",
                with("run.json", format!("{{\"train\": {}", "[".repeat(500_000))),
            ),
            (
                "a long list",
                with(
                    "run.json",
                    format!("{{\"train\": {{\"a\": [{}0]}}}}", "0,".repeat(500_000)),
                ),
            ),
            (
                "nested objects",
                with(
                    "run.json",
                    format!("{{\"train\":{}1{}", "{\"a\":".repeat(120), "}".repeat(121)),
                ),
            ),
            (
                "numbers out of range",
                with(
                    "run.json",
                    format!(
                        "{{\"seconds\": 1e308, \"tokens\": {most}, \"peak_bytes\": {most}, \"parameters\": [{most}, {most}], \"prediction\": {{\"step_seconds\": 1e308}}}}"
                    ),
                ),
            ),
        ],
    )
}

#[test]
fn report_crafted() {
    run_crafted(crafted);
}
