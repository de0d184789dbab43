//! Ranks by layer and module type, as a picture of their own.

use crate::report::{
    chart::{
        Chart, escape,
        plot::{place, text, title},
        shortened,
    },
    history::History,
};

const CELL: (f64, f64) = (30.0, 24.0);
const GAP: f64 = 2.0;
const TOP: f64 = 62.0;

/// The ranks that are known last, each in a cell whose colour is its change from the start.
pub(in crate::report) fn heat(history: &History) -> Chart {
    let grid = &history.grid;
    let names: Vec<String> = grid
        .modules
        .iter()
        .map(|name| shortened(name, 28))
        .collect();
    let widest = names.iter().map(|name| name.chars().count()).max();
    let left = 14.0 + widest.unwrap_or(0) as f64 * 6.8;
    let step = (CELL.0 + GAP, CELL.1 + GAP);
    let bottom = TOP + grid.modules.len() as f64 * step.1;
    let width = (left + grid.layers.len() as f64 * step.0 + 8.0).max(LEGEND_WIDTH);
    let mut body = title(4.0, 16.0, "Ranks", &when(history));
    body.push_str(&text("lc-label", left, 36.0, "layer"));
    for layer in 0..grid.layers.len() {
        let x = left + layer as f64 * step.0 + CELL.0 / 2.0;
        body.push_str(&text(
            "lc-tick lc-middle",
            x,
            TOP - 8.0,
            &grid.layer_name(layer),
        ));
    }
    for (module, name) in names.iter().enumerate() {
        let y = TOP + module as f64 * step.1;
        body.push_str(&text("lc-label lc-ink lc-end", left - 8.0, y + 16.0, name));
        for layer in 0..grid.layers.len() {
            if let Some(adapter) = grid.at(module, layer) {
                let x = left + layer as f64 * step.0;
                body.push_str(&cell(history, (module, layer, adapter), (x, y)));
            }
        }
    }
    body.push_str(&legend(history, bottom + 14.0));
    Chart {
        name: "ranks",
        label: "Final ranks by layer and module type".into(),
        size: (width, bottom + 62.0),
        body,
        plots: Vec::new(),
    }
}

fn when(history: &History) -> String {
    let step = history.moments.last().map_or(0, |moment| moment.step);
    format!("after step {step}, coloured by change from the start")
}

fn cell(
    history: &History,
    (module, layer, adapter): (usize, usize, usize),
    (x, y): (f64, f64),
) -> String {
    let (before, rank) = (history.before(adapter), history.after(adapter));
    let class = history.shade(before, rank);
    let module = history.grid.modules.get(module).map_or("", String::as_str);
    format!(
        "<g class=\"lc-cell {class}\" data-layer=\"{}\" data-module=\"{}\" data-rank=\"{rank}\">\
         <rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\" rx=\"2\"/>{}</g>",
        escape(&history.grid.layer_name(layer)),
        escape(module),
        place(x),
        place(y),
        CELL.0,
        CELL.1,
        text(
            "lc-number lc-middle",
            x + CELL.0 / 2.0,
            y + 16.5,
            &rank.to_string()
        ),
    )
}

const SWATCH: f64 = 50.0;
const LEGEND_WIDTH: f64 = 11.0 * SWATCH + 16.0;

fn legend(history: &History, top: f64) -> String {
    let mut legend = String::new();
    for (index, (class, range)) in history.legend().iter().enumerate() {
        let x = 8.0 + index as f64 * SWATCH;
        legend.push_str(&format!(
            "<g class=\"lc-cell {class}\"><rect x=\"{}\" y=\"{}\" width=\"{}\" height=\"12\"/></g>",
            place(x),
            place(top),
            SWATCH - 2.0
        ));
        let middle = x + SWATCH / 2.0 - 1.0;
        legend.push_str(&text("lc-tick lc-middle", middle, top + 26.0, range));
    }
    legend
}
