//! Ways to damage a file.

use std::ops::Range;

use crate::dice::Dice;

/// How a file is put together, so that damage gets past its outer shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    /// Bytes and lengths.
    Binary,
    /// JSON, TOML, Jinja, plain text.
    Text,
    /// A length, a JSON header of that length, data.
    Safetensors,
    /// The row cache: magic, key, length and hash of the rest.
    Hashed,
}

/// One to three kinds of damage to `bytes`.
pub(crate) fn damage(bytes: &mut Vec<u8>, shell: Shell, dice: &mut Dice) {
    let times = 1 + dice.below(3);
    match shell {
        Shell::Binary => repeat(times, bytes, dice, damage_binary),
        Shell::Text => repeat(times, bytes, dice, damage_text),
        Shell::Safetensors if dice.one_in(3) => repeat(times, bytes, dice, damage_binary),
        Shell::Safetensors => damage_header(bytes, times, dice),
        Shell::Hashed if dice.one_in(4) => repeat(times, bytes, dice, damage_binary),
        Shell::Hashed => damage_hashed(bytes, times, dice),
    }
}

fn repeat(times: usize, bytes: &mut Vec<u8>, dice: &mut Dice, one: fn(&mut Vec<u8>, &mut Dice)) {
    (0..times).for_each(|_| one(bytes, dice));
}

fn damage_binary(bytes: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(9) {
        0 | 1 => set_length(bytes, dice),
        2 => flip(bytes, dice),
        3 => set_byte(bytes, dice),
        4 => cut(bytes, dice),
        5 => insert_noise(bytes, dice),
        6 => repeat_part(bytes, dice),
        7 => remove_part(bytes, dice),
        _ => swap_parts(bytes, dice),
    }
}

fn damage_text(bytes: &mut Vec<u8>, dice: &mut Dice) {
    match dice.below(14) {
        0..=2 => set_number(bytes, dice),
        3 | 4 => set_value(bytes, dice),
        5 => repeat_entry(bytes, dice),
        6 => nest(bytes, dice),
        7 => lengthen(bytes, dice),
        8 => break_utf8(bytes, dice),
        9 => cut(bytes, dice),
        10 => repeat_part(bytes, dice),
        11 => remove_part(bytes, dice),
        12 => swap_parts(bytes, dice),
        _ => damage_binary(bytes, dice),
    }
}

/// Damages the JSON header of a safetensors file as text and writes its length anew.
fn damage_header(bytes: &mut Vec<u8>, times: usize, dice: &mut Dice) {
    let Some((header, data)) = header_and_data(bytes) else {
        return repeat(times, bytes, dice, damage_binary);
    };
    let (mut header, data) = (header.to_vec(), data.to_vec());
    repeat(times, &mut header, dice, damage_text);
    *bytes = with_header(&header, &data);
}

/// The JSON header of a safetensors file, and what follows it.
pub(crate) fn header_and_data(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)
}

/// A safetensors file of these parts.
pub(crate) fn with_header(header: &[u8], data: &[u8]) -> Vec<u8> {
    let length = (header.len() as u64).to_le_bytes();
    [length.as_slice(), header, data].concat()
}

/// Damages what a file of the row cache holds, and makes its length and hash right again.
fn damage_hashed(bytes: &mut Vec<u8>, times: usize, dice: &mut Dice) {
    use sha2::{Digest, Sha256};
    const BODY: usize = 8 + 32 + 8 + 32;
    if bytes.len() < BODY {
        return;
    }
    let mut body = bytes.split_off(BODY);
    repeat(times, &mut body, dice, damage_binary);
    bytes.truncate(8 + 32);
    bytes.extend((body.len() as u64).to_le_bytes());
    bytes.extend(Sha256::digest(&body));
    bytes.extend(body);
}

