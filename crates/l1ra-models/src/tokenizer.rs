//! [`TextTokenizer`]: text to ids and back, with the model's special tokens.

use std::{
    collections::BTreeSet,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

use serde_json::{Map, Value};
use tokenizers::{PostProcessorWrapper, Tokenizer};

use crate::{config::token_ids, error::ModelError, json, tokenizer_parts};

/// A tokenizer and what the model's files say of its special tokens.
#[derive(Clone, Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    /// Token put before a text.
    pub bos: Option<u32>,
    /// Tokens that end a text.
    pub eos: BTreeSet<u32>,
    /// Token for padding.
    pub pad: Option<u32>,
    /// The one of `eos` that the model's files call `eos_token`.
    main_eos: Option<u32>,
}

/// Ids of a text, and where each of them lies in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Bytes of the text that each token stands for, blanks included. Several tokens may share the
    /// bytes of one letter.
    pub spans: Vec<Range<usize>>,
}

impl TextTokenizer {
    /// A tokenizer without special tokens.
    ///
    /// Truncation and padding that a `tokenizer.json` may ask for are switched off: a text's ids are
    /// those of the whole text.
    pub fn new(mut inner: Tokenizer) -> Self {
        // Without truncation there is nothing that could be refused.
        let _ = inner.with_truncation(None);
        inner.with_padding(None);
        if let Some(mut processor) = inner.get_post_processor().cloned() {
            keep_blanks(&mut processor);
            inner.with_post_processor(Some(processor));
        }
        Self {
            inner,
            bos: None,
            eos: BTreeSet::new(),
            pad: None,
            main_eos: None,
        }
    }

    /// Reads `tokenizer.json`, and special tokens from `tokenizer_config.json` and
    /// `generation_config.json` where they are.
    ///
    /// # Errors
    /// A folder without `tokenizer.json`, or a file that cannot be parsed.
    pub fn from_dir(dir: &Path) -> Result<Self, ModelError> {
        let path = dir.join("tokenizer.json");
        if !path.is_file() {
            let detail = "holds no tokenizer.json; this model comes without a tokenizer \
                          (tokenizer.model files must be converted first)";
            return Err(ModelError::format(dir, detail));
        }
        let bytes = std::fs::read(&path).map_err(|error| ModelError::io(&path, error))?;
        tokenizer_parts::check(&path, &bytes)?;
        let inner = Tokenizer::from_bytes(&bytes)
            .map_err(|error| ModelError::format(&path, format!("is no tokenizer: {error}")))?;
        let processor = serde_json::to_value(inner.get_post_processor()).unwrap_or_default();
        if let Some(detail) = broken_template(&processor) {
            return Err(ModelError::format(&path, detail));
        }
        let mut tokenizer = Self::new(inner);
        let path = dir.join("tokenizer_config.json");
        let config = read_json(&path)?.unwrap_or_default();
        let id = |key: &str| -> Result<Option<u32>, ModelError> {
            let text = token_text(&path, &config, key)?;
            Ok(text.and_then(|text| tokenizer.inner.token_to_id(text)))
        };
        let (bos, eos, pad) = (id("bos_token")?, id("eos_token")?, id("pad_token")?);
        (tokenizer.bos, tokenizer.pad, tokenizer.main_eos) = (bos, pad, eos);
        tokenizer.eos.extend(eos);
        let path = dir.join("generation_config.json");
        let generation = read_json(&path)?.unwrap_or_default();
        let eos = token_ids(&path, "eos_token_id", generation.get("eos_token_id"))?;
        tokenizer.eos.extend(eos);
        Ok(tokenizer)
    }

