//! Conversations and texts as token rows with their targets.

use std::path::Path;

use l1ra_models::{ChatTemplate, Role, TextTokenizer};
use serde::{Deserialize, Serialize};

use crate::{
    data::source::{Conversation, Document},
    error::TrainError,
};

/// Which tokens the loss is taken on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// What the assistant says, the tokens that end its turn included.
    #[default]
    Completions,
    /// Every token but the first.
    All,
}

impl std::str::FromStr for TrainOn {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "completions" => Ok(Self::Completions),
            "all" => Ok(Self::All),
            _ => Err(format!("`{text}` is unknown; known: completions, all")),
        }
    }
}

/// One row: token ids, and which of them are targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether the loss is taken on predicting this token. Never at position 0.
    pub is_target: Vec<bool>,
}

impl Sample {
    /// Number of targets.
    pub fn targets(&self) -> usize {
        self.is_target.iter().filter(|target| **target).count()
    }

    fn push(&mut self, ids: &[u32], target: bool) {
        self.ids.extend_from_slice(ids);
        self.is_target.resize(self.ids.len(), target);
    }

    /// Cuts to `length` tokens and returns how many were lost.
    fn cut(&mut self, length: usize) -> usize {
        let lost = self.ids.len().saturating_sub(length);
        self.ids.truncate(length);
        self.is_target.truncate(length);
        lost
    }
}

/// What became of a data file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DataReport {
    /// Rows.
    pub samples: usize,
    /// Tokens of all rows.
    pub tokens: usize,
    /// Targets of all rows.
    pub targets: usize,
    /// Tokens of the longest row.
    pub longest: usize,
    /// Rows that were cut.
    pub cut_samples: usize,
    /// Tokens that were cut.
    pub cut_tokens: usize,
    /// Rows that were dropped, because the cut left no target.
    pub dropped: usize,
}

impl std::fmt::Display for DataReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            samples,
            tokens,
            targets,
            longest,
            cut_samples,
            cut_tokens,
            dropped,
        } = self;
        write!(
            f,
            "{samples} samples, {tokens} tokens, {targets} targets, longest {longest}"
        )?;
        if *cut_samples > 0 {
            write!(f, "; {cut_samples} cut, {cut_tokens} tokens lost")?;
        }
        if *dropped > 0 {
            write!(f, "; {dropped} dropped, as the cut left no target")?;
        }
        Ok(())
    }
}

/// Turns documents into rows.
#[derive(Clone, Copy, Debug)]
pub struct Encoder<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// The chat template; plain text needs none.
    pub template: Option<&'a ChatTemplate>,
    /// Tokens of a row at most.
    pub max_length: usize,
    /// Which tokens are targets.
    pub train_on: TrainOn,
}

impl Encoder<'_> {
    /// Rows of a document, in its order. `path` is for messages.
    ///
    /// A prompt and the completion after it are tokenised apart and joined, so that a target never
    /// begins within a token of the prompt.
    ///
    /// # Errors
    /// A model without a chat template, a conversation that the template refuses or that has
    /// nothing to learn from, or no row at all.
    pub fn encode(
        &self,
        path: &Path,
        document: &Document,
    ) -> Result<(Vec<Sample>, DataReport), TrainError> {
        let mut report = DataReport::default();
        let mut samples = match document {
            Document::Chat(conversations) => conversations
                .iter()
                .map(|conversation| self.conversation(path, conversation))
                .collect::<Result<Vec<_>, _>>()?,
            Document::Text(text) => self.text(text)?,
        };
        samples.retain_mut(|sample| {
            let lost = sample.cut(self.max_length);
            report.cut_samples += usize::from(lost > 0);
            report.cut_tokens += lost;
            let kept = sample.targets() > 0;
            report.dropped += usize::from(!kept);
            kept
        });
        if samples.is_empty() {
            let detail = format!(
                "holds no sample with a target within the first {} tokens; \
                 raise max_length or train on all tokens",
                self.max_length
            );
            return Err(TrainError::Data {
                path: path.into(),
                detail,
            });
        }
        report.samples = samples.len();
        report.tokens = samples.iter().map(|sample| sample.ids.len()).sum();
        report.targets = samples.iter().map(Sample::targets).sum();
        report.longest = samples
            .iter()
            .map(|sample| sample.ids.len())
            .max()
            .unwrap_or(0);
        Ok((samples, report))
    }

    /// Text as rows of `max_length` tokens; the last one may be shorter.
    fn text(&self, text: &str) -> Result<Vec<Sample>, TrainError> {
        let ids = self.tokenizer.encode_text(text)?;
        let row = |ids: &[u32]| {
            let mut is_target = vec![true; ids.len()];
            is_target[0] = false;
            Sample {
                ids: ids.to_vec(),
                is_target,
            }
        };
        Ok(ids
            .chunks(self.max_length)
            .filter(|ids| ids.len() > 1)
            .map(row)
            .collect())
    }

    fn conversation(&self, path: &Path, conversation: &Conversation) -> Result<Sample, TrainError> {
        let wrong = |detail: String| TrainError::Line {
            path: path.into(),
            line: conversation.line,
            detail,
        };
        let template = self.template.ok_or_else(|| {
            let detail = "this model has no chat template; give one, or train on plain text";
            TrainError::Data {
                path: path.into(),
                detail: detail.into(),
            }
        })?;
        let messages = &conversation.messages;
        let mut sample = Sample::default();
        let mut done = String::new(); // What of the rendered text is in the sample.
        let turns = messages
            .iter()
            .enumerate()
            .filter(|(_, m)| m.role == Role::Assistant);
        for (i, _) in turns {
            let render = |count: usize, prompt: bool| {
                template
                    .render(&messages[..count], prompt)
                    .map_err(|error| wrong(error.to_string()))
            };
            let (prompt, full) = (render(i, true)?, render(i + 1, false)?);
            let parts = prompt
                .strip_prefix(done.as_str())
                .zip(full.strip_prefix(prompt.as_str()));
            let (before, completion) = parts.ok_or_else(|| {
                wrong(format!(
                    "the chat template renders message {} in a way that does not continue what \
                     came before, so its completion cannot be told apart",
                    i + 1
                ))
            })?;
            sample.push(
                &self.tokenizer.encode(before)?,
                self.train_on == TrainOn::All,
            );
            sample.push(&self.tokenizer.encode(completion)?, true);
            done = full;
        }
        if done.is_empty() {
            return Err(wrong(
                "has no message of the assistant, so nothing to learn".into(),
            ));
        }
        if let Some(first) = sample.is_target.first_mut() {
            *first = false;
        }
        Ok(sample)
    }
}
