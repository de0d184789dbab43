//! The heat map as a table, for the page.

use minijinja::Value;
use serde::Serialize;

use crate::report::{
    chart,
    history::{History, Moment},
    number::{grouped, signed},
};

/// Most small pictures of the history.
const STRIPS: usize = 12;

#[derive(Serialize)]
pub(super) struct Heat {
    layers: Vec<String>,
    /// Whether layers have numbers.
    numbered: bool,
    rows: Vec<Row>,
    /// Sum over modules, by layer.
    sums: Vec<usize>,
    legend: Vec<(String, String)>,
    label: String,
    step: String,
    total: String,
    moved: String,
    last: usize,
    strips: Vec<Strip>,
    /// Width that a small picture and its words take.
    strip_width: usize,
}

#[derive(Serialize)]
pub(super) struct Row {
    module: String,
    cells: Vec<Option<Cell>>,
    mean: String,
    before: String,
}

#[derive(Serialize)]
pub(super) struct Cell {
    adapter: usize,
    class: String,
    rank: usize,
    start: usize,
    change: String,
}

#[derive(Serialize)]
pub(super) struct Strip {
    index: usize,
    label: String,
    step: String,
    svg: Value,
}

/// The heat map of the last moment.
pub(super) fn heat(history: &History) -> Heat {
    let grid = &history.grid;
    let empty = Moment {
        label: String::new(),
        step: 0,
        ranks: Vec::new(),
        gates: None,
    };
    let last = history.moments.last().unwrap_or(&empty);
    let layers = 0..grid.layers.len();
    let sum = |layer| {
        grid.of_layer(layer)
            .map(|adapter| history.after(adapter))
            .sum()
    };
    Heat {
        layers: layers.clone().map(|layer| grid.layer_name(layer)).collect(),
        numbered: grid.layers.iter().any(Option::is_some),
        rows: (0..grid.modules.len())
            .map(|module| row(history, module))
            .collect(),
        sums: layers.map(sum).collect(),
        legend: history.legend(),
        label: last.label.clone(),
        step: grouped(last.step),
        total: grouped(last.ranks.iter().sum()),
        moved: grouped(history.moved(last)),
        last: history.moments.len() - 1,
        strips: strips(history),
        strip_width: chart::strip_size(history).0.max(130),
    }
}

fn row(history: &History, module: usize) -> Row {
    let grid = &history.grid;
    let cell = |layer: usize| {
        let adapter = grid.at(module, layer)?;
        let (start, rank) = (history.before(adapter), history.after(adapter));
        Some(Cell {
            adapter,
            class: history.shade(start, rank),
            rank,
            start,
            change: signed(rank as i64 - start as i64),
        })
    };
    Row {
        module: grid.modules.get(module).cloned().unwrap_or_default(),
        cells: (0..grid.layers.len()).map(cell).collect(),
        mean: format!("{:.1}", grid.module_mean(module, history.last())),
        before: format!("{:.1}", grid.module_mean(module, history.start())),
    }
}

/// Small pictures of the start, the end and moments between them, evenly.
fn strips(history: &History) -> Vec<Strip> {
    let count = history.moments.len();
    let shown = count.min(STRIPS);
    let indices = (0..shown).map(|place| place * (count - 1) / (shown - 1).max(1));
    let strip = |index: usize| {
        let moment = history.moments.get(index)?;
        Some(Strip {
            index,
            label: moment.label.clone(),
            step: grouped(moment.step),
            svg: Value::from_safe_string(chart::strip(history, moment)),
        })
    };
    indices.filter_map(strip).collect()
}
