//! [`TextStream`]: ids to text, piece by piece.

use crate::{error::ModelError, tokenizer::TextTokenizer};

/// Tokens of a prompt that the text of an answer may depend on.
const BEFORE: usize = 8;
/// What stands for bytes that are no whole character.
const BROKEN: char = '\u{FFFD}';

/// Turns ids into text as they come.
///
/// A token is decoded together with those before it, and what that adds is its text: blanks come out
/// as they do when all is decoded at once, and a character whose bytes are spread over several
/// tokens comes out whole. Text that may be the beginning of a stop text is held back until it is
/// clear that it is none.
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a TextTokenizer,
    stop: Vec<String>,
    ids: Vec<u32>,
    /// `ids[start..read]` are decoded with the new ids, their text taken off.
    start: usize,
    /// Ids whose text is out.
    read: usize,
    /// Text that may be the beginning of a stop text.
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A text of its own: all pieces together are what [`TextTokenizer::decode`] gives.
    pub fn new(tokenizer: &'a TextTokenizer) -> Self {
        Self::after(tokenizer, &[])
    }

    /// A text that continues `prompt`: its first piece keeps the blank before it, which a text of
    /// its own would lose with SentencePiece's tokenizers.
    pub fn after(tokenizer: &'a TextTokenizer, prompt: &[u32]) -> Self {
        let ids = prompt[prompt.len().saturating_sub(BEFORE)..].to_vec();
        Self {
            tokenizer,
            stop: Vec::new(),
            start: 0,
            read: ids.len(),
            ids,
            held: String::new(),
            stopped: false,
        }
    }

    /// Ends before the first of these texts. Empty ones are left out.
    pub fn with_stop(mut self, stop: impl IntoIterator<Item = String>) -> Self {
        self.stop = stop.into_iter().filter(|text| !text.is_empty()).collect();
        self
    }

    /// Whether a stop text has come: nothing follows.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// The text that `id` adds; empty where it must be held back.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn push(&mut self, id: u32) -> Result<String, ModelError> {
        if self.stopped {
            return Ok(String::new());
        }
        self.ids.push(id);
        let added = self.decode_new(false)?;
        Ok(self.release(&added, false))
    }

    /// The text that is still held back, at the end.
    ///
    /// # Errors
    /// When the tokenizer cannot decode.
    pub fn finish(&mut self) -> Result<String, ModelError> {
        if self.stopped {
            return Ok(String::new());
        }
        let added = self.decode_new(true)?;
        let text = self.release(&added, true);
        self.stopped = true;
        Ok(text)
    }

    /// What the ids since `read` add; nothing while they end in part of a character, unless `last`.
    fn decode_new(&mut self, last: bool) -> Result<String, ModelError> {
        let before = self.tokenizer.decode(&self.ids[self.start..self.read])?;
        let all = self.tokenizer.decode(&self.ids[self.start..])?;
        if all == before || all.ends_with(BROKEN) && !last {
            return Ok(String::new());
        }
        self.start = self.read;
        self.read = self.ids.len();
        Ok(all[common(&before, &all)..].to_string())
    }

    /// Adds to the held text and gives out what is safe.
    fn release(&mut self, added: &str, last: bool) -> String {
        self.held.push_str(added);
        let found = self.stop.iter().filter_map(|stop| self.held.find(stop));
        if let Some(at) = found.min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        if last {
            return std::mem::take(&mut self.held);
        }
        let kept = self.held.len() - self.possible_stop();
        let rest = self.held.split_off(kept);
        std::mem::replace(&mut self.held, rest)
    }

    /// Bytes at the end of the held text that may be the beginning of a stop text.
    fn possible_stop(&self) -> usize {
        let ends = self.held.char_indices().map(|(at, _)| &self.held[at..]);
        let possible = |end: &&str| self.stop.iter().any(|stop| stop.starts_with(*end));
        ends.filter(possible).map(str::len).max().unwrap_or(0)
    }
}

/// Bytes that two texts begin with alike, up to the end of a character of both.
fn common(a: &str, b: &str) -> usize {
    a.char_indices()
        .zip(b.chars())
        .find(|((_, a), b)| a != b)
        .map_or(a.len().min(b.len()), |((at, _), _)| at)
}
