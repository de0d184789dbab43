//! The tokenizer, built from the file's own metadata.

use std::collections::HashMap;

use ahash::AHashMap;
use tokenizers::{
    AddedToken, SplitDelimiterBehavior, Tokenizer,
    decoders::{
        DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders,
        strip::Strip,
    },
    models::bpe::BPE,
    normalizers::{
        NormalizerWrapper, prepend::Prepend, replace::Replace, utils::Sequence as Normalizers,
    },
    pre_tokenizers::{
        PreTokenizerWrapper,
        byte_level::ByteLevel,
        digits::Digits,
        sequence::Sequence,
        split::{Split, SplitPattern},
    },
    processors::template::{SpecialToken, TemplateProcessing},
};

use super::{GgufFile, GgufValue};
use crate::error::ModelError;

/// Token types of `tokenizer.ggml.token_type`.
const CONTROL: usize = 3;
const USER_DEFINED: usize = 4;

/// Llama 3's pattern, and Qwen 2's, which takes digits one by one.
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

impl GgufFile {
    /// The tokenizer: byte-level BPE (`gpt2`) or SentencePiece-style BPE (`llama`).
    ///
    /// # Errors
    /// A kind or pre-tokenizer that is not supported, or metadata that does not fit together.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let tokens = self.texts("tokenizer.ggml.tokens")?;
        let mut tokenizer = match self.text("tokenizer.ggml.model")? {
            "gpt2" => self.byte_level(&tokens)?,
            "llama" => self.sentence_piece(&tokens)?,
            other => {
                let what = "tokenizer.ggml.model";
                return Err(ModelError::unsupported(
                    &self.path,
                    what,
                    other,
                    "gpt2, llama",
                ));
            }
        };
        self.add_special(&mut tokenizer, &tokens)?;
        Ok(tokenizer)
    }

    fn byte_level(&self, tokens: &[&str]) -> Result<Tokenizer, ModelError> {
        let kind = self.value("tokenizer.ggml.pre").and_then(GgufValue::as_str);
        let pre_tokenizer = match kind.unwrap_or("default") {
            "smollm" => PreTokenizerWrapper::Sequence(Sequence::new(vec![
                PreTokenizerWrapper::Digits(Digits::new(true)),
                PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true)),
            ])),
            "gpt-2" | "default" => {
                PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, true))
            }
            "llama-bpe" | "llama3" | "llama-v3" => self.split(LLAMA3)?,
            "qwen2" => self.split(QWEN2)?,
            other => {
                let known = "smollm, gpt-2, default, llama-bpe, qwen2";
                let what = "tokenizer.ggml.pre";
                return Err(ModelError::unsupported(&self.path, what, other, known));
            }
        };
        let merges = self.texts("tokenizer.ggml.merges")?;
        let merges = merges
            .iter()
            .map(|merge| {
                merge
                    .split_once(' ')
                    .map(|(left, right)| (left.into(), right.into()))
            })
            .collect::<Option<Vec<(String, String)>>>()
            .ok_or_else(|| self.missing("tokenizer.ggml.merges", "a list of pairs"))?;
        let model = BPE::builder()
            .vocab_and_merges(vocabulary(tokens), merges)
            .ignore_merges(matches!(kind, Some("llama-bpe" | "llama3" | "llama-v3")))
            .build()
            .map_err(|error| self.unfit(&error))?;
        let mut tokenizer = Tokenizer::new(model);
        tokenizer.with_pre_tokenizer(Some(pre_tokenizer));
        tokenizer.with_decoder(Some(ByteLevel::new(true, true, true)));
        Ok(tokenizer)
    }

    fn split(&self, pattern: &str) -> Result<PreTokenizerWrapper, ModelError> {
        let behavior = SplitDelimiterBehavior::Isolated;
        let split = Split::new(SplitPattern::Regex(pattern.into()), behavior, false)
            .map_err(|error| self.unfit(&error))?;
        Ok(PreTokenizerWrapper::Sequence(Sequence::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, true, false)),
        ])))
    }

    /// As transformers converts a SentencePiece model: merges from scores, bytes as a fallback.
    fn sentence_piece(&self, tokens: &[&str]) -> Result<Tokenizer, ModelError> {
        let scores = self.list("tokenizer.ggml.scores")?;
        let scores = scores
            .iter()
            .map(GgufValue::as_f64)
            .collect::<Option<Vec<f64>>>();
        let scores = scores
            .filter(|scores| scores.len() == tokens.len())
            .ok_or_else(|| self.missing("tokenizer.ggml.scores", "a number for each token"))?;
        let unk = self
            .special_tokens()
            .unk
            .and_then(|id| tokens.get(id as usize));
        let mut builder = BPE::builder()
            .vocab_and_merges(vocabulary(tokens), merges_from_scores(tokens, &scores))
            .byte_fallback(true)
            .fuse_unk(true);
        if let Some(unk) = unk {
            builder = builder.unk_token((*unk).into());
        }
        let mut tokenizer = Tokenizer::new(builder.build().map_err(|error| self.unfit(&error))?);
        let replace = |from, to| Replace::new(from, to).map_err(|error| self.unfit(&error));
        let mut normalizers = Vec::new();
        let prefix = self
            .value("tokenizer.ggml.add_space_prefix")
            .and_then(GgufValue::as_bool);
        if prefix.unwrap_or(true) {
            normalizers.push(NormalizerWrapper::Prepend(Prepend::new("▁".into())));
        }
        normalizers.push(NormalizerWrapper::Replace(replace(" ", "▁")?));
        tokenizer.with_normalizer(Some(Normalizers::new(normalizers)));
        let mut decoders = vec![
            DecoderWrapper::Replace(replace("▁", " ")?),
            DecoderWrapper::ByteFallback(ByteFallback::new()),
            DecoderWrapper::Fuse(Fuse::new()),
        ];
        if prefix.unwrap_or(true) {
            decoders.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
        }
        tokenizer.with_decoder(Some(Decoders::new(decoders)));
        Ok(tokenizer)
    }

    /// Control and user-defined tokens, and the beginning of a text.
    fn add_special(&self, tokenizer: &mut Tokenizer, tokens: &[&str]) -> Result<(), ModelError> {
        let types = match self.value("tokenizer.ggml.token_type") {
            Some(_) => self.list("tokenizer.ggml.token_type")?,
            None => &[],
        };
        for (token, kind) in tokens.iter().zip(types) {
            match kind.as_usize() {
                Some(CONTROL) => {
                    let token = AddedToken::from(*token, true).normalized(false);
                    tokenizer.add_special_tokens(&[token]);
                }
                Some(USER_DEFINED) => {
                    let token = AddedToken::from(*token, false).normalized(false);
                    tokenizer.add_tokens(&[token]);
                }
                _ => {}
            }
        }
        let special = self.special_tokens();
        let spm = self.text("tokenizer.ggml.model")? == "llama";
        let Some(bos) = special.bos.filter(|_| special.add_bos.unwrap_or(spm)) else {
            return Ok(());
        };
        let Some(text) = tokens.get(bos as usize) else {
            return Err(self.missing("tokenizer.ggml.bos_token_id", "a token of the vocabulary"));
        };
        // A name of our own: a token's text such as `$B` would be read as a part of the template.
        let bos_token = SpecialToken::new("bos".into(), vec![bos], vec![(*text).into()])
            .map_err(|error| self.unfit(&error))?;
        let processor = TemplateProcessing::builder()
            .try_single(vec!["bos".to_string(), "$A".into()])
            .map_err(|error| self.unfit(&error))?
            .special_tokens(vec![bos_token])
            .build()
            .map_err(|error| self.unfit(&error))?;
        tokenizer.with_post_processor(Some(processor));
        Ok(())
    }

    fn list(&self, key: &str) -> Result<&[GgufValue], ModelError> {
        self.value(key)
            .and_then(GgufValue::as_array)
            .ok_or_else(|| self.missing(key, "a list"))
    }

    fn texts(&self, key: &str) -> Result<Vec<&str>, ModelError> {
        let texts = self
            .list(key)?
            .iter()
            .map(GgufValue::as_str)
            .collect::<Option<Vec<_>>>();
        texts.ok_or_else(|| self.missing(key, "a list of texts"))
    }

    fn unfit(&self, error: &dyn std::fmt::Display) -> ModelError {
        ModelError::format(
            &self.path,
            format!("its tokenizer cannot be built: {error}"),
        )
    }
}

