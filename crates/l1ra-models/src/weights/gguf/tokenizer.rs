//! The tokenizer, built from the file's own metadata.
//!
//! Patterns: `llama-vocab.cpp`. Pieces and their order: the tokenizers that transformers writes
//! for the same models.

use ahash::AHashMap;
use serde_json::json;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    models::bpe::BPE,
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::TemplateProcessing,
};

use super::{GgufFile, GgufValue, sentencepiece};
use crate::error::ModelError;

/// Token types of `tokenizer.ggml.token_type`.
pub(super) const NORMAL: usize = 1;
pub(super) const UNKNOWN: usize = 2;
pub(super) const CONTROL: usize = 3;
pub(super) const USER_DEFINED: usize = 4;
pub(super) const UNUSED: usize = 5;

/// Llama 3's pattern.
const LLAMA3: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
/// Qwen 2's, which takes digits one by one.
const QWEN2: &[&str] = &[
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
];
/// llama.cpp's own, which is not GPT-2's: applied one after the other.
const DEFAULT: &[&str] = &[
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// How text is cut before the merges.
#[derive(Clone, Copy)]
enum Pre {
    SmolLm,
    Gpt2,
    Patterns(&'static [&'static str]),
    /// Whole words first, then merges; a text begins with `bos` where the file is silent.
    Llama3,
}

