//! [`DataOptions`]: which data, and how it becomes rows.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    data::{DataForm, TooLong, TrainOn},
    error::TrainError,
};

/// Which data a run trains and evaluates on, and how it becomes rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DataOptions {
    /// Training data: a file or a pattern (`data/*.jsonl`), a list of them, or tables with `path`
    /// and perhaps `weight` (how often each sample is seen in an epoch; 2.5: twice, and half of
    /// them once more) and `form`. Files are .jsonl, .json, .parquet, .txt or .md.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(schema_with = "sources_schema")]
    pub train: Vec<DataSource>,
    /// Evaluation data, in the same way but without weights; without it, samples are held out of
    /// the training data.
    #[serde(deserialize_with = "one_or_many")]
    #[schemars(schema_with = "sources_schema")]
    pub eval: Vec<DataSource>,
    /// Share of the training samples that is held out where there is no evaluation data, in (0, 1).
    pub eval_fraction: f64,
    /// Most evaluation samples; 0: all.
    pub eval_rows: usize,
    /// What the records look like. Auto: recognised for every file from its first record.
    pub form: DataForm,
    /// Most tokens of a sample, and of a row; at least 2.
    pub max_length: usize,
    /// Which tokens the loss is taken on. Plain text: all of them in any case.
    pub train_on: TrainOn,
    /// What becomes of a sample with more tokens. Plain text files are cut into rows without loss.
    pub too_long: TooLong,
    /// Whether several samples share a training row. None sees another, so the loss is the same;
    /// there is less padding.
    pub packing: bool,
    /// Whether tokenised rows are kept in the cache ($L1RA_CACHE, or l1ra in the user's cache
    /// folder) for the next run on the same data.
    pub cache: bool,
    /// Seed of holding out, of fractional weights and of packing. Shuffling has the run's.
    pub seed: u64,
}

impl Default for DataOptions {
    fn default() -> Self {
        Self {
            train: Vec::new(),
            eval: Vec::new(),
            eval_fraction: 0.1,
            eval_rows: 0,
            form: DataForm::Auto,
            max_length: 512,
            train_on: TrainOn::Completions,
            too_long: TooLong::Cut,
            packing: false,
            cache: true,
            seed: 0,
        }
    }
}

impl DataOptions {
    /// Checks every value; files are not opened.
    ///
    /// # Errors
    /// No training data, or the first value outside its range.
    pub fn validate(&self) -> Result<(), TrainError> {
        if self.train.is_empty() {
            let expected = "a file, a pattern such as data/*.jsonl, or a list of them";
            return Err(TrainError::option("data.train", "(nothing)", expected));
        }
        self.validate_values()
    }

    /// The same where no training data is needed.
    pub(crate) fn validate_values(&self) -> Result<(), TrainError> {
        for (field, sources) in [("data.train", &self.train), ("data.eval", &self.eval)] {
            sources
                .iter()
                .try_for_each(|source| source.validate(field))?;
        }
        if let Some(source) = self.eval.iter().find(|source| source.weight != 1.0) {
            let seen = format!("{} with weight {}", source.path, source.weight);
            let expected = "evaluation data is used as it is; leave the weight out";
            return Err(TrainError::option("data.eval", seen, expected));
        }
        let fraction = self.eval_fraction;
        if !(fraction > 0.0 && fraction < 1.0) {
            return Err(TrainError::option(
                "data.eval_fraction",
                fraction,
                "a number in (0, 1)",
            ));
        }
        if self.max_length < 2 {
            return Err(TrainError::option(
                "data.max_length",
                self.max_length,
                "at least 2",
            ));
        }
        Ok(())
    }
}

/// Most times that a sample is seen in an epoch.
const MAX_WEIGHT: f64 = 1000.0;

/// A file, or the files of a pattern.
///
/// In a recipe, a text is the path; a table has `path` and perhaps `weight` and `form`.
#[derive(Clone, Debug, PartialEq)]
pub struct DataSource {
    /// The file, or a pattern with `*`, `?`, `[…]` or `**`.
    pub path: String,
    /// How often each sample is seen in an epoch.
    pub weight: f64,
    /// What its records look like; unset: as [`DataOptions::form`] says.
    pub form: Option<DataForm>,
}

impl DataSource {
    /// A file or pattern, each sample once.
    pub fn new(path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            weight: 1.0,
            form: None,
        }
    }

    fn validate(&self, field: &'static str) -> Result<(), TrainError> {
        if self.path.trim().is_empty() {
            return Err(TrainError::option(field, "\"\"", "a file or a pattern"));
        }
        if !(self.weight > 0.0 && self.weight <= MAX_WEIGHT) {
            let seen = format!("{} with weight {}", self.path, self.weight);
            let expected = format!("a weight is a positive number, {MAX_WEIGHT} at most");
            return Err(TrainError::option(field, seen, expected));
        }
        Ok(())
    }
}

impl From<&str> for DataSource {
    fn from(path: &str) -> Self {
        Self::new(path)
    }
}

impl From<String> for DataSource {
    fn from(path: String) -> Self {
        Self::new(path)
    }
}

