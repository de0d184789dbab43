//! [`Bench`]: the folder in which a page's commands run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    process::Command,
};

use tempfile::TempDir;

use crate::{page::root, shortened::additions};

/// What a page may say that is not run here: it builds, fetches or trains for minutes.
const NOT_RUN: [&str; 5] = [
    "cargo test --workspace",
    "cargo install --path crates/l1ra-cli",
    "cargo run --release -p ",
    "cargo xtask ",
    "pip install ",
];

/// Programs that a page may call besides ours.
const TOOLS: [&str; 6] = ["cat ", "cp ", "echo ", "ls ", "mkdir ", "printf "];

/// How a clone calls the program.
const FROM_A_CLONE: &str = "cargo run --release --bin l1ra --";

/// Stands in the folder's `bin` as `l1ra`.
const WRAPPER: &str = "#!/bin/sh\nexec \"$L1RA_PROGRAM\" \"$@\" $L1RA_ADDITIONS\n";

/// A temporary folder that looks like a clone to a command: `examples`, `recipes`, a model in
/// `models/smollm2` (it is the repository's small one), and data of the user's.
pub(crate) struct Bench {
    folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self {
            folder: TempDir::new().unwrap(),
        };
        let (root, dir) = (root(), bench.folder.path());
        for shared in ["examples", "recipes", "docs"] {
            symlink(root.join(shared), dir.join(shared)).unwrap();
        }
        for made in ["models", "home", "bin"] {
            fs::create_dir(dir.join(made)).unwrap();
        }
        let model = root.join("examples/finetune/model");
        symlink(model, dir.join("models/smollm2")).unwrap();
        bench.write("answers.jsonl", &rows("What is", "It is number"));
        bench.write("more.jsonl", &rows("Name", "Its name is"));
        bench.write(
            "notes.txt",
            &"A rank is one column of A and one row of B. ".repeat(40),
        );
        bench.write("bin/l1ra", WRAPPER);
        let all = fs::Permissions::from_mode(0o755);
        fs::set_permissions(dir.join("bin/l1ra"), all).unwrap();
        bench
    }

    fn dir(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.dir().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs a command and returns what it printed, or what is wrong if its exit code is another one.
    pub(crate) fn run(&self, command: &str, expected: i32) -> Result<String, String> {
        if NOT_RUN.iter().any(|known| command.starts_with(known)) {
            return Ok(String::new());
        }
        let command = command.replace(FROM_A_CLONE, "l1ra");
        let ours = command
            .split_whitespace()
            .filter(|word| *word == "l1ra")
            .count();
        if ours > 1 || (ours == 0 && !TOOLS.iter().any(|tool| command.starts_with(tool))) {
            return Err(format!(
                "`{command}`: a line calls l1ra once, or one of {TOOLS:?}; not run are {NOT_RUN:?}"
            ));
        }
        let additions = additions(&command, self.dir());
        let output = self.shell(&command, &additions).output();
        let output = output.map_err(|error| format!("`{command}`: {error}"))?;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        if output.status.code() == Some(expected) {
            return Ok(out + &err);
        }
        let additions = additions.join(" ");
        Err(format!(
            "`{command}` ended with {}, not {expected}\n\
             added by this test: {additions}\n--- stdout\n{out}\n--- stderr\n{err}",
            output.status
        ))
    }

    fn shell(&self, command: &str, additions: &[String]) -> Command {
        let dir = self.dir();
        let path = std::env::var("PATH").unwrap_or_default();
        let mut shell = Command::new("sh");
        shell
            .args(["-ec", command])
            .current_dir(dir)
            .env("PATH", format!("{}:{path}", dir.join("bin").display()))
            .env("HOME", dir.join("home"))
            .env("L1RA_CACHE", dir.join("home/cache"))
            .env("L1RA_PROGRAM", env!("CARGO_BIN_EXE_l1ra"))
            .env("L1RA_ADDITIONS", additions.join(" "))
            .env("CI", "true")
            .env("HF_HUB_OFFLINE", "1")
            .env_remove("HF_HOME")
            .stdin(std::process::Stdio::null());
        shell
    }
}

/// A dozen conversations.
fn rows(question: &str, answer: &str) -> String {
    (1..=12)
        .map(|number| {
            format!(
                "{{\"messages\": [{{\"role\": \"user\", \"content\": \"{question} the {number}th?\"}}, \
                 {{\"role\": \"assistant\", \"content\": \"{answer} {number} of twelve.\"}}]}}\n"
            )
        })
        .collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
