//! The first two rows: what runs, and how far it is.

use ratatui::text::{Line, Span};

use super::{
    super::{
        palette::Palette,
        state::{LiveState, Phase},
    },
    text::{BOLD, DIM, cut, elapsed, width},
};
use crate::{observe::plain::duration, plural::counted};

/// Columns of a progress bar, at least.
const LEAST_BAR: usize = 8;

/// What runs, on what, and what it does now.
pub(super) fn header(state: &LiveState, columns: u16) -> Line<'_> {
    let columns = usize::from(columns);
    let long = doing(state);
    let phase = if width(&long) + 12 <= columns {
        long
    } else {
        format!("{}/{}", state.steps(), state.start.steps)
    };
    let room = columns.saturating_sub(width(&phase) + 2);
    let title = cut(&state.labels.title, room);
    let mut spans = vec![Span::styled(title, BOLD)];
    let device = format!("  {}", state.labels.device);
    if spans[0].width() + width(&device) <= room {
        spans.push(Span::styled(device, DIM));
    }
    let used: usize = spans.iter().map(Span::width).sum();
    spans.push(
        " ".repeat(columns.saturating_sub(used + width(&phase)))
            .into(),
    );
    spans.push(Span::styled(phase, BOLD));
    Line::from(spans)
}

fn doing(state: &LiveState) -> String {
    let (step, total) = (state.steps(), state.start.steps);
    match state.phase {
        Phase::Starting => format!("starting, {}", counted(total, "step")),
        Phase::Training => format!("step {step} of {total}"),
        Phase::Evaluating(done, batches) => {
            format!("evaluating {done} of {batches}, step {step} of {total}")
        }
        Phase::Finished => format!("done, {}", counted(step, "step")),
        Phase::Stopped => format!("stopped at step {step} of {total}"),
    }
}

/// A bar, and as much about time as fits beside it.
pub(super) fn progress(state: &LiveState, palette: Palette, columns: u16) -> Line<'static> {
    let columns = usize::from(columns);
    let percent = format!("{:>3.0} %", (state.share() * 100.0).floor());
    let passed = elapsed(state.elapsed());
    let mut texts = match (state.phase, state.seconds_left()) {
        (Phase::Finished, _) => vec![format!("{percent}  {passed}")],
        (Phase::Stopped, _) | (_, None) => vec![format!("{percent}  {passed} elapsed")],
        (_, Some(left)) => {
            let left = duration(left);
            let long = format!("{percent}  {passed} elapsed, {left} left");
            vec![long, format!("{percent}  {left} left")]
        }
    };
    texts.push(percent);
    let fits = |text: &String| LEAST_BAR + 1 + width(text) <= columns;
    let Some(text) = texts.into_iter().find(fits) else {
        let bar = bar(state.share(), columns, palette);
        return Line::styled(bar, palette.bar());
    };
    let bar = bar(state.share(), columns - width(&text) - 1, palette);
    Line::from(vec![
        Span::styled(bar, palette.bar()),
        Span::raw(" "),
        Span::raw(text),
    ])
}

/// `share` of `columns` columns, to an eighth of a column where the font has that.
fn bar(share: f64, columns: usize, palette: Palette) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = (share.clamp(0.0, 1.0) * columns as f64 * 8.0) as usize;
    let (full, part) = (eighths / 8, eighths % 8);
    let (mut text, rest) = match palette {
        Palette::Colour => ("█".repeat(full) + EIGHTHS[part], "·"),
        Palette::Marks => ("#".repeat(full), "."),
    };
    let used = width(&text);
    text.extend(std::iter::repeat_n(rest, columns.saturating_sub(used)));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_fill_to_the_eighth() {
        let bars = [0.0, 0.3, 0.5, 1.0].map(|share| bar(share, 6, Palette::Colour));
        assert_eq!(bars, ["······", "█▊····", "███···", "██████"]);
        assert_eq!(bar(0.3, 6, Palette::Marks), "#.....");
        assert_eq!(bar(0.5, 0, Palette::Colour), "");
    }
}
