//! `cargo xtask gpu-check`: everything that has to be seen on a real GPU, built here and run in one go, or
//! packed for a machine that has the GPU and no cargo.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use clap::Args;
use serde_json::Value;

use crate::{
    device::{Backend, TESTS},
    process,
};

#[derive(Args, Debug)]
pub(crate) struct GpuCheck {
    /// Backends to see, the first one also for its speed
    #[arg(required = true, value_enum)]
    backends: Vec<Backend>,
    /// SmolLM2-135M as a Hugging Face folder: its fine-tuning and speed are seen as well
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
    /// A Python with torch, transformers and peft: PyTorch is timed beside
    #[arg(long, requires = "model")]
    python: Option<PathBuf>,
    /// Where logs and the summary go
    #[arg(long, value_name = "DIR", default_value = "target/gpu-check/out")]
    output: PathBuf,
    /// Build and pack only, into this folder; on the other machine:
    /// DIR/check.sh REPOSITORY OUT BACKEND..., and after -- the model's folder and the Python
    #[arg(long, value_name = "DIR")]
    pack: Option<PathBuf>,
}

pub(crate) fn run(options: &GpuCheck) -> Result<()> {
    let folder = process::root().join("target/gpu-check/programs");
    let folder = options.pack.clone().unwrap_or(folder);
    pack(&options.backends, &folder)?;
    if options.pack.is_some() {
        println!("packed: {}", folder.display());
        return Ok(());
    }
    let mut check = Command::new("bash");
    check
        .arg(folder.join("check.sh"))
        .arg(process::root())
        .arg(&options.output)
        .args(options.backends.iter().map(|backend| backend.name()));
    if let Some(model) = &options.model {
        check.arg("--").arg(model).args(&options.python);
    }
    process::run(&mut check)
}

/// Builds the program and the tests for `backends` and puts them into `folder`, stripped, beside the
/// script that runs them.
fn pack(backends: &[Backend], folder: &Path) -> Result<()> {
    let features = |of: &str| -> String {
        let names = backends
            .iter()
            .map(|backend| format!("{of}{}", backend.name()));
        names.collect::<Vec<_>>().join(",")
    };
    process::run(
        process::cargo()
            .args(["build", "--release", "-p", "l1ra-cli", "-p", "l1ra-ops"])
            .args(["--bin", "l1ra", "--example", "rows", "--features"])
            .arg(features("l1ra-cli/")),
    )?;
    let mut tests = process::cargo();
    tests
        .args([
            "test",
            "--workspace",
            "--no-run",
            "--message-format=json",
            "--features",
        ])
        .arg(features("l1ra-train/"));
    for test in TESTS {
        tests.args(["--test", test]);
    }
    let programs = executables(&process::capture_text(&mut tests)?);
    ensure!(
        !programs.is_empty(),
        "cargo named no test programs; were they built?"
    );
    let into = folder.join("tests");
    if into.exists() {
        // Programs of an earlier build would run again.
        fs::remove_dir_all(&into).with_context(|| format!("emptying {}", into.display()))?;
    }
    fs::create_dir_all(&into).with_context(|| format!("making {}", into.display()))?;
    for (name, program) in &programs {
        strip(program, &into.join(name))?;
    }
    let root = process::root();
    for program in ["l1ra", "examples/rows"] {
        let built = root.join("target/release").join(program);
        strip(&built, &folder.join(program.replace("examples/", "")))?;
    }
    fs::copy(root.join("xtask/gpu/check.sh"), folder.join("check.sh"))?;
    fs::write(folder.join("repository"), root.display().to_string())?;
    Ok(())
}

/// Name and place of every test program in what cargo says, one JSON object a line.
fn executables(messages: &str) -> Vec<(String, PathBuf)> {
    let program = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let target = &message["target"];
        let of_ours = target["kind"].as_array()?.iter().any(|kind| kind == "test");
        let package = Path::new(message["manifest_path"].as_str()?)
            .parent()?
            .file_name()?;
        let name = format!("{}-{}", package.to_string_lossy(), target["name"].as_str()?);
        of_ours.then_some(())?;
        Some((name, message["executable"].as_str()?.into()))
    };
    messages.lines().filter_map(program).collect()
}

/// A copy without symbols, where `strip` is there.
fn strip(program: &Path, into: &Path) -> Result<()> {
    fs::copy(program, into)
        .with_context(|| format!("copying {} to {}", program.display(), into.display()))?;
    if process::is_installed(&mut Command::new("strip")) {
        process::run(Command::new("strip").arg(into))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_are_named_by_crate_and_test() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/a/crates/l1ra-train/Cargo.toml","target":{"kind":["test"],"name":"devices"},"executable":"/a/t/devices-1"}
not json
{"reason":"compiler-artifact","manifest_path":"/a/crates/x/Cargo.toml","target":{"kind":["lib"],"name":"x"},"executable":null}
{"reason":"build-finished","success":true}"#;
        let expected = (
            "l1ra-train-devices".to_string(),
            PathBuf::from("/a/t/devices-1"),
        );
        assert_eq!(executables(messages), [expected]);
    }
}
