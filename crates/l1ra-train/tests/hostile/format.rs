//! [`Format`]: what is damaged, how it is loaded, and what loading may cost; and the run over it.
//!
//! To add a format, write a module with a function that gives its [`Format`] and a test that
//! [`run`]s it.

use std::{
    any::Any,
    env,
    error::Error,
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, Once, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    damage::{Shell, damage},
    dice::Dice,
    memory::Peak,
    watch::Watched,
};

/// What loading ends in: success, or an error of a type.
pub(crate) type Outcome = Result<(), Box<dyn Error>>;

/// Memory that every loader may take beside what it takes for the size of its file.
pub(crate) const ALLOWANCE: usize = 2 << 20;

/// A format of files.
pub(crate) struct Format {
    pub(crate) name: &'static str,
    /// Files that load.
    pub(crate) seeds: Vec<Seed>,
    /// Number of damaged inputs.
    pub(crate) inputs: usize,
    /// Loads what lies in a folder and touches all of it.
    pub(crate) load: Box<dyn Fn(&Path) -> Outcome>,
    /// Bytes of memory that a byte of the folder's files may cost.
    pub(crate) factor: usize,
    /// Bytes of memory beside that.
    pub(crate) allowance: usize,
}

impl Format {
    /// A format with the bound that holds for most: twice the file, and [`ALLOWANCE`].
    pub(crate) fn new(name: &'static str, load: impl Fn(&Path) -> Outcome + 'static) -> Self {
        Self {
            name,
            seeds: Vec::new(),
            inputs: 0,
            load: Box::new(load),
            factor: 2,
            allowance: ALLOWANCE,
        }
    }
}

/// A folder that loads, and the file in it that is damaged.
#[derive(Clone, Debug)]
pub(crate) struct Seed {
    pub(crate) shell: Shell,
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Files beside it, which stay as they are.
    pub(crate) beside: Vec<(String, Vec<u8>)>,
}

impl Seed {
    pub(crate) fn new(shell: Shell, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        Self {
            shell,
            name: name.into(),
            bytes: bytes.into(),
            beside: Vec::new(),
        }
    }

    pub(crate) fn beside(mut self, name: &str, bytes: impl Into<Vec<u8>>) -> Self {
        self.beside.push((name.into(), bytes.into()));
        self
    }

    /// The folder `dir` as a seed for each file that `damaged` names, with the others beside it.
    pub(crate) fn each_of(dir: &Path, damaged: &[(&str, Shell)]) -> Vec<Self> {
        let all: Vec<(String, Vec<u8>)> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.path().is_file())
            .map(|entry| {
                let name = entry.file_name().into_string().unwrap();
                (name, fs::read(entry.path()).unwrap())
            })
            .collect();
        let seed = |(name, shell): &(&str, Shell)| {
            let (own, beside): (Vec<_>, Vec<_>) =
                all.clone().into_iter().partition(|f| f.0 == *name);
            Self {
                shell: *shell,
                name: (*name).into(),
                bytes: own[0].1.clone(),
                beside,
            }
        };
        damaged.iter().map(seed).collect()
    }
}

/// The file `path` of this repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// Loads every seed, then every damaged input; panics with all that went wrong.
///
/// `L1RA_HOSTILE_INPUT=7` tries that input alone, `L1RA_HOSTILE_TIMES=10` ten times as many.
pub(crate) fn run(make: impl FnOnce() -> Format) {
    let _alone = alone();
    let format = &make();
    let place = Place::new(format.name);
    for (number, seed) in format.seeds.iter().enumerate() {
        place.lay_out(seed, &seed.bytes);
        let loaded = (format.load)(&place.dir);
        assert!(
            loaded.is_ok(),
            "{}: seed {number} does not load: {loaded:?}",
            format.name
        );
    }
    let setting = |name: &str| {
        env::var(name)
            .ok()
            .and_then(|text| text.parse::<usize>().ok())
    };
    let count = format.inputs * setting("L1RA_HOSTILE_TIMES").unwrap_or(1);
    let inputs = match setting("L1RA_HOSTILE_INPUT") {
        Some(one) => one..one + 1,
        None => 0..count,
    };
    let (began, mut seen) = (Instant::now(), Seen::default());
    for input in inputs {
        let mut dice = Dice::new(format.name, input);
        let seed = dice.pick(&format.seeds);
        let mut bytes = seed.bytes.clone();
        damage(&mut bytes, seed.shell, &mut dice);
        let what = format!("{}, input {input}", format.name);
        seen.add(place.attempt(format, seed, &bytes, what));
    }
    seen.tell(format, began.elapsed());
}

