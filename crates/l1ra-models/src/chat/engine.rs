//! Compiling and rendering, with the one instruction replaced that minijinja does not bound: `~` writes
//! its operands as texts before it counts their bytes, and a list may hold one long text many times.

use std::sync::{Arc, LazyLock};

use minijinja::{
    AutoEscape, Environment, Error, State, Value,
    machinery::eval,
    machinery::{CompiledTemplate, Instruction, Instructions, TemplateConfig, make_string_output},
    syntax::SyntaxConfig,
    value::Rest,
};

use crate::chat::bounded::check_text;

/// The filter in place of `~`. No template can call it: names there have no such letter.
const CONCAT: &str = "~";
/// What minijinja writes for a filter that is looked up anew, not by its number in the template.
const NOT_NUMBERED: u8 = u8::MAX;

/// The filters that take their value as a text, whatever it is.
const TEXT_FILTERS: [&str; 15] = [
    "capitalize",
    "e",
    "escape",
    "format",
    "indent",
    "lines",
    "lower",
    "pprint",
    "replace",
    "safe",
    "split",
    "string",
    "title",
    "trim",
    "upper",
];

/// A compiled template whose concatenations are bounded.
///
/// # Errors
/// When the source does not parse.
pub(super) fn compile(source: &str) -> Result<CompiledTemplate<'_>, Error> {
    let syntax_config = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()?;
    let config = TemplateConfig {
        syntax_config,
        default_auto_escape: Arc::new(|_| AutoEscape::None),
    };
    let mut template = CompiledTemplate::new("<string>", source, &config)?;
    bound(&mut template.instructions);
    template.blocks.values_mut().for_each(bound);
    Ok(template)
}

fn bound(instructions: &mut Instructions<'_>) {
    let mut index = 0;
    while let Some(instruction) = instructions.get_mut(index) {
        if matches!(instruction, Instruction::StringConcat) {
            *instruction = Instruction::ApplyFilter(CONCAT, Some(2), NOT_NUMBERED);
        }
        index += 1;
    }
}

/// What the template makes of `root`.
///
/// # Errors
/// When it refuses, is wrong, or does more work than `environment` has fuel for.
pub(super) fn render(
    environment: &Environment<'_>,
    template: &CompiledTemplate<'_>,
    root: Value,
) -> Result<String, Error> {
    let mut text = String::new();
    eval(
        environment,
        &template.instructions,
        root,
        &template.blocks,
        &mut make_string_output(&mut text),
        template.initial_auto_escape.clone(),
    )?;
    Ok(text)
}

/// Adds `~`, and bounds the filters that take texts.
pub(super) fn add_text_filters(environment: &mut Environment<'_>) {
    environment.add_filter(CONCAT, |left: Value, right: Value| {
        check_text(&left)?;
        check_text(&right)?;
        Ok::<_, Error>(Value::from(format!("{left}{right}")))
    });
    for name in TEXT_FILTERS {
        environment.add_filter(name, move |_: &State<'_, '_>, arguments: Rest<Value>| {
            arguments.iter().try_for_each(check_text)?;
            ORIGINAL.empty_state().apply_filter(name, &arguments)
        });
    }
}

/// Has minijinja's own filters. The fuel is for one call.
static ORIGINAL: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_fuel(Some(FUEL_OF_FILTER));
    environment
});

/// Enough for a text of 64 MB.
const FUEL_OF_FILTER: u64 = 1_000_000;
