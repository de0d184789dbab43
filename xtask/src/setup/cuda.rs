//! NVIDIA GPUs: the driver and its libraries to run, LLVM to build.
//!
//! Burn's CUDA compiler links LLVM. Its build fetches one that is made for it, once, into a folder of the
//! user's; on a machine that cannot reach it, an LLVM of the same version can be put there.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use super::{
    Need,
    libraries::{find, in_folder},
};
use crate::process;

/// The crate whose build fetches LLVM.
const FETCHER: &str = "tracel-llvm-bundler";
/// The file by which that crate knows a whole LLVM.
const WHOLE: &str = ".tracel-llvm-installed";
/// Where toolkits lie.
const TOOLKITS: [&str; 2] = ["/usr/local/cuda", "/opt/cuda"];

pub(super) fn needs() -> Vec<Need> {
    let libraries: Vec<PathBuf> = toolkit()
        .map(|toolkit| ["lib64", "lib"].map(|folder| toolkit.join(folder)).to_vec())
        .unwrap_or_default();
    let library = |name: &str, remedy: &str| match find(name) {
        Some(path) => Ok(path.display().to_string()),
        None => Err(
            match libraries
                .iter()
                .find(|folder| in_folder(folder, name).is_some())
            {
                Some(folder) => format!(
                    "{name} is in {}, where the loader does not look; add that to LD_LIBRARY_PATH",
                    folder.display()
                ),
                None => format!("{name}; {remedy}"),
            },
        ),
    };
    vec![
        Need::required("LLVM to build", llvm()),
        Need::required("GPU and driver", gpus()),
        Need::required(
            "libcuda",
            library("libcuda.so.1", "part of NVIDIA's driver"),
        ),
        Need::required(
            "NVRTC",
            library(
                "libnvrtc.so",
                "part of the CUDA toolkit, or of PyPI's nvidia-cuda-nvrtc; its folder into LD_LIBRARY_PATH",
            ),
        ),
        Need::optional(
            "CUDA headers",
            toolkit()
                .map(|path| path.join("include").display().to_string())
                .ok_or_else(|| {
                    "set CUDA_PATH to a CUDA toolkit where a kernel asks for them".into()
                }),
        ),
    ]
}

fn toolkit() -> Option<PathBuf> {
    let said = env::var_os("CUDA_PATH").map(PathBuf::from);
    let usual = TOOLKITS.iter().map(PathBuf::from);
    said.into_iter()
        .chain(usual)
        .find(|path| path.join("include/cuda.h").is_file())
}

fn gpus() -> Result<String, String> {
    let missing = "nvidia-smi; NVIDIA's driver brings it";
    let asked = Command::new("nvidia-smi")
        .args([
            "--query-gpu=name,driver_version,memory.total",
            "--format=csv,noheader",
        ])
        .output()
        .map_err(|_| missing.to_string())?;
    let text = String::from_utf8_lossy(&asked.stdout);
    let gpus: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    match asked.status.success() && !gpus.is_empty() {
        true => Ok(gpus.join("; ")),
        false => Err(format!(
            "a GPU that the driver sees; nvidia-smi says: {}",
            text.trim()
        )),
    }
}

fn llvm() -> Result<String, String> {
    let folder = folder().map_err(|error| error.to_string())?;
    match folder.join(WHOLE).exists() {
        true => Ok(folder.display().to_string()),
        // The build fetches it; nothing is missing where it can.
        false => Ok(format!(
            "fetched by the first build; without a network, --llvm DIR takes an LLVM {} \
             with its static libraries",
            version().map_err(|error| error.to_string())?
        )),
    }
}

/// The version that the build wants, `23.1.0`.
fn version() -> Result<String> {
    let whole = fetcher()?;
    let (version, _) = whole.split_once('-').unwrap_or((&whole, ""));
    Ok(version.into())
}

