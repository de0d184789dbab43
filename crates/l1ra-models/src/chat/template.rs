//! [`ChatTemplate`]: the model's own Jinja.

use std::{collections::BTreeMap, path::Path};

use minijinja::{Error, Value, context, value::Serde};

use crate::{
    chat::{Message, environment::environment, tags},
    error::ModelError,
    tokenizer::{TextTokenizer, read_json},
};

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
        let prepared = tags::replace(source).into_owned();
        environment()
            .template_from_str(&prepared)
            .map_err(|error| ModelError::Template(describe(&error)))?;
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
        let token = |key: &str| {
            let entry = config.get(key)?;
            let text = entry.as_str().or_else(|| entry.get("content")?.as_str())?;
            Some((key.to_string(), text.to_string()))
        };
        // Templates add to these two whether the tokenizer has them or not.
        let mut tokens: BTreeMap<String, String> = ["bos_token", "eos_token"]
            .map(|key| (key.to_string(), String::new()))
            .into();
        tokens.extend(TOKENS.iter().filter_map(|key| token(key)));
        let file = dir.join("chat_template.jinja");
        let place = if file.is_file() { &file } else { &beside };
        let source = if file.is_file() {
            Some(std::fs::read_to_string(&file).map_err(|error| ModelError::io(&file, error))?)
        } else {
            let entry = config.get("chat_template");
            // Several named templates: the one called `default`.
            let named = |templates: &Vec<serde_json::Value>| {
                let default = templates.iter().find(|t| t["name"] == "default")?;
                default["template"].as_str().map(String::from)
            };
            entry.and_then(|e| {
                e.as_str()
                    .map(String::from)
                    .or_else(|| e.as_array().and_then(named))
            })
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
        let source = std::fs::read_to_string(path).map_err(|error| ModelError::io(path, error))?;
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
    /// When the template refuses the conversation or uses what this crate does not have.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, ModelError> {
        environment()
            .render_str(
                &self.prepared,
                context! {
                    messages => Value::from(Serde(messages)),
                    add_generation_prompt,
                    // There, and none, as transformers passes them where nobody gave any.
                    tools => (),
                    documents => (),
                    ..Value::from(Serde(&self.tokens))
                },
            )
            .map_err(|error| ModelError::Template(describe(&error)))
    }
}

fn describe(error: &Error) -> String {
    let detail = error.detail().unwrap_or("no details");
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
        let endless = "{% for a in range(10000) %}{% for b in range(10000) %}{{ a }}\
                       {% endfor %}{% endfor %}";
        let endless = ChatTemplate::new(endless, "", "").unwrap();
        assert!(endless.render(&[], false).is_err());
        assert!(ChatTemplate::new("{% for %}", "", "").is_err());
    }
}
