//! `cargo xtask fixtures`: the reference numbers again, from the scripts that made them.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{download, process, python};

/// The scripts in the order that they need, with their arguments.
const SCRIPTS: [&[&str]; 4] = [
    &["make_tiny.py"],
    &["make_trace.py", "public"],
    &["make_trace.py", "public_mild"],
    &["make_trace.py", "public", "--quirk"],
];
const FOLDERS: [&str; 3] = ["tiny-llama", "tiny-mistral", "golden"];

/// Runs the scripts in `output` and says for every file whether it changed.
pub(crate) fn run(python: &python::Choice, output: &Path) -> Result<()> {
    let scripts = process::root().join("tests/fixtures/scripts");
    let python = python.prepare()?;
    fs::create_dir_all(output).with_context(|| format!("cannot make {}", output.display()))?;
    let before = digests(output)?;
    for script in SCRIPTS {
        let mut command = Command::new(&python);
        command
            .current_dir(output)
            .env("PYTHONDONTWRITEBYTECODE", "1");
        process::run(command.arg(scripts.join(script[0])).args(&script[1..]))?;
    }
    for (path, digest) in digests(output)? {
        let state = match before.get(&path) {
            None => "new",
            Some(old) if *old == digest => "unchanged",
            Some(_) => "CHANGED",
        };
        println!("{state:9} {}", path.display());
    }
    Ok(())
}

fn digests(output: &Path) -> Result<BTreeMap<PathBuf, String>> {
    let mut digests = BTreeMap::new();
    for folder in FOLDERS.map(|name| output.join(name)) {
        if !folder.is_dir() {
            continue;
        }
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            digests.insert(path.clone(), download::sha256_of(&path)?);
        }
    }
    Ok(digests)
}