    /// Size of the vocabulary, added tokens included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Ids of `text`. Special tokens written out in the text are recognised; nothing is added.
    ///
    /// # Errors
    /// When the tokenizer's model cannot encode the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, false)
    }

    /// Ids of `text` with the special tokens that the tokenizer's post-processor adds (a plain
    /// text's beginning, for most models).
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_text(&self, text: &str) -> Result<Vec<u32>, ModelError> {
        self.encode_with(text, true)
    }

    /// Ids of `text` and where they lie in it, as [`encode`](Self::encode) gives them.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_spans(&self, text: &str) -> Result<Encoded, ModelError> {
        let encoding = guarded(|| self.inner.encode(text, false))?;
        let offsets = encoding.get_offsets().iter();
        Ok(Encoded {
            ids: encoding.get_ids().to_vec(),
            spans: offsets.map(|(start, end)| *start..*end).collect(),
        })
    }

    /// The special tokens that [`encode_text`](Self::encode_text) puts before and after a text.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn affixes(&self) -> Result<[Vec<u32>; 2], ModelError> {
        const TEXT: &str = "a";
        let (plain, all) = (self.encode(TEXT)?, self.encode_text(TEXT)?);
        let start = (0..all.len()).find(|start| all[*start..].starts_with(&plain));
        let start = start.unwrap_or(all.len());
        let end = (start + plain.len()).min(all.len());
        Ok([all[..start].to_vec(), all[end..].to_vec()])
    }

    /// The token that ends a text: the model's `eos_token`, or the first of [`eos`](Self::eos).
    pub fn end_of_text(&self) -> Option<u32> {
        self.main_eos.or_else(|| self.eos.first().copied())
    }

    /// The tokenizer as `tokenizer.json` would hold it: equal texts give equal ids.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn to_json(&self) -> Result<String, ModelError> {
        self.inner
            .to_string(false)
            .map_err(|error| ModelError::Tokenizer(error.to_string()))
    }

    fn encode_with(&self, text: &str, add_special: bool) -> Result<Vec<u32>, ModelError> {
        let encoding = guarded(|| self.inner.encode(text, add_special))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Text of `ids`, special tokens left out.
    ///
    /// # Errors
    /// When the decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, ModelError> {
        guarded(|| self.inner.decode(ids, true))
    }

    /// Id of a token.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Text of a token, as the vocabulary spells it.
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }
}

/// What the `tokenizers` crate says, and where it panics an error as well: parts that contradict each
/// other, or a text, may lead it out of its own tables.
fn guarded<T>(work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, ModelError> {
    let worked = panic::catch_unwind(AssertUnwindSafe(work));
    let gave_up = |_| Err("its parts do not fit together".into());
    let worked = worked.unwrap_or_else(gave_up);
    worked.map_err(|error| ModelError::Tokenizer(error.to_string()))
}

/// Byte-level tokenizers leave blanks out of their tokens' spans unless told otherwise; ids are the
/// same either way.
fn keep_blanks(processor: &mut PostProcessorWrapper) {
    match processor {
        PostProcessorWrapper::ByteLevel(inner) => inner.trim_offsets = false,
        PostProcessorWrapper::Roberta(inner) => inner.trim_offsets = false,
        PostProcessorWrapper::Sequence(inner) => inner.as_mut().iter_mut().for_each(keep_blanks),
        PostProcessorWrapper::Bert(_) | PostProcessorWrapper::Template(_) => {}
    }
}

/// What is wrong with a post-processor's template for one text. The `tokenizers` crate would look
/// up a second text, or a token that nobody defined, and panic.
fn broken_template(processor: &Value) -> Option<String> {
    let list = |key: &str| processor.get(key).and_then(Value::as_array);
    let nested = list("processors").into_iter().flatten();
    let broken = nested.filter_map(broken_template).next();
    let piece = |piece: &Value| {
        if let Some(id) = piece.pointer("/Sequence/id").filter(|id| *id != "A") {
            return Some(format!("its template for one text holds sequence {id}"));
        }
        let id = piece.pointer("/SpecialToken/id")?.as_str()?;
        let known = processor.get("special_tokens").and_then(|all| all.get(id));
        let message = format!("its template holds `{id}`, which its special tokens lack");
        known.is_none().then_some(message)
    };
    broken.or_else(|| list("single")?.iter().find_map(piece))
}

/// The text of a special token in `tokenizer_config.json`.
///
/// # Errors
/// A key that holds no token.
pub(crate) fn token_text<'a>(
    path: &Path,
    config: &'a Value,
    key: &str,
) -> Result<Option<&'a str>, ModelError> {
    let Some(entry) = config.get(key).filter(|entry| !entry.is_null()) else {
        return Ok(None);
    };
    let text = entry.as_str().or_else(|| entry.get("content")?.as_str());
    text.map(Some).ok_or_else(|| {
        let detail = format!("`{key}` is {entry}; expected a text, or an object with `content`");
        ModelError::format(path, detail)
    })
}

/// A JSON object from a file that may be absent. Of a key that is there twice the last counts, as in
/// Python.
pub(crate) fn read_json(path: &Path) -> Result<Option<Value>, ModelError> {
    if !path.is_file() {
        return Ok(None);
    }
    let object: Map<String, Value> = json::parse(path, &json::read(path)?, "JSON object")?;
    Ok(Some(object.into()))
}
