//! Small pictures of ranks, one a moment.

use std::collections::BTreeMap;

use crate::report::history::{History, Moment};

const CELL: usize = 8;

/// Width and height at which the pictures are shown.
pub(in crate::report) fn strip_size(history: &History) -> (usize, usize) {
    let (columns, rows) = (history.grid.layers.len(), history.grid.modules.len());
    let width = (columns * CELL).clamp(96, 320).min(columns * 2 * CELL);
    (width, width * rows / columns.max(1))
}

/// The ranks of `moment` as a picture without numbers: rows are module types, columns layers. One
/// path a shade keeps it small.
pub(in crate::report) fn strip(history: &History, moment: &Moment) -> String {
    let grid = &history.grid;
    let mut shades: BTreeMap<String, String> = BTreeMap::new();
    for (adapter, ((module, layer), rank)) in grid.places.iter().zip(&moment.ranks).enumerate() {
        let shade = history.shade(history.before(adapter), *rank);
        let side = CELL - 1;
        let (x, y) = (layer * CELL, module * CELL);
        let path = shades.entry(shade).or_default();
        path.push_str(&format!("M{x} {y}h{side}v{side}h-{side}z"));
    }
    let view = (grid.layers.len() * CELL - 1, grid.modules.len() * CELL - 1);
    let (width, height) = strip_size(history);
    let paths: String = shades
        .iter()
        .map(|(class, path)| format!("<path class=\"{class}\" d=\"{path}\"/>"))
        .collect();
    format!(
        "<svg class=\"strip\" viewBox=\"0 0 {} {}\" width=\"{width}\" \
         height=\"{height}\" aria-hidden=\"true\">{paths}</svg>",
        view.0, view.1
    )
}
