//! Numbers as people say them, and lines that fit.

use std::time::Duration;

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use crate::observe::plain::duration;

pub(super) const DIM: Style = Style::new().add_modifier(Modifier::DIM);
pub(super) const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);

/// `950`, `48.2 k`, `4.88 M`.
pub(super) fn count(value: usize) -> String {
    let value = value as f64;
    match value {
        value if value < 1e4 => format!("{value}"),
        value if value < 1e6 => format!("{:.1} k", value / 1e3),
        value if value < 1e9 => format!("{:.2} M", value / 1e6),
        _ => format!("{:.2} G", value / 1e9),
    }
}

/// `512 MB`, `1.52 GB`, with powers of ten.
pub(super) fn bytes(value: u64) -> String {
    let value = value as f64;
    if value < 1e9 {
        format!("{:.0} MB", value / 1e6)
    } else {
        format!("{:.2} GB", value / 1e9)
    }
}

/// Time that has passed, as [`duration`] says it.
pub(super) fn elapsed(time: Duration) -> String {
    duration(time.as_secs_f64())
}

/// Columns of a text.
pub(super) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// The part of `text` that fits in `columns` columns.
pub(super) fn clip(text: &str, columns: usize) -> String {
    let mut kept = String::new();
    for letter in text.chars() {
        kept.push(letter);
        if width(&kept) > columns {
            kept.pop();
            break;
        }
    }
    kept
}

/// `text` in at most `columns` columns, its end replaced by `…` if need be.
pub(super) fn cut(text: &str, columns: usize) -> String {
    match columns {
        0 => String::new(),
        _ if width(text) <= columns => text.to_owned(),
        _ => clip(text, columns - 1) + "…",
    }
}

/// Pieces in as many lines of `columns` columns as they need, two spaces between them.
pub(super) fn flow<'a>(pieces: Vec<Vec<Span<'a>>>, columns: u16) -> Vec<Line<'a>> {
    let columns = usize::from(columns);
    let mut lines: Vec<Line<'a>> = Vec::new();
    for piece in pieces {
        let size: usize = piece.iter().map(Span::width).sum();
        match lines.last_mut() {
            Some(line) if line.width() + 3 + size <= columns => {
                line.push_span("   ");
                line.extend(piece);
            }
            _ => lines.push(Line::from(piece)),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let counts = [950, 48_230, 4_880_000, 7_000_000_000].map(count);
        assert_eq!(counts, ["950", "48.2 k", "4.88 M", "7.00 G"]);
        assert_eq!(
            [512_400_000, 1_523_000_000].map(bytes),
            ["512 MB", "1.52 GB"]
        );
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(cut("SmolLM2", 7), "SmolLM2");
        assert_eq!(cut("SmolLM2-135M", 7), "SmolLM…");
        assert_eq!(cut("模型模型", 5), "模型…");
        assert_eq!(cut("ab", 1), "…");
        assert_eq!(cut("ab", 0), "");
    }

    #[test]
    fn pieces_flow() {
        let piece = |text: &'static str| vec![Span::raw(text)];
        let lines = flow(vec![piece("aaaa"), piece("bbbb"), piece("cccc")], 11);
        let texts: Vec<String> = lines.iter().map(Line::to_string).collect();
        assert_eq!(texts, ["aaaa   bbbb", "cccc"]);
    }
}
