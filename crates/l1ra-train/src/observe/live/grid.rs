//! Ranks as layers × modules.

use crate::{observe::AdapterInfo, ranks::split};

/// The ranks of one cell, or the mean of several.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct RankCell {
    /// Rank at the start.
    pub(super) start: f64,
    /// Rank now.
    pub(super) now: f64,
    /// Whether the last update changed it.
    pub(super) moved: bool,
}

impl RankCell {
    /// Ranks gained since the start; 0 where the shown number would not tell.
    pub(super) fn change(self) -> f64 {
        let change = self.now - self.start;
        if change.abs() < 0.05 { 0.0 } else { change }
    }

    fn mean(cells: impl Iterator<Item = Self>) -> Option<Self> {
        let (mut sum, mut count) = (Self::default(), 0_u32);
        for cell in cells {
            sum.start += cell.start;
            sum.now += cell.now;
            sum.moved |= cell.moved;
            count += 1;
        }
        let count = (count > 0).then_some(f64::from(count))?;
        Some(Self {
            start: sum.start / count,
            now: sum.now / count,
            moved: sum.moved,
        })
    }
}

/// A row of the grid: one layer, or the mean of several that follow each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RankRow {
    /// `3`, `4–7`, or `-` for adapters that are in no numbered layer.
    pub(super) label: String,
    /// One cell a module; none where the layer has no such adapter.
    pub(super) cells: Vec<Option<RankCell>>,
}

/// Every adapter's rank, at the start and now, by layer and module.
#[derive(Clone, Debug, Default)]
pub(super) struct RankGrid {
    layers: Vec<Option<usize>>,
    modules: Vec<String>,
    /// Layer by layer, one entry a module.
    cells: Vec<Option<RankCell>>,
    /// The cell of every adapter.
    places: Vec<usize>,
    /// The rank of every adapter.
    ranks: Vec<usize>,
}

impl RankGrid {
    pub(super) fn new(adapters: &[AdapterInfo]) -> Self {
        let mut layers: Vec<Option<usize>> = Vec::new();
        let mut modules: Vec<String> = Vec::new();
        for adapter in adapters {
            let (layer, module) = split(&adapter.path);
            layers.push(layer);
            if !modules.iter().any(|known| known == module) {
                modules.push(module.into());
            }
        }
        layers.sort_unstable();
        layers.dedup();
        let place = |adapter: &AdapterInfo| {
            let (layer, module) = split(&adapter.path);
            let row = layers.binary_search(&layer).unwrap_or(0);
            let column = modules.iter().position(|known| known == module);
            row * modules.len() + column.unwrap_or(0)
        };
        let places: Vec<usize> = adapters.iter().map(place).collect();
        let mut cells = vec![None; layers.len() * modules.len()];
        for (place, adapter) in places.iter().zip(adapters) {
            let cell: &mut RankCell = cells[*place].get_or_insert_default();
            cell.start += adapter.rank as f64;
            cell.now += adapter.rank as f64;
        }
        Self {
            layers,
            modules,
            cells,
            places,
            ranks: adapters.iter().map(|adapter| adapter.rank).collect(),
        }
    }

    /// Takes the ranks of all adapters after an update; the cells that differ are the moved ones.
    pub(super) fn update(&mut self, ranks: &[usize]) {
        let before = self.cells.clone();
        self.settle(ranks);
        for (cell, before) in self.cells.iter_mut().zip(before) {
            if let (Some(cell), Some(before)) = (cell, before) {
                cell.moved = cell.now != before.now;
            }
        }
    }

    /// Takes the ranks of all adapters; what moved last stays as it was.
    pub(super) fn settle(&mut self, ranks: &[usize]) {
        self.cells.iter_mut().flatten().for_each(|c| c.now = 0.0);
        for (known, rank) in self.ranks.iter_mut().zip(ranks) {
            *known = *rank;
        }
        for (place, rank) in self.places.iter().zip(&self.ranks) {
            if let Some(cell) = &mut self.cells[*place] {
                cell.now += *rank as f64;
            }
        }
    }

    /// The rank of every adapter, in the module's order.
    pub(super) fn ranks(&self) -> &[usize] {
        &self.ranks
    }

    /// Names of the columns.
    pub(super) fn modules(&self) -> &[String] {
        &self.modules
    }

    /// The largest rank of a cell, at the start or now.
    pub(super) fn largest(&self) -> f64 {
        let cells = self.cells.iter().flatten();
        cells.fold(0.0, |largest, cell| cell.start.max(cell.now).max(largest))
    }

