//! [`RecipeFile`]: a recipe from its file, with the command line laid over it.

use std::{
    path::{Path, PathBuf},
    thread,
};

use l1ra_core::{ConfigError, CoreError};
use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    error::TrainError,
    recipe::{
        Origins, Recipe,
        keys::{KeyDoc, keys},
        origin::Lines,
    },
};

/// A recipe, and where each of its values was said.
#[derive(Clone, Debug)]
pub struct RecipeFile {
    /// What it says.
    pub recipe: Recipe,
    /// The file.
    pub path: PathBuf,
    /// Where each value was said.
    pub origins: Origins,
}

/// A value that the command line lays over the recipe.
#[derive(Clone, Debug, PartialEq)]
pub struct Override {
    /// Dotted key.
    pub key: String,
    /// The value.
    pub value: Value,
    /// How it was said, for messages: `--set train.steps=20`.
    pub said: String,
}

impl Override {
    /// From `key=value`, as `--set` takes it. A key that takes text needs no quotes; any other
    /// value is TOML.
    ///
    /// # Errors
    /// No `=`, or no key before it.
    pub fn set(text: &str) -> Result<Self, TrainError> {
        let said = format!("--set {text}");
        let pair = text
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()));
        let (key, value) = pair.filter(|(key, _)| !key.is_empty()).ok_or_else(|| {
            let detail = "is no `key=value`; for example --set train.steps=20";
            TrainError::recipe(&said, detail)
        })?;
        let is_text = keys().iter().any(|doc| doc.key == key && doc.is_text);
        let value = match parse_value(value) {
            Some(parsed) if !is_text || parsed.is_str() => parsed,
            _ => Value::String(value.into()),
        };
        Ok(Self {
            key: key.into(),
            value,
            said,
        })
    }

    /// From a flag of its own: `Override::flag("--data", "data.train", "rows.jsonl")`.
    pub fn flag(flag: &str, key: &str, value: impl Into<Value>) -> Self {
        let value = value.into();
        let shown = |value: &Value| match value {
            Value::String(text) => format!("{flag} {text}"),
            other => format!("{flag} {other}"),
        };
        let said = match &value {
            Value::Array(values) => values.iter().map(shown).collect::<Vec<_>>().join(" "),
            one => shown(one),
        };
        Self {
            key: key.into(),
            value,
            said,
        }
    }
}

fn parse_value(text: &str) -> Option<Value> {
    let mut table: Table = toml::from_str(&format!("value = {text}")).ok()?;
    table.remove("value").filter(|_| table.is_empty())
}

