//! Which linear layers get an adapter, with which rank and alpha.

use std::{borrow::Cow, collections::HashMap, fmt};

use indexmap::IndexMap;
use regex::{Regex, RegexBuilder};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{config::L1raConfig, error::ConfigError};

/// The word that selects every linear layer but the output head.
pub const ALL_LINEAR: &str = "all-linear";

/// Selection of linear layers, in the forms that PEFT's `target_modules` takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Targets {
    /// Every linear layer but the output head (`"all-linear"`).
    #[default]
    AllLinear,
    /// Names: a layer is selected when its path is the name or ends with `.name`.
    Names(Vec<String>),
    /// A regular expression that must match a layer's whole path.
    Regex(String),
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AllLinear => f.write_str(ALL_LINEAR),
            Self::Names(names) => f.write_str(&names.join(", ")),
            Self::Regex(pattern) => f.write_str(pattern),
        }
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum TargetsForm {
    Text(String),
    Names(Vec<String>),
}

impl Serialize for Targets {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::AllLinear => TargetsForm::Text(ALL_LINEAR.into()),
            Self::Names(names) => TargetsForm::Names(names.clone()),
            Self::Regex(pattern) => TargetsForm::Text(pattern.clone()),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Targets {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match TargetsForm::deserialize(deserializer)? {
            TargetsForm::Text(text) => Self::from(text.as_str()),
            TargetsForm::Names(names) => Self::Names(names),
        })
    }
}

impl JsonSchema for Targets {
    fn schema_name() -> Cow<'static, str> {
        "Targets".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "array"],
            "items": { "type": "string" },
            "x-kind": "\"all-linear\", a list of names, or a regular expression",
        })
    }
}

impl From<&str> for Targets {
    /// `all-linear`, or a regular expression.
    fn from(text: &str) -> Self {
        if text == ALL_LINEAR {
            Self::AllLinear
        } else {
            Self::Regex(text.into())
        }
    }
}

/// Shape of an adapter to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterSpec {
    /// Path of the linear layer.
    pub path: String,
    /// Rank that it begins with; 0 for a layer that is only open to ranks.
    pub rank: usize,
    /// `r0`: what the scale, and A's with [`Init::Gaussian`](crate::config::Init), belong to.
    pub initial_rank: usize,
    /// Scale numerator; the scale is `alpha / r0`.
    pub alpha: f64,
}

impl Targets {
    /// The paths among `linears` that are selected, in their order.
    ///
    /// The output head (`lm_head`) is selected only by name or expression.
    ///
    /// # Errors
    /// [`ConfigError::UnknownTarget`] for a name or expression that matches nothing.
    pub fn select<'a>(&self, linears: &'a [String]) -> Result<Vec<&'a str>, ConfigError> {
        let selected: Vec<&str> = match self {
            Self::AllLinear => linears.iter().filter(|path| !is_head(path)).collect(),
            Self::Names(names) => {
                for name in names {
                    if !linears.iter().any(|path| ends_with_name(path, name)) {
                        return Err(unknown(name, linears));
                    }
                }
                let named = |path: &&String| names.iter().any(|name| ends_with_name(path, name));
                linears.iter().filter(named).collect()
            }
            Self::Regex(pattern) => {
                let regex = compile("targets", pattern, &format!("^(?:{pattern})$"))?;
                linears
                    .iter()
                    .filter(|path| regex.is_match(path))
                    .collect::<Vec<_>>()
            }
        }
        .into_iter()
        .map(String::as_str)
        .collect();
        if selected.is_empty() {
            return Err(self.matches_nothing(linears));
        }
        Ok(selected)
    }
}

impl Targets {
    /// An expression that was perhaps meant as names: says how names are written.
    fn matches_nothing(&self, linears: &[String]) -> ConfigError {
        let text = self.to_string();
        let mut error = unknown(&text, linears);
        if let (Self::Regex(_), ConfigError::UnknownTarget { nearest, .. }) = (self, &mut error) {
            let names: Vec<&str> = text.split(',').map(str::trim).collect();
            nearest.push_str(&format!(
                "; a text is a regular expression for a layer's whole path, names are a list: \
                 {names:?}"
            ));
        }
        error
    }
}