/// A format and inputs of it that were found before, or made up, with their names.
pub(crate) type Crafted = (Format, Vec<(&'static str, Seed)>);

/// Loads crafted inputs, as [`run`] does damaged ones: what was found before stays mended.
pub(crate) fn run_crafted(make: impl FnOnce() -> Crafted) {
    let _alone = alone();
    let (format, crafted) = make();
    let format = &format;
    let (began, mut seen) = (Instant::now(), Seen::default());
    for (name, seed) in crafted {
        let what = format!("{}, {name}", format.name);
        let place = Place::new(&format!("{}-crafted", format.name));
        seen.add(place.attempt(format, &seed, &seed.bytes, what));
    }
    seen.tell(format, began.elapsed());
}

/// What the attempts gave.
#[derive(Default)]
struct Seen {
    loaded: usize,
    refused: usize,
    /// The most memory beyond the file's share.
    most: usize,
    slowest: Duration,
    failures: Vec<String>,
}

/// What one attempt gave: whether the input loaded, bytes, time.
type Attempt = Result<(bool, usize, Duration), String>;

impl Seen {
    fn add(&mut self, attempt: Attempt) {
        match attempt {
            Ok((loaded, bytes, time)) => {
                self.loaded += usize::from(loaded);
                self.refused += usize::from(!loaded);
                self.most = self.most.max(bytes);
                self.slowest = self.slowest.max(time);
            }
            Err(failure) => self.failures.push(failure),
        }
    }

    fn tell(&self, format: &Format, took: Duration) {
        println!(
            "{}: {} inputs in {:.1} s; {} loaded, {} were refused; at most {} kB beside {} × the \
             file; slowest {:.3} s",
            format.name,
            self.loaded + self.refused + self.failures.len(),
            took.as_secs_f64(),
            self.loaded,
            self.refused,
            self.most / 1000,
            format.factor,
            self.slowest.as_secs_f64(),
        );
        let shown: Vec<&str> = self.failures.iter().take(8).map(String::as_str).collect();
        let count = self.failures.len();
        assert!(count == 0, "{count} failures\n{}", shown.join("\n"));
    }
}

/// A folder that is written anew for every input.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new(name: &str) -> Self {
        let dir = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("hostile")
            .join(name);
        fs::create_dir_all(&dir).unwrap();
        let place = Self { dir };
        place.clear();
        place
    }

    fn clear(&self) {
        for entry in fs::read_dir(&self.dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else {
                fs::remove_file(path).unwrap();
            }
        }
    }

    fn lay_out(&self, seed: &Seed, bytes: &[u8]) {
        self.clear();
        for (name, bytes) in &seed.beside {
            fs::write(self.dir.join(name), bytes).unwrap();
        }
        fs::write(self.dir.join(&seed.name), bytes).unwrap();
    }

    /// Loads `bytes` in place of the seed's. The folder stays until the next attempt, so that it is
    /// there when a hang or an overflow of the stack ends the process.
    fn attempt(&self, format: &Format, seed: &Seed, bytes: &[u8], what: String) -> Attempt {
        self.lay_out(seed, bytes);
        let _watched = Watched::new(what.clone(), self.dir.join(&seed.name));
        let (began, memory) = (Instant::now(), Peak::begin());
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| {
            (format.load)(&self.dir).map_err(|error| error.to_string())
        }));
        let (took, peak) = (began.elapsed(), memory.bytes());
        let beside = seed.beside.iter().map(|(_, bytes)| bytes.len());
        let size = bytes.len() + beside.sum::<usize>();
        let beyond = peak.saturating_sub(format.factor * size);
        let wrong = match &outcome {
            Err(panic) => Some(format!("panicked: {} {}", words(panic), last_panic())),
            Ok(Err(message)) if message.trim().is_empty() => Some("has no message".into()),
            Ok(_) if beyond > format.allowance => Some(format!(
                "took {peak} bytes for {size}; {} × that and {} are allowed",
                format.factor, format.allowance
            )),
            Ok(_) => None,
        };
        match (wrong, outcome) {
            (None, Ok(loaded)) => Ok((loaded.is_ok(), beyond, took)),
            (wrong, _) => {
                let kept = self.keep(seed, bytes, &what);
                let wrong = wrong.unwrap_or_default();
                Err(format!("{what}: {wrong}\n  kept in {}", kept.display()))
            }
        }
    }

    /// Keeps an input that went wrong.
    fn keep(&self, seed: &Seed, bytes: &[u8], what: &str) -> PathBuf {
        let name = what.replace(", ", "-").replace(' ', "-");
        let failed = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("hostile-failed")
            .join(name);
        fs::create_dir_all(&failed).unwrap();
        for (name, bytes) in &seed.beside {
            fs::write(failed.join(name), bytes).unwrap();
        }
        let kept = failed.join(&seed.name);
        fs::write(&kept, bytes).unwrap();
        kept
    }
}

fn words(panic: &Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into()))
        .unwrap_or_default()
}

static PANIC: Mutex<String> = Mutex::new(String::new());

/// Where the last panic was.
fn last_panic() -> String {
    PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Formats run one after the other: memory is counted for the whole process.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    static QUIET: Once = Once::new();
    QUIET.call_once(|| {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            let place = info
                .location()
                .map(|l| format!("({}:{})", l.file(), l.line()));
            *PANIC.lock().unwrap_or_else(PoisonError::into_inner) = place.unwrap_or_default();
            if !crate::watch::is_watching() {
                loud(info);
            }
        }));
    });
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes a file that the fuzzer begins with.
pub(crate) fn write_fuzz_seed(target: &str, name: &str, bytes: &[u8]) {
    let dir = repository("fuzz/seeds").join(target);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(name), bytes).unwrap();
}