impl GgufFile {
    /// The tokenizer: byte-level BPE (`gpt2`, with the pre-tokenizers smollm, gpt-2, default,
    /// llama-bpe, llama3, llama-v3 and qwen2) or SentencePiece-style BPE (`llama`).
    ///
    /// Control tokens are special, user-defined ones are added; its post-processor puts `bos` and
    /// `eos` around a text as `add_bos_token` and `add_eos_token` say.
    ///
    /// # Errors
    /// A kind or pre-tokenizer that is not supported, or metadata that does not fit together.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let rows = self.vocabulary()?;
        if tokens.len() > rows || u32::try_from(tokens.len()).is_err() {
            let detail = format!(
                "metadata `tokenizer.ggml.tokens` holds {} tokens; the embedding has {rows} rows",
                tokens.len()
            );
            return Err(ModelError::format(&self.path, detail));
        }
        let types = self.token_types(tokens.len())?;
        let (mut tokenizer, begins) = match self.text("tokenizer.ggml.model")? {
            "gpt2" => self.byte_level(&tokens)?,
            "llama" => (self.sentencepiece(&tokens, &types)?, true),
            other => return self.refuse("tokenizer.ggml.model", other, "gpt2, llama"),
        };
        tokenizer.add_tokens(&added(&tokens, &types));
        if let Some(processor) = self.processor(&tokens, begins)? {
            tokenizer.with_post_processor(Some(processor));
        }
        Ok(tokenizer)
    }

    /// Byte-level BPE, and whether a text begins with `bos` where the file is silent.
    fn byte_level(&self, tokens: &[&str]) -> Result<(Tokenizer, bool), ModelError> {
        let pre = self.pre_tokenizer_kind()?;
        let whole_words = matches!(pre, Pre::Llama3);
        let merges = self.texts("tokenizer.ggml.merges")?;
        let merges = merges
            .iter()
            .map(|merge| {
                merge
                    .split_once(' ')
                    .map(|(left, right)| (left.into(), right.into()))
            })
            .collect::<Option<Vec<(String, String)>>>()
            .ok_or_else(|| self.unfit_value("tokenizer.ggml.merges", "a list of pairs"))?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary(tokens), merges)
            .ignore_merges(whole_words)
            .build()
            .map_err(|error| self.unfit(&error))?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(self.pre_tokenizer(pre)?));
        tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
        Ok((tokenizer, whole_words))
    }

    fn pre_tokenizer_kind(&self) -> Result<Pre, ModelError> {
        // Files without the key were written before it existed; llama.cpp reads them with a
        // pattern that is wrong for most.
        let name = match self.value("tokenizer.ggml.pre") {
            Some(_) => self.text("tokenizer.ggml.pre")?,
            None => "(none)",
        };
        Ok(match name {
            "smollm" => Pre::SmolLm,
            "gpt-2" => Pre::Gpt2,
            "default" => Pre::Patterns(DEFAULT),
            "llama-bpe" | "llama3" | "llama-v3" => Pre::Llama3,
            "qwen2" => Pre::Patterns(QWEN2),
            other => {
                let known = "smollm, gpt-2, default, llama-bpe, llama3, llama-v3, qwen2";
                return self.refuse("tokenizer.ggml.pre", other, known);
            }
        })
    }

    fn pre_tokenizer(&self, pre: Pre) -> Result<PreTokenizerWrapper, ModelError> {
        let gpt2 = PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true));
        let patterns = match pre {
            Pre::Gpt2 => return Ok(gpt2),
            Pre::SmolLm => {
                let digits = PreTokenizerWrapper::Digits(Digits::new(true));
                return Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
                    digits, gpt2,
                ])));
            }
            Pre::Llama3 => LLAMA3,
            Pre::Patterns(patterns) => patterns,
        };
        let mut steps = Vec::with_capacity(patterns.len() + 1);
        for pattern in patterns {
            let pattern = SplitPattern::Regex((*pattern).into());
            let split = Split::new(pattern, SplitDelimiterBehavior::Isolated, false);
            steps.push(PreTokenizerWrapper::Split(
                split.map_err(|error| self.unfit(&error))?,
            ));
        }
        steps.push(PreTokenizerWrapper::ByteLevel(ByteLevel::new(
            false, true, false,
        )));
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(steps)))
    }

    fn sentencepiece(&self, tokens: &[&str], types: &[usize]) -> Result<Tokenizer, ModelError> {
        let key = "tokenizer.ggml.scores";
        let scores = self
            .list(key)?
            .iter()
            .map(GgufValue::as_f64)
            .collect::<Option<Vec<f64>>>();
        let scores = scores
            .filter(|scores| scores.len() == tokens.len() && !scores.iter().any(|s| s.is_nan()))
            .ok_or_else(|| self.unfit_value(key, "a number for each token"))?;
        let unknown = self.special_tokens().unk.map(|id| id as usize);
        let unknown = unknown.or_else(|| types.iter().position(|kind| *kind == UNKNOWN));
        let pieces = sentencepiece::Pieces {
            tokens,
            types,
            scores: &scores,
            unknown: unknown.and_then(|id| tokens.get(id).copied()),
            space_prefix: self
                .value("tokenizer.ggml.add_space_prefix")
                .and_then(GgufValue::as_bool)
                .unwrap_or(true),
        };
        pieces.tokenizer().map_err(|error| self.unfit(&error))
    }

    /// The type of each token. Files without types have none but the special tokens' ids.
    fn token_types(&self, count: usize) -> Result<Vec<usize>, ModelError> {
        let key = "tokenizer.ggml.token_type";
        if self.value(key).is_some() {
            let types = self.list(key)?.iter().map(GgufValue::as_usize);
            return types
                .collect::<Option<Vec<_>>>()
                .filter(|types| types.len() == count)
                .ok_or_else(|| self.unfit_value(key, "a type for each token"));
        }
        let mut types = vec![NORMAL; count];
        let special = self.special_tokens();
        for id in [special.bos, special.eos, special.unk, special.pad]
            .into_iter()
            .flatten()
        {
            if let Some(kind) = types.get_mut(id as usize) {
                *kind = CONTROL;
            }
        }
        Ok(types)
    }

    /// Puts `bos` and `eos` around a text; `begins` holds where the file does not say.
    fn processor(
        &self,
        tokens: &[&str],
        begins: bool,
    ) -> Result<Option<TemplateProcessing>, ModelError> {
        let special = self.special_tokens();
        let bos = special.bos.filter(|_| special.add_bos.unwrap_or(begins));
        let eos = special.eos.filter(|_| special.add_eos.unwrap_or(false));
        let mut known = serde_json::Map::new();
        let mut piece = |id: Option<u32>, key: &str| {
            let Some(id) = id else { return Ok(None) };
            let Some(text) = tokens.get(id as usize) else {
                let key = format!("tokenizer.ggml.{key}_token_id");
                return Err(self.unfit_value(&key, "a token of the vocabulary"));
            };
            known.insert(
                text.to_string(),
                json!({"id": text, "ids": [id], "tokens": [text]}),
            );
            Ok(Some(json!({"SpecialToken": {"id": text, "type_id": 0}})))
        };
        let (bos, eos) = (piece(bos, "bos")?, piece(eos, "eos")?);
        if bos.is_none() && eos.is_none() {
            return Ok(None);
        }
        let around = |id: &str| {
            let text = json!({"Sequence": {"id": id, "type_id": 0}});
            bos.iter()
                .cloned()
                .chain([text])
                .chain(eos.clone())
                .collect::<Vec<_>>()
        };
        // Through JSON: the builder's own notation cannot name tokens that hold `:` or `$`.
        let pair = [around("A"), around("B")].concat();
        let processor = json!({
            "type": "TemplateProcessing", "single": around("A"), "pair": pair,
            "special_tokens": known,
        });
        serde_json::from_value(processor)
            .map(Some)
            .map_err(|error| self.unfit(&error))
    }

    fn list(&self, key: &str) -> Result<&[GgufValue], ModelError> {
        self.value(key)
            .and_then(GgufValue::as_array)
            .ok_or_else(|| self.unfit_value(key, "a list"))
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        let texts = self
            .list(key)?
            .iter()
            .map(GgufValue::as_str)
            .collect::<Option<Vec<_>>>();
        texts.ok_or_else(|| self.unfit_value(key, "a list of texts"))
    }

    fn unfit(&self, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::format(
            &self.path,
            format!("its tokenizer cannot be built: {error}"),
        )
    }
}

pub(super) fn vocabulary(tokens: &[&str]) -> AHashMap<String, u32> {
    (0_u32..)
        .zip(tokens)
        .map(|(id, token)| ((*token).to_string(), id))
        .collect()
}

/// Tokens that are found in a text before anything else: special where they steer the model.
fn added(tokens: &[&str], types: &[usize]) -> Vec<AddedToken> {
    let typed = tokens.iter().zip(types);
    let added = typed.filter(|(_, kind)| matches!(**kind, UNKNOWN | CONTROL | USER_DEFINED));
    added
        .map(|(token, kind)| AddedToken::from(*token, *kind != USER_DEFINED).normalized(false))
        .collect()
}