fn vocabulary(tokens: &[&str]) -> AHashMap<String, u32> {
    (0_u32..)
        .zip(tokens)
        .map(|(id, token)| ((*token).to_string(), id))
        .collect()
}

/// Every split of a piece into two pieces is a merge; better scores come first.
fn merges_from_scores(tokens: &[&str], scores: &[f64]) -> Vec<(String, String)> {
    let ids: HashMap<&str, usize> = tokens.iter().enumerate().map(|(id, t)| (*t, id)).collect();
    let mut merges = Vec::new();
    for (token, score) in tokens.iter().zip(scores) {
        let mut local: Vec<(usize, usize)> = token
            .char_indices()
            .skip(1)
            .filter_map(|(at, _)| {
                let (left, right) = token.split_at(at);
                Some((*ids.get(left)?, *ids.get(right)?))
            })
            .collect();
        local.sort_unstable();
        merges.extend(local.into_iter().map(|(left, right)| (*score, left, right)));
    }
    let length = |id: usize| tokens[id].chars().count();
    merges.sort_by(|a, b| {
        let tie = || (length(b.1), length(b.2)).cmp(&(length(a.1), length(a.2)));
        b.0.total_cmp(&a.0).then_with(tie)
    });
    merges
        .iter()
        .map(|(_, left, right)| (tokens[*left].into(), tokens[*right].into()))
        .collect()
}
