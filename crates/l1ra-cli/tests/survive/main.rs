//! The program survives what ends programs: killed at any moment, asked to stop, without room on the
//! disk, with its folder gone. A run goes on from its checkpoints and ends with the adapter of a run that
//! nothing happened to, to the byte.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(unix)]

#[path = "../support/mod.rs"]
mod support;

mod compare;
mod disk;
mod held;
mod kill;
mod resume;
mod signals;

use std::{
    ffi::OsStr,
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::LazyLock,
    time::{Duration, Instant},
};

use support::{Place, Ran, model};

/// A run across rank updates and evaluations, with packing, dropout and accumulation, that saves often.
const RECIPE: &str = r#"output = "out"

[model]
path = 'MODEL'

[data]
train = "good.jsonl"
max_length = 48
packing = true
eval_rows = 2

[adapters]
rank = 4
alpha = 4.0
dropout = 0.1
policy = "lasso"
budget = "ranks"
lambda = 1.0
eta_c = 0.2
update_ratio = 0.2
settle_ratio = 0.1

[train]
steps = STEPS
batch_size = 1
accumulation = 2
lr = 1e-2
warmup_steps = 1
eval_every = 4

[checkpoint]
save_every = 1

[log]
report = false
"#;

/// A folder with the recipe for a run of `steps`.
fn place(steps: usize) -> Place {
    let place = Place::new();
    let recipe = RECIPE.replace("MODEL", &model());
    place.write("recipe.toml", recipe.replace("STEPS", &steps.to_string()));
    place
}

const TRAIN: [&str; 3] = ["train", "recipe.toml", "--quiet"];
const RESUME: [&str; 4] = ["train", "recipe.toml", "--quiet", "--resume"];

/// The files of the adapter in `out`.
fn adapter(place: &Place) -> Vec<(String, Vec<u8>)> {
    let names = place.names("out/adapter");
    names
        .into_iter()
        .map(|name| {
            let bytes = fs::read(place.path("out/adapter").join(&name)).unwrap();
            (name, bytes)
        })
        .collect()
}

/// The steps of 16-step runs, and what the undisturbed one gives.
const STEPS: usize = 16;

static WHOLE: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
    let place = place(STEPS);
    place.run(&TRAIN).well();
    adapter(&place)
});

/// Whether the adapter in `out` is that of the undisturbed run.
#[track_caller]
fn assert_whole(place: &Place) {
    let (seen, whole) = (adapter(place), &*WHOLE);
    assert_eq!(seen.len(), whole.len());
    for ((name, seen), (_, whole)) in seen.iter().zip(whole) {
        assert!(seen == whole, "{name} differs from the undisturbed run's");
    }
}

/// The program, started.
fn start(place: &Place, args: &[&str], environment: &[(&str, &str)]) -> Child {
    let mut command = through(place, &[], args);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(fs::File::create(place.path("said")).unwrap());
    for (name, value) in environment {
        command.env(name, value);
    }
    command.spawn().unwrap()
}

/// The program with `args`, as another one runs it whose words come `before` its own.
fn through(place: &Place, before: &[&str], args: &[&str]) -> Command {
    let made = place.command(args);
    let mut words = before.iter().map(OsStr::new).chain([made.get_program()]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(args).current_dir(place.path(""));
    for (name, value) in made.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Time in milliseconds between write and rename of a file that is whole or not there.
const PAUSE_NAME: &str = "L1RA_TEST_PAUSE_BEFORE_RENAME_MS";

/// For a run that something is done to half-way: slow enough for this process to see that moment.
const PAUSE: [(&str, &str); 1] = [(PAUSE_NAME, "100")];

/// Waits until `there` holds; the program must not end before.
#[track_caller]
fn wait_until(child: &mut Child, mut there: impl FnMut() -> bool) {
    let began = Instant::now();
    while !there() {
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none(), "ended before: {ended:?}");
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "nothing happens"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Number of steps in the run's metrics.
fn steps_done(place: &Place) -> usize {
    let text = fs::read_to_string(place.path("out/metrics.jsonl")).unwrap_or_default();
    text.matches("\"loss\"").count()
}

fn send(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let sent = Command::new("kill").args(["-s", signal, &id]).status();
    assert!(sent.unwrap().success());
}

fn said(place: &Place) -> String {
    place.portable(&place.read("said"))
}

/// Checkpoint files of the run.
fn checkpoints(place: &Place) -> Vec<String> {
    match Path::new(&place.path("out/checkpoints")).is_dir() {
        true => place.names("out/checkpoints"),
        false => Vec::new(),
    }
}

/// Runs until it ends; with a watchdog, as a hung program is a failure.
fn finish(child: &mut Child) -> Option<i32> {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        if began.elapsed() > Duration::from_secs(120) {
            child.kill().unwrap();
            panic!("does not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// `place` without this machine's paths, of a run that must fail with `code`.
#[track_caller]
fn failed(ran: &Ran, code: i32) -> String {
    assert_eq!(ran.code, Some(code), "{}{}", ran.stdout, ran.stderr);
    ran.stderr.trim_end().to_string()
}
