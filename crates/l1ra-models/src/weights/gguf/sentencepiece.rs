//! SentencePiece-style BPE, as transformers converts it: merges from scores, bytes as a fallback.

use std::collections::HashMap;

use tokenizers::{
    Tokenizer,
    decoders::{
        DecoderWrapper, byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders,
        strip::Strip,
    },
    models::bpe::BPE,
    normalizers::{
        NormalizerWrapper, prepend::Prepend, replace::Replace, utils::Sequence as Normalizers,
    },
};

use super::tokenizer::{NORMAL, UNUSED, USER_DEFINED, vocabulary};

/// Pieces longer than this are refused: every split of a piece is looked up.
const MAX_PIECE: usize = 1024;
/// Bytes of all merges, as a multiple of those of the vocabulary (and some for small ones). Published
/// vocabularies have two to four times; a vocabulary of one letter repeated has hundreds of times.
const MAX_MERGES: usize = 32;
const MIN_MERGES: usize = 1 << 22;
/// What SentencePiece writes for a space.
const SPACE: &str = "▁";

/// A vocabulary with its types and scores, one of each for every token.
pub(super) struct Pieces<'a> {
    pub(super) tokens: &'a [&'a str],
    pub(super) types: &'a [usize],
    /// None is NaN.
    pub(super) scores: &'a [f64],
    /// Token for what the vocabulary does not have.
    pub(super) unknown: Option<&'a str>,
    /// Whether a text is read as if a space came before it.
    pub(super) space_prefix: bool,
}

impl Pieces<'_> {
    pub(super) fn tokenizer(&self) -> tokenizers::Result<Tokenizer> {
        let vocabulary = vocabulary(self.tokens);
        let byte_missing = (0..=255_u8).find(|b| !vocabulary.contains_key(&format!("<0x{b:02X}>")));
        let mut builder = BPE::builder()
            .vocab_and_merges(vocabulary, self.merges()?)
            .byte_fallback(true)
            .fuse_unk(true);
        match (self.unknown, byte_missing) {
            (Some(unknown), _) => builder = builder.unk_token(unknown.into()),
            (None, None) => {}
            // Text would be dropped without a word.
            (None, Some(byte)) => {
                return Err(format!("it has neither an unknown token nor <0x{byte:02X}>").into());
            }
        }
        let mut tokenizer = Tokenizer::new(builder.build()?);
        tokenizer.with_normalizer(Some(self.normalizer()?));
        tokenizer.with_decoder(Some(self.decoder()?));
        Ok(tokenizer)
    }

    fn normalizer(&self) -> tokenizers::Result<Normalizers> {
        let mut steps = Vec::new();
        if self.space_prefix {
            steps.push(NormalizerWrapper::Prepend(Prepend::new(SPACE.into())));
        }
        steps.push(NormalizerWrapper::Replace(Replace::new(" ", SPACE)?));
        Ok(Normalizers::new(steps))
    }

    fn decoder(&self) -> tokenizers::Result<Decoders> {
        let mut steps = vec![
            DecoderWrapper::Replace(Replace::new(SPACE, " ")?),
            DecoderWrapper::ByteFallback(ByteFallback::new()),
            DecoderWrapper::Fuse(Fuse::new()),
        ];
        if self.space_prefix {
            steps.push(DecoderWrapper::Strip(Strip::new(' ', 1, 0)));
        }
        Ok(Decoders::new(steps))
    }

    /// Every split of a piece into two pieces is a merge; better scores come first, then longer
    /// left and right parts, then the order of the vocabulary. Source: `generate_merges` of
    /// transformers. As in SentencePiece, control, unknown and byte tokens are never merged.
    fn merges(&self) -> tokenizers::Result<Vec<(String, String)>> {
        let mergeable = |id: &usize| matches!(self.types[*id], NORMAL | USER_DEFINED | UNUSED);
        let ids = (0..self.tokens.len()).filter(mergeable);
        let by_text: HashMap<&str, usize> = ids.clone().map(|id| (self.tokens[id], id)).collect();
        let bytes: usize = self.tokens.iter().map(|token| token.len()).sum();
        let most = bytes.saturating_mul(MAX_MERGES).max(MIN_MERGES);
        let mut merges = Vec::new();
        let mut written = 0_usize;
        for id in ids {
            let token = self.tokens[id];
            // Of tokens that are there twice, the last one counts, as in the vocabulary.
            if by_text.get(token) != Some(&id) {
                continue;
            }
            if token.len() > MAX_PIECE {
                let length = token.len();
                return Err(format!("token {id} has {length} bytes; {MAX_PIECE} at most").into());
            }
            let mut local = splits(token, &by_text);
            local.sort_unstable();
            written = written.saturating_add(local.len() * token.len());
            if written > most {
                return Err(format!(
                    "its tokens up to {id} can be merged in more than {most} bytes of ways"
                )
                .into());
            }
            // Adding 0 makes -0 and 0 one.
            let score = self.scores[id] + 0.0;
            merges.extend(local.into_iter().map(|(left, right)| (score, left, right)));
        }
        let length = |id: usize| self.tokens[id].chars().count();
        merges.sort_by(|a, b| {
            let longer = || (length(b.1), length(b.2)).cmp(&(length(a.1), length(a.2)));
            b.0.total_cmp(&a.0).then_with(longer)
        });
        let text = |id: usize| self.tokens[id].to_string();
        Ok(merges
            .into_iter()
            .map(|(_, left, right)| (text(left), text(right)))
            .collect())
    }
}

/// Ids of the two parts, for every way of cutting `token` into two tokens.
fn splits(token: &str, ids: &HashMap<&str, usize>) -> Vec<(usize, usize)> {
    let cuts = token.char_indices().skip(1);
    cuts.filter_map(|(at, _)| {
        let (left, right) = token.split_at(at);
        Some((*ids.get(left)?, *ids.get(right)?))
    })
    .collect()
}