    /// Number of layers.
    pub(super) fn layers(&self) -> usize {
        self.layers.len()
    }

    /// How many layers a row takes, if there is room for `rows` rows.
    pub(super) fn fold(&self, rows: usize) -> usize {
        self.layers().div_ceil(rows.max(1)).max(1)
    }

    /// The grid in at most `rows` rows: neighbouring layers share a row where there are more.
    pub(super) fn folded(&self, rows: usize) -> Vec<RankRow> {
        let columns = self.modules.len();
        if rows == 0 || columns == 0 {
            return Vec::new();
        }
        let group = self.fold(rows);
        let layers = self.layers.chunks(group);
        let cells = self.cells.chunks(group * columns);
        let row = |(layers, cells): (&[Option<usize>], &[Option<RankCell>])| RankRow {
            label: label(layers),
            cells: (0..columns)
                .map(|column| mean_of_column(cells, column, columns))
                .collect(),
        };
        layers.zip(cells).map(row).collect()
    }

    /// Mean of every module over all layers; means are no news of their own.
    pub(super) fn means(&self) -> Vec<Option<RankCell>> {
        let columns = self.modules.len();
        let mean = |column| {
            let mean = mean_of_column(&self.cells, column, columns)?;
            Some(RankCell {
                moved: false,
                ..mean
            })
        };
        (0..columns).map(mean).collect()
    }
}

fn mean_of_column(cells: &[Option<RankCell>], column: usize, columns: usize) -> Option<RankCell> {
    let column = cells.iter().skip(column).step_by(columns);
    RankCell::mean(column.flatten().copied())
}

fn label(layers: &[Option<usize>]) -> String {
    let name = |layer: &Option<usize>| layer.map_or("-".to_string(), |layer| layer.to_string());
    match layers {
        [] => String::new(),
        [one] => name(one),
        [first, .., last] => format!("{}–{}", name(first), name(last)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapters(layers: usize, modules: &[&str]) -> Vec<AdapterInfo> {
        let adapter = |layer: usize, module: &str| AdapterInfo {
            path: format!("model.layers.{layer}.{module}"),
            d_in: 8,
            d_out: 8,
            rank: 4,
        };
        (0..layers)
            .flat_map(|layer| modules.iter().map(move |module| adapter(layer, module)))
            .collect()
    }

    #[test]
    fn layers_are_in_numeric_order_and_fold_to_means() {
        let mut grid = RankGrid::new(&adapters(12, &["q_proj", "up_proj"]));
        let mut ranks = vec![4; 24];
        ranks[2] = 1; // layer 1, q_proj
        ranks[5] = 7; // layer 2, up_proj
        grid.update(&ranks);
        let labels = |rows: usize| -> Vec<String> {
            let rows = grid.folded(rows);
            rows.into_iter().map(|row| row.label).collect()
        };
        assert_eq!(labels(40).len(), 12);
        assert_eq!(labels(5), ["0–2", "3–5", "6–8", "9–11"]);
        assert_eq!(labels(1), ["0–11"]);
        assert!(grid.folded(0).is_empty());
        let first = grid.folded(5)[0].cells.clone();
        let expected = |now, moved| {
            Some(RankCell {
                start: 4.0,
                now,
                moved,
            })
        };
        assert_eq!(first, [expected(3.0, true), expected(5.0, true)]);
        assert_eq!(grid.folded(5)[1].cells[0], expected(4.0, false));
        assert_eq!(grid.means()[0], expected(3.75, false));
    }

    #[test]
    fn only_the_last_update_counts_as_moved() {
        let mut grid = RankGrid::new(&adapters(2, &["q"]));
        grid.update(&[3, 5]);
        grid.update(&[3, 6]);
        let moved = |grid: &RankGrid| -> Vec<bool> {
            let rows = grid.folded(2);
            rows.iter().map(|row| row.cells[0].unwrap().moved).collect()
        };
        assert_eq!(moved(&grid), [false, true]);
        grid.settle(&[2, 6]);
        assert_eq!(
            (moved(&grid), grid.ranks()),
            (vec![false, true], &[2, 6][..])
        );
    }

    #[test]
    fn a_model_without_layers_or_adapters_has_a_grid() {
        let mut named = adapters(1, &["input", "output"]);
        named[0].path = "input".into();
        let grid = RankGrid::new(&named);
        assert_eq!(grid.folded(9)[0].label, "-");
        assert_eq!(grid.folded(9)[0].cells[1], None);
        assert!(RankGrid::new(&[]).folded(3).is_empty());
        assert!(RankGrid::new(&[]).means().is_empty());
    }
}
