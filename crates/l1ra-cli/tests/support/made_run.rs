//! The folder of a run, made up line by line: no number in it depends on the machine.

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

const MODULES: [(&str, usize, usize); 3] = [
    ("self_attn.q_proj", 16, 16),
    ("self_attn.k_proj", 16, 8),
    ("mlp.up_proj", 16, 48),
];

/// Ranks after each update of a run of 20 steps, two layers of three modules, four ranks each.
const UPDATES: [(usize, [usize; 6]); 2] = [(5, [4, 3, 5, 4, 4, 4]), (10, [3, 2, 6, 4, 3, 6])];

/// Writes the four files that a run leaves.
pub(crate) fn write_run(dir: &Path) {
    fs::create_dir_all(dir).unwrap();
    fs::write(dir.join("metrics.jsonl"), text(&metrics())).unwrap();
    fs::write(dir.join("ranks.jsonl"), text(&ranks())).unwrap();
    let info = json!({
        "version": "0.1.0", "model": "org/tiny", "device": "flex", "dtype": "f32",
        "started": "2026-11-24T10:00:00Z",
        "before": {"loss": 5.0, "perplexity": 148.413, "tokens": 500},
        "after": {"loss": 4.0, "perplexity": 54.598, "tokens": 500},
        "parameters": [984, 1240], "tokens": 2000, "seconds": 10.0, "peak_bytes": 212_000_000,
        "train": {"samples": 1200}, "eval": {"samples": 64},
        "prediction": {"peak_bytes": 205_000_000, "step_seconds": 0.55},
    });
    fs::write(dir.join("run.json"), info.to_string()).unwrap();
    fs::write(dir.join("recipe.toml"), "output = \"run\"\n").unwrap();
}

fn metrics() -> Vec<Value> {
    let eval = |step: usize, loss: f64| json!({"step": step, "eval_loss": loss, "eval_perplexity": loss.exp(), "eval_tokens": 500});
    let step = |step: usize| {
        let part = step as f64 / 20.0;
        json!({
            "step": step, "loss": 5.0 - part, "grad_norm": 1.0 + part, "lr": 1e-3 * (1.0 - part),
            "targets": 50, "tokens": 100, "seconds": 0.5 * step as f64,
            "resident_bytes": 200_000_000 + step,
        })
    };
    let steps = (1..=20).map(step);
    [eval(0, 5.0)]
        .into_iter()
        .chain(steps)
        .chain([eval(20, 4.0)])
        .collect()
}

fn ranks() -> Vec<Value> {
    let adapters = (0..2).flat_map(|layer| {
        MODULES.map(|(name, d_in, d_out)| {
            let path = format!("model.layers.{layer}.{name}");
            json!({"path": path, "d_in": d_in, "d_out": d_out, "rank": 4})
        })
    });
    let adapters: Vec<Value> = adapters.collect();
    let mut lines = vec![json!({
        "steps": 20, "update_steps": [5, 10], "adapters": adapters, "budget": 24, "unit": "ranks",
    })];
    let mut before = [4; 6];
    for (step, ranks) in UPDATES {
        let pairs = || before.iter().zip(&ranks);
        let spare: usize = pairs().map(|(b, a)| usize::saturating_sub(*b, *a)).sum();
        let grown: Vec<usize> = pairs()
            .enumerate()
            .flat_map(|(index, (b, a))| vec![index; a.saturating_sub(*b)])
            .collect();
        lines.push(json!({
            "step": step, "spare": spare, "ranks": ranks, "gates": gates(&before), "grown": grown,
        }));
        before = ranks;
    }
    lines.push(json!({"step": 20, "final": true, "ranks": before, "gates": gates(&before)}));
    lines
}

fn gates(ranks: &[usize]) -> Vec<Vec<f32>> {
    let gate = |place: usize| 1.0 - 0.125 * place as f32;
    let list = |rank: &usize| (0..*rank).map(gate).collect();
    ranks.iter().map(list).collect()
}

fn text(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}
