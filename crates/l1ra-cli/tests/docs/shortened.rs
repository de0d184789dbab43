//! What is added to a command so that it runs in seconds, in a build without optimisation.

use std::{fs, path::Path};

/// Settings of a short run that has rank updates all the same.
const SHORT_RUN: [(&str, &str); 7] = [
    ("train.steps", "6"),
    ("train.warmup_steps", "1"),
    ("train.eval_every", "0"),
    ("train.batch_size", "4"),
    ("train.accumulation", "1"),
    ("data.eval_rows", "8"),
    ("adapters.update_ratio", "0.34"),
];

/// Keys that cannot stand beside another one.
const EXCLUSIVE: [(&str, &str); 2] = [
    ("train.steps", "train.epochs"),
    ("train.warmup_steps", "train.warmup_ratio"),
];

/// Arguments for the end of `command`; a value that it, or its recipe, speaks of stays as it is.
pub(crate) fn additions(command: &str, dir: &Path) -> Vec<String> {
    let words: Vec<&str> = command.split_whitespace().collect();
    let start = words.iter().position(|word| *word == "l1ra");
    let Some(arguments) = start.map(|start| &words[start + 1..]) else {
        return Vec::new();
    };
    let is_help = |word: &&str| matches!(*word, "--help" | "-h" | "--version");
    if arguments.iter().any(is_help) {
        return Vec::new();
    }
    match arguments.iter().find(|word| !word.starts_with('-')) {
        Some(&"train") => [flag(arguments, &["--plain"]), settings(arguments, dir)].concat(),
        Some(&"compare") => {
            let plain = flag(arguments, &["--plain"]);
            [plain, settings(arguments, dir)].concat()
        }
        Some(&"plan") => [flag(arguments, &["--no-time"]), settings(arguments, dir)].concat(),
        Some(&"eval") => flag(arguments, &["--rows", "8"]),
        Some(&"generate") => flag(arguments, &["--max-new-tokens", "6"]),
        _ => Vec::new(),
    }
}

/// A flag, perhaps with its value, if it is not there already.
fn flag(arguments: &[&str], words: &[&str]) -> Vec<String> {
    let missing = !arguments.contains(&words[0]);
    words
        .iter()
        .filter(|_| missing)
        .map(ToString::to_string)
        .collect()
}

fn settings(arguments: &[&str], dir: &Path) -> Vec<String> {
    let recipe = arguments.iter().find(|word| word.ends_with(".toml"));
    let recipe = recipe.and_then(|path| fs::read_to_string(dir.join(path)).ok());
    let recipe = recipe.unwrap_or_default();
    let said = |key: &str| {
        arguments
            .iter()
            .any(|word| word.starts_with(&format!("{key}=")))
    };
    let in_recipe = |key: &str| {
        let name = key.rsplit('.').next().unwrap_or(key);
        recipe
            .lines()
            .any(|line| line.trim_start().starts_with(&format!("{name} =")))
    };
    let mut added = Vec::new();
    for (key, value) in SHORT_RUN {
        let other = EXCLUSIVE
            .iter()
            .find(|(one, _)| *one == key)
            .map(|(_, other)| *other);
        if said(key) || other.is_some_and(|other| said(other) || in_recipe(other)) {
            continue;
        }
        added.extend(["--set".to_string(), format!("{key}={value}")]);
    }
    added
}

#[test]
fn what_a_command_says_stays() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("r.toml"), "[train]\nepochs = 2.0\n").unwrap();
    let added = |command: &str| additions(command, dir.path()).join(" ");
    let short = added("l1ra train recipes/tiny.toml --plain --set train.batch_size=2");
    assert!(
        !short.contains("--plain") && !short.contains("batch_size"),
        "{short}"
    );
    assert!(short.contains("train.steps=6"), "{short}");
    let by_epochs = added("l1ra plan r.toml --set train.warmup_ratio=0.1");
    assert!(
        by_epochs.contains("--no-time --set train.eval_every=0"),
        "{by_epochs}"
    );
    assert!(
        !by_epochs.contains("steps=6") && !by_epochs.contains("warmup"),
        "{by_epochs}"
    );
    assert_eq!(added("l1ra --json eval --data x --rows 3"), "");
    assert_eq!(
        added("l1ra generate --model m --prompt x"),
        "--max-new-tokens 6"
    );
    assert_eq!(added("l1ra train --help"), "");
    assert_eq!(added("ls runs"), "");
}
