//! The heat map: ranks by layer and module, coloured by how they changed.

use l1ra_core::BudgetUnit;
use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::Widget,
};

use super::{
    super::{grid::RankCell, palette::Palette, state::LiveState},
    text::{DIM, clip, count, cut, flow, width},
};
use crate::plural::counted;

/// Columns of a cell at most, the mark or space at its end included: beside a chart, and alone.
const CELL: (u16, u16) = (6, 7);
/// Rows beside the layers: names, mean, total.
const FRAME: u16 = 3;
/// A map of fewer rows has its legend only if every layer has its row.
const LEGEND_FROM: u16 = 10;

/// Layers × modules in a given width.
pub(super) struct HeatMap<'a> {
    state: &'a LiveState,
    palette: Palette,
    /// Modules shown, from the first.
    columns: u16,
    /// Columns of a row's name, a space included.
    name: u16,
    /// Columns of the longest rank.
    digits: u16,
    /// Columns of a cell.
    cell: u16,
    /// Rows in all, and for the layers among them.
    rows: (u16, u16),
    legend: bool,
}

impl<'a> HeatMap<'a> {
    /// A heat map of at most `width` columns; none without adapters, or if no module fits.
    pub(super) fn fit(state: &'a LiveState, palette: Palette, width: u16) -> Option<Self> {
        let digits = format!("{:.0}", state.ranks.largest()).len() as u16;
        let modules = state.ranks.modules().len() as u16;
        let name = if state.ranks.layers() > 100 { 8 } else { 6 }; // `120–125`, `mean`
        let room = width.saturating_sub(name);
        let columns = modules.min(room / (digits + 1));
        (columns > 0).then(|| Self {
            state,
            palette,
            columns,
            name,
            digits,
            cell: (room / columns).min(CELL.1),
            rows: (0, 0),
            legend: false,
        })
    }

    /// Columns that it uses.
    pub(super) fn width(&self) -> u16 {
        self.name + self.columns * self.cell
    }

    /// Leaves `beside` of `width` columns to a chart, if there is room for cells with a decimal.
    pub(super) fn make_room(&mut self, width: u16, beside: u16) -> bool {
        let cell = width.saturating_sub(beside + self.name) / self.columns;
        let fits = cell >= self.decimal_cell() && self.columns == self.modules();
        if fits {
            self.cell = cell.min(CELL.0);
        }
        fits
    }

    /// Rows that show every layer and the legend.
    pub(super) fn natural_rows(&self) -> u16 {
        self.layers().saturating_add(FRAME + 1)
    }

    /// Lays the map out in at most `rows` rows, and says how many it takes.
    pub(super) fn take(&mut self, rows: u16) -> u16 {
        self.legend = rows >= self.natural_rows().min(LEGEND_FROM);
        let frame = FRAME + u16::from(self.legend);
        let layers = match rows.saturating_sub(frame) {
            0 => 0,
            room => {
                let group = self.state.ranks.fold(room.into());
                self.layers()
                    .div_ceil(u16::try_from(group).unwrap_or(u16::MAX))
            }
        };
        self.rows = (rows.min(frame + layers), layers);
        self.rows.0
    }

    fn modules(&self) -> u16 {
        u16::try_from(self.state.ranks.modules().len()).unwrap_or(u16::MAX)
    }

    fn layers(&self) -> u16 {
        u16::try_from(self.state.ranks.layers()).unwrap_or(u16::MAX)
    }

    /// Columns of a cell with a decimal: the number, a point, the decimal, the mark.
    fn decimal_cell(&self) -> u16 {
        self.digits + 3
    }

    /// From most to least wanted: the total, the means with the names above them, the layers, in
    /// groups if need be, the legend.
    pub(super) fn render(&self, area: Rect, buf: &mut Buffer) {
        let grid = &self.state.ranks;
        let (height, layers) = (self.rows.0, usize::from(self.rows.1));
        let folded = grid.fold(layers) > 1;
        let mut lines = Vec::new();
        if height >= 2 {
            lines.push(self.names());
        }
        for row in grid.folded(layers) {
            lines.push(self.row(&row.label, &row.cells, folded));
        }
        if height >= 2 {
            lines.push(self.row("mean", &grid.means(), true));
        }
        if height != 2 {
            lines.push(self.total(area.width));
        }
        if self.legend {
            lines.push(self.legend(area.width));
        }
        for (line, row) in lines.iter().zip(area.rows()) {
            line.render(row, buf);
        }
    }

