//! Numbers as people read them.

use crate::plural::plural;

/// `1234567` as `1,234,567`.
pub(crate) fn grouped(value: usize) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in decimal units, three digits: `412 MB`, `1.63 GB`.
pub(crate) fn bytes(value: u64) -> String {
    let value = value as f64;
    let (unit, name) = match value {
        v if v >= 1e9 => (1e9, "GB"),
        v if v >= 1e6 => (1e6, "MB"),
        v if v >= 1e3 => (1e3, "kB"),
        _ => (1.0, "B"),
    };
    let scaled = value / unit;
    let digits = match scaled {
        s if unit == 1.0 || s >= 100.0 => 0,
        s if s >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$} {name}")
}

/// A change with its sign, a true minus: `+3`, `−6`, `0`.
pub(crate) fn signed(value: i64) -> String {
    match value {
        0 => "0".into(),
        value if value < 0 => format!("−{}", grouped(value.unsigned_abs() as usize)),
        value => format!("+{}", grouped(value as usize)),
    }
}

/// Two means with one digit after the point, or with as many as it takes, up to three, to tell
/// them apart.
pub(crate) fn means(before: f64, after: f64) -> (String, String) {
    let shown = |digits: usize| (format!("{before:.digits$}"), format!("{after:.digits$}"));
    let digits = (1..3).find(|digits| {
        let (before, after) = shown(*digits);
        before != after
    });
    if before == after {
        return shown(1);
    }
    shown(digits.unwrap_or(3))
}

/// Seconds of a step: `0.75 s`, `12.4 s`, `8.2 ms`.
pub(crate) fn step_seconds(seconds: f64) -> String {
    match seconds {
        s if s < 0.1 => format!("{:.1} ms", s * 1e3),
        s if s < 10.0 => format!("{s:.2} s"),
        s => format!("{s:.1} s"),
    }
}

/// `1 rank`, `2 ranks`.
pub(crate) fn counted(count: usize, noun: &str) -> String {
    format!("{} {noun}{}", grouped(count), plural(count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_by_thousands() {
        let shown = [0, 12, 999, 1000, 163_152, 1_234_567].map(grouped);
        assert_eq!(
            shown,
            ["0", "12", "999", "1,000", "163,152", "1,234,567"].map(String::from)
        );
    }

    #[test]
    fn bytes_have_three_digits() {
        let shown = [0, 900, 1_500, 41_230_000, 412_300_000, 1_630_000_000].map(bytes);
        assert_eq!(
            shown,
            ["0 B", "900 B", "1.50 kB", "41.2 MB", "412 MB", "1.63 GB"].map(String::from)
        );
    }

    #[test]
    fn signs_and_plurals() {
        assert_eq!(signed(-6), "−6");
        assert_eq!(signed(1200), "+1,200");
        assert_eq!(signed(0), "0");
        assert_eq!(counted(1, "rank"), "1 rank");
        assert_eq!(counted(0, "rank"), "0 ranks");
    }

    #[test]
    fn means_that_differ_are_shown_to_differ() {
        assert_eq!(means(8.0, 11.0), ("8.0".into(), "11.0".into()));
        assert_eq!(means(8.0, 8.03), ("8.00".into(), "8.03".into()));
        assert_eq!(means(8.0, 8.0), ("8.0".into(), "8.0".into()));
    }

    #[test]
    fn seconds_of_a_step() {
        let shown = [0.0082, 0.75, 12.41].map(step_seconds);
        assert_eq!(shown, ["8.2 ms", "0.75 s", "12.4 s"].map(String::from));
    }
}
