//! Parts of a `tokenizer.json` at which the `tokenizers` crate would panic or fill memory, refused
//! before it sees them.

use std::{fmt, path::Path};

use serde::{
    Deserialize,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Deserializer, Value};

use crate::error::ModelError;

/// Bytes of a regular expression, and how often its repetitions may repeat what is in it, taken
/// together: `(a{9}){9}` is 81. The crate's engine writes repetitions out.
const MAX_PATTERN: usize = 1 << 14;
const MAX_REPEATS: usize = 1 << 14;
/// Bytes of a token: the crate goes through a list of them by recursion, byte by byte.
const MAX_TOKEN: usize = 1 << 12;
/// Ids that a vocabulary may leave out, beside as many as it has: the crate counts them one by one.
const MAX_HOLES: u64 = 1 << 14;

/// What is looked at; the vocabulary and the merges are passed over.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    decoder: Value,
    model: Model,
}

#[derive(Deserialize)]
struct Model {
    #[serde(rename = "type")]
    kind: Option<String>,
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    vocab: Ids,
}

/// The ids of a vocabulary (a list has those of its places), and the bytes of its longest token.
#[derive(Default)]
struct Ids {
    count: u64,
    largest: u64,
    longest: usize,
}

/// Bytes of a text that is passed over.
#[derive(Default)]
struct Length(usize);

impl<'de> Deserialize<'de> for Length {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_str(Self::default())
    }
}

impl Visitor<'_> for Length {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a token")
    }

    fn visit_str<E>(self, text: &str) -> Result<Self, E> {
        Ok(Self(text.len()))
    }
}

impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Self::default())
    }
}

impl<'de> Visitor<'de> for Ids {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vocabulary")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self, A::Error> {
        while let Some((Length(bytes), id)) = map.next_entry::<Length, u64>()? {
            self.count += 1;
            self.longest = self.longest.max(bytes);
            self.largest = self.largest.max(id);
        }
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<Self, A::Error> {
        while let Some((Length(bytes), IgnoredAny)) = list.next_element()? {
            self.longest = self.longest.max(bytes);
        }
        Ok(self)
    }
}

/// Whether the tokenizer in `bytes` can be built and used; `path` is for messages.
///
/// # Errors
/// A file that is no tokenizer, and the first part that the crate cannot take.
pub(crate) fn check(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut json = Deserializer::from_slice(bytes);
    let parts = Parts::deserialize(&mut json).and_then(|parts| json.end().map(|()| parts));
    let parts = parts.map_err(|error| {
        let detail = format!("is no tokenizer: {error}");
        ModelError::format(path, detail)
    })?;
    let wrong = |name: &str, detail: String| {
        ModelError::format(path, format!("its {name} cannot be used: {detail}"))
    };
    for (name, part) in [
        ("normalizer", &parts.normalizer),
        ("pre_tokenizer", &parts.pre_tokenizer),
        ("decoder", &parts.decoder),
    ] {
        check_part(part).map_err(|detail| wrong(name, detail))?;
    }
    let Ids {
        count,
        largest,
        longest,
    } = parts.model.vocab;
    if longest > MAX_TOKEN {
        let detail = format!("a token has {longest} bytes; {MAX_TOKEN} at most");
        return Err(ModelError::format(path, detail));
    }
    if largest > 2 * count + MAX_HOLES {
        let detail = format!("its vocabulary has {count} tokens and the id {largest}");
        return Err(ModelError::format(path, detail));
    }
    // The crate cuts as many bytes off the right part of every merge.
    let prefix = parts.model.continuing_subword_prefix.unwrap_or_default();
    if !prefix.is_empty() && parts.model.kind.as_deref() != Some("WordPiece") {
        let what = "continuing_subword_prefix of a BPE model";
        return Err(ModelError::unsupported(path, what, prefix, "null"));
    }
    Ok(())
}

/// What is wrong with a part, or with one within it.
fn check_part(part: &Value) -> Result<(), String> {
    match part {
        Value::Array(parts) => parts.iter().try_for_each(check_part),
        Value::Object(entries) => {
            let charsmap = entries.get("precompiled_charsmap");
            let needs = entries
                .get("type")
                .is_some_and(|kind| kind == "Precompiled");
            if needs && !charsmap.is_some_and(Value::is_string) {
                return Err("its `precompiled_charsmap` is no text".into());
            }
            entries.iter().try_for_each(|(key, value)| {
                check_entry(key, value)?;
                check_part(value)
            })
        }
        _ => Ok(()),
    }
}