    fn names(&self) -> Line<'static> {
        let mut spans = vec![self.name("layer")];
        let cell = usize::from(self.cell) - 1;
        for module in self.state.ranks.modules().iter().take(self.columns.into()) {
            let module = clip(module.trim_end_matches("_proj"), cell);
            let pad = " ".repeat(cell - width(&module));
            spans.push(Span::styled(format!("{pad}{module} "), DIM));
        }
        Line::from(spans)
    }

    fn name(&self, name: &str) -> Span<'static> {
        let columns = usize::from(self.name) - 1;
        Span::styled(format!("{:<columns$} ", cut(name, columns)), DIM)
    }

    fn row(&self, name: &str, cells: &[Option<RankCell>], mean: bool) -> Line<'static> {
        let mut spans = vec![self.name(name)];
        let cells = cells.iter().take(self.columns.into());
        spans.extend(cells.map(|cell| self.cell(*cell, mean)));
        Line::from(spans)
    }

    fn cell(&self, cell: Option<RankCell>, mean: bool) -> Span<'static> {
        let columns = usize::from(self.cell);
        let Some(cell) = cell else {
            return Span::raw(" ".repeat(columns));
        };
        let digits = usize::from(mean && self.cell >= self.decimal_cell());
        let number = format!("{:.digits$}", cell.now);
        let text = format!("{number:>0$}{1}", columns - 1, self.palette.mark(cell));
        Span::styled(text, self.palette.cell(cell, self.state.is_fresh()))
    }

    /// Ranks and parameters against the budget, and what moved so far.
    fn total(&self, columns: u16) -> Line<'static> {
        let (state, start) = (self.state, &self.state.start);
        let ranks: usize = state.ranks.ranks().iter().sum();
        let parameters = start.parameters(state.ranks.ranks());
        let of = |unit| match start.unit == unit {
            true => format!("/{}", count(start.budget)),
            false => String::new(),
        };
        let mut texts = vec![
            format!("{}{} ranks", count(ranks), of(BudgetUnit::Ranks)),
            format!(
                "{}{} parameters",
                count(parameters),
                of(BudgetUnit::Parameters)
            ),
        ];
        if start.unit == BudgetUnit::Parameters {
            texts.reverse();
        }
        let hidden = state.ranks.modules().len() - usize::from(self.columns);
        if hidden > 0 {
            texts.insert(0, format!("+{hidden} modules"));
        }
        let mut long = texts.clone();
        if state.updates > 0 {
            let (moved, updates) = (state.moved, state.updates);
            long.push(format!("{moved} moved in {}", counted(updates, "update")));
            texts.push(format!("{moved} moved"));
        }
        let line = |texts: Vec<String>| {
            let pieces = texts.into_iter().map(|text| vec![Span::styled(text, DIM)]);
            flow(pieces.collect(), columns)
        };
        let mut lines = line(long);
        if lines.len() > 1 {
            lines = line(texts);
        }
        lines.into_iter().next().unwrap_or_default()
    }

    /// What the colours or marks say.
    fn legend(&self, columns: u16) -> Line<'static> {
        let text = |text: &'static str| Span::styled(text, DIM);
        let sample = |style: Style, mark: &'static str| Span::styled(mark, style);
        let [less, more] = match self.palette.shades() {
            Some([less, more]) => [sample(less, "  "), sample(more, "  ")],
            None => [text("-"), text("+")],
        };
        let news = RankCell {
            moved: true,
            ..RankCell::default()
        };
        let moved = Span::styled("16", self.palette.cell(news, true));
        let pieces = vec![
            vec![less, text(" fewer")],
            vec![more, text(" more than at start")],
            vec![moved, text(" just moved")],
        ];
        flow(pieces, columns).into_iter().next().unwrap_or_default()
    }
}