impl RecipeFile {
    /// Reads `path` and lays `overrides` over it, the last one on top; ranges are checked
    /// ([`Recipe::validate`]), files that it names are not opened.
    ///
    /// # Errors
    /// A file that cannot be read or is no TOML; a key that is unknown, with the nearest valid one;
    /// a value of the wrong type or outside its range; two overrides of which only one may be said.
    /// Each says where it was said.
    pub fn load(path: &Path, overrides: &[Override]) -> Result<Self, TrainError> {
        if !path.is_file() {
            let what = match path.is_dir() {
                true => "is a folder",
                false => "no such file",
            };
            return Err(TrainError::recipe(
                path.display(),
                format!("{what}; {A_RECIPE}"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(|error| TrainError::io(path, error))?;
        Self::parse(path, &text, overrides)
    }

    /// The same for a text that is in memory; `path` is for messages.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(path: &Path, text: &str, overrides: &[Override]) -> Result<Self, TrainError> {
        if text.len() > MAX_BYTES {
            let seen = text.len();
            let detail = format!("has {seen} bytes; a recipe has {MAX_BYTES} at most; {A_RECIPE}");
            return Err(TrainError::recipe(path.display(), detail));
        }
        on_stack(|| Self::parse_deep(path, text, overrides))
            .unwrap_or_else(|error| Err(TrainError::io(path, error)))
    }

    /// [`parse`](Self::parse), where tables may lie thousands within each other.
    fn parse_deep(path: &Path, text: &str, overrides: &[Override]) -> Result<Self, TrainError> {
        let mut table: Table = toml::from_str(text).map_err(|error| no_toml(path, text, &error))?;
        let mut origins = Origins::of_document(path, text);
        check_alternatives(overrides)?;
        for item in overrides {
            give_way(&mut table, &item.key);
            insert(&mut table, item)?;
            origins.note(&item.key, &item.said);
        }
        let known = keys();
        check_keys(&table, "", &known, &origins)?;
        let recipe = deserialise(table, &known, &origins)?;
        let file = Self {
            recipe,
            path: path.into(),
            origins,
        };
        match file.recipe.validate() {
            Ok(()) => Ok(file),
            Err(error) => Err(file.explain(error)),
        }
    }

    /// Says where the value that `error` complains of was said, if it complains of one.
    pub fn explain(&self, error: TrainError) -> TrainError {
        let Some(field) = field_of(&error) else {
            return self.explain_path(error);
        };
        let key = dotted(field);
        let message = error.to_string();
        // `rank = 0: …` becomes `adapters.rank = 0: …`; a sentence stays as it is.
        let detail = match message.strip_prefix(&format!("{field} = ")) {
            Some(rest) => format!("{key} = {rest}"),
            None => message,
        };
        TrainError::recipe(self.origins.place(&key), detail)
    }
}

impl RecipeFile {
    /// The same for a path that the recipe names.
    fn explain_path(&self, error: TrainError) -> TrainError {
        let message = error.to_string();
        let about = |path: &str| message.starts_with(&format!("{path}: "));
        let named = self.paths();
        let Some((key, path)) = named.into_iter().find(|(_, path)| about(path)) else {
            return error;
        };
        if !error.is_users_mistake() {
            return error;
        }
        let place = self.origins.place(key);
        // `--model x: x: no such file` says x twice.
        let again = format!("{path}: ");
        let detail = match message.strip_prefix(&again) {
            Some(rest) if place.ends_with(path) => rest.into(),
            _ => message,
        };
        TrainError::recipe(place, detail)
    }

    /// Files and folders that the recipe names, each with its key.
    fn paths(&self) -> Vec<(&'static str, &str)> {
        let Recipe { model, data, .. } = &self.recipe;
        let mut paths = vec![("model.path", model.path.as_str())];
        let template = model.chat_template.as_ref().and_then(|path| path.to_str());
        paths.extend(template.map(|path| ("model.chat_template", path)));
        for (key, sources) in [("data.train", &data.train), ("data.eval", &data.eval)] {
            paths.extend(sources.iter().map(|source| (key, source.path.as_str())));
        }
        paths
    }
}

/// The setting that an error complains of.
fn field_of(error: &TrainError) -> Option<&'static str> {
    match error {
        TrainError::Option { field, .. } => Some(field),
        TrainError::Device(_) => Some("device"),
        TrainError::Core(CoreError::Config(inner)) => Some(match inner {
            ConfigError::Value { field, .. } | ConfigError::Pattern { field, .. } => field,
            ConfigError::UnknownTarget { .. } => "targets",
            ConfigError::Schedule { .. } => "update_ratio",
        }),
        _ => None,
    }
}

/// The one key that ends with `field`; `field` itself where there is none or several.
fn dotted(field: &str) -> String {
    let known = keys();
    let ends = |doc: &&KeyDoc| doc.key == field || doc.key.ends_with(&format!(".{field}"));
    let mut found = known.iter().filter(ends);
    match (found.next(), found.next()) {
        (Some(doc), None) => doc.key.clone(),
        _ => field.into(),
    }
}

/// Stack for the tables of a recipe: dotted keys within inline tables make 80 · 80 of them from a few
/// thousand bytes, and they are read and dropped by recursion.
const STACK: usize = 1 << 28;

/// Does `work` in a thread with that stack, which takes no memory until it is used.
fn on_stack<T: Send>(work: impl FnOnce() -> T + Send) -> std::io::Result<T> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("recipe".into());
        let joined = builder.stack_size(STACK).spawn_scoped(scope, work)?.join();
        Ok(joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Longest recipe; a parsed one takes many times its size.
const MAX_BYTES: usize = 1 << 18;

const A_RECIPE: &str = "a recipe is a TOML file (see the folder recipes)";

fn no_toml(path: &Path, text: &str, error: &toml::de::Error) -> TrainError {
    let place = match error.span() {
        Some(span) => {
            let line = Lines::new(text).of(span.start);
            format!("{}, line {line}", path.display())
        }
        None => path.display().to_string(),
    };
    let mut detail = format!("is not TOML: {}", error.message());
    if path.extension().is_some_and(|ending| ending != "toml") {
        detail += &format!("; {A_RECIPE}");
    }
    TrainError::recipe(place, detail)
}

/// Keys of which only one may be said: the command line's takes the place of the file's.
const EITHER_OR: [[&str; 2]; 2] = [["steps", "epochs"], ["warmup_steps", "warmup_ratio"]];

/// The key of `[train]` that a value for `key` excludes.
fn alternative(key: &str) -> Option<&'static str> {
    let name = key.strip_prefix("train.")?;
    EITHER_OR.iter().find_map(|[one, other]| match name {
        _ if name == *one => Some(*other),
        _ if name == *other => Some(*one),
        _ => None,
    })
}

/// The command line must not say both of two alternatives: which of them is meant cannot be told.
fn check_alternatives(overrides: &[Override]) -> Result<(), TrainError> {
    for (index, item) in overrides.iter().enumerate() {
        let Some(name) = alternative(&item.key) else {
            continue;
        };
        let other = format!("train.{name}");
        if let Some(earlier) = overrides[..index].iter().find(|item| item.key == other) {
            let detail = format!("{} is given as well; keep one of them", earlier.said);
            return Err(TrainError::recipe(&item.said, detail));
        }
    }
    Ok(())
}

/// Takes the key out that a value for `key` excludes.
fn give_way(table: &mut Table, key: &str) {
    if let (Some(name), Some(Value::Table(train))) = (alternative(key), table.get_mut("train")) {
        train.remove(name);
    }
}

/// Puts a value at its dotted key; tables on the way are made.
fn insert(table: &mut Table, item: &Override) -> Result<(), TrainError> {
    let mut place = table;
    let mut parts = item.key.split('.').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            place.insert(part.into(), item.value.clone());
            return Ok(());
        }
        let below = place
            .entry(part)
            .or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(below) = below else {
            let detail = format!("`{part}` is a value, not a section with keys");
            return Err(TrainError::recipe(&item.said, detail));
        };
        place = below;
    }
    Ok(())
}

