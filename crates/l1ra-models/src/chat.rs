//! Chat templates: the model's own Jinja, rendered as transformers renders it.

use std::{fmt, path::Path};

use minijinja::{
    Environment, Error, ErrorKind, Value, context, syntax::SyntaxConfig, value::Serde,
};
use serde::{Deserialize, Serialize};

use crate::{error::ModelError, tokenizer::read_json};

/// Who says a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions before the conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's answer.
    Tool,
}

impl Role {
    /// The names that chat data may use.
    pub const NAMES: [&'static str; 4] = ["system", "user", "assistant", "tool"];

    /// The role of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Self::System),
            "user" => Some(Self::User),
            "assistant" => Some(Self::Assistant),
            "tool" => Some(Self::Tool),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "system",
            Self::User => "user",
            Self::Assistant => "assistant",
            Self::Tool => "tool",
        })
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who says it.
    pub role: Role,
    /// What is said.
    pub content: String,
}

impl Message {
    /// A message.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// Upper bound on a template's work, so that no file can make it loop for ever.
const FUEL: u64 = 10_000_000;

/// A chat template.
#[derive(Clone, Debug)]
pub struct ChatTemplate {
    source: String,
    bos: String,
    eos: String,
}

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
        let template = Self {
            source: source.into(),
            bos: bos.into(),
            eos: eos.into(),
        };
        environment()
            .template_from_str(&template.source)
            .map_err(|error| ModelError::Template(describe(&error)))?;
        Ok(template)
    }

    /// The template of a Hugging Face folder: `chat_template.jinja`, or `chat_template` in
    /// `tokenizer_config.json`. `None` where there is neither.
    ///
    /// # Errors
    /// A file that cannot be parsed.
    pub fn from_dir(dir: &Path) -> Result<Option<Self>, ModelError> {
        let config = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let token = |key: &str| {
            let entry = config.get(key);
            let text = entry.and_then(|e| e.as_str().or_else(|| e.get("content")?.as_str()));
            text.unwrap_or_default().to_string()
        };
        let file = dir.join("chat_template.jinja");
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
        source
            .map(|source| Self::new(source, token("bos_token"), token("eos_token")))
            .transpose()
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
                &self.source,
                context! {
                    messages => Value::from(Serde(messages)),
                    add_generation_prompt,
                    bos_token => &self.bos,
                    eos_token => &self.eos,
                },
            )
            .map_err(|error| ModelError::Template(describe(&error)))
    }
}

fn describe(error: &Error) -> String {
    let place = error
        .line()
        .map_or(String::new(), |line| format!(" (line {line})"));
    format!("{error}{place}")
}

fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    // As transformers sets it up.
    if let Ok(syntax) = SyntaxConfig::builder()
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build()
    {
        environment.set_syntax(syntax);
    }
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.add_function(
        "raise_exception",
        |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        },
    );
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

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
