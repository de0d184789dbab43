//! The Python environment with PyTorch, transformers and PEFT that reference numbers come from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Which Python runs the scripts.
#[derive(clap::Args)]
pub(crate) struct Choice {
    /// A Python that has the packages of xtask/interop/requirements.txt already, instead of the
    /// environment that is otherwise made in target/interop/venv
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

impl Choice {
    /// The Python to run; its environment is made or brought up to date first.
    pub(crate) fn prepare(&self) -> Result<PathBuf> {
        match &self.python {
            Some(python) => Ok(python.clone()),
            None => environment(&process::root().join("target/interop/venv")),
        }
    }
}

/// The system's Python that has pip.
pub(crate) fn with_pip() -> Result<Command> {
    for name in ["python3", "python"] {
        let mut asked = Command::new(name);
        if process::is_installed(asked.args(["-m", "pip"])) {
            let mut python = Command::new(name);
            python.args(["-m", "pip", "--disable-pip-version-check"]);
            return Ok(python);
        }
    }
    bail!(
        "no Python with pip was found (tried `python3 -m pip` and `python -m pip`); install \
         Python 3.9 or later with pip and run this again"
    )
}

/// A virtual environment with the pinned packages. They are installed when the list has changed.
fn environment(path: &Path) -> Result<PathBuf> {
    let list = process::root().join("xtask/interop/requirements.txt");
    let wanted =
        fs::read_to_string(&list).with_context(|| format!("cannot read {}", list.display()))?;
    let folder = if cfg!(windows) { "Scripts" } else { "bin" };
    let python = path.join(folder).join("python");
    let stamp = path.join("installed.txt");
    if fs::read_to_string(&stamp).is_ok_and(|installed| installed == wanted) {
        return Ok(python);
    }
    eprintln!(
        "making a Python environment in {}; on Linux PyTorch's package brings GPU libraries and \
         takes about 6 GB (`--python` uses an environment of your own)",
        path.display()
    );
    process::run(Command::new("python3").args(["-m", "venv"]).arg(path))?;
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-r",
    ];
    process::run(Command::new(&python).args(install).arg(&list))
        .context("are you online? the packages come from pip's package index")?;
    fs::write(&stamp, wanted).with_context(|| format!("cannot write {}", stamp.display()))?;
    Ok(python)
}
