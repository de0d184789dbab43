//! [`Dashboard`]: the display of a [`LiveState`], as a ratatui widget.

mod chart;
mod heat;
mod numbers;
mod text;
mod top;

use ratatui::{buffer::Buffer, layout::Rect, text::Line, widgets::Widget};

use self::{chart::LossChart, heat::HeatMap};
use super::{palette::Palette, state::LiveState};

/// Rows that a heat map needs to say anything by module: names, mean, total.
const LEAST_HEAT: u16 = 3;
/// Rows of a heat map that a chart below it leaves, if so many are wanted.
const ENOUGH_HEAT: u16 = 10;
/// Rows of a chart, at least and at most.
const CHART: (u16, u16) = (6, 14);
/// Columns of a chart beside a heat map, at least.
const CHART_WIDTH: u16 = 36;

/// Draws a run into whatever room there is: progress first, then the loss and other numbers, then
/// the ranks, then a chart. Any area will do; what does not fit is left out.
#[derive(Clone, Copy, Debug)]
pub struct Dashboard<'a> {
    /// The run.
    pub state: &'a LiveState,
    /// How to tell things apart.
    pub palette: Palette,
}

impl Dashboard<'_> {
    /// Rows that it fills of `most`, at this width.
    pub fn height(&self, width: u16, most: u16) -> u16 {
        Layout::new(self, width, most).height()
    }
}

impl Widget for Dashboard<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        let area = area.intersection(buf.area);
        Layout::new(&self, area.width, area.height).render(&self, area, buf);
    }
}

/// Who gets which rows.
struct Layout<'a> {
    /// Header, progress and numbers, one row each.
    lines: Vec<Line<'a>>,
    /// Whether an empty row follows the lines.
    gap: u16,
    heat: Option<(HeatMap<'a>, u16)>,
    chart: u16,
    /// Whether the chart stands to the left of the heat map, not below it.
    beside: bool,
}

impl<'a> Layout<'a> {
    fn new(board: &Dashboard<'a>, width: u16, height: u16) -> Self {
        let Dashboard { state, palette } = *board;
        let mut lines = Vec::new();
        if height >= 3 {
            lines.push(top::header(state, width));
        }
        if height >= 1 {
            lines.push(top::progress(state, palette, width));
        }
        let rest = height - lines.len() as u16;
        let heat = HeatMap::fit(state, palette, width);
        let least = if heat.is_some() { LEAST_HEAT } else { 0 };
        let most = if rest > least { rest - least } else { rest };
        let numbers = numbers::lines(state, palette, width);
        lines.extend(numbers.into_iter().take(most.into()));
        let mut layout = Self {
            lines,
            gap: 0,
            heat: None,
            chart: 0,
            beside: false,
        };
        layout.share(heat, width, height);
        layout
    }

    /// Shares the rows below the lines between the heat map and the chart.
    fn share(&mut self, heat: Option<HeatMap<'a>>, width: u16, height: u16) {
        let mut room = height - self.lines.len() as u16;
        self.gap = u16::from(room > 8);
        room -= self.gap;
        let chart = |room: u16| if room < CHART.0 { 0 } else { room.min(CHART.1) };
        let Some(mut heat) = heat else {
            self.chart = chart(room);
            return;
        };
        let wanted = heat.natural_rows();
        let rows = if room >= CHART.0 && heat.make_room(width, CHART_WIDTH + 2) {
            self.beside = true;
            let rows = heat.take(room);
            self.chart = chart(rows.max(CHART.0));
            rows
        } else {
            // A chart below, if it leaves most of the map.
            let left = room.saturating_sub(wanted.min(ENOUGH_HEAT) + 1);
            self.chart = chart(room.saturating_sub(wanted + 1).max(left.min(CHART.0)));
            heat.take(if self.chart > 0 {
                room - self.chart - 1
            } else {
                room
            })
        };
        self.heat = (rows > 0).then_some((heat, rows));
    }

    fn body(&self) -> u16 {
        let heat = self.heat.as_ref().map_or(0, |(_, rows)| *rows);
        match self.beside {
            true => heat.max(self.chart),
            false if heat > 0 && self.chart > 0 => heat + 1 + self.chart,
            false => heat + self.chart,
        }
    }

    fn height(&self) -> u16 {
        let body = self.body();
        let gap = if body > 0 { self.gap } else { 0 };
        self.lines.len() as u16 + gap + body
    }

    fn render(&self, board: &Dashboard<'_>, area: Rect, buf: &mut Buffer) {
        for (line, row) in self.lines.iter().zip(area.rows()) {
            line.render(row, buf);
        }
        let above = self.lines.len() as u16 + self.gap;
        let (mut heat, mut chart) = (below(area, above), below(area, above));
        if self.beside {
            let width = self.heat.as_ref().map_or(0, |(heat, _)| heat.width());
            chart.width = area.width.saturating_sub(width + 2);
            heat = Rect {
                x: area.right().saturating_sub(width),
                width,
                ..heat
            };
        } else if let Some((_, rows)) = &self.heat {
            chart = below(chart, rows + 1);
        }
        if let Some((map, rows)) = &self.heat {
            heat.height = heat.height.min(*rows);
            map.render(heat, buf);
        }
        chart.height = chart.height.min(self.chart);
        LossChart::new(board.state, board.palette).render(chart, buf);
    }
}

fn below(area: Rect, rows: u16) -> Rect {
    let rows = rows.min(area.height);
    Rect {
        y: area.y + rows,
        height: area.height - rows,
        ..area
    }
}