/// The adapters that `config` asks for among the linear layers of a model.
///
/// # Errors
/// A target, rank pattern or alpha pattern that matches nothing or does not compile.
pub fn adapter_specs(
    config: &L1raConfig,
    linears: &[String],
) -> Result<Vec<AdapterSpec>, ConfigError> {
    let ranks = Pattern::compile_all("rank_pattern", &config.rank_pattern)?;
    let alphas = Pattern::compile_all("alpha_pattern", &config.alpha_pattern)?;
    let selected = config.targets.select(linears)?;
    for pattern in &ranks {
        pattern.must_match("rank_pattern", &selected, linears)?;
    }
    for pattern in &alphas {
        pattern.must_match("alpha_pattern", &selected, linears)?;
    }
    let open = match &config.open {
        None => Vec::new(),
        Some(open) => open.select(linears)?,
    };
    let spec = |path: &String| {
        let is_target = selected.contains(&path.as_str());
        if !is_target && !open.contains(&path.as_str()) {
            return None;
        }
        let initial_rank = first_match(&ranks, path).unwrap_or(config.rank);
        Some(AdapterSpec {
            path: path.clone(),
            rank: if is_target { initial_rank } else { 0 },
            initial_rank,
            alpha: first_match(&alphas, path).unwrap_or(config.alpha),
        })
    };
    Ok(linears.iter().filter_map(spec).collect())
}

/// PEFT's pattern key: `(.*\.)?(key)$` from the start of the path.
pub(crate) struct Pattern<T> {
    key: String,
    regex: Regex,
    value: T,
}

impl<T: Copy> Pattern<T> {
    pub(crate) fn compile_all(
        field: &'static str,
        patterns: &IndexMap<String, T>,
    ) -> Result<Vec<Self>, ConfigError> {
        let compile_one = |(key, value): (&String, &T)| {
            let regex = compile(field, key, &format!(r"^(.*\.)?({key})$"))?;
            Ok(Self {
                key: key.clone(),
                regex,
                value: *value,
            })
        };
        patterns.iter().map(compile_one).collect()
    }

    fn must_match(
        &self,
        field: &'static str,
        selected: &[&str],
        linears: &[String],
    ) -> Result<(), ConfigError> {
        if selected.iter().any(|path| self.regex.is_match(path)) {
            return Ok(());
        }
        let nearest = nearest(&self.key, linears);
        Err(ConfigError::Value {
            field,
            seen: format!("`{}`", self.key),
            expected: format!("a layer that gets an adapter; nearest: {nearest}"),
        })
    }
}

/// Most keys of a file that are expressions: each takes a while to compile.
const MAX_EXPRESSIONS: usize = 1000;

/// The path that a key stands for, where it matches nothing else: every adapter has such a key for
/// each of its layers.
fn plain_name(key: &str) -> Option<String> {
    let name = key.replace(r"\.", ".");
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    let parts = key.split(r"\.");
    let mut parts = parts.map(|part| !part.is_empty() && part.chars().all(is_plain));
    parts.all(|plain| plain).then_some(name)
}

/// The value of the first pattern that matches, for every path that one does. Patterns of a file are
/// compiled one at a time, as each may take megabytes.
pub(crate) fn first_values<'a, T: Copy>(
    field: &'static str,
    patterns: &IndexMap<String, T>,
    paths: impl Iterator<Item = &'a str>,
) -> Result<HashMap<&'a str, T>, ConfigError> {
    let mut left: Vec<&str> = paths.collect();
    let mut found = HashMap::new();
    let mut expressions = 0;
    for (key, value) in patterns {
        let name = plain_name(key);
        let regex = match name {
            Some(_) => None,
            None => Some(compile(field, key, &format!(r"^(.*\.)?({key})$"))?),
        };
        expressions += usize::from(name.is_none());
        if expressions > MAX_EXPRESSIONS {
            return Err(ConfigError::Value {
                field,
                seen: format!("{} keys", patterns.len()),
                expected: format!("at most {MAX_EXPRESSIONS} that are no plain paths"),
            });
        }
        let matches = |path: &&str| match (&name, &regex) {
            (Some(name), _) => ends_with_name(path, name),
            (None, Some(regex)) => regex.is_match(path),
            (None, None) => false,
        };
        let (matched, others): (Vec<&str>, Vec<&str>) = left.into_iter().partition(matches);
        left = others;
        found.extend(matched.into_iter().map(|path| (path, *value)));
    }
    Ok(found)
}

/// The value of the first pattern that matches `path`.
pub(crate) fn first_match<T: Copy>(patterns: &[Pattern<T>], path: &str) -> Option<T> {
    patterns
        .iter()
        .find(|pattern| pattern.regex.is_match(path))
        .map(|pattern| pattern.value)
}

/// Longest expression, in bytes: its parts take hundreds of times that while it is read.
const MAX_PATTERN: usize = 1 << 12;
/// Largest compiled expression, in bytes; one that names a layer takes a few thousand.
const MAX_REGEX: usize = 1 << 18;

