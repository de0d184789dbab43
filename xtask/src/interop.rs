//! `cargo xtask interop`: adapters that our program wrote, loaded by PEFT, give the same logits.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};

use crate::{process, python};

const MODEL: &str = "tests/fixtures/tiny-llama";
const ADAPTER: &str = "target/interop/adapter";

/// Makes adapters in the three lay-outs (or takes those in `adapter`) and compares each with PEFT.
pub(crate) fn run(python: &python::Choice, adapter: Option<&Path>) -> Result<()> {
    let root = process::root();
    let python = python.prepare()?;
    if adapter.is_none() {
        let program = [
            "run",
            "--release",
            "-p",
            "l1ra-train",
            "--example",
            "interop_adapter",
        ];
        let arguments = ["--", "--model", MODEL, "--output", ADAPTER];
        process::run(process::cargo().args(program).args(arguments))?;
    }
    let adapter = adapter.map_or_else(|| root.join(ADAPTER), Path::to_path_buf);
    ensure!(
        adapter.join("logits.safetensors").is_file(),
        "{} holds no logits.safetensors to compare with",
        adapter.display()
    );
    let mut compare = Command::new(python);
    compare.arg(root.join("xtask/interop/compare.py"));
    process::run(
        compare
            .arg("--model")
            .arg(root.join(MODEL))
            .arg("--adapters")
            .arg(adapter),
    )
}
