//! Writing what a template made, with an end: a list that holds itself twice, forty times over, is a
//! few bytes in memory and terabytes as a text.

use std::{fmt, io};

use minijinja::{Error, ErrorKind, Value};

/// Longest text of a list or object, in bytes.
pub(super) const MAX_TEXT: usize = 1 << 22;

/// Counts what is written, up to a bound.
#[derive(Debug)]
pub(super) struct Bounded {
    left: usize,
    exceeded: bool,
}

impl Bounded {
    pub(super) fn new(most: usize) -> Self {
        Self {
            left: most,
            exceeded: false,
        }
    }

    /// A value with more items than the bound has bytes: minijinja would go through all of them, also
    /// after the writer has refused one.
    fn is_hopeless(&self, value: &Value) -> bool {
        value.len().is_some_and(|count| count > self.left)
    }

    fn take(&mut self, count: usize) -> bool {
        match self.left.checked_sub(count) {
            Some(left) => self.left = left,
            None => self.exceeded = true,
        }
        !self.exceeded
    }

    /// Writes a value to `out`.
    pub(super) fn write_value(
        mut self,
        out: &mut dyn fmt::Write,
        value: &Value,
    ) -> Result<(), Error> {
        if self.is_hopeless(value) {
            return Err(too_long());
        }
        let mut writer = Writer {
            bound: &mut self,
            out,
        };
        let written = fmt::write(&mut writer, format_args!("{value}"));
        if self.exceeded {
            return Err(too_long());
        }
        written.map_err(Error::from)
    }

    /// Bytes of a value as a text, or an error where they are more than the bound.
    pub(super) fn measure(mut self, value: &Value) -> Result<usize, Error> {
        if self.is_hopeless(value) {
            return Err(too_long());
        }
        let most = self.left;
        let mut writer = Writer {
            bound: &mut self,
            out: &mut Nowhere,
        };
        let _ = fmt::write(&mut writer, format_args!("{value}")); // `exceeded` tells.
        match self.exceeded {
            true => Err(too_long()),
            false => Ok(most - self.left),
        }
    }
}

/// A list or object that is to be written as a text, checked beforehand.
pub(super) fn check_text(value: &Value) -> Result<(), Error> {
    match value.as_object() {
        None => Ok(()),
        Some(_) => Bounded::new(MAX_TEXT).measure(value).map(|_| ()),
    }
}

pub(super) fn too_long() -> Error {
    let detail = format!("a list or object is longer than {MAX_TEXT} bytes as a text");
    Error::new(ErrorKind::InvalidOperation, detail)
}

struct Writer<'a> {
    bound: &'a mut Bounded,
    out: &'a mut dyn fmt::Write,
}

impl fmt::Write for Writer<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.bound.take(text.len()) {
            true => self.out.write_str(text),
            false => Err(fmt::Error),
        }
    }
}

struct Nowhere;

impl fmt::Write for Nowhere {
    fn write_str(&mut self, _: &str) -> fmt::Result {
        Ok(())
    }
}

/// Bytes, up to [`MAX_TEXT`].
#[derive(Debug, Default)]
pub(super) struct Bytes(pub(super) Vec<u8>);

impl io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_TEXT {
            return Err(io::Error::other(format!("is longer than {MAX_TEXT} bytes")));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
