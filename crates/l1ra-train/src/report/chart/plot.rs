//! [`Plot`]: axes, and curves between them.

use crate::report::{
    chart::{
        PlotData, Series, escape,
        scale::{Scale, tick_names},
    },
    curve::Point,
};

/// A plot under construction.
pub(crate) struct Plot {
    x: Scale,
    y: Scale,
    body: String,
    series: Vec<Series>,
}

/// Where a plot stands in its chart.
#[derive(Clone, Copy)]
pub(crate) struct Area {
    pub(crate) left: f64,
    pub(crate) top: f64,
    pub(crate) right: f64,
    pub(crate) bottom: f64,
}

/// A place as text: a tenth of a unit is finer than a screen.
pub(crate) fn place(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

/// Text of a class at a place.
pub(crate) fn text(class: &str, x: f64, y: f64, content: &str) -> String {
    let (x, y) = (place(x), place(y));
    format!(
        "<text class=\"{class}\" x=\"{x}\" y=\"{y}\">{}</text>",
        escape(content)
    )
}

/// A title with its unit, at the top of a chart.
pub(crate) fn title(x: f64, y: f64, name: &str, unit: &str) -> String {
    let (x, y) = (place(x), place(y));
    let (name, unit) = (escape(name), escape(unit));
    format!(
        "<text class=\"lc-title\" x=\"{x}\" y=\"{y}\">{name}\
         <tspan class=\"lc-unit\" dx=\"8\">{unit}</tspan></text>"
    )
}

impl Plot {
    /// Axes over these values, with grid lines and their numbers; `unit` is what `x` counts.
    pub(crate) fn new(area: Area, x: [f64; 2], y: [f64; 2], whole: bool, unit: &str) -> Self {
        let mut plot = Self::bare(area, x, y);
        let columns = ((area.right - area.left) / 70.0).clamp(2.0, 8.0) as usize;
        let ticks = plot.x.ticks(columns, true);
        let names = tick_names(&ticks);
        let ticks: Vec<(f64, String)> = ticks.into_iter().zip(names).collect();
        plot.draw_axes(area, whole, &ticks, unit);
        plot
    }

    /// The same with the ticks of `x` as they are given: place and name.
    pub(crate) fn with_ticks(
        area: Area,
        x: [f64; 2],
        y: [f64; 2],
        ticks: &[(f64, String)],
        unit: &str,
    ) -> Self {
        let mut plot = Self::bare(area, x, y);
        plot.draw_axes(area, false, ticks, unit);
        plot
    }

    fn bare(area: Area, x: [f64; 2], y: [f64; 2]) -> Self {
        let x = [x[0], if x[1] > x[0] { x[1] } else { x[0] + 1.0 }];
        Self {
            x: Scale {
                domain: x,
                range: [area.left, area.right],
            },
            y: Scale {
                domain: y,
                range: [area.bottom, area.top],
            },
            body: String::new(),
            series: Vec::new(),
        }
    }

    fn draw_axes(&mut self, area: Area, whole: bool, x_ticks: &[(f64, String)], unit: &str) {
        let (left, right) = (place(area.left), place(area.right));
        let rows = ((area.bottom - area.top) / 40.0).clamp(2.0, 6.0) as usize;
        let ticks = self.y.ticks(rows, whole);
        for (tick, name) in ticks.iter().zip(tick_names(&ticks)) {
            let y = self.y.at(*tick);
            let at = place(y);
            self.body.push_str(&format!(
                "<path class=\"lc-grid\" d=\"M{left} {at}H{right}\"/>"
            ));
            self.body
                .push_str(&text("lc-tick lc-end", area.left - 7.0, y + 4.0, &name));
        }
        let bottom = place(area.bottom);
        self.body.push_str(&format!(
            "<path class=\"lc-axis\" d=\"M{left} {bottom}H{right}\"/>"
        ));
        for (tick, name) in x_ticks {
            let x = self.x.at(*tick);
            let (at, end) = (place(x), place(area.bottom + 4.0));
            self.body.push_str(&format!(
                "<path class=\"lc-axis\" d=\"M{at} {bottom}V{end}\"/>"
            ));
            self.body
                .push_str(&text("lc-tick lc-middle", x, area.bottom + 18.0, name));
        }
        if !unit.is_empty() {
            let middle = f64::midpoint(area.left, area.right);
            self.body.push_str(&text(
                "lc-label lc-middle",
                middle,
                area.bottom + 35.0,
                unit,
            ));
        }
    }

    fn at(&self, point: &Point) -> (f64, f64) {
        (self.x.at(point.0), self.y.at(point.1))
    }

    /// The height of a value.
    pub(crate) fn height(&self, value: f64) -> f64 {
        self.y.at(value)
    }

    /// A curve of straight lines.
    pub(crate) fn line(&mut self, class: &str, points: &[Point]) {
        let mut path = String::new();
        for (index, point) in points.iter().enumerate() {
            let (x, y) = self.at(point);
            path.push(if index == 0 { 'M' } else { 'L' });
            path.push_str(&format!("{} {}", place(x), place(y)));
        }
        self.path(class, &path);
    }

    /// A curve whose values hold until the next point, and the last one until `end`.
    pub(crate) fn steps(&mut self, class: &str, points: &[Point], end: f64) {
        let mut path = String::new();
        for (index, point) in points.iter().enumerate() {
            let (x, y) = self.at(point);
            if index == 0 {
                path.push_str(&format!("M{} {}", place(x), place(y)));
            } else {
                path.push_str(&format!("H{}V{}", place(x), place(y)));
            }
        }
        path.push_str(&format!("H{}", place(self.x.at(end))));
        self.path(class, &path);
    }

    /// Dots at points.
    pub(crate) fn dots(&mut self, class: &str, points: &[Point], radius: f64) {
        for point in points {
            let (x, y) = self.at(point);
            let (x, y) = (place(x), place(y));
            self.body.push_str(&format!(
                "<circle class=\"{class}\" cx=\"{x}\" cy=\"{y}\" r=\"{radius}\"/>"
            ));
        }
    }

    /// A level line across the plot.
    pub(crate) fn level(&mut self, class: &str, value: f64) {
        let [left, right] = self.x.range;
        let (left, right, y) = (place(left), place(right), place(self.y.at(value)));
        self.path(class, &format!("M{left} {y}H{right}"));
    }

    fn path(&mut self, class: &str, path: &str) {
        if !path.is_empty() {
            self.body
                .push_str(&format!("<path class=\"{class}\" d=\"{path}\"/>"));
        }
    }

    /// Elements of the caller's own.
    pub(crate) fn push(&mut self, elements: &str) {
        self.body.push_str(elements);
    }

    /// Tells the page's script of a curve.
    pub(crate) fn tell(&mut self, series: Series) {
        self.series.push(series);
    }

    /// The elements, and what the page's script has to know.
    pub(crate) fn finish(self) -> (String, PlotData) {
        let [left, right] = self.x.range;
        let [bottom, top] = self.y.range;
        let data = PlotData {
            area: [left, top, right, bottom],
            x: self.x.domain,
            y: self.y.domain,
            series: self.series,
        };
        (self.body, data)
    }
}

/// An entry of a legend: a class of line, and its name.
pub(crate) fn legend(x: f64, y: f64, entries: &[(&str, &str)]) -> String {
    let mut legend = String::new();
    let mut left = x;
    for (class, name) in entries {
        let (from, middle) = (place(left), place(y - 4.0));
        legend.push_str(&format!(
            "<path class=\"{class}\" d=\"M{from} {middle}h16\"/>"
        ));
        legend.push_str(&text("lc-label", left + 21.0, y, name));
        // Letters of 12 units are 6.4 wide on average.
        left += 21.0 + name.chars().count() as f64 * 6.4 + 16.0;
    }
    legend
}
