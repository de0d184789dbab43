//! The `tojson` filter, as transformers defines it:
//! `json.dumps(value, ensure_ascii, indent, separators, sort_keys)`.
//!
//! minijinja's own filter leaves out the blanks and escapes what HTML needs escaped.

use std::io;

use minijinja::{Error, ErrorKind, Value, value::Kwargs};
use serde::Serialize;
use serde_json::ser::{CharEscape, Formatter, Serializer};

use crate::chat::bounded::Bytes;

/// Lists and objects within one another; Python's own bound is about 1000.
const MAX_DEPTH: usize = 128;

/// The widest indent that is followed; a template could ask for any.
const MAX_INDENT: usize = 16;

pub(super) fn tojson(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    let separators: Option<Vec<String>> = options.get("separators")?;
    let ensure_ascii: Option<bool> = options.get("ensure_ascii")?;
    let sort_keys: Option<bool> = options.get("sort_keys")?;
    options.assert_all_used()?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(broken("separators: two texts are expected".into())),
        None if indent.is_some() => (",".into(), ": ".into()),
        None => (", ".into(), ": ".into()),
    };
    let python = || Python {
        indent: indent.map(|width| " ".repeat(width.min(MAX_INDENT))),
        item: item.clone(),
        key: key.clone(),
        ascii: ensure_ascii.unwrap_or(false),
        depth: 0,
        empty: true,
    };
    let mut text = Bytes::default();
    value
        .serialize(&mut Serializer::with_formatter(&mut text, python()))
        .map_err(|error| broken(error.to_string()))?;
    // Its depth and length are known to be bounded by now.
    if sort_keys.unwrap_or(false) {
        text = Bytes::default();
        let mut serializer = Serializer::with_formatter(&mut text, python());
        serde_json::to_value(value)
            .and_then(|value| sorted(value).serialize(&mut serializer))
            .map_err(|error| broken(error.to_string()))?;
    }
    String::from_utf8(text.0)
        .map(Value::from)
        .map_err(|error| broken(error.to_string()))
}

fn broken(error: String) -> Error {
    Error::new(ErrorKind::BadSerialization, error)
}

fn sorted(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Object(entries) => {
            let mut entries: Vec<_> = entries.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            entries
                .into_iter()
                .map(|(key, value)| (key, sorted(value)))
                .collect()
        }
        serde_json::Value::Array(items) => items.into_iter().map(sorted).collect(),
        other => other,
    }
}

/// Python's separators, indents and escapes.
struct Python {
    indent: Option<String>,
    item: String,
    key: String,
    ascii: bool,
    depth: usize,
    /// Whether the innermost list or object holds nothing yet.
    empty: bool,
}

impl Python {
    fn open<W: ?Sized + io::Write>(&mut self, w: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth += 1;
        self.empty = true;
        if self.depth > MAX_DEPTH {
            let detail = format!("lists and objects lie more than {MAX_DEPTH} deep");
            return Err(io::Error::other(detail));
        }
        w.write_all(bracket)
    }

    fn close<W: ?Sized + io::Write>(&mut self, w: &mut W, bracket: &[u8]) -> io::Result<()> {
        self.depth -= 1;
        if !self.empty {
            self.line(w)?;
        }
        self.empty = false;
        w.write_all(bracket)
    }

    fn next<W: ?Sized + io::Write>(&mut self, w: &mut W, first: bool) -> io::Result<()> {
        if !first {
            w.write_all(self.item.as_bytes())?;
        }
        self.empty = false;
        self.line(w)
    }

    fn line<W: ?Sized + io::Write>(&self, w: &mut W) -> io::Result<()> {
        let Some(indent) = &self.indent else {
            return Ok(());
        };
        w.write_all(b"\n")?;
        for _ in 0..self.depth {
            w.write_all(indent.as_bytes())?;
        }
        Ok(())
    }
}

impl Formatter for Python {
    fn begin_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.open(w, b"[")
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.close(w, b"]")
    }

    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(w, first)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.open(w, b"{")
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        self.close(w, b"}")
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        self.next(w, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(self.key.as_bytes())
    }

    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        if !self.ascii {
            return w.write_all(fragment.as_bytes());
        }
        let mut units = [0; 2];
        for letter in fragment.chars() {
            if letter.is_ascii() && letter != '\u{7f}' {
                write!(w, "{letter}")?;
                continue;
            }
            for unit in letter.encode_utf16(&mut units) {
                write!(w, "\\u{unit:04x}")?;
            }
        }
        Ok(())
    }

    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        escape: CharEscape,
    ) -> io::Result<()> {
        match escape {
            CharEscape::Quote => w.write_all(b"\\\""),
            CharEscape::ReverseSolidus => w.write_all(b"\\\\"),
            CharEscape::Solidus => w.write_all(b"/"),
            CharEscape::Backspace => w.write_all(b"\\b"),
            CharEscape::FormFeed => w.write_all(b"\\f"),
            CharEscape::LineFeed => w.write_all(b"\\n"),
            CharEscape::CarriageReturn => w.write_all(b"\\r"),
            CharEscape::Tab => w.write_all(b"\\t"),
            CharEscape::AsciiControl(byte) => write!(w, "\\u{byte:04x}"),
        }
    }
}
