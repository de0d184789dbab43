//! `cargo xtask check`, `test`, `doc` and `validate`: what has to hold before a commit.

use std::process::Command;

use anyhow::Result;

use crate::{licenses, process};

/// Format, lints and spelling.
pub(crate) fn check() -> Result<()> {
    process::run(process::cargo().args(["fmt", "--all", "--", "--check"]))?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    process::run(process::cargo().args(clippy))?;
    if process::is_installed(&mut Command::new("typos")) {
        process::run(Command::new("typos").current_dir(process::root()))
    } else {
        println!("spelling: skipped, `typos` is not installed (cargo install typos-cli)");
        Ok(())
    }
}

/// Every test of the workspace; `arguments` go on to `cargo test`.
pub(crate) fn test(arguments: &[String]) -> Result<()> {
    process::run(
        process::cargo()
            .args(["test", "--workspace"])
            .args(arguments),
    )
}

/// The documentation of our own crates, where a warning is an error.
pub(crate) fn doc() -> Result<()> {
    let mut command = process::cargo();
    command
        .env("RUSTDOCFLAGS", "-D warnings")
        .args(["doc", "--workspace", "--no-deps"]);
    process::run(&mut command)
}

/// All of it.
pub(crate) fn validate() -> Result<()> {
    check()?;
    test(&[])?;
    doc()?;
    licenses::run()
}
