//! [`Painter`]: a display that stays in place at the end of a terminal's output.
//!
//! It needs nothing from the terminal but to move up, to erase and to colour, and it changes no
//! mode: no alternate screen, no raw mode, no hidden cursor. Whenever the process ends, and
//! however, the terminal is as it was, the display is where it was painted, and the cursor stands
//! below it.

use std::fmt::Write;

use ratatui::{
    buffer::{Buffer, Cell},
    style::{Color, Modifier},
    text::Span,
};

/// Every so many frames all rows are painted, in case something else has written over them.
const WHOLE_EVERY: usize = 16;

/// The rows that are on the screen now.
#[derive(Debug, Default)]
pub(super) struct Painter {
    rows: Vec<Row>,
    /// Columns and rows of the terminal when they were painted.
    size: (u16, u16),
    frames: usize,
}

/// A row as text with its colours, and its columns.
#[derive(Debug, Default, PartialEq, Eq)]
struct Row {
    text: String,
    columns: u16,
}

impl Painter {
    /// What to write so that the first `height` rows of `buffer` replace the last frame on a
    /// terminal of `size`, with the lines `above` left above it for good. A terminal that `reflows`
    /// wraps and joins lines when its width changes.
    pub(super) fn frame(
        &mut self,
        buffer: &Buffer,
        height: u16,
        above: &[String],
        size: (u16, u16),
        reflows: bool,
    ) -> String {
        let rows: Vec<Row> = (0..height).map(|y| Row::new(buffer, y)).collect();
        let resized = size != self.size;
        let whole = resized
            || !above.is_empty()
            || rows.len() < self.rows.len()
            || self.frames.is_multiple_of(WHOLE_EVERY);
        let mut out = String::from(BEGIN);
        match self.height_on(size.0, reflows) {
            0 => {}
            up => out += &format!("\x1b[{up}A"),
        }
        if whole {
            out += "\x1b[J";
            for line in above {
                out += line;
                out += "\r\n";
            }
        }
        for (index, row) in rows.iter().enumerate() {
            if whole {
                out += &row.text;
            } else if self.rows.get(index) != Some(row) {
                out += &row.text;
                if row.columns < size.0 {
                    out += "\x1b[K";
                }
            }
            out += "\r\n";
        }
        out += END;
        self.rows = rows;
        self.size = size;
        self.frames += 1;
        out
    }

    /// Rows between the top of the last frame and the cursor, on a terminal of this width.
    fn height_on(&self, columns: u16, reflows: bool) -> usize {
        let rows = self.rows.iter().map(|row| match reflows {
            true => usize::from(row.columns.max(1).div_ceil(columns.max(1))),
            false => 1,
        });
        rows.sum()
    }
}

/// Between these, terminals that know them show nothing; others ignore them.
const BEGIN: &str = "\x1b[?2026h\r";
const END: &str = "\x1b[?2026l";

impl Row {
    fn new(buffer: &Buffer, y: u16) -> Self {
        let (left, right) = (buffer.area.left(), buffer.area.right());
        let cells: Vec<&Cell> = (left..right)
            .filter_map(|x| buffer.cell((x, buffer.area.top() + y)))
            .collect();
        let blank = |cell: &Cell| *cell == Cell::EMPTY || *cell == Cell::new(" ");
        let end = cells.iter().rposition(|cell| !blank(cell));
        let mut row = Self::default();
        let mut style = Look::default();
        let mut hidden = 0; // Cells behind a wide letter.
        for cell in &cells[..end.map_or(0, |end| end + 1)] {
            row.columns += 1;
            if hidden > 0 {
                hidden -= 1;
                continue;
            }
            let look = Look(cell.fg, cell.bg, cell.modifier);
            if look != style {
                row.text += &look.code();
                style = look;
            }
            row.text += cell.symbol();
            hidden = Span::raw(cell.symbol()).width().saturating_sub(1);
        }
        if style != Look::default() {
            row.text += &Look::default().code();
        }
        row
    }
}

/// Colours and decoration of a cell.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Look(Color, Color, Modifier);

