//! [`ChatTemplate`]: the model's own Jinja.

use std::{collections::BTreeMap, path::Path, time::Duration};

use l1ra_core::aside::{Unfinished, aside};
use minijinja::{Error, ErrorKind, Value, context, value::Serde};
use serde_json::Value as Json;

use crate::{
    chat::{Message, engine, environment::environment, tags},
    error::ModelError,
    json,
    tokenizer::{TextTokenizer, read_json, token_text},
};

/// Longest source, in bytes; those of published models have less than 50,000.
const MAX_SOURCE: usize = 1 << 17;
/// Stack for a byte of source: what is put after a value (`a.b`, `a|b`, `a + b`) is compiled by
/// recursion, without a bound.
const STACK_OF_BYTE: usize = 1 << 10;
/// Work that any conversation may cost: thousands of times what published templates take.
const FUEL: u64 = 500_000;
/// What a message adds to it, and besides every byte of it 1.
const FUEL_OF_MESSAGE: u64 = 5_000;
/// Time for a conversation; published templates take milliseconds.
const LIMIT: Duration = Duration::from_secs(20);
/// Stack for a unit of fuel. minijinja drops and writes lists within lists by recursion, without a
/// bound of its own, and a list around another costs 1.5.
const STACK_OF_FUEL: u64 = 512;

/// A chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    /// The source without the tags that minijinja does not know.
    prepared: String,
    /// Texts of special tokens by the names that templates use: `bos_token`, `eos_token`, …
    tokens: BTreeMap<String, String>,
}

/// The special tokens that transformers hands to a template where the tokenizer has them.
const TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl ChatTemplate {
    /// A template from its Jinja source, with the texts of the tokens it may mention.
    ///
    /// # Errors
    /// When the source does not parse.
    pub fn new(
        source: impl Into<String>,
        bos: impl Into<String>,
        eos: impl Into<String>,
    ) -> Result<Self, ModelError> {
        let tokens = [("bos_token", bos.into()), ("eos_token", eos.into())];
        let tokens = tokens.map(|(name, text)| (name.to_string(), text));
        Self::with_tokens(&source.into(), BTreeMap::from(tokens))
    }

    fn with_tokens(source: &str, tokens: BTreeMap<String, String>) -> Result<Self, ModelError> {
        if source.len() > MAX_SOURCE {
            let detail = format!("has {} bytes; {MAX_SOURCE} at most", source.len());
            return Err(ModelError::Template(detail));
        }
        let prepared = tags::replace(source).into_owned();
        let copy = prepared.clone();
        let parse = move || {
            engine::compile(&copy)
                .map(|_| ())
                .map_err(|error| told(&error))
        };
        on_stack((1 << 20) + prepared.len() * STACK_OF_BYTE, parse)?;
        Ok(Self {
            source: source.into(),
            prepared,
            tokens,
        })
    }

    /// The template of a Hugging Face folder: `chat_template.jinja`, or `chat_template` in
    /// `tokenizer_config.json`. `None` where there is neither.
    ///
    /// # Errors
    /// A file that cannot be parsed.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, ModelError> {
        let beside = dir.join("tokenizer_config.json");
        let config = read_json(&beside)?.unwrap_or_default();
        // Templates add to these two whether the tokenizer has them or not.
        let mut tokens: BTreeMap<String, String> = ["bos_token", "eos_token"]
            .map(|key| (key.to_string(), String::new()))
            .into();
        for key in TOKENS {
            if let Some(text) = token_text(&beside, &config, key)? {
                tokens.insert(key.into(), text.into());
            }
        }
        let file = dir.join("chat_template.jinja");
        let place = if file.is_file() { &file } else { &beside };
        let source = if file.is_file() {
            Some(json::read_text(&file)?)
        } else {
            named(&beside, config.get("chat_template"))?
        };
        let told = |error: ModelError| ModelError::format(place, error.to_string());
        source
            .map(|source| Self::with_tokens(&source, tokens).map_err(told))
            .transpose()
    }

    /// A template from a file of its own, in place of the model's; the texts of special tokens are
    /// the tokenizer's. Where several tokens end a text, `eos_token` is the one with the largest id,
    /// which is the end of a turn in the vocabularies of Llama 3 and Qwen.
    ///
    /// # Errors
    /// A file that cannot be read or parsed.
    pub fn from_file(path: &Path, tokenizer: &TextTokenizer) -> Result<Self, ModelError> {
        if !path.is_file() {
            let detail = "no such file; a chat template is a text file with Jinja";
            return Err(ModelError::format(path, detail));
        }
        let source = json::read_text(path)?;
        let text = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
        let (bos, eos) = (text(tokenizer.bos), text(tokenizer.eos.last().copied()));
        Self::new(source, bos, eos).map_err(|error| ModelError::format(path, error.to_string()))
    }

    /// What it is made of: the Jinja source, then names and texts of the tokens it may mention.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        let tokens = self
            .tokens
            .iter()
            .flat_map(|(name, text)| [name.as_str(), text]);
        std::iter::once(self.source.as_str()).chain(tokens)
    }

    /// The Jinja source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The conversation as the model reads it; with `add_generation_prompt`, up to where the
    /// assistant begins.
    ///
    /// # Errors
    /// When the template refuses the conversation, uses what this crate does not have, or does more
    /// work than any conversation needs.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        let bytes: usize = messages.iter().map(|m| m.content.len()).sum();
        let fuel = FUEL + FUEL_OF_MESSAGE * messages.len() as u64 + bytes as u64;
        let stack = usize::try_from(fuel * STACK_OF_FUEL).unwrap_or(usize::MAX / 4);
        let (prepared, messages) = (self.prepared.clone(), messages.to_vec());
        let tokens = self.tokens.clone();
        on_stack(stack, move || {
            let root = context! {
                messages => Value::from(Serde(messages)),
                add_generation_prompt,
                // There, and none, as transformers passes them where nobody gave any.
                tools => (),
                documents => (),
                ..Value::from(Serde(tokens))
            };
            let template = engine::compile(&prepared).map_err(|error| told(&error))?;
            engine::render(&environment(fuel), &template, root).map_err(|error| told(&error))
        })
    }
}

