//! The loss so far, training and evaluation.

use ratatui::{
    buffer::Buffer,
    layout::Rect,
    style::Style,
    text::{Line, Span},
    widgets::{Axis, Chart, Dataset, GraphType, Widget},
};

use super::{
    super::{palette::Palette, state::LiveState},
    text::DIM,
};

/// A chart of the losses over steps.
pub(super) struct LossChart<'a> {
    state: &'a LiveState,
    palette: Palette,
}

impl<'a> LossChart<'a> {
    pub(super) fn new(state: &'a LiveState, palette: Palette) -> Self {
        Self { state, palette }
    }

    fn title(&self) -> Line<'static> {
        let (loss, eval) = match self.palette {
            Palette::Colour => ("⠒⠒", "•"),
            Palette::Marks => ("..", "o"),
        };
        Line::from(vec![
            Span::styled(loss, self.palette.loss()),
            Span::styled(" training loss   ", DIM),
            Span::styled(eval, self.palette.eval()),
            Span::styled(" evaluation", DIM),
        ])
    }
}

impl Widget for LossChart<'_> {
    fn render(self, area: Rect, buf: &mut Buffer) {
        if area.height < 2 || area.width < 16 {
            return;
        }
        self.title().render(area, buf);
        let bins = usize::from(area.width) * 2; // A column has two braille dots.
        let losses = binned(&self.state.losses, bins);
        let evals: Vec<(f64, f64)> = self.state.evals.iter().map(|e| (e.0 as f64, e.1)).collect();
        let Some(range) = Range::of(losses.iter().chain(&evals), self.state.steps()) else {
            return;
        };
        let training = Dataset::default()
            .data(&losses)
            .marker(self.palette.loss_marker())
            .graph_type(GraphType::Line)
            .style(self.palette.loss());
        let evaluation = Dataset::default()
            .data(&evals)
            .marker(self.palette.eval_marker())
            .graph_type(GraphType::Scatter)
            .style(self.palette.eval());
        let axis = |bounds: [f64; 2], labels: Vec<String>| {
            let labels = labels.into_iter().map(|label| Span::styled(label, DIM));
            Axis::default().bounds(bounds).labels(labels).style(DIM)
        };
        Chart::new(vec![training, evaluation])
            .style(Style::new())
            .legend_position(None)
            .x_axis(axis(range.steps, range.step_labels()))
            .y_axis(axis(range.losses, range.loss_labels()))
            .render(super::below(area, 1), buf);
    }
}

/// What the axes show.
struct Range {
    steps: [f64; 2],
    losses: [f64; 2],
}

impl Range {
    /// Steps up to `last` and all of the finite losses, with some room; none if there are none.
    fn of<'p>(points: impl Iterator<Item = &'p (f64, f64)>, last: usize) -> Option<Self> {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for (_, loss) in points.filter(|point| point.1.is_finite()) {
            low = low.min(*loss);
            high = high.max(*loss);
        }
        if low > high {
            return None;
        }
        let room = ((high - low) * 0.05).max(0.005);
        Some(Self {
            steps: [0.0, last.max(1) as f64],
            losses: [low - room, high + room],
        })
    }

    fn step_labels(&self) -> Vec<String> {
        self.steps.iter().map(|step| format!("{step:.0}")).collect()
    }

    fn loss_labels(&self) -> Vec<String> {
        let [low, high] = self.losses;
        let digits = if high - low < 0.1 { 4 } else { 2 };
        let label = |loss: f64| format!("{loss:.digits$}");
        vec![label(low), label((low + high) / 2.0), label(high)]
    }
}

/// The mean point of each of at most `bins` equal runs of points.
fn binned(points: &[(f64, f64)], bins: usize) -> Vec<(f64, f64)> {
    let size = points.len().div_ceil(bins.max(1)).max(1);
    let mean = |run: &[(f64, f64)]| {
        let sum = run
            .iter()
            .fold((0.0, 0.0), |sum, point| (sum.0 + point.0, sum.1 + point.1));
        (sum.0 / run.len() as f64, sum.1 / run.len() as f64)
    };
    points.chunks(size).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bins_are_means() {
        let points: Vec<(f64, f64)> = (1..=5).map(|x| (f64::from(x), f64::from(x * 10))).collect();
        assert_eq!(binned(&points, 10), points);
        assert_eq!(binned(&points, 3), [(1.5, 15.0), (3.5, 35.0), (5.0, 50.0)]);
        assert!(binned(&[], 3).is_empty());
    }

    #[test]
    fn the_range_holds_every_finite_point() {
        assert!(Range::of([].iter(), 0).is_none());
        assert!(Range::of([(1.0, f64::NAN)].iter(), 1).is_none());
        let range = Range::of([(0.0, 3.0), (8.0, 2.0)].iter(), 8).unwrap();
        assert_eq!(range.loss_labels(), ["1.95", "2.50", "3.05"]);
        assert_eq!(range.step_labels(), ["0", "8"]);
        let flat = Range::of([(1.0, 3.0)].iter(), 1).unwrap();
        assert!(flat.losses[0] < 3.0 && flat.losses[1] > 3.0);
    }
}