impl Look {
    /// The sequence that sets exactly this look.
    fn code(self) -> String {
        let Self(fg, bg, modifier) = self;
        let mut code = String::from("\x1b[0");
        let decorations = [
            (Modifier::BOLD, ";1"),
            (Modifier::DIM, ";2"),
            (Modifier::ITALIC, ";3"),
            (Modifier::UNDERLINED, ";4"),
            (Modifier::SLOW_BLINK, ";5"),
            (Modifier::RAPID_BLINK, ";6"),
            (Modifier::REVERSED, ";7"),
            (Modifier::HIDDEN, ";8"),
            (Modifier::CROSSED_OUT, ";9"),
        ];
        for (_, number) in decorations.iter().filter(|(m, _)| modifier.contains(*m)) {
            code += number;
        }
        colour(&mut code, fg, 30);
        colour(&mut code, bg, 40);
        code + "m"
    }
}

/// Adds the number of a colour; `base` is 30 for text and 40 for the background.
fn colour(code: &mut String, colour: Color, base: u16) {
    let named = match colour {
        Color::Reset => return,
        Color::Black => 0,
        Color::Red => 1,
        Color::Green => 2,
        Color::Yellow => 3,
        Color::Blue => 4,
        Color::Magenta => 5,
        Color::Cyan => 6,
        Color::Gray => 7,
        Color::DarkGray => 60,
        Color::LightRed => 61,
        Color::LightGreen => 62,
        Color::LightYellow => 63,
        Color::LightBlue => 64,
        Color::LightMagenta => 65,
        Color::LightCyan => 66,
        Color::White => 67,
        Color::Indexed(index) => {
            let _ = write!(code, ";{};5;{index}", base + 8);
            return;
        }
        Color::Rgb(red, green, blue) => {
            let _ = write!(code, ";{};2;{red};{green};{blue}", base + 8);
            return;
        }
    };
    let _ = write!(code, ";{}", base + named);
}

#[cfg(test)]
mod tests {
    use ratatui::style::Style;

    use super::*;

    fn frame(painter: &mut Painter, lines: &[&str], size: (u16, u16)) -> String {
        let buffer = Buffer::with_lines(lines.iter().copied());
        painter.frame(&buffer, lines.len() as u16, &[], size, true)
    }

    #[test]
    fn only_changed_rows_are_painted_again() {
        let mut painter = Painter::default();
        let first = frame(&mut painter, &["loss 3.0", "ranks"], (20, 10));
        assert_eq!(first, "\x1b[?2026h\r\x1b[Jloss 3.0\r\nranks\r\n\x1b[?2026l");
        let second = frame(&mut painter, &["loss 2.9", "ranks"], (20, 10));
        assert_eq!(
            second,
            "\x1b[?2026h\r\x1b[2Aloss 2.9\x1b[K\r\n\r\n\x1b[?2026l"
        );
    }

    #[test]
    fn lines_above_stay() {
        let mut painter = Painter::default();
        frame(&mut painter, &["a"], (20, 10));
        let buffer = Buffer::with_lines(["b"]);
        let text = painter.frame(&buffer, 1, &["news".into()], (20, 10), true);
        assert_eq!(text, "\x1b[?2026h\r\x1b[1A\x1b[Jnews\r\nb\r\n\x1b[?2026l");
    }

    #[test]
    fn wrapped_rows_are_counted_on_a_narrower_terminal() {
        let mut painter = Painter::default();
        frame(&mut painter, &["0123456789", "01"], (10, 10));
        assert_eq!(painter.height_on(4, true), 4);
        assert_eq!(painter.height_on(4, false), 2);
        assert_eq!(painter.height_on(40, true), 2);
    }

    #[test]
    fn rows_keep_their_looks_and_wide_letters() {
        let mut buffer = Buffer::empty(ratatui::layout::Rect::new(0, 0, 10, 1));
        buffer.set_string(0, 0, "模a", Style::new().fg(Color::Indexed(24)));
        buffer.set_string(3, 0, "b", Style::new().add_modifier(Modifier::BOLD));
        let row = Row::new(&buffer, 0);
        let text = "\x1b[0;38;5;24m模a\x1b[0;1mb\x1b[0m";
        assert_eq!((row.text.as_str(), row.columns), (text, 4));
        let look = Look(Color::LightRed, Color::Rgb(1, 2, 3), Modifier::UNDERLINED);
        assert_eq!(look.code(), "\x1b[0;4;91;48;2;1;2;3m");
    }
}
