//! Methods of Python's types that templates call: those of `minijinja-contrib`, and what it lacks.

use minijinja::{
    Error, ErrorKind, State, Value,
    value::{Kwargs, from_args},
};
use minijinja_contrib::pycompat::unknown_method_callback;

use crate::chat::bounded::{Bounded, MAX_TEXT, too_long};

/// Bytes of text for which minijinja takes one unit of fuel.
const BYTES_OF_FUEL: u64 = 64;

/// `value.method(arguments…)` for what minijinja itself does not know.
pub(super) fn python_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match value.as_str() {
        Some(text) => match text_method(state, text, method, arguments) {
            Err(error) if error.kind() == ErrorKind::UnknownMethod => {
                unknown_method_callback(state, value, method, arguments)
            }
            known => known,
        },
        None => unknown_method_callback(state, value, method, arguments),
    }
}

fn text_method(
    state: &mut State<'_, '_>,
    text: &str,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    match method {
        "join" => {
            let (values,): (&Value,) = from_args(arguments)?;
            join(state, text, values)
        }
        "format" => {
            check_format(text, arguments)?;
            unknown_method_callback(state, &text.into(), method, arguments)
        }
        "rsplit" => {
            let (separator, most): (Option<&str>, Option<i64>) = from_args(arguments)?;
            Ok(rsplit(text, separator, most))
        }
        "partition" | "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let parts = partition(text, separator, method == "rpartition");
            Ok(parts.into_iter().map(Value::from).collect())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_prefix(prefix).unwrap_or(text).into())
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Ok(text.strip_suffix(suffix).unwrap_or(text).into())
        }
        "casefold" => {
            let () = from_args(arguments)?;
            Ok(text.to_lowercase().into())
        }
        _ => Err(Error::from(ErrorKind::UnknownMethod)),
    }
}

/// The filter `join`, in place of minijinja's own, which counts nothing where there is no separator.
pub(super) fn join_filter(
    state: &State<'_, '_>,
    values: &Value,
    separator: Option<&str>,
    attribute: Option<&str>,
    options: Kwargs,
) -> Result<Value, Error> {
    let separator_by_name: Option<&str> = options.get("d")?;
    let attribute_by_name: Option<&str> = options.get("attribute")?;
    options.assert_all_used()?;
    let separator = separator.or(separator_by_name).unwrap_or_default();
    if let Some(text) = values.as_str() {
        let letters: Value = text.chars().map(Value::from).collect();
        return join(state, separator, &letters);
    }
    match attribute.or(attribute_by_name) {
        None => join(state, separator, values),
        Some(path) => {
            let part = |value: Result<Value, Error>| {
                let mut parts = path.split('.');
                parts.try_fold(value?, |value, part| value.get_attr(part))
            };
            let parts: Result<Vec<Value>, Error> = values.try_iter()?.checked().map(part).collect();
            join(state, separator, &Value::from(parts?))
        }
    }
}

/// `separator.join(values)`, paid for piece by piece: the same long text may be there many times.
fn join(state: &State<'_, '_>, separator: &str, values: &Value) -> Result<Value, Error> {
    let mut joined = String::new();
    for (index, value) in values.try_iter()?.checked().enumerate() {
        let value = value?;
        if index > 0 {
            joined.push_str(separator);
        }
        let before = joined.len();
        match value.as_str() {
            Some(text) => joined.push_str(text),
            None => Bounded::new(MAX_TEXT).write_value(&mut joined, &value)?,
        }
        let bytes = separator.len() + joined.len() - before;
        state.consume_fuel(1 + bytes as u64 / BYTES_OF_FUEL)?;
    }
    Ok(joined.into())
}

/// Refuses a format whose result may be too long: by a width, or by a long argument many times.
fn check_format(text: &str, arguments: &[Value]) -> Result<(), Error> {
    let mut longest = 0;
    for argument in arguments {
        longest = longest.max(match argument.as_str() {
            Some(text) => text.len(),
            None => Bounded::new(MAX_TEXT).measure(argument)?,
        });
    }
    let places = text.matches('{').count();
    let widths = text
        .split(|letter: char| !letter.is_ascii_digit())
        .filter(|digits| !digits.is_empty())
        .map(|digits| digits.parse().unwrap_or(MAX_TEXT));
    let widths = widths.fold(0_usize, usize::saturating_add);
    match places.saturating_mul(longest).saturating_add(widths) > MAX_TEXT {
        true => Err(too_long()),
        false => Ok(()),
    }
}

/// What is before the separator, the separator, and what is after it, cut at its first or its last
/// occurrence. Without one, the text comes first, or `from_end` last, and the others are empty.
fn partition<'a>(text: &'a str, separator: &'a str, from_end: bool) -> [&'a str; 3] {
    let cut = match from_end {
        false => text.split_once(separator),
        true => text.rsplit_once(separator),
    };
    match cut {
        Some((before, after)) => [before, separator, after],
        None if from_end => ["", "", text],
        None => [text, "", ""],
    }
}

/// `text.rsplit(separator, most)`: at most `most` cuts, from the right; blanks where there is no
/// separator.
fn rsplit(text: &str, separator: Option<&str>, most: Option<i64>) -> Value {
    let most = most.and_then(|most| usize::try_from(most).ok());
    let pieces = most.map_or(usize::MAX, |most| most.saturating_add(1));
    let mut parts: Vec<&str> = match separator {
        Some(separator) => text.rsplitn(pieces, separator).collect(),
        None => {
            let mut parts = Vec::new();
            let mut rest = text.trim();
            while !rest.is_empty() {
                let cut = (parts.len() + 1 < pieces).then(|| rest.rsplit_once(char::is_whitespace));
                let (before, part) = cut.flatten().unwrap_or(("", rest));
                parts.push(part);
                rest = before.trim_end();
            }
            parts
        }
    };
    parts.reverse();
    parts.into_iter().map(Value::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As CPython 3 says.
    #[test]
    fn partitions_from_both_ends() {
        let cases = [
            ("a-b-c", ["a", "-", "b-c"], ["a-b", "-", "c"]),
            ("a-", ["a", "-", ""], ["a", "-", ""]),
            ("-a", ["", "-", "a"], ["", "-", "a"]),
            ("abc", ["abc", "", ""], ["", "", "abc"]),
            ("", ["", "", ""], ["", "", ""]),
        ];
        for (text, first, last) in cases {
            assert_eq!(partition(text, "-", false), first);
            assert_eq!(partition(text, "-", true), last);
        }
    }
}