/// A place in a file: half of them near its beginning, where headers are.
fn place(bytes: &[u8], dice: &mut Dice) -> usize {
    let end = bytes.len();
    if dice.one_in(2) {
        dice.below(end.min(512) + 1)
    } else {
        dice.below(end + 1)
    }
}

fn part(bytes: &[u8], dice: &mut Dice) -> Range<usize> {
    let start = place(bytes, dice);
    let most = if dice.one_in(3) { bytes.len() } else { 64 };
    start..bytes.len().min(start + dice.below(most + 1))
}

fn flip(bytes: &mut [u8], dice: &mut Dice) {
    let (at, bit) = (place(bytes, dice), dice.below(8));
    if let Some(byte) = bytes.get_mut(at) {
        *byte ^= 1 << bit;
    }
}

fn set_byte(bytes: &mut [u8], dice: &mut Dice) {
    let (at, value) = (place(bytes, dice), dice.number() as u8);
    let value = *dice.pick(&[0, 1, 0x7f, 0x80, 0xff, value]);
    if let Some(byte) = bytes.get_mut(at) {
        *byte = value;
    }
}

fn cut(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = match dice.below(4) {
        // Right before, within or after the end of the last things in it.
        0 => bytes.len().saturating_sub(dice.below(9)),
        // At the end of a line or of an entry.
        1 => {
            let after = place(bytes, dice);
            let end = bytes.iter().skip(after).position(|b| b"\n,]}".contains(b));
            end.map_or(after, |end| after + end + dice.below(2))
        }
        _ => place(bytes, dice),
    };
    bytes.truncate(at);
}

fn insert(bytes: &mut Vec<u8>, at: usize, what: &[u8]) {
    bytes.splice(at..at, what.iter().copied());
}

fn insert_noise(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = place(bytes, dice);
    let noise: Vec<u8> = (0..1 + dice.below(16))
        .map(|_| dice.number() as u8)
        .collect();
    insert(bytes, at, &noise);
}

fn repeat_part(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let range = part(bytes, dice);
    let (copy, at) = (bytes[range.clone()].to_vec(), place(bytes, dice));
    let at = if dice.one_in(2) { range.end } else { at };
    insert(bytes, at, &copy);
}

fn remove_part(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let range = part(bytes, dice);
    bytes.drain(range);
}

fn swap_parts(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let mut cuts = [place(bytes, dice), place(bytes, dice), place(bytes, dice)];
    cuts.sort_unstable();
    let [a, b, c] = cuts;
    let swapped = [&bytes[..a], &bytes[b..c], &bytes[a..b], &bytes[c..]].concat();
    *bytes = swapped;
}

/// Writes an extreme number over four or eight bytes.
fn set_length(bytes: &mut [u8], dice: &mut Dice) {
    let at = place(bytes, dice);
    // Lengths lie at even places more often than not.
    let at = if dice.one_in(2) { at & !3 } else { at };
    let size = bytes.len() as u64;
    let near = size.wrapping_add(dice.number() % 33).wrapping_sub(16);
    let value = *dice.pick(&[
        0,
        1,
        2,
        255,
        u64::MAX,
        u64::MAX - 1,
        i64::MAX as u64,
        i64::MAX as u64 + 1,
        u64::from(u32::MAX),
        u64::from(u32::MAX) - 1,
        i32::MAX as u64,
        1 << 31,
        1 << 40,
        size,
        near,
        size.saturating_sub(at as u64),
        (size / 2).next_power_of_two(),
    ]);
    let wide = value.to_le_bytes();
    let written = if dice.one_in(2) { &wide[..4] } else { &wide };
    for (byte, value) in bytes.iter_mut().skip(at).zip(written) {
        *byte = *value;
    }
}

const NUMBERS: [&str; 22] = [
    "0",
    "-1",
    "1",
    "-0",
    "18446744073709551615",
    "18446744073709551616",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "4294967295",
    "4294967296",
    "2147483648",
    "1125899906842624",
    "16777216",
    "1e308",
    "-1e308",
    "1e-320",
    "1e999999999",
    "0.5",
    "1e400",
    "123456789012345678901234567890123456789012345678901234567890",
    "0.0000000000000000000000000000000000000000000000000000000001",
];

