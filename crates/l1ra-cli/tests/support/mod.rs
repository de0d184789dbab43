//! What the tests of the program share: a folder of a test's own, and the program run in it.
#![allow(dead_code)]

pub(crate) mod adapter;
pub(crate) mod made_run;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

use assert_cmd::Command;
use safetensors::{SafeTensors, tensor::TensorView};
use serde_json::Value;
use tempfile::TempDir;

/// A conversation that is as it should be.
pub(crate) const GOOD: &str = r#"{"messages": [{"role": "user", "content": "Define the noun \"current\"."}, {"role": "assistant", "content": "A flow of electricity through a conductor."}]}"#;

/// A short run on the repository's model; lines of it are named by the snapshots.
const RECIPE: &str = r#"output = "out"

[model]
path = 'MODEL'

[data]
train = "good.jsonl"
max_length = 64

[adapters]
rank = 4
alpha = 4.0
policy = "lasso"
budget = "ranks"
update_ratio = 0.25

[train]
steps = 8
batch_size = 2
warmup_steps = 1
"#;

/// The repository's root.
pub(crate) fn repository() -> PathBuf {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    crates.parent().unwrap().to_path_buf()
}

/// The model that the repository holds.
pub(crate) fn model() -> String {
    let path = repository().join("examples/finetune/model");
    path.display().to_string()
}

/// What the program said and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    /// The same, which must have ended well.
    pub(crate) fn well(self) -> Self {
        assert_eq!(self.code, Some(0), "{}{}", self.stdout, self.stderr);
        self
    }

    /// The result line of `--json`: one line, nothing else.
    pub(crate) fn json(&self) -> Value {
        let lines: Vec<&str> = self.stdout.lines().collect();
        assert_eq!(lines.len(), 1, "{}", self.stdout);
        serde_json::from_str(lines[0]).unwrap()
    }
}

/// A folder of a test's own, with small data and a recipe in it. The program runs in it, with a
/// home and a cache of its own.
pub(crate) struct Place {
    dir: TempDir,
    home: TempDir,
}

impl Place {
    pub(crate) fn new() -> Self {
        Self::of(TempDir::new().unwrap())
    }

    /// The same in an empty folder.
    pub(crate) fn of(dir: TempDir) -> Self {
        let home = TempDir::new().unwrap();
        let place = Self { dir, home };
        let good = (0..8).map(|i| GOOD.replace("current", &format!("current {i}")) + "\n");
        place.write("good.jsonl", good.collect::<String>());
        place.write("recipe.toml", RECIPE.replace("MODEL", &model()));
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    /// The recipe with `to` in place of `from`.
    pub(crate) fn change_recipe(&self, from: &str, to: &str) {
        self.change("recipe.toml", from, to);
    }

    /// A file with `to` in place of `from`.
    pub(crate) fn change(&self, name: &str, from: &str, to: &str) {
        let text = self.read(name);
        assert!(text.contains(from), "no `{from}` in {name}");
        self.write(name, text.replacen(from, to, 1));
    }

    /// A copy of the repository's model in the folder `model`.
    pub(crate) fn copy_model(&self) {
        copy_folder(Path::new(&model()), &self.path("model"));
    }

    /// The same with its tensors as `damage` leaves them.
    pub(crate) fn damaged_model(&self, damage: impl FnOnce(&mut HashMap<String, TensorView<'_>>)) {
        self.copy_model();
        let path = self.path("model/model.safetensors");
        let bytes = fs::read(&path).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let mut tensors: HashMap<String, TensorView<'_>> = file.tensors().into_iter().collect();
        damage(&mut tensors);
        fs::write(path, safetensors::serialize(&tensors, None).unwrap()).unwrap();
    }

    /// The program with `args`, ready to run in this folder.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_l1ra"));
        command.args(args).current_dir(self.dir.path());
        for name in ["CI", "HF_TOKEN", "RUST_BACKTRACE", "RUST_LOG"] {
            command.env_remove(name);
        }
        for name in ["HOME", "XDG_CACHE_HOME", "L1RA_CACHE", "HF_HOME"] {
            command.env(name, self.home.path());
        }
        for (name, value) in [
            ("HF_HUB_OFFLINE", "1"),
            ("NO_COLOR", "1"),
            ("COLUMNS", "100"),
        ] {
            command.env(name, value);
        }
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.finish(&mut self.command(args))
    }

    /// The same with `input` as its standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &str) -> Ran {
        self.finish(self.command(args).write_stdin(input))
    }

    fn finish(&self, command: &mut Command) -> Ran {
        let output = command.output().unwrap();
        Ran {
            code: output.status.code(),
            stdout: self.portable(&String::from_utf8(output.stdout).unwrap()),
            stderr: self.portable(&String::from_utf8(output.stderr).unwrap()),
        }
    }

    /// `text` without paths of this machine.
    pub(crate) fn portable(&self, text: &str) -> String {
        let mut text = text.to_string();
        let places = [
            (self.dir.path().to_path_buf(), "[dir]"),
            (self.home.path().to_path_buf(), "[home]"),
            (repository(), "[repository]"),
        ];
        for (path, name) in places {
            let real = path.canonicalize().unwrap();
            for path in [real, path] {
                text = text.replace(&path.display().to_string(), name);
            }
        }
        text
    }

    /// What the program says of the mistake in `args`. It must end with 2 and change nothing.
    pub(crate) fn mistake(&self, args: &[&str]) -> String {
        let before = self.tree();
        let ran = self.run(args);
        let said = &ran.stderr;
        assert_eq!(ran.code, Some(2), "{}{said}", ran.stdout);
        assert!(said.starts_with("error: "), "{said}");
        assert_eq!(ran.stdout, "", "{said}");
        for sign in ["panicked", "RUST_BACKTRACE", "stack backtrace"] {
            assert!(!said.contains(sign), "`{sign}` in: {said}");
        }
        assert_eq!(self.tree(), before, "{said}");
        said.trim_end().to_string()
    }

    /// Every file of the folder with its size; folders have none.
    pub(crate) fn tree(&self) -> BTreeMap<String, Option<u64>> {
        let mut tree = BTreeMap::new();
        list(self.dir.path(), "", &mut tree);
        tree
    }

    /// Names of the files and folders in `folder`.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn list(dir: &Path, prefix: &str, tree: &mut BTreeMap<String, Option<u64>>) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = entry.metadata().unwrap();
        if metadata.is_dir() {
            list(&entry.path(), &format!("{name}/"), tree);
            tree.insert(name, None);
        } else {
            tree.insert(name, Some(metadata.len()));
        }
    }
}

/// The files of a folder, not those of folders in it, in a new one.
pub(crate) fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.metadata().unwrap().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// The values of a JSONL file.
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    let parse = |line| serde_json::from_str(line).unwrap();
    text.lines().map(parse).collect()
}