/// Keys have one meaning in all parts, and some files leave the part's type out.
fn check_entry(key: &str, value: &Value) -> Result<(), String> {
    match (key, value) {
        ("length", value) if value.as_u64() == Some(0) => {
            Err("its `length` is 0; expected 1 or more".into())
        }
        // Stripping more letters than a token has is a panic.
        ("stop", value) if value.as_u64().is_some_and(|stop| stop > 0) => Err(format!(
            "it strips {value} letters from the end of tokens (`stop`); supported: 0"
        )),
        ("prepend", Value::String(text)) if text.is_empty() => {
            Err("it puts nothing before a text (`prepend`); leave it out".into())
        }
        ("Regex", Value::String(pattern)) => check_pattern(pattern),
        ("precompiled_charsmap", Value::String(text)) => check_charsmap(text),
        _ => Ok(()),
    }
}

fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN {
        let length = pattern.len();
        return Err(format!(
            "a regular expression has {length} bytes; {MAX_PATTERN} at most"
        ));
    }
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(usize::MAX))
    };
    let counts = pattern.split('{').skip(1).filter_map(|rest| {
        let (inner, _) = rest.split_once('}')?;
        inner.split(',').filter_map(number).max()
    });
    let repeats = counts.fold(1_usize, |all, count| all.saturating_mul(count.max(1)));
    if repeats > MAX_REPEATS {
        return Err(format!(
            "a regular expression repeats its parts {repeats} times, taken together; \
             {MAX_REPEATS} at most"
        ));
    }
    Ok(())
}

/// SentencePiece's compiled rules: a length, a trie of 32-bit units in that many bytes, and texts that
/// end with a zero. The crate follows the trie without looking where it leads.
fn check_charsmap(text: &str) -> Result<(), String> {
    let broken = |what: &str| Err(format!("its `precompiled_charsmap` {what}"));
    let Some(bytes) = from_base64(text) else {
        return broken("is not base64");
    };
    let Some((length, rest)) = bytes.split_first_chunk::<4>() else {
        return broken("ends before its length");
    };
    let length = u32::from_le_bytes(*length) as usize / 4 * 4;
    let Some((units, texts)) = rest.split_at_checked(length) else {
        return broken("says that its rules are longer than it is");
    };
    let (units, _) = units.as_chunks::<4>();
    let units: Vec<usize> = units
        .iter()
        .map(|unit| u32::from_le_bytes(*unit) as usize)
        .collect();
    match str::from_utf8(texts) {
        Ok(texts) if leads_astray(&units, texts) => broken("leads out of its own rules"),
        Ok(_) => Ok(()),
        Err(_) => broken("holds texts that are not UTF-8"),
    }
}

/// Whether some text would lead to a unit that is not there, or to a place that is in no text.
fn leads_astray(units: &[usize], texts: &str) -> bool {
    let offset = |unit: usize| (unit >> 10) << ((unit & 1 << 9) >> 6);
    let Some(root) = units.first() else {
        return true;
    };
    let mut seen = vec![false; units.len()];
    let mut left = vec![offset(*root)];
    while let Some(node) = left.pop() {
        // The next byte of a text is any byte: the whole block must be there.
        if node | 0xff >= units.len() {
            return true;
        }
        if std::mem::replace(&mut seen[node], true) {
            continue;
        }
        for byte in 1..=0xff {
            let child = node ^ byte;
            let unit = units[child];
            if unit & (1 << 31 | 0xff) != byte {
                continue;
            }
            let next = child ^ offset(unit);
            let is_leaf = unit >> 8 & 1 == 1;
            let place = units.get(next).map(|value| value & ((1 << 31) - 1));
            if is_leaf && !place.is_some_and(|place| texts.is_char_boundary(place)) {
                return true;
            }
            left.push(next);
        }
    }
    false
}

/// The bytes of a text in base64, padding included.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let text = text.as_bytes();
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for four in text[..text.len().checked_sub(padding)?].chunks(4) {
        let mut word = 0_u32;
        for letter in four {
            word = word << 6 | sextet(*letter)?;
        }
        let count = four.len() * 6 / 8;
        word <<= 6 * (4 - four.len());
        bytes.extend(&word.to_be_bytes()[1..1 + count]);
    }
    (padding < 3).then_some(bytes)
}

fn sextet(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_back() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg==", b"f"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYmE=", b"fooba"),
            ("/+8A", b"\xff\xef\0"),
        ] {
            assert_eq!(from_base64(text).unwrap(), bytes, "{text}");
        }
        for text in ["Z", "Zg=", "Z===", "====", "Zm9v\n", "Zm-v"] {
            assert_eq!(from_base64(text), None, "{text}");
        }
    }

    #[test]
    fn repetitions_multiply() {
        for pattern in [r"\p{N}{1,3}", r"a{100}", r"[^\r\n\p{L}]?+\p{L}{2}", "{{}}"] {
            check_pattern(pattern).unwrap();
        }
        for pattern in [
            "(?:(?=a)x{1000}){1000}",
            "a{99999999999999999999999}{9999999}",
        ] {
            assert!(check_pattern(pattern).is_err(), "{pattern}");
        }
    }
}
