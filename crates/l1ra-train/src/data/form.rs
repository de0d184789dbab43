//! [`DataForm`]: what the records of a file look like.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// What the records of a data file look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DataForm {
    /// Recognised for every file from its first record.
    #[default]
    Auto,
    /// Conversations: a list `messages` with `role` and `content`.
    Messages,
    /// `prompt` and `completion`: two texts, or two lists of messages.
    Completion,
    /// `instruction` and `output`, perhaps with `input`.
    Alpaca,
    /// Conversations: a list `conversations` with `from` and `value`.
    Sharegpt,
    /// `text`, or a plain text file.
    Text,
}

impl DataForm {
    /// The forms that a record can have; the first whose keys are there is the one recognised.
    pub const RECORDS: [Self; 5] = [
        Self::Messages,
        Self::Sharegpt,
        Self::Completion,
        Self::Alpaca,
        Self::Text,
    ];

    /// The name that a recipe gives it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Messages => "messages",
            Self::Completion => "completion",
            Self::Alpaca => "alpaca",
            Self::Sharegpt => "sharegpt",
            Self::Text => "text",
        }
    }

    /// The keys that a record of this form must have.
    pub fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Auto => &[],
            Self::Messages => &["messages"],
            Self::Completion => &["prompt", "completion"],
            Self::Alpaca => &["instruction", "output"],
            Self::Sharegpt => &["conversations"],
            Self::Text => &["text"],
        }
    }

    /// The form of a record with these keys.
    pub(crate) fn recognise(record: &Map<String, Value>) -> Option<Self> {
        let has_all = |form: &Self| form.keys().iter().all(|key| record.contains_key(*key));
        Self::RECORDS.into_iter().find(has_all)
    }

    /// The form whose keys are most like those of a record that has none.
    pub(crate) fn nearest(record: &Map<String, Value>) -> Self {
        let likeness = |form: Self| {
            let best = |key: &&str| {
                // A long key is none of ours, and takes long to compare.
                let seen = record.keys().filter(|seen| seen.len() < 100);
                let seen = seen.map(|seen| strsim::jaro_winkler(key, seen));
                seen.fold(0.0, f64::max)
            };
            form.keys().iter().map(best).sum::<f64>() / form.keys().len() as f64
        };
        let mut nearest = Self::Messages;
        for form in Self::RECORDS {
            if likeness(form) > likeness(nearest) {
                nearest = form;
            }
        }
        nearest
    }
}

impl std::fmt::Display for DataForm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for DataForm {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let all = || std::iter::once(Self::Auto).chain(Self::RECORDS);
        all().find(|form| form.name() == text).ok_or_else(|| {
            let known: Vec<&str> = all().map(Self::name).collect();
            format!("`{text}` is unknown; known: {}", known.join(", "))
        })
    }
}

/// Which tokens the loss is taken on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// The completion, or what the assistant says in its last turn, the tokens that end it included.
    #[default]
    Completions,
    /// Every turn of the assistant.
    Assistant,
    /// Every token but the first.
    All,
}

impl std::str::FromStr for TrainOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "completions" => Ok(Self::Completions),
            "assistant" => Ok(Self::Assistant),
            "all" => Ok(Self::All),
            _ => Err(format!(
                "`{text}` is unknown; known: completions, assistant, all"
            )),
        }
    }
}

/// What becomes of a sample with more tokens than a row may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TooLong {
    /// Its end is cut off; without a target left it is dropped.
    #[default]
    Cut,
    /// It is left out.
    Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(text: &str) -> Map<String, Value> {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn forms_are_recognised_by_their_keys() {
        let form = |text| DataForm::recognise(&record(text));
        assert_eq!(form(r#"{"messages": []}"#), Some(DataForm::Messages));
        assert_eq!(
            form(r#"{"prompt": "", "completion": ""}"#),
            Some(DataForm::Completion)
        );
        // As the original Alpaca file has it.
        let alpaca = r#"{"instruction": "", "input": "", "output": "", "text": ""}"#;
        assert_eq!(form(alpaca), Some(DataForm::Alpaca));
        assert_eq!(
            form(r#"{"id": 1, "conversations": []}"#),
            Some(DataForm::Sharegpt)
        );
        assert_eq!(form(r#"{"text": ""}"#), Some(DataForm::Text));
        assert_eq!(form(r#"{"prompt": ""}"#), None);
    }

    #[test]
    fn the_nearest_form_is_named() {
        let nearest = |text| DataForm::nearest(&record(text));
        assert_eq!(nearest(r#"{"mesages": []}"#), DataForm::Messages);
        assert_eq!(
            nearest(r#"{"prompt": "", "answer": ""}"#),
            DataForm::Completion
        );
        assert_eq!(nearest(r#"{"conversation": []}"#), DataForm::Sharegpt);
        assert_eq!(nearest(r#"{"Text": ""}"#), DataForm::Text);
        assert_eq!(nearest("{}"), DataForm::Messages);
    }
}
