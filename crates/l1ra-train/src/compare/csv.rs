//! The runs as CSV.

use crate::compare::{Table, table::RunLine};

const HEAD: &str = "policy,rank,lr,seed,eval_loss,parameters_start,parameters_end,ranks_moved,\
                    step_seconds,peak_bytes,run\n";

impl Table {
    /// Every run as a line of CSV, numbers in full; what is not known is empty.
    pub fn csv(&self) -> String {
        HEAD.to_string() + &self.runs.iter().map(line).collect::<String>()
    }
}

fn line(run: &RunLine) -> String {
    let loss = run.eval_loss.map_or(String::new(), |loss| loss.to_string());
    let peak = run
        .peak_bytes
        .map_or(String::new(), |bytes| bytes.to_string());
    format!(
        "{},{},{},{},{loss},{},{},{},{},{peak},{}\n",
        quoted(&run.policy),
        run.rank,
        run.lr,
        run.seed,
        run.parameters_start,
        run.parameters_end,
        run.ranks_moved,
        run.step_seconds,
        quoted(&run.run),
    )
}

/// As RFC 4180 has it.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.into(),
    }
}