fn told(error: &Error) -> ModelError {
    ModelError::Template(describe(error))
}

/// Does `work` in a thread with a stack of that many bytes, which take no memory until they are used.
///
/// Fuel bounds the work but for a few things that minijinja does not count, such as the comparison of
/// lists that hold one list many times. So there is a limit in time as well; a thread that reaches it
/// is left to itself.
fn on_stack<T: Send + 'static>(
    stack: usize,
    work: impl FnOnce() -> Result<T, ModelError> + Send + 'static,
) -> Result<T, ModelError> {
    aside("template", Some(stack), LIMIT, work).unwrap_or_else(|error| {
        Err(ModelError::Template(match error {
            Unfinished::NotStarted(error) => format!("no stack of {stack} bytes for it: {error}"),
            // The engine panics at a few sums.
            Unfinished::Panicked => "the engine gave up on it".into(),
            Unfinished::TimedOut(limit) => {
                let seconds = limit.as_secs();
                format!("it is not done after {seconds} s; is there a loop?")
            }
        }))
    })
}

/// The template of `tokenizer_config.json`: a text, or the one called `default` of several.
fn named(path: &Path, entry: Option<&Json>) -> Result<Option<String>, ModelError> {
    let templates = match entry {
        None | Some(Json::Null) => return Ok(None),
        Some(Json::String(source)) => return Ok(Some(source.clone())),
        Some(Json::Array(templates)) => templates,
        Some(_) => {
            let detail = "its `chat_template` is neither a text nor a list of named templates";
            return Err(ModelError::format(path, detail));
        }
    };
    let mut default = None;
    for (index, template) in templates.iter().enumerate() {
        let text = |key: &str| template.get(key).and_then(Json::as_str);
        let (Some(name), Some(source)) = (text("name"), text("template")) else {
            let detail = format!("`chat_template[{index}]` lacks a text `name` or `template`");
            return Err(ModelError::format(path, detail));
        };
        if name == "default" {
            default = Some(source.into());
        }
    }
    Ok(default)
}

