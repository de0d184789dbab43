//! The help of every command, as a terminal of 100 columns shows it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod support;

use insta::assert_snapshot;
use support::Place;

const COMMANDS: [&str; 11] = [
    "train", "eval", "generate", "merge", "export", "plan", "compare", "report", "inspect",
    "devices", "bench",
];

/// What the program says to `args`, on standard output and nowhere else.
fn said(args: &[&str]) -> String {
    let ran = Place::new().run(args).well();
    assert_eq!(ran.stderr, "");
    let wide = ran.stdout.lines().find(|line| line.chars().count() > 100);
    assert_eq!(wide, None);
    // Lines that end in blanks could not be told apart in a snapshot.
    let lines = ran.stdout.lines().map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_program() {
    let help = said(&["--help"]);
    assert_snapshot!("l1ra", help);
    // Every command has a test below.
    let (_, commands) = help.split_once("Commands:\n").unwrap();
    let (commands, _) = commands.split_once("\n\n").unwrap();
    let names = commands
        .lines()
        .map(|line| line.trim_start().split(' ').next().unwrap());
    assert_eq!(
        names.collect::<Vec<_>>(),
        [&COMMANDS[..], &["help"]].concat()
    );
}

#[test]
fn every_command() {
    for command in COMMANDS {
        assert_snapshot!(command, said(&[command, "--help"]));
    }
}

/// `-h` is the same without the keys of a recipe.
#[test]
fn train_in_short() {
    assert_snapshot!("train_in_short", said(&["train", "-h"]));
}

#[test]
fn help_is_a_command_too() {
    assert_eq!(said(&["help", "merge"]), said(&["merge", "--help"]));
}

#[test]
fn the_version() {
    let version = format!("l1ra {}", env!("CARGO_PKG_VERSION"));
    assert_eq!(said(&["--version"]), version);
}

/// Without a word there is nothing to do: the help, as a mistake.
#[test]
fn nothing_said() {
    let ran = Place::new().run(&[]);
    assert_eq!(ran.code, Some(2));
    assert!(ran.stderr.contains("Usage: l1ra"), "{}", ran.stderr);
}
