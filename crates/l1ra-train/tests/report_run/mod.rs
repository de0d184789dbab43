//! Folders of runs, made up line by line.
#![allow(dead_code)]

use std::{fmt::Write as _, fs, path::Path};

use serde_json::{Value, json};

/// A made-up run: every layer has the same modules.
pub(crate) struct MadeRun {
    /// Paths of the adapters with inputs and outputs.
    pub(crate) adapters: Vec<(String, usize, usize)>,
    /// Rank of every adapter at the start.
    pub(crate) rank: usize,
    /// Optimizer steps.
    pub(crate) steps: usize,
    /// Steps of the updates, each with the ranks after it.
    pub(crate) updates: Vec<(usize, Vec<usize>)>,
    /// Whether the run came to its end.
    pub(crate) complete: bool,
}

pub(crate) const MODULES: [(&str, usize, usize); 3] = [
    ("self_attn.q_proj", 16, 16),
    ("self_attn.k_proj", 16, 8),
    ("mlp.up_proj", 16, 48),
];

/// `model.layers.N.` and a module, layer by layer.
pub(crate) fn llama(layers: usize) -> Vec<(String, usize, usize)> {
    let path = |layer: usize, name: &str| format!("model.layers.{layer}.{name}");
    (0..layers)
        .flat_map(|layer| MODULES.map(|(name, d_in, d_out)| (path(layer, name), d_in, d_out)))
        .collect()
}

/// Adapters without dimensions that matter.
pub(crate) fn named(paths: &[&str]) -> Vec<(String, usize, usize)> {
    paths.iter().map(|path| ((*path).into(), 4, 4)).collect()
}

impl MadeRun {
    /// A run whose ranks end as `ranks` after one update.
    pub(crate) fn ending(
        adapters: Vec<(String, usize, usize)>,
        rank: usize,
        ranks: &[usize],
    ) -> Self {
        Self {
            adapters,
            rank,
            steps: 10,
            updates: vec![(5, ranks.to_vec())],
            complete: true,
        }
    }

    /// Four layers of three modules over forty steps, with three updates.
    pub(crate) fn small() -> Self {
        Self {
            adapters: llama(4),
            rank: 4,
            steps: 40,
            updates: vec![
                (10, vec![4, 3, 5, 4, 4, 4, 4, 3, 5, 4, 4, 4]),
                (20, vec![4, 2, 5, 4, 3, 5, 4, 2, 6, 4, 3, 6]),
                (30, vec![3, 1, 6, 4, 3, 6, 3, 2, 7, 4, 2, 7]),
            ],
            complete: true,
        }
    }

    fn parameters(&self, ranks: &[usize]) -> usize {
        let pairs = self.adapters.iter().zip(ranks);
        pairs
            .map(|((_, d_in, d_out), rank)| rank * (d_in + d_out + 1))
            .sum()
    }

    fn gates(ranks: &[usize]) -> Vec<Vec<f32>> {
        let gate = |place: usize| 1.0 - 0.125 * (place % 8) as f32;
        ranks
            .iter()
            .map(|rank| (0..*rank).map(gate).collect())
            .collect()
    }

    fn ranks_lines(&self) -> Vec<Value> {
        let first = vec![self.rank; self.adapters.len()];
        let adapters: Vec<Value> = self
            .adapters
            .iter()
            .map(|(path, d_in, d_out)| json!({"path": path, "d_in": d_in, "d_out": d_out, "rank": self.rank}))
            .collect();
        let update_steps: Vec<usize> = self.updates.iter().map(|(step, _)| *step).collect();
        let mut lines = vec![
            json!({"steps": self.steps, "update_steps": update_steps, "adapters": adapters, "budget": first.iter().sum::<usize>(), "unit": "ranks"}),
        ];
        let mut before = first;
        for (step, ranks) in &self.updates {
            let pairs = || before.iter().zip(ranks);
            let spare: usize = pairs().map(|(b, a)| b.saturating_sub(*a)).sum();
            let grown: Vec<usize> = pairs()
                .enumerate()
                .flat_map(|(index, (b, a))| vec![index; a.saturating_sub(*b)])
                .collect();
            lines.push(json!({"step": step, "spare": spare, "parameters": self.parameters(ranks), "ranks": ranks, "gates": Self::gates(&before), "changes": [], "min_gates": [], "excluded": [], "order": [], "grown": grown}));
            before.clone_from(ranks);
        }
        if self.complete {
            lines.push(json!({"step": self.steps, "final": true, "parameters": self.parameters(&before), "ranks": before, "gates": Self::gates(&before)}));
        }
        lines
    }

    fn metrics_lines(&self) -> Vec<Value> {
        let eval = |step: usize, loss: f64| json!({"step": step, "eval_loss": loss, "eval_perplexity": loss.exp(), "eval_tokens": 500});
        let mut lines = vec![eval(0, 5.0)];
        let last = match self.complete {
            true => self.steps,
            false => self
                .updates
                .last()
                .map_or(self.steps / 2, |(step, _)| step + 2),
        };
        for step in 1..=last {
            let part = step as f64 / self.steps as f64;
            lines.push(json!({"step": step, "loss": 5.0 - part - 0.1 * (step % 3) as f64, "grad_norm": 1.0 + part, "lr": 1e-3 * (1.0 - part), "targets": 50, "tokens": 100, "seconds": 0.5 * step as f64, "resident_bytes": 200_000_000 + step}));
        }
        if self.complete {
            lines.push(eval(self.steps, 4.0));
        }
        lines
    }

    /// Writes `metrics.jsonl` and `ranks.jsonl`.
    pub(crate) fn write(&self, dir: &Path) {
        fs::write(dir.join("metrics.jsonl"), text(&self.metrics_lines())).unwrap();
        fs::write(dir.join("ranks.jsonl"), text(&self.ranks_lines())).unwrap();
    }

    /// Writes `run.json` and `recipe.toml` too.
    pub(crate) fn write_all(&self, dir: &Path) {
        self.write(dir);
        let info = json!({
            "version": "0.1.0", "model": "org/tiny", "device": "flex", "dtype": "f32",
            "started": "2026-11-24T10:00:00Z",
            "before": {"loss": 5.0, "perplexity": 148.413, "tokens": 500},
            "after": {"loss": 4.0, "perplexity": 54.598, "tokens": 500},
            "parameters": [1968, 2384], "tokens": 4000, "seconds": 20.0, "peak_bytes": 212_000_000,
            "train": {"samples": 1200, "length": {"p50": 96, "mean": 101.25}},
            "eval": {"samples": 64},
            "prediction": {"peak_bytes": 205_000_000, "step_seconds": 0.55},
        });
        fs::write(dir.join("run.json"), info.to_string()).unwrap();
        fs::write(
            dir.join("recipe.toml"),
            "# how to launch\nmodel = \"org/tiny\"\n",
        )
        .unwrap();
    }
}

fn text(lines: &[Value]) -> String {
    lines.iter().fold(String::new(), |mut text, line| {
        writeln!(text, "{line}").unwrap();
        text
    })
}
