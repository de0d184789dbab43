//! `compare.html`: the page, filled in.

use minijinja::{Value, context, value::Serde};
use serde::Serialize;

use crate::{
    compare::{Row, Table, chart, table::adapters},
    error::TrainError,
    report::{
        page::{filled, style},
        rank_chart,
    },
};

const PAGE: &str = include_str!("page.html");

/// The page as text: everything it needs is in it.
pub(super) fn page(table: &Table) -> Result<String, TrainError> {
    let safe = |chart: crate::report::chart::Chart| Value::from_safe_string(chart.inline());
    let maps: Vec<Map> = table
        .rows
        .iter()
        .filter_map(|row| map(table, row))
        .collect();
    let values = context! {
        style => style(),
        baseline => &table.baseline,
        grid => table.grid.to_string(),
        count => table.runs.len(),
        version => &table.version,
        sentences => Serde(&table.sentences),
        losses => chart::losses(table).map(safe),
        differences => chart::differences(table).map(safe),
        head => Serde(table.head()),
        rows => Serde(table.cells()),
        modules => Serde(modules(table)),
        maps => Serde(maps),
    };
    filled("compare.html", PAGE, values)
}

#[derive(Serialize)]
struct Modules {
    head: Vec<String>,
    rows: Vec<(String, Vec<String>)>,
}

/// Mean final ranks of module types, a column a row of the table in which ranks moved.
fn modules(table: &Table) -> Option<Modules> {
    let moved: Vec<&Row> = table.rows.iter().filter(|row| row.moved > 0.0).collect();
    let mut names: Vec<&String> = Vec::new();
    for (name, _) in moved.iter().flat_map(|row| &row.modules) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let cell = |row: &&Row, name: &String| {
        let found = row.modules.iter().find(|(module, _)| module == name);
        found.map_or(String::new(), |(_, mean)| format!("{mean:.1}"))
    };
    (!moved.is_empty()).then(|| Modules {
        head: moved
            .iter()
            .map(|row| format!("{}, r = {}", row.policy, row.rank))
            .collect(),
        rows: names
            .iter()
            .map(|name| {
                let cells = moved.iter().map(|row| cell(row, name));
                ((*name).clone(), cells.collect())
            })
            .collect(),
    })
}

#[derive(Serialize)]
struct Map {
    title: String,
    svg: Value,
}

/// Final ranks by layer and module type, the mean over seeds; `None` where none moved.
fn map(table: &Table, row: &Row) -> Option<Map> {
    let runs = table.results_of(row);
    let first = runs.first().filter(|_| row.moved > 0.0)?;
    let mean = |adapter: usize| {
        let of_run = runs.iter().filter_map(|run| run.ranks.entries.get(adapter));
        let sum: usize = of_run.map(|entry| entry.after).sum();
        (sum as f64 / runs.len() as f64).round() as usize
    };
    let ranks = (0..first.ranks.entries.len()).map(mean).collect();
    let chart = rank_chart(adapters(first), ranks, first.steps)?;
    Some(Map {
        title: format!("{}, r = {}", row.policy, row.rank),
        svg: Value::from_safe_string(chart.inline()),
    })
}

#[cfg(test)]
mod tests {
    use crate::compare::table::tests::{grid, table};

    #[test]
    fn a_page_holds_everything_and_asks_for_nothing() {
        let table = table(&grid(&[1e-3, 2e-3], 3), |policy, lr, seed| {
            Some(if policy == "l1ra" { 2.9 } else { 3.0 } + lr + seed as f64 * 0.01)
        });
        let page = super::page(&table).unwrap();
        for part in [
            "data-chart=\"losses\"",
            "data-chart=\"differences\"",
            "data-chart=\"ranks\"",
            "prefers-color-scheme: dark",
            "<td>2.9110 ± 0.0248</td>",
            "<th scope=\"row\">up_proj</th><td>3.0</td>",
            "a lower eval loss than fixed: −0.1000",
        ] {
            assert!(page.contains(part), "{part}\n{page}");
        }
        for link in ["http:", "https:", "src=", "<script", "url("] {
            assert!(!page.contains(link), "{link}");
        }
    }

    #[test]
    fn without_losses_there_are_no_charts() {
        let table = table(&grid(&[1e-3], 1), |_, _, _| None);
        let page = super::page(&table).unwrap();
        assert!(!page.contains("data-chart"));
    }
}