fn describe(error: &Error) -> String {
    let detail = match error.kind() {
        ErrorKind::OutOfFuel => "it does more work than any conversation needs; is there a loop?",
        _ => error.detail().unwrap_or("no details"),
    };
    match error.line() {
        Some(line) => format!("{}: {detail} (line {line})", error.kind()),
        None => format!("{}: {detail}", error.kind()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::Role;

    const CHATML: &str = "{% for message in messages %}\
        {{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}\
        {% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    #[test]
    fn renders_a_conversation_and_the_prompt_for_an_answer() {
        let template = ChatTemplate::new(CHATML, "", "").unwrap();
        let messages = [Message::new(Role::User, "Hi")];
        assert_eq!(
            template.render(&messages, true).unwrap(),
            "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_template_that_refuses_or_loops_is_an_error() {
        let refusing = ChatTemplate::new("{{ raise_exception('roles') }}", "", "").unwrap();
        assert!(
            refusing
                .render(&[], false)
                .unwrap_err()
                .to_string()
                .contains("roles")
        );
        let broken = ["{% for %}", "{{ 'a'", "{% if a %}"];
        assert!(
            broken
                .iter()
                .all(|source| ChatTemplate::new(*source, "", "").is_err())
        );
        let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}\
                       {% endfor %}{% endfor %}";
        let endless = ChatTemplate::new(endless, "", "").unwrap();
        assert!(endless.render(&[], false).is_err());
    }

    /// Each of these asks for terabytes, for a stack without end, or for a long time.
    #[test]
    fn no_template_grows_without_bound() {
        let double = "{% set n = namespace(a='ab') %}{% for i in range(60) %}";
        let nest = "{% set n = namespace(a=[]) %}{% for i in range(100000) %}\
                    {% for j in range(100000) %}{% set n.a = [[[[n.a]]]] %}{% endfor %}{% endfor %}";
        let twice = "{% set n = namespace(a=[1]) %}{% for i in range(60) %}\
                     {% set n.a = [n.a, n.a] %}{% endfor %}";
        let growing = [
            format!("{double}{{% set n.a = n.a ~ n.a %}}{{% endfor %}}"),
            format!("{double}{{% set n.a = n.a + n.a %}}{{% endfor %}}"),
            format!("{double}{{% set n.a = n.a * 2 %}}{{% endfor %}}"),
            format!("{double}{{% set n.a = n.a.replace('a', 'aaaa') %}}{{% endfor %}}"),
            format!("{double}{{% set n.a = n.a|replace('b', 'bbbb') %}}{{% endfor %}}"),
            format!(
                "{double}{{% set n.a %}}{{{{ n.a }}}}{{{{ n.a }}}}{{% endset %}}{{% endfor %}}"
            ),
            "{{ 'a' * 10 ** 12 }}".into(),
            "{{ 'a' * 10 ** 9 }}".into(),
            "{{ [1] * 10 ** 12 }}".into(),
            "{{ [1] * 10 ** 8 }}".into(),
            "{{ range(10 ** 12) }}".into(),
            "{{ 'a'|indent(10 ** 12) }}".into(),
            "{{ [1]|batch(10 ** 12, 'a')|list }}".into(),
            "{{ [1]|slice(10 ** 12, 'a')|list }}".into(),
            "{{ '%1000000000000d'|format(1) }}".into(),
            "{{ '{:>1000000000000}'.format(1) }}".into(),
            "{% set s = 'a' * 1000000 %}{{ '{}'.format([s] * 10 ** 8) }}".into(),
            "{% set s = 'a' * 1000000 %}{{ ''.join([s] * 10 ** 8) }}".into(),
            "{% set s = 'a' * 1000000 %}{{ ([s] * 10 ** 8)|join }}".into(),
            "{% set s = 'a' * 1000000 %}{{ [s] * 10 ** 8 }}".into(),
            "{% set s = 'a' * 1000000 %}{{ ([s] * 10 ** 6)|tojson }}".into(),
            format!("{twice}{{{{ n.a }}}}"),
            format!("{twice}{{{{ n.a|tojson }}}}"),
            format!("{twice}{{{{ n.a|tojson(sort_keys=true) }}}}"),
            format!("{twice}{{{{ n.a ~ '' }}}}"),
            format!("{twice}{{{{ n.a|string }}}}"),
            format!("{twice}{{{{ n.a|upper }}}}"),
            format!("{twice}{{{{ [n.a]|map('upper')|list }}}}"),
            nest.into(),
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}".into(),
            "{% macro m(a) %}{% call m(a) %}{{ caller() }}{% endcall %}{% endmacro %}{{ m(1) }}"
                .into(),
            "{% for a in [[1]] recursive %}{{ loop([a]) }}{% endfor %}".into(),
            "{% include 'a' %}".into(),
            "{% import 'a' as b %}{{ b }}".into(),
            "{% extends '/etc/passwd' %}".into(),
        ];
        for source in growing {
            let start = std::time::Instant::now();
            let rendered = ChatTemplate::new(&*source, "", "").map(|t| t.render(&[], false));
            assert!(!matches!(rendered, Ok(Ok(_))), "{source}");
            let seconds = start.elapsed().as_secs();
            assert!(seconds < 20, "{source} took {seconds} s");
        }
        let long = "a".repeat(MAX_SOURCE + 1);
        assert!(ChatTemplate::new(long, "", "").is_err());
    }

    #[test]
    fn join_is_the_filter_that_templates_know() {
        let source = "{{ ['a', 1]|join }} {{ 'abc'|join('-') }} {{ [{'b': {'c': 2}}]|join(', ', attribute='b.c') }} \
                      {{ messages|join('+', 'content') }} {{ ['a', 'b']|join(d='/') }}";
        let template = ChatTemplate::new(source, "", "").unwrap();
        let messages = ["x", "y"].map(|text| Message::new(Role::User, text));
        assert_eq!(
            template.render(&messages, false).unwrap(),
            "a1 a-b-c 2 x+y a/b"
        );
    }

    #[test]
    fn a_deep_list_is_dropped_and_written() {
        let deep = "{% set n = namespace(a=[]) %}{% for i in range(30000) %}{% set n.a = [n.a] %}\
                    {% endfor %}";
        let dropped = ChatTemplate::new(deep, "", "").unwrap();
        assert_eq!(dropped.render(&[], false).unwrap(), "");
        let written = ChatTemplate::new(format!("{deep}{{{{ n.a }}}}"), "", "").unwrap();
        assert_eq!(written.render(&[], false).unwrap().len(), 2 * 30_001);
        let json = ChatTemplate::new(format!("{deep}{{{{ n.a|tojson }}}}"), "", "").unwrap();
        let error = json.render(&[], false).unwrap_err().to_string();
        assert!(error.contains("more than 128 deep"), "{error}");
    }
}