/// A source as a table.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: String,
    #[serde(default = "once")]
    weight: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    form: Option<DataForm>,
}

fn once() -> f64 {
    1.0
}

impl Serialize for DataSource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.weight == 1.0 && self.form.is_none() {
            return serializer.serialize_str(&self.path);
        }
        let table = Table {
            path: self.path.clone(),
            weight: self.weight,
            form: self.form,
        };
        table.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for DataSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneSource)
    }
}

struct OneSource;

impl<'de> de::Visitor<'de> for OneSource {
    type Value = DataSource;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a file or pattern, or a table with `path` and perhaps `weight` and `form`")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<DataSource, E> {
        if path.trim().is_empty() {
            return Err(E::invalid_value(de::Unexpected::Str(path), &self));
        }
        Ok(DataSource::new(path))
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<DataSource, A::Error> {
        let table = Table::deserialize(de::value::MapAccessDeserializer::new(map))?;
        Ok(DataSource {
            path: table.path,
            weight: table.weight,
            form: table.form,
        })
    }
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<DataSource>, D::Error> {
    deserializer.deserialize_any(Sources)
}

struct Sources;

impl<'de> de::Visitor<'de> for Sources {
    type Value = Vec<DataSource>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a file or pattern, a list of them, or tables with `path`")
    }

    fn visit_str<E: de::Error>(self, path: &str) -> Result<Vec<DataSource>, E> {
        OneSource.visit_str(path).map(|source| vec![source])
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Vec<DataSource>, A::Error> {
        OneSource.visit_map(map).map(|source| vec![source])
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Vec<DataSource>, A::Error> {
        let mut sources = Vec::new();
        while let Some(source) = list.next_element()? {
            sources.push(source);
        }
        Ok(sources)
    }
}

fn sources_schema(generator: &mut SchemaGenerator) -> Schema {
    let form = generator.subschema_for::<DataForm>();
    let source = json_schema!({
        "type": ["string", "object"],
        "properties": {
            "path": { "type": "string" },
            "weight": { "type": "number", "exclusiveMinimum": 0 },
            "form": form,
        },
        "required": ["path"],
        "additionalProperties": false,
    });
    json_schema!({
        "type": ["string", "array"],
        "items": source,
        "x-kind": "a file or pattern, or a list of files, patterns and tables",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<DataOptions, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn sources_are_a_text_a_list_or_tables() {
        let one = parse("train = \"a.jsonl\"").unwrap();
        assert_eq!(one.train, [DataSource::new("a.jsonl")]);
        let weighted = DataSource {
            path: "b/*.json".into(),
            weight: 2.5,
            form: Some(DataForm::Alpaca),
        };
        let text = "train = [\"a.jsonl\", { path = \"b/*.json\", weight = 2.5, form = \"alpaca\" }]\n\
                    eval = { path = \"c.txt\" }";
        let many = parse(text).unwrap();
        assert_eq!(many.train, [DataSource::new("a.jsonl"), weighted]);
        assert_eq!(many.eval, [DataSource::new("c.txt")]);

        // What is saved with a run reads back the same.
        let saved = toml::to_string_pretty(&many).unwrap();
        assert_eq!(parse(&saved).unwrap(), many, "{saved}");
        let json = serde_json::to_string(&many).unwrap();
        assert_eq!(serde_json::from_str::<DataOptions>(&json).unwrap(), many);
    }

    #[test]
    fn a_source_that_is_none_is_refused() {
        for (text, part) in [
            ("train = 3", "a file or pattern"),
            ("train = \"\"", "a file or pattern"),
            ("train = [\"a\", 3]", "a file or pattern"),
            ("train = [{ weight = 2 }]", "missing field `path`"),
            (
                "train = [{ path = \"a\", wieght = 2 }]",
                "unknown field `wieght`",
            ),
            (
                "train = [{ path = \"a\", form = \"csv\" }]",
                "unknown variant `csv`",
            ),
            ("max_lenght = 3", "unknown field `max_lenght`"),
        ] {
            let said = parse(text).unwrap_err().to_string();
            assert!(said.contains(part), "{text}: {said}");
        }
    }

    #[test]
    fn values_outside_their_range_are_named() {
        let said = |text: &str| parse(text).unwrap().validate().unwrap_err().to_string();
        insta::assert_snapshot!(said("seed = 1"), @"data.train = (nothing): a file, a pattern such as data/*.jsonl, or a list of them");
        insta::assert_snapshot!(said("train = \"a\"\neval_fraction = 1"), @"data.eval_fraction = 1: a number in (0, 1)");
        insta::assert_snapshot!(said("train = \"a\"\nmax_length = 1"), @"data.max_length = 1: at least 2");
        insta::assert_snapshot!(said("train = { path = \"a\", weight = 0 }"), @"data.train = a with weight 0: a weight is a positive number, 1000 at most");
        insta::assert_snapshot!(said("train = \"a\"\neval = { path = \"b\", weight = 2 }"), @"data.eval = b with weight 2: evaluation data is used as it is; leave the weight out");
        parse("train = \"a\"").unwrap().validate().unwrap();
    }
}
