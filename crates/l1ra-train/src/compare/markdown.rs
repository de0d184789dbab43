//! The table as Markdown, which a terminal shows well too.

use crate::{
    compare::{Edge, Row, Table, sentence::signed},
    report::number::{bytes, grouped, step_seconds},
};

impl Table {
    /// The table as Markdown: sentences, grid, rows.
    pub fn markdown(&self) -> String {
        let mut text = format!("# Comparison with {}\n\n", self.baseline);
        for sentence in &self.sentences {
            text += &format!("- {sentence}\n");
        }
        text += &format!("\n{} · {} runs\n\n", self.grid, self.runs.len());
        text + &aligned(&self.head(), &self.cells())
            + "\nEval loss: mean over seeds ± half the 95 % Student-t interval, each policy at its best \
               learning rate. Difference: paired by seed. Agreement: mean Spearman correlation of the \
               final ranks of two seeds.\n"
    }

    /// Names of the columns.
    pub(super) fn head(&self) -> Vec<String> {
        let difference = format!("difference to {}", self.baseline);
        let names = [
            "policy",
            "rank",
            "best rate",
            "eval loss",
            &difference,
            "parameters",
            "moved",
            "agreement",
            "step",
            "peak memory",
        ];
        names.map(String::from).to_vec()
    }

    /// The rows as texts.
    pub(super) fn cells(&self) -> Vec<Vec<String>> {
        self.rows.iter().map(cells).collect()
    }
}

fn cells(row: &Row) -> Vec<String> {
    let dash = || "-".to_string();
    let lr = row.lr.map_or_else(dash, |lr| match row.edge {
        Some(Edge::Lowest) => format!("{lr:e} (lowest tried)"),
        Some(Edge::Highest) => format!("{lr:e} (highest tried)"),
        None => format!("{lr:e}"),
    });
    let loss = row.loss.map_or_else(dash, |loss| match loss.half {
        Some(half) => format!("{:.4} ± {half:.4}", loss.mean),
        None => format!("{:.4}", loss.mean),
    });
    let known = row.lr.is_some();
    let of = |text: String| if known { text } else { dash() };
    vec![
        row.policy.clone(),
        row.rank.to_string(),
        lr,
        loss,
        row.difference.as_ref().map_or_else(dash, signed),
        of(grouped(row.parameters[1].round() as usize)),
        of(format!("{:.1}", row.moved)),
        row.agreement
            .map_or_else(dash, |value| format!("{value:.2}")),
        of(step_seconds(row.step_seconds)),
        row.peak_bytes.map_or_else(dash, bytes),
    ]
}

/// A Markdown table whose columns are as wide as their widest cell.
fn aligned(head: &[String], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widths = cells
            .chain(head.get(column))
            .map(|cell| cell.chars().count());
        widths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &[String]| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| {
            let cell = cell.replace('|', "\\|");
            format!(" {cell:<width$} ")
        });
        format!("|{}|\n", padded.collect::<Vec<_>>().join("|"))
    };
    let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
    let rows: String = rows.iter().map(|row| line(row)).collect();
    line(head) + &line(&rules) + &rows
}

#[cfg(test)]
mod tests {
    use crate::compare::table::tests::{grid, table};

    #[test]
    fn a_table() {
        let table = table(&grid(&[1e-3, 2e-3], 2), |policy, lr, seed| {
            let base = if policy == "l1ra" { 2.9 } else { 3.0 };
            Some(base + lr + seed as f64 * 0.01)
        });
        insta::assert_snapshot!(table.markdown(), @"");
        insta::assert_snapshot!(table.csv(), @"");
    }
}
