//! Numbers and tables as a person reads them.

use std::fmt;

/// A line of a description: `name` in a column of its own.
pub(super) fn line(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    value: impl fmt::Display,
) -> fmt::Result {
    writeln!(f, "{name:<13}{value}")
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in the largest decimal unit that leaves a number of 1 or more.
pub(super) fn bytes(bytes: u64) -> String {
    let units = [(1_000_000_000.0, "GB"), (1_000_000.0, "MB"), (1000.0, "kB")];
    let size = bytes as f64;
    for (unit, name) in units {
        if size >= unit {
            return format!("{:.1} {name}", size / unit);
        }
    }
    format!("{bytes} B")
}

/// Cells in columns: the first aligned to the left, the others to the right.
pub(super) fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let mut text = String::from(" ");
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if column == 0 {
                text += &format!(" {cell:<width$}");
            } else {
                text += &format!("  {cell:>width$}");
            }
        }
        writeln!(f, "{}", text.trim_end())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_sizes_have_units() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(6_302_416), "6.3 MB");
        assert_eq!(bytes(16_060_000_000), "16.1 GB");
    }
}
