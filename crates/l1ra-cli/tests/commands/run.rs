//! The run that the tests share: trained once.

use std::{
    fs,
    path::Path,
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use tempfile::TempDir;

use crate::support::{Place, Ran, model, repository};

/// Six steps on the repository's model, with gates that go fast enough for ranks to move.
const RECIPE: &str = r#"output = "out"

[model]
path = 'MODEL'

[data]
train = "train.jsonl"
eval = "eval.jsonl"
max_length = 48

[adapters]
rank = 4
alpha = 4.0
policy = "lasso"
budget = "ranks"
lambda = 1.0
eta_c = 0.3
update_ratio = 0.34
settle_ratio = 0.1

[train]
steps = 6
batch_size = 2
lr = 2e-2
warmup_steps = 1

[log]
tensorboard = true
"#;

/// A finished run in the folder `out` of its place.
pub(crate) struct Trained {
    pub(crate) place: Place,
    /// What `l1ra --json train recipe.toml --plain` said.
    pub(crate) ran: Ran,
}

/// The run. Its files are read, never changed.
pub(crate) fn trained() -> &'static Trained {
    static RUN: LazyLock<Trained> = LazyLock::new(|| {
        let place = place();
        let ran = place
            .run(&["--json", "train", "recipe.toml", "--plain"])
            .well();
        Trained { place, ran }
    });
    &RUN
}

/// A static is never dropped, so the folder of the run before is removed here.
fn place() -> Place {
    const PREFIX: &str = "l1ra-commands-";
    let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let old = SystemTime::now() - Duration::from_secs(600);
    for entry in fs::read_dir(parent).unwrap().filter_map(Result::ok) {
        let is_ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let made = entry.metadata().and_then(|metadata| metadata.modified());
        if is_ours && made.is_ok_and(|made| made < old) {
            let _ = fs::remove_dir_all(entry.path()); // Another process may have been faster.
        }
    }
    let dir = tempfile::Builder::new().prefix(PREFIX).tempdir_in(parent);
    let place = with_data(dir.unwrap());
    place.write("recipe.toml", RECIPE.replace("MODEL", &model()));
    place
}

/// A place with real data in it: 40 rows to train on, 6 to evaluate on.
pub(crate) fn with_data(dir: TempDir) -> Place {
    let place = Place::of(dir);
    for (name, rows) in [("train.jsonl", 40), ("eval.jsonl", 6)] {
        let path = repository().join("examples/finetune/data").join(name);
        let text = fs::read_to_string(path).unwrap();
        let lines = text.lines().take(rows).map(|line| format!("{line}\n"));
        place.write(name, lines.collect::<String>());
    }
    place
}