/// Every key must be known; sections must be tables.
fn check_keys(
    table: &Table,
    prefix: &str,
    known: &[KeyDoc],
    origins: &Origins,
) -> Result<(), TrainError> {
    for (name, value) in table {
        let key = match prefix {
            "" => name.clone(),
            _ => format!("{prefix}.{name}"),
        };
        if known.iter().any(|doc| doc.key == key) {
            continue;
        }
        let section = format!("{key}.");
        let is_section = known.iter().any(|doc| doc.key.starts_with(&section));
        match value {
            Value::Table(below) if is_section => check_keys(below, &key, known, origins)?,
            _ if is_section => {
                let detail = format!("`{key}` is a section; write [{key}] and its keys below");
                return Err(TrainError::recipe(origins.place(&key), detail));
            }
            Value::Table(_) if prefix.is_empty() => {
                let nearest = nearest(&key, &sections(known));
                let detail = format!("`{key}` is no section of a recipe; nearest: {nearest}");
                return Err(TrainError::recipe(origins.place(&key), detail));
            }
            _ => {
                let keys: Vec<&str> = known.iter().map(|doc| doc.key.as_str()).collect();
                let nearest = nearest(&key, &keys);
                let detail = format!("`{key}` is no key of a recipe; nearest: {nearest}");
                return Err(TrainError::recipe(origins.place(&key), detail));
            }
        }
    }
    Ok(())
}

