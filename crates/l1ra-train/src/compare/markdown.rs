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
        insta::assert_snapshot!(table.markdown(), @"
        # Comparison with fixed

        - l1ra, r = 2: a lower eval loss than fixed: −0.1000 ± 0.0000 (with 10 % more parameters at the end).
        - The best rate is the lowest that was tried for fixed (r = 2), l1ra (r = 2); a lower one may be better.

        policies fixed, l1ra · ranks 2 · rates 1e-3, 2e-3 · seeds 0–1 · 8 runs

        | policy | rank | best rate           | eval loss       | difference to fixed | parameters | moved | agreement | step   | peak memory |
        | ------ | ---- | ------------------- | --------------- | ------------------- | ---------- | ----- | --------- | ------ | ----------- |
        | fixed  | 2    | 1e-3 (lowest tried) | 3.0060 ± 0.0635 | -                   | 1,000      | 0.0   | -         | 0.50 s | 300 MB      |
        | l1ra   | 2    | 1e-3 (lowest tried) | 2.9060 ± 0.0635 | −0.1000 ± 0.0000    | 1,100      | 1.0   | 1.00      | 0.50 s | 300 MB      |

        Eval loss: mean over seeds ± half the 95 % Student-t interval, each policy at its best learning rate. Difference: paired by seed. Agreement: mean Spearman correlation of the final ranks of two seeds.
        ");
        insta::assert_snapshot!(table.csv(), @"
        policy,rank,lr,seed,eval_loss,parameters_start,parameters_end,ranks_moved,step_seconds,peak_bytes,run
        fixed,2,0.001,0,3.001,1000,1000,0,0.5,300000000,fixed-r2-lr1e-3-s0
        l1ra,2,0.001,0,2.901,1000,1100,1,0.5,300000000,l1ra-r2-lr1e-3-s0
        fixed,2,0.001,1,3.0109999999999997,1000,1000,0,0.5,300000000,fixed-r2-lr1e-3-s1
        l1ra,2,0.001,1,2.9109999999999996,1000,1100,1,0.5,300000000,l1ra-r2-lr1e-3-s1
        fixed,2,0.002,0,3.002,1000,1000,0,0.5,300000000,fixed-r2-lr2e-3-s0
        l1ra,2,0.002,0,2.9019999999999997,1000,1100,1,0.5,300000000,l1ra-r2-lr2e-3-s0
        fixed,2,0.002,1,3.0119999999999996,1000,1000,0,0.5,300000000,fixed-r2-lr2e-3-s1
        l1ra,2,0.002,1,2.9119999999999995,1000,1100,1,0.5,300000000,l1ra-r2-lr2e-3-s1
        ");
    }
}
