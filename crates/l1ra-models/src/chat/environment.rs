//! The Jinja environment, set up as transformers sets it up.
//!
//! Source: `_compile_jinja_template` in `transformers/utils/chat_template_utils.py`.

use std::time::{SystemTime, UNIX_EPOCH};

use minijinja::{Environment, Error, ErrorKind, Value, syntax::SyntaxConfig};

use crate::chat::{json::tojson, methods::python_method, strftime::strftime};

/// Upper bound on a template's work, so that no file can make it loop for ever.
const FUEL: u64 = 10_000_000;

pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    if let Ok(syntax) = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
    {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(python_method);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment.add_filter("tojson", tojson);
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