/// Names of the sections.
fn sections(known: &[KeyDoc]) -> Vec<&str> {
    let parts = known.iter().filter_map(|doc| doc.key.split_once('.'));
    let mut names: Vec<&str> = parts.map(|(section, _)| section).collect();
    names.dedup();
    names
}

/// The nearest valid keys, by the whole key and by its last part.
fn nearest(key: &str, known: &[&str]) -> String {
    // A likeness takes time as the product of both lengths.
    let key = &key[..key.floor_char_boundary(100)];
    let last = |key: &str| key.rsplit('.').next().unwrap_or(key).to_string();
    let likeness = |other: &str| {
        let whole = strsim::jaro_winkler(key, other);
        let part = strsim::jaro_winkler(&last(key), &last(other));
        whole.max(part)
    };
    let mut ranked: Vec<(f64, &str)> = known.iter().map(|d| (likeness(d), *d)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let names: Vec<&str> = ranked.iter().take(3).map(|(_, key)| *key).collect();
    names.join(", ")
}

fn deserialise(table: Table, known: &[KeyDoc], origins: &Origins) -> Result<Recipe, TrainError> {
    let table = Value::Table(table);
    let result: Result<Recipe, _> = serde_path_to_error::deserialize(table.clone());
    result.map_err(|error| {
        let path = error.path().to_string();
        let key = known.iter().find(|doc| doc.key == path);
        let seen = lookup(&table, &path).map(|value| format!(" = {value}"));
        let detail = match key {
            Some(doc) => format!("{path}{}: expected {}", seen.unwrap_or_default(), doc.kind),
            None => format!("{path}: {}", error.inner().message().trim_end()),
        };
        TrainError::recipe(origins.place(&path), detail)
    })
}

fn lookup<'a>(table: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(table, |place, part| place.get(part))
}

impl Recipe {
    /// The recipe as TOML, to be saved with its run.
    ///
    /// # Errors
    /// A value that TOML cannot hold (a whole number beyond 63 bits).
    pub fn to_toml(&self) -> Result<String, TrainError> {
        toml::to_string_pretty(self)
            .map_err(|error| TrainError::recipe("the resolved recipe", error.to_string()))
    }

