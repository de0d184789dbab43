//! The Jinja environment, set up as transformers sets it up.
//!
//! Source: `_compile_jinja_template` in `transformers/utils/chat_template_utils.py`.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Environment, Error, ErrorKind, Value, escape_formatter};

use crate::chat::{
    bounded::{Bounded, MAX_TEXT},
    engine::add_text_filters,
    json::tojson,
    methods::{join_filter, python_method},
    strftime::strftime,
};

/// The environment, with `fuel` for the template's work: an instruction costs 1, and so do 64 bytes
/// of the texts and lists that it makes, so that no file can make it loop or fill memory for ever.
pub(super) fn environment(fuel: u64) -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_fuel(Some(fuel));
    // Lists are bounded as they are written: their bytes are counted only afterwards.
    environment.set_formatter(|out, state, value| match value.as_object() {
        None => escape_formatter(out, state, value),
        Some(_) => Bounded::new(MAX_TEXT).write_value(out, value),
    });
    environment.set_unknown_method_callback(python_method);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    add_text_filters(&mut environment);
    environment.add_filter("tojson", tojson);
    environment.add_filter("join", join_filter);
    // None cannot be iterated in Python; templates ask this of tools.
    environment.add_test("iterable", |value: &Value| {
        !value.is_none() && (value.is_undefined() || value.try_iter().is_ok())
    });
    environment.add_function("strftime_now", |format: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        strftime(format, now.map_or(0, |now| now.as_secs()))
    });
    environment
}