fn compile(field: &'static str, pattern: &str, full: &str) -> Result<Regex, ConfigError> {
    if pattern.len() > MAX_PATTERN {
        return Err(ConfigError::Pattern {
            field,
            pattern: pattern.chars().take(60).collect::<String>() + "…",
            detail: format!("it has {} bytes; {MAX_PATTERN} at most", pattern.len()),
        });
    }
    // A few bytes, such as `\pL{500}`, may stand for megabytes, and take as long to build.
    let built = RegexBuilder::new(full).size_limit(MAX_REGEX).build();
    built.map_err(|error| {
        // The parser shows the expression with a mark below it; its last line says what is wrong.
        let text = error.to_string();
        let last = text.lines().last().unwrap_or_default();
        ConfigError::Pattern {
            field,
            pattern: pattern.into(),
            detail: last.trim_start_matches("error: ").into(),
        }
    })
}

fn is_head(path: &str) -> bool {
    ends_with_name(path, "lm_head")
}

/// Whether `path` is `name`, or ends with it at a dot.
pub(crate) fn ends_with_name(path: &str, name: &str) -> bool {
    path == name
        || path
            .strip_suffix(name)
            .is_some_and(|rest| rest.ends_with('.'))
}

/// A target that names no layer, with the nearest that are there.
pub(crate) fn unknown(target: &str, linears: &[String]) -> ConfigError {
    ConfigError::UnknownTarget {
        target: target.into(),
        nearest: nearest(target, linears),
    }
}

/// The nearest last components or, for a target that is dotted or one of them, the nearest full
/// paths.
fn nearest(target: &str, linears: &[String]) -> String {
    let last = |path: &str| path.rsplit('.').next().unwrap_or(path).to_string();
    let mut names: Vec<String> = linears.iter().map(|path| last(path)).collect();
    if target.contains('.') || names.iter().any(|name| name == target) {
        names = linears.to_vec();
    }
    names.sort();
    names.dedup();
    let likeness = |name: &str| match ends_with_name(name, target) {
        true => 2.0,
        false => strsim::jaro_winkler(target, name),
    };
    names.sort_by(|a, b| likeness(b).total_cmp(&likeness(a)));
    names.truncate(4);
    match names.as_slice() {
        [] => "(none)".into(),
        names => names.join(", "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn linears() -> Vec<String> {
        [
            "model.layers.0.self_attn.q_proj",
            "model.layers.0.mlp.down_proj",
            "lm_head",
        ]
        .map(String::from)
        .to_vec()
    }

    #[test]
    fn all_linear_leaves_the_head_out() {
        let linears = linears();
        assert_eq!(Targets::AllLinear.select(&linears).unwrap().len(), 2);
    }

    #[test]
    fn names_match_whole_components() {
        let linears = linears();
        let selected = Targets::Names(vec!["q_proj".into()])
            .select(&linears)
            .unwrap();
        assert_eq!(selected, ["model.layers.0.self_attn.q_proj"]);
        let error = Targets::Names(vec!["proj".into()])
            .select(&linears)
            .unwrap_err();
        assert!(error.to_string().contains("q_proj"), "{error}");
    }

    #[test]
    fn an_unknown_name_lists_the_nearest() {
        let error = Targets::Names(vec!["q_porj".into()])
            .select(&linears())
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "target `q_porj` matches no linear layer of this model; \
             nearest: q_proj, down_proj, lm_head"
        );
    }

    #[test]
    fn a_regex_matches_the_whole_path() {
        let linears = linears();
        assert!(Targets::from("q_proj").select(&linears).is_err());
        assert_eq!(
            Targets::from(r".*\.mlp\..*")
                .select(&linears)
                .unwrap()
                .len(),
            1
        );
    }

    #[test]
    fn keys_that_are_paths_match_as_expressions_do() {
        let paths = ["a.q_proj", "b.a.q_proj", "aXq_proj", "q_proj"];
        for key in [
            r"a\.q_proj",
            "q_proj",
            r"a.q_proj",
            r"[ab]\.q_proj",
            "",
            r"\.",
        ] {
            let patterns = IndexMap::from([(key.to_string(), 1)]);
            let seen = first_values("rank_pattern", &patterns, paths.into_iter()).unwrap();
            let compiled = Pattern::compile_all("rank_pattern", &patterns).unwrap();
            for path in paths {
                assert_eq!(
                    seen.get(path).copied(),
                    first_match(&compiled, path),
                    "{key} {path}"
                );
            }
        }
        assert_eq!(plain_name(r"a\.q_proj").as_deref(), Some("a.q_proj"));
        assert_eq!(plain_name("a.q_proj"), None);
    }

    #[test]
    fn the_first_rank_pattern_wins() {
        let mut config = L1raConfig::default();
        config.rank_pattern.insert(r"self_attn\.q_proj".into(), 4);
        config.rank_pattern.insert("q_proj".into(), 5);
        let specs = adapter_specs(&config, &linears()).unwrap();
        assert_eq!(specs[0].rank, 4);
        assert_eq!(specs[1].rank, 16);
    }
}
