//! `cargo xtask setup cuda` and `setup wgpu`: what a machine needs to build and to run, looked at.

mod cuda;
mod libraries;
mod wgpu;

use std::path::Path;

use anyhow::{Result, bail};

/// Something that has to be there.
pub(crate) struct Need {
    /// What it is.
    name: &'static str,
    /// What was seen, or what is missing and how to get it.
    seen: Result<String, String>,
    /// Whether nothing works without it.
    required: bool,
}

impl Need {
    fn required(name: &'static str, seen: Result<String, String>) -> Self {
        Self {
            name,
            seen,
            required: true,
        }
    }

    fn optional(name: &'static str, seen: Result<String, String>) -> Self {
        Self {
            name,
            seen,
            required: false,
        }
    }

    fn line(&self) -> String {
        let (mark, text) = match (&self.seen, self.required) {
            (Ok(seen), _) => ("ok", seen),
            (Err(remedy), true) => ("missing", remedy),
            (Err(remedy), false) => ("not there", remedy),
        };
        format!("{:<22}{mark:<11}{text}", self.name)
    }
}

/// What NVIDIA GPUs need; with `llvm`, an LLVM that lies there is used in place of the one that the
/// build fetches.
pub(crate) fn cuda(llvm: Option<&Path>) -> Result<()> {
    if let Some(llvm) = llvm {
        println!("{}", cuda::use_llvm(llvm)?);
    }
    report("cuda", &cuda::needs())
}

/// What GPUs need through Vulkan, Metal or DirectX.
pub(crate) fn wgpu() -> Result<()> {
    report("wgpu", &wgpu::needs())
}

fn report(feature: &str, needs: &[Need]) -> Result<()> {
    for need in needs {
        println!("{}", need.line());
    }
    let missing = needs
        .iter()
        .filter(|need| need.required && need.seen.is_err());
    match missing.count() {
        0 => {
            println!(
                "\nbuild  cargo build --release --bin l1ra --features {feature}\n\
                 look   target/release/l1ra devices\n\
                 test   cargo xtask device-tests {feature}"
            );
            Ok(())
        }
        1 => bail!("one thing is missing"),
        count => bail!("{count} things are missing"),
    }
}