    /// A recipe from TOML without overrides, as [`to_toml`](Self::to_toml) writes it.
    ///
    /// # Errors
    /// A value that does not fit its key.
    pub fn from_toml(text: &str) -> Result<Self, TrainError> {
        let table = Value::Table(
            toml::from_str(text).map_err(|error| no_toml(Path::new("recipe"), text, &error))?,
        );
        Self::deserialize(table).map_err(|error| TrainError::recipe("recipe", error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "output = \"runs/x\"\n\n[model]\npath = \"m\"\n\n[data]\ntrain = \"d.jsonl\"\n\n\
                        [train]\nsteps = 40\n";

    fn load(text: &str, sets: &[&str]) -> Result<RecipeFile, String> {
        let overrides: Vec<Override> = sets.iter().map(|s| Override::set(s).unwrap()).collect();
        RecipeFile::parse(Path::new("r.toml"), text, &overrides).map_err(|e| e.to_string())
    }

    fn mistake(text: &str, sets: &[&str]) -> String {
        load(text, sets).unwrap_err()
    }

    #[test]
    fn a_recipe_and_the_command_line_over_it() {
        let sets = [
            "train.steps=20",
            "output=2024",
            "adapters.policy=reference",
            "train.lr=1e-3",
        ];
        let file = load(GOOD, &sets).unwrap();
        assert_eq!(file.recipe.train.steps, Some(20));
        assert_eq!(file.recipe.output, PathBuf::from("2024"));
        assert_eq!(file.recipe.adapters.policy, l1ra_core::Policy::Reference);
        assert_eq!(file.recipe.train.lr, 1e-3);
    }

    #[test]
    fn epochs_on_the_command_line_take_the_place_of_steps() {
        let train = load(GOOD, &["train.epochs=2", "train.warmup_ratio=0.2"]).unwrap();
        assert_eq!(train.recipe.train.steps, None);
        assert_eq!(train.recipe.train.epochs, Some(2.0));
    }

    #[test]
    fn alternatives_on_the_command_line_are_a_mistake() {
        insta::assert_snapshot!(mistake(GOOD, &["train.steps=4", "train.epochs=2"]), @"--set train.epochs=2: --set train.steps=4 is given as well; keep one of them");
        insta::assert_snapshot!(mistake(GOOD, &["train.warmup_ratio=0.1", "train.lr=1e-3", "train.warmup_steps=3"]), @"--set train.warmup_steps=3: --set train.warmup_ratio=0.1 is given as well; keep one of them");
        // The same key twice: the last one counts.
        let twice = load(GOOD, &["train.steps=20", "train.steps=30"]).unwrap();
        assert_eq!(twice.recipe.train.steps, Some(30));
    }

    #[test]
    fn a_saved_recipe_is_read_back() {
        let recipe = load(GOOD, &["adapters.rank_pattern={q_proj=4}"])
            .unwrap()
            .recipe;
        assert_eq!(
            Recipe::from_toml(&recipe.to_toml().unwrap()).unwrap(),
            recipe
        );
    }

    #[test]
    fn mistakes_say_where_and_what_to_write() {
        let bad = GOOD.replace("steps = 40", "step = 40");
        insta::assert_snapshot!(mistake(&bad, &[]), @"r.toml, line 10: `train.step` is no key of a recipe; nearest: train.steps, train.seed, train.epochs");
        let bad = GOOD.replace("steps = 40", "steps = \"many\"");
        insta::assert_snapshot!(mistake(&bad, &[]), @r#"r.toml, line 10: train.steps = "many": expected a whole number, 0 or more"#);
        let bad = GOOD.replace("steps = 40", "steps = -1");
        insta::assert_snapshot!(mistake(&bad, &[]), @"r.toml, line 10: train.steps = -1: expected a whole number, 0 or more");
        insta::assert_snapshot!(mistake(GOOD, &["train.schedule=cosinus"]), @r#"--set train.schedule=cosinus: train.schedule = "cosinus": expected one of cosine, linear, constant"#);
        insta::assert_snapshot!(mistake(GOOD, &["adapters.rank=0"]), @"--set adapters.rank=0: adapters.rank = 0: an adapter has a rank of at least 1");
        insta::assert_snapshot!(mistake(GOOD, &["adapters.policy=lasso", "adapters.update_ratio=0.01"]), @r#"--set adapters.update_ratio=0.01: rank reallocation cannot work with this schedule: update_ratio = 0.01 asks for more updates than the 40 optimizer steps of this run. Use an update_ratio of at least 0.025, train for more steps, or set policy = "lora""#);
        insta::assert_snapshot!(mistake(GOOD, &["model=x"]), @"--set model=x: `model` is a section; write [model] and its keys below");
        insta::assert_snapshot!(mistake("[train]\nlr = = 3\n", &[]), @"r.toml, line 2: is not TOML: extra `=`, expected nothing");
        insta::assert_snapshot!(mistake("[model]\npath = \"m\"\n", &[]), @"r.toml: data.train = (nothing): a file, a list of files, or tables with `path`; or give --data");
    }
}