/// The version of the crate that fetches LLVM, `23.1.0-4`, from Cargo.lock.
fn fetcher() -> Result<String> {
    let path = process::root().join("Cargo.lock");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    locked(&text, FETCHER).with_context(|| format!("{} has no {FETCHER}", path.display()))
}

/// The version of `name` in the text of a Cargo.lock.
fn locked(text: &str, name: &str) -> Option<String> {
    let package = format!("name = \"{name}\"\nversion = \"");
    let (_, rest) = text.split_once(&package)?;
    let (version, _) = rest.split_once('"')?;
    Some(version.into())
}

/// Where the build looks for an LLVM that is there already.
fn folder() -> Result<PathBuf> {
    let data = match env::var_os("XDG_DATA_HOME") {
        Some(data) => PathBuf::from(data),
        None => PathBuf::from(env::var_os("HOME").context("HOME is not set")?).join(".local/share"),
    };
    Ok(data
        .join("tracel")
        .join(format!("tracel-llvm-{}", fetcher()?)))
}

/// Puts the LLVM in `llvm` where the build looks for one.
pub(super) fn use_llvm(llvm: &Path) -> Result<String> {
    let config = llvm.join("bin/llvm-config");
    let seen =
        process::capture_text(Command::new(&config).arg("--version")).with_context(|| {
            format!(
                "{} is no LLVM: bin/llvm-config does not run",
                llvm.display()
            )
        })?;
    let wanted = version()?;
    let series = |version: &str| {
        version
            .rsplit_once('.')
            .map(|(series, _)| series.to_string())
    };
    ensure!(
        series(&seen) == series(&wanted),
        "{} holds LLVM {seen}; the build takes {wanted}, or another of that series",
        llvm.display()
    );
    let libraries = llvm.join("lib");
    ensure!(
        in_folder(&libraries, "libLLVMNVPTXCodeGen").is_some(),
        "{} has no libLLVMNVPTXCodeGen.a; an LLVM with static libraries and the NVPTX target is needed",
        libraries.display()
    );
    let folder = folder()?;
    if folder.exists() {
        if folder.join(WHOLE).exists() {
            return Ok(format!("{} is there already", folder.display()));
        }
        bail!(
            "{} is there, but not whole; remove it first",
            folder.display()
        );
    }
    let parent = folder.parent().context("a folder has a parent")?;
    fs::create_dir_all(parent).with_context(|| format!("making {}", parent.display()))?;
    fs::create_dir(&folder).with_context(|| format!("making {}", folder.display()))?;
    for entry in fs::read_dir(llvm).with_context(|| format!("reading {}", llvm.display()))? {
        let entry = entry?;
        let there = entry.path().canonicalize()?;
        link(&there, &folder.join(entry.file_name()))?;
    }
    fs::write(folder.join(WHOLE), "").context("marking the folder as whole")?;
    Ok(format!(
        "{} now leads to {}",
        folder.display(),
        llvm.display()
    ))
}

#[cfg(unix)]
fn link(there: &Path, here: &Path) -> Result<()> {
    std::os::unix::fs::symlink(there, here).with_context(|| format!("linking {}", here.display()))
}

#[cfg(not(unix))]
fn link(_there: &Path, here: &Path) -> Result<()> {
    bail!(
        "{}: copy the LLVM there; links are made on Unix only",
        here.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_of_llvm_is_that_of_the_lock_file() {
        let text = "[[package]]\nname = \"other\"\nversion = \"1.0.0\"\n\n[[package]]\nname = \
                    \"tracel-llvm-bundler\"\nversion = \"23.1.0-4\"\n";
        assert_eq!(locked(text, FETCHER).as_deref(), Some("23.1.0-4"));
        assert_eq!(locked(text, "none"), None);
        assert!(version().unwrap().split('.').count() == 3);
    }

    #[test]
    fn what_is_no_llvm_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let error = format!("{:#}", use_llvm(dir.path()).unwrap_err());
        assert!(error.contains("is no LLVM"), "{error}");
    }
}
