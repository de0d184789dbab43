//! `cargo xtask corpus`: public-domain English text for the pre-training of the embedded model.
//!
//! The texts come from Debian packages, so this task needs `apt-get` and `dpkg-deb` (and an
//! x86-64 Linux for the one program that it runs to unpack the Bible). Nothing is installed: the
//! packages are downloaded to a scratch folder and unpacked there.

mod rdata;
mod text;

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use flate2::read::MultiGzDecoder;

use crate::process;

/// One text of the corpus: the packages it needs, the first of which holds the text itself.
struct Source {
    file: &'static str,
    title: &'static str,
    rights: &'static str,
    packages: &'static [&'static str],
    clean: fn(&Scratch) -> Result<String>,
}

const SOURCES: [Source; 4] = [
    Source {
        file: "kjv.txt",
        title: "The Bible, King James Version (1611): a verse a line",
        rights: "The copyright of the text has expired.",
        packages: &["bible-kjv-text", "bible-kjv"],
        clean: bible,
    },
    Source {
        file: "austen.txt",
        title: "Jane Austen, the six completed novels (1811-1818): a paragraph a line",
        rights: "The texts are in the public domain (the author died in 1817); the package that \
                 collects them is under the MIT licence.",
        packages: &["r-cran-janeaustenr"],
        clean: austen,
    },
    Source {
        file: "jargon.txt",
        title: "The Jargon File, version 4.4.7, 29 Dec 2003: `term: definition`",
        rights: "Public domain; proper citation is asked for.",
        packages: &["dict-jargon"],
        clean: jargon,
    },
    Source {
        file: "devil.txt",
        title: "Ambrose Bierce, The Devil's Dictionary (1911): an entry's prose, without its verse",
        rights: "Public domain, the copyright has expired.",
        packages: &["dict-devil"],
        clean: devil,
    },
];

/// Writes the texts, `SOURCES.md` and the packages' own licence files to `dir`.
pub(crate) fn run(dir: &Path) -> Result<()> {
    let scratch = Scratch::new(dir)?;
    let licences = dir.join("licences");
    fs::create_dir_all(&licences).with_context(|| format!("cannot make {}", licences.display()))?;
    let mut notes = String::from(
        "# Sources\n\nMade by `cargo xtask corpus`. The licence files of the packages are in \
         `licences/`.\n",
    );
    for source in &SOURCES {
        let versions = scratch.unpack_all(source.packages, &licences)?;
        let text = (source.clean)(&scratch).with_context(|| format!("making {}", source.file))?;
        write_file(&dir.join(source.file), &text)?;
        let words = text.split_whitespace().count();
        println!(
            "{}: {} bytes, {words} words",
            dir.join(source.file).display(),
            text.len()
        );
        let Source {
            file,
            title,
            rights,
            ..
        } = source;
        write!(
            notes,
            "\n## `{file}`\n{title}.\n\n- Debian packages: {versions}\n- {rights}\n"
        )?;
        writeln!(notes, "- {} bytes, {words} words", text.len())?;
    }
    write_file(&dir.join("SOURCES.md"), &notes)?;
    scratch.remove()
}

fn write_file(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

fn bible(scratch: &Scratch) -> Result<String> {
    let mut program = Command::new(scratch.file("bible-kjv", "usr/bin/bible"));
    program
        .arg("-f")
        .arg("-p")
        .arg(scratch.file("bible-kjv-text", "usr/lib"));
    let printed = process::capture_text(program.arg("Gen1:1-Rev22:21"))?;
    Ok(text::bible(&printed))
}

fn austen(scratch: &Scratch) -> Result<String> {
    let data = "usr/lib/R/site-library/janeaustenr/data/Rdata.rdb";
    let novels = rdata::character_vectors(&scratch.read("r-cran-janeaustenr", data)?)?;
    let novels: Vec<String> = novels.iter().map(|lines| text::novel(lines)).collect();
    Ok(novels.join("\n"))
}

fn jargon(scratch: &Scratch) -> Result<String> {
    Ok(text::jargon(&scratch.dictionary("dict-jargon", "jargon")?))
}

fn devil(scratch: &Scratch) -> Result<String> {
    Ok(text::devil(&scratch.dictionary("dict-devil", "devil")?))
}

/// A folder with one sub-folder per unpacked package.
struct Scratch(PathBuf);

impl Scratch {
    fn new(dir: &Path) -> Result<Self> {
        let path = dir.join("packages");
        fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let path = path.canonicalize()?;
        Ok(Self(path))
    }

    fn remove(self) -> Result<()> {
        fs::remove_dir_all(&self.0).with_context(|| format!("cannot remove {}", self.0.display()))
    }

    /// Downloads and unpacks packages, keeps their licence files, and returns `name version, …`.
    fn unpack_all(&self, packages: &[&str], licences: &Path) -> Result<String> {
        let mut versions = Vec::new();
        for package in packages {
            let version = self.unpack(package)?;
            let licence = self.file(package, &format!("usr/share/doc/{package}/copyright"));
            fs::copy(&licence, licences.join(format!("{package}.txt")))
                .with_context(|| format!("{package} has no licence file"))?;
            versions.push(format!("{package} {version}"));
        }
        Ok(versions.join(", "))
    }

    fn unpack(&self, package: &str) -> Result<String> {
        let mut download = Command::new("apt-get");
        download
            .args(["-qq", "download", package])
            .current_dir(&self.0);
        process::capture(&mut download).context(
            "Debian packages come through `apt-get`: run this on Debian or Ubuntu, online, after \
             `apt-get update`",
        )?;
        let archive = self.archive(package)?;
        let mut extract = Command::new("dpkg-deb");
        process::capture(extract.arg("-x").arg(&archive).arg(self.0.join(package)))?;
        process::capture_text(
            Command::new("dpkg-deb")
                .arg("-f")
                .arg(&archive)
                .arg("Version"),
        )
    }

    fn archive(&self, package: &str) -> Result<PathBuf> {
        let prefix = format!("{package}_");
        for entry in fs::read_dir(&self.0)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            if name.starts_with(&prefix) && name.ends_with(".deb") {
                return Ok(path);
            }
        }
        bail!("apt-get left no {prefix}*.deb in {}", self.0.display())
    }

    fn file(&self, package: &str, path: &str) -> PathBuf {
        self.0.join(package).join(path)
    }

    fn read(&self, package: &str, path: &str) -> Result<Vec<u8>> {
        let path = self.file(package, path);
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// A dictionary of the DICT project: gzip with an index that a reader of the whole ignores.
    fn dictionary(&self, package: &str, name: &str) -> Result<String> {
        let packed = self.read(package, &format!("usr/share/dictd/{name}.dict.dz"))?;
        let mut text = String::new();
        MultiGzDecoder::new(packed.as_slice()).read_to_string(&mut text)?;
        Ok(text)
    }
}
