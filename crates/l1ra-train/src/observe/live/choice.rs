//! [`terminal_observer`]: a live display where it belongs, plain lines elsewhere.

use std::{
    env,
    io::{self, IsTerminal},
};

use super::{Live, RunLabels};
use crate::observe::{Observer, Plain};

/// Whether a live display belongs here: on a terminal that can move its cursor, outside of
/// continuous integration, unless plain lines were asked for.
///
/// `ci` and `term` are the values of the environment variables `CI` (unset, empty or `false` for
/// a person) and `TERM` (`dumb` cannot move its cursor).
pub fn is_live(is_terminal: bool, ci: Option<&str>, term: Option<&str>, plain: bool) -> bool {
    let person = ci.is_none_or(|ci| ci.is_empty() || ci.eq_ignore_ascii_case("false"));
    is_terminal && person && term != Some("dumb") && !plain
}

/// What shows a run to the user on standard error: [`Live`] if [`is_live`] says so, `lines`
/// otherwise, or if `plain` is asked for.
pub fn terminal_observer(lines: Plain, labels: RunLabels, plain: bool) -> Box<dyn Observer> {
    let variable = |name: &str| env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (ci, term) = (variable("CI"), variable("TERM"));
    let is_terminal = io::stderr().is_terminal();
    if is_live(is_terminal, ci.as_deref(), term.as_deref(), plain) && understands_sequences() {
        Box::new(Live::new(labels))
    } else {
        Box::new(lines)
    }
}

/// Windows consoles understand escape sequences once they are asked to.
#[cfg(windows)]
fn understands_sequences() -> bool {
    ratatui::crossterm::ansi_support::supports_ansi()
}

#[cfg(not(windows))]
fn understands_sequences() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_for_a_person_at_a_terminal() {
        let term = Some("xterm-256color");
        let cases = [
            (true, None, term, false, true),
            (true, Some(""), term, false, true),
            (true, Some("false"), term, false, true),
            (true, Some("False"), None, false, true),
            (false, None, term, false, false),
            (true, Some("true"), term, false, false),
            (true, Some("1"), term, false, false),
            (true, None, Some("dumb"), false, false),
            (true, None, term, true, false),
        ];
        for (is_terminal, ci, term, plain, expected) in cases {
            let live = is_live(is_terminal, ci, term, plain);
            assert_eq!(live, expected, "{is_terminal} {ci:?} {term:?} {plain}");
        }
    }
}
