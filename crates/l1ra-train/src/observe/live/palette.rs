//! Colours that everyone can tell apart, and marks where there are none.

use ratatui::{
    style::{Color, Modifier, Style},
    symbols::Marker,
};

use super::grid::RankCell;

/// How a display tells things apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Palette {
    /// By colours of the 256-colour palette. Ranks that grew are blue and ranks that shrank are
    /// orange, as in the report, which the common colour-blindnesses keep apart; text has its own contrast on both,
    /// so that light and dark terminals will do.
    Colour,
    /// By `+` and `-`; bold and reversed text is the only decoration.
    Marks,
}

impl Palette {
    /// The palette for a terminal, from the values of the environment variables `NO_COLOR` (set
    /// and not empty: no colours) and `TERM` (consoles that have eight colours and few glyphs).
    pub fn choose(no_color: Option<&str>, term: Option<&str>) -> Self {
        let poor = |term: &str| {
            let prefixes = ["linux", "vt1", "vt2", "vt3", "vt4", "ansi", "cons", "dumb"];
            prefixes.iter().any(|prefix| term.starts_with(prefix))
        };
        if no_color.is_some_and(|value| !value.is_empty()) || term.is_some_and(poor) {
            Self::Marks
        } else {
            Self::Colour
        }
    }

    /// A cell of the heat map; `fresh` while the last update is news.
    pub(super) fn cell(self, cell: RankCell, fresh: bool) -> Style {
        let style = match self {
            Self::Colour => shade(cell.change() / cell.start.max(1.0)),
            Self::Marks => Style::new(),
        };
        match self {
            _ if !(fresh && cell.moved) => style,
            Self::Colour => style.add_modifier(Modifier::BOLD | Modifier::UNDERLINED),
            Self::Marks => style.add_modifier(Modifier::BOLD | Modifier::REVERSED),
        }
    }

    /// What follows the number in a cell.
    pub(super) fn mark(self, cell: RankCell) -> char {
        match self {
            Self::Marks if cell.change() > 0.0 => '+',
            Self::Marks if cell.change() < 0.0 => '-',
            _ => ' ',
        }
    }

    /// Whether a heat map's legend has something to explain with colours.
    pub(super) fn shades(self) -> Option<[Style; 2]> {
        match self {
            Self::Colour => Some([shade(-0.5), shade(0.5)]),
            Self::Marks => None,
        }
    }

    pub(super) fn bar(self) -> Style {
        self.fg(38)
    }

    pub(super) fn loss(self) -> Style {
        self.fg(38)
    }

    pub(super) fn eval(self) -> Style {
        self.fg(208).add_modifier(Modifier::BOLD)
    }

    /// The training loss in the chart: dots that make a line, where the font has them.
    pub(super) fn loss_marker(self) -> Marker {
        match self {
            Self::Colour => Marker::Braille,
            Self::Marks => Marker::Custom('.'),
        }
    }

    pub(super) fn eval_marker(self) -> Marker {
        match self {
            Self::Colour => Marker::Dot,
            Self::Marks => Marker::Custom('o'),
        }
    }

    fn fg(self, index: u8) -> Style {
        match self {
            Self::Colour => Style::new().fg(Color::Indexed(index)),
            Self::Marks => Style::new(),
        }
    }
}

/// The colour of a change, as a share of the rank at the start: three steps to either side.
fn shade(change: f64) -> Style {
    let [white, black] = [231, 16];
    let (back, text) = match change {
        change if change < -0.6 => (214, black),
        change if change < -0.25 => (172, black),
        change if change < 0.0 => (94, white),
        change if change > 0.6 => (39, black),
        change if change > 0.25 => (31, white),
        change if change > 0.0 => (24, white),
        _ => return Style::new(),
    };
    Style::new()
        .bg(Color::Indexed(back))
        .fg(Color::Indexed(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colours_unless_told_or_too_few() {
        use Palette::{Colour, Marks};
        let cases = [
            (None, Some("xterm-256color"), Colour),
            (None, None, Colour),
            (Some(""), Some("tmux"), Colour),
            (Some("1"), Some("xterm-256color"), Marks),
            (Some("0"), None, Marks),
            (None, Some("linux"), Marks),
            (None, Some("vt100"), Marks),
        ];
        for (no_color, term, expected) in cases {
            assert_eq!(
                Palette::choose(no_color, term),
                expected,
                "{no_color:?} {term:?}"
            );
        }
    }

    #[test]
    fn marks_need_no_colour() {
        let cell = |now, moved| RankCell {
            start: 16.0,
            now,
            moved,
        };
        let marks = [12.0, 16.0, 16.04, 20.0].map(|now| Palette::Marks.mark(cell(now, false)));
        assert_eq!(marks, ['-', ' ', ' ', '+']);
        let style = Palette::Marks.cell(cell(12.0, true), true);
        assert_eq!((style.fg, style.bg), (None, None));
        assert_eq!(style.add_modifier, Modifier::BOLD | Modifier::REVERSED);
        assert_eq!(Palette::Marks.cell(cell(12.0, true), false), Style::new());
    }

    #[test]
    fn shades_grow_with_the_change() {
        let back = |now| {
            Palette::Colour
                .cell(
                    RankCell {
                        start: 16.0,
                        now,
                        moved: false,
                    },
                    false,
                )
                .bg
        };
        let shades: Vec<_> = [2.0, 10.0, 15.0, 16.0, 17.0, 22.0, 40.0].map(back).to_vec();
        let indexed = |index| Some(Color::Indexed(index));
        let expected = [214, 172, 94].map(indexed).into_iter();
        let expected = expected.chain([None]).chain([24, 31, 39].map(indexed));
        assert_eq!(shades, expected.collect::<Vec<_>>());
    }
}