/// Puts an extreme number in place of one that is written out.
fn set_number(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let digits = |byte: &u8| byte.is_ascii_digit();
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|at| digits(&bytes[*at]) && !at.checked_sub(1).is_some_and(|b| digits(&bytes[b])))
        .collect();
    if starts.is_empty() {
        return set_value(bytes, dice);
    }
    let start = *dice.pick(&starts);
    let rest = &bytes[start..];
    let length = rest.iter().position(|b| !digits(b)).unwrap_or(rest.len());
    let number = dice.pick(&NUMBERS).as_bytes();
    bytes.splice(start..start + length, number.iter().copied());
}

const VALUES: [&str; 21] = [
    "null",
    "true",
    "\"\"",
    "\"a\"",
    "\"\\u0000\"",
    "\"\\ud800\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "[1,\"a\",{}]",
    "{\"a\":{}}",
    "{\"\":0}",
    "-1",
    "1.5",
    "1e308",
    "NaN",
    "inf",
    "\"▁▁▁▁▁▁▁▁\"",
    "\"(((((\"",
    "18446744073709551615",
];

/// Puts another value in place of what follows a `:`, `=`, `,` or `[`.
fn set_value(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let after = place(bytes, dice);
    let found = bytes.iter().skip(after).position(|b| b":=,[".contains(b));
    let start = found.map_or(after, |found| after + found + 1);
    let rest = &bytes[start..];
    let end = rest.iter().position(|b| b",]}\n".contains(b));
    let end = start + end.unwrap_or(rest.len());
    let value = dice.pick(&VALUES).as_bytes();
    bytes.splice(start..end, value.iter().copied());
}

/// Repeats what lies between two separators: a key that is there twice, say.
fn repeat_entry(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let after = place(bytes, dice);
    let ends: Vec<usize> = (after..bytes.len())
        .filter(|at| b",{[\n".contains(&bytes[*at]))
        .take(2)
        .collect();
    if let [first, second] = ends[..] {
        let entry = [&bytes[first + 1..second], b","].concat();
        let times = if dice.one_in(4) { 200 } else { 1 };
        insert(bytes, first + 1, &entry.repeat(times));
    }
}

const NESTING: [&str; 10] = [
    "[",
    "{\"a\":",
    "[{",
    "(",
    "{{",
    "{% if a %}",
    "not ",
    "a.",
    "-",
    "[[a]]\n",
];

/// Thousands of things within each other.
fn nest(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = place(bytes, dice);
    let depth = *dice.pick(&[100, 130, 1000, 10_000]);
    let nested = dice.pick(&NESTING).repeat(depth);
    insert(bytes, at, nested.as_bytes());
}

/// Makes a text very long, after a quotation mark where there is one.
fn lengthen(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let after = place(bytes, dice);
    let quote = bytes.iter().skip(after).position(|b| *b == b'"');
    let at = quote.map_or(after, |quote| after + quote + 1);
    let length = *dice.pick(&[1000, 30_000, 100_000]);
    let piece = *dice.pick(&[
        "a", "a.", " ", "0", "\\u0041", "é", "🙂", "a b\\n", "|", "a|",
    ]);
    insert(bytes, at, piece.repeat(length / piece.len()).as_bytes());
}

fn break_utf8(bytes: &mut Vec<u8>, dice: &mut Dice) {
    let at = place(bytes, dice);
    let kinds: [&[u8]; 8] = [
        b"\xff",
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\xe2\x82",
        b"\0",
        b"\xef\xbb\xbf",
        "\u{feff}\u{202e}".as_bytes(),
    ];
    let broken = *dice.pick(&kinds);
    insert(bytes, at, broken);
}
