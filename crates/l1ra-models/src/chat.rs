//! Chat templates: the model's own Jinja, rendered as transformers renders it.

use std::{
    fmt, io,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use minijinja::{
    Environment, Error, ErrorKind, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use serde::{Deserialize, Serialize};
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

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
        let beside = dir.join("tokenizer_config.json");
        let config = read_json(&beside)?.unwrap_or_default();
        let token = |key: &str| {
            let entry = config.get(key);
            let text = entry.and_then(|e| e.as_str().or_else(|| e.get("content")?.as_str()));
            text.unwrap_or_default().to_string()
        };
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
            .map(|source| Self::new(source, token("bos_token"), token("eos_token")).map_err(told))
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
                    // There, and none, as transformers passes them where nobody gave any.
                    tools => (),
                    documents => (),
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
    environment.add_filter("tojson", python_json);
    environment.add_function("strftime_now", |format: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        strftime(format, now.map_or(0, |now| now.as_secs()))
    });
    environment
}

/// `json.dumps(value, ensure_ascii=False, indent=indent)`: minijinja's own filter leaves out the
/// blanks and escapes what HTML needs escaped.
fn python_json(value: &Value, options: Kwargs) -> Result<Value, Error> {
    let indent: Option<usize> = options.get("indent")?;
    options.assert_all_used()?;
    let mut text = Vec::new();
    let written = match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut text, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut text, Python)),
    };
    let broken = |error: String| Error::new(ErrorKind::BadSerialization, error);
    written.map_err(|error| broken(error.to_string()))?;
    String::from_utf8(text)
        .map(Value::from)
        .map_err(|error| broken(error.to_string()))
}

/// Python's separators, `", "` and `": "`.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + io::Write>(
        &mut self,
        w: &mut W,
        first: bool,
    ) -> io::Result<()> {
        if first { Ok(()) } else { w.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, w: &mut W) -> io::Result<()> {
        w.write_all(b": ")
    }
}

const DAYS: [&str; 7] = [
    "Thursday", // 1 January 1970
    "Friday",
    "Saturday",
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
];

const MONTHS: [(&str, u64); 12] = [
    ("January", 31),
    ("February", 28),
    ("March", 31),
    ("April", 30),
    ("May", 31),
    ("June", 30),
    ("July", 31),
    ("August", 31),
    ("September", 30),
    ("October", 31),
    ("November", 30),
    ("December", 31),
];

/// Python's `strftime` in English, for seconds since 1970, UTC.
fn strftime(format: &str, seconds: u64) -> Result<String, Error> {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let (mut year, mut day) = (1970, days);
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let of_year = day + 1;
    let mut month = 0;
    let length = |month: usize| MONTHS[month].1 + u64::from(month == 1 && leap(year));
    while day >= length(month) {
        day -= length(month);
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    let (name, weekday) = (MONTHS[month].0, DAYS[(days % 7) as usize]);
    let mut text = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            text.push(letter);
            continue;
        }
        match letters.next() {
            Some('Y') => text += &year.to_string(),
            Some('y') => text += &format!("{:02}", year % 100),
            Some('m') => text += &format!("{:02}", month + 1),
            Some('B') => text += name,
            Some('b') => text += &name[..3],
            Some('d') => text += &format!("{:02}", day + 1),
            Some('j') => text += &format!("{of_year:03}"),
            Some('A') => text += weekday,
            Some('a') => text += &weekday[..3],
            Some('H') => text += &format!("{hour:02}"),
            Some('I') => text += &format!("{:02}", (hour + 11) % 12 + 1),
            Some('p') => text += if hour < 12 { "AM" } else { "PM" },
            Some('M') => text += &format!("{minute:02}"),
            Some('S') => text += &format!("{second:02}"),
            Some('%') => text.push('%'),
            other => {
                let seen = other.map_or("%".into(), |letter| format!("%{letter}"));
                let detail = format!("strftime_now: `{seen}` is not supported");
                return Err(Error::new(ErrorKind::InvalidOperation, detail));
            }
        }
    }
    Ok(text)
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
    fn dates_are_python_s() {
        let all = "%a %A %d %b %B %m %y %Y %j %H %I %p %M %S 100%%";
        let cases = [
            (
                0,
                "Thu Thursday 01 Jan January 01 70 1970 001 00 12 AM 00 00 100%",
            ),
            (
                951_782_399,
                "Mon Monday 28 Feb February 02 00 2000 059 23 11 PM 59 59 100%",
            ),
            (
                951_782_400,
                "Tue Tuesday 29 Feb February 02 00 2000 060 00 12 AM 00 00 100%",
            ),
            (
                1_735_646_400,
                "Tue Tuesday 31 Dec December 12 24 2024 366 12 12 PM 00 00 100%",
            ),
            (
                4_107_542_400,
                "Mon Monday 01 Mar March 03 00 2100 060 00 12 AM 00 00 100%",
            ),
        ];
        for (seconds, text) in cases {
            assert_eq!(strftime(all, seconds).unwrap(), text);
        }
        for format in ["%Q", "%", "%-d"] {
            let error = strftime(format, 0).unwrap_err().to_string();
            assert!(error.contains("is not supported"), "{error}");
        }
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
