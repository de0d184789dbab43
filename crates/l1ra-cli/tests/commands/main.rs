//! The commands of `l1ra` as a user runs them, on the repository's model and a handful of steps.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod bench;
mod browser;
mod compare;
mod devices;
mod eval;
mod export;
mod generate;
mod inspect;
mod merge;
mod plan;
mod report;
mod run;
mod train;

/// `text` with the values of a machine left out: what follows each of `names` up to the line's end.
fn masked(text: &str, names: &[&str]) -> String {
    let mask = |line: &str| {
        let name = names.iter().find(|name| line.starts_with(**name));
        name.map_or(line.to_string(), |name| format!("{name}…"))
    };
    text.lines().map(mask).collect::<Vec<_>>().join("\n")
}
