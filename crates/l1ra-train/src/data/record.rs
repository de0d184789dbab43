//! [`Record`]: one record of a data file, as it was written.

use std::borrow::Cow;

use l1ra_models::{Message, Role};
use serde_json::{Map, Value};

use crate::data::DataForm;

/// A record, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Line of the file, or number of the record, from 1.
    pub place: usize,
    /// What it holds.
    pub content: Content,
}

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A conversation.
    Chat {
        /// The messages.
        messages: Vec<Message>,
        /// The first message of the completion: what `train_on = "completions"` learns from.
        completion: usize,
    },
    /// A text and what follows it.
    Pair {
        /// What is given.
        prompt: String,
        /// What is learned.
        completion: String,
    },
    /// A task, perhaps with material, and what was to be written.
    Instruction {
        /// The task.
        instruction: String,
        /// The material; empty where there is none.
        input: String,
        /// What was to be written.
        output: String,
    },
    /// A text that is learned as a whole.
    Text(String),
    /// The text of a whole file, which is cut into rows without loss.
    Document(String),
}

impl Content {
    /// Letters of all its texts.
    pub fn characters(&self) -> usize {
        let count = |text: &String| text.chars().count();
        match self {
            Self::Chat { messages, .. } => messages.iter().map(|m| count(&m.content)).sum(),
            Self::Pair { prompt, completion } => count(prompt) + count(completion),
            Self::Instruction {
                instruction,
                input,
                output,
            } => count(instruction) + count(input) + count(output),
            Self::Text(text) | Self::Document(text) => count(text),
        }
    }
}

/// What makes a record unusable: what was seen and what was expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Flaw(pub(crate) String);

impl Flaw {
    fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

type Parsed<T> = Result<T, Flaw>;

/// The record of a JSON value.
pub(crate) fn object(value: Value) -> Parsed<Map<String, Value>> {
    match value {
        Value::Object(record) => Ok(record),
        other => {
            let seen = kind(&other);
            Err(Flaw(format!("is {seen}; a record is an object: {{…}}")))
        }
    }
}

/// Reads a record that has the form `form`.
pub(crate) fn parse(form: DataForm, record: &Map<String, Value>) -> Parsed<Content> {
    match form {
        DataForm::Messages => {
            let list = list(record, "messages")?;
            chat(conversation("messages", list)?)
        }
        DataForm::Sharegpt => {
            let mut messages = conversation("conversations", list(record, "conversations")?)?;
            let system = record.get("system").and_then(Value::as_str);
            let begins = messages.first().is_some_and(|m| m.role == Role::System);
            if let Some(system) = system.filter(|text| !text.is_empty() && !begins) {
                messages.insert(0, Message::new(Role::System, system));
            }
            chat(messages)
        }
        DataForm::Completion => pair(record),
        DataForm::Alpaca => Ok(Content::Instruction {
            instruction: text(record, "instruction")?,
            input: match record.get("input") {
                None | Some(Value::Null) => String::new(),
                Some(_) => text(record, "input")?,
            },
            output: text(record, "output")?,
        }),
        DataForm::Text => {
            let text = text(record, "text")?;
            if text.trim().is_empty() {
                return Err(Flaw::new("its `text` is empty"));
            }
            Ok(Content::Text(text))
        }
        DataForm::Auto => Err(unknown(record)),
    }
}

/// A record that has no form.
pub(crate) fn unknown(record: &Map<String, Value>) -> Flaw {
    let quoted = |form: DataForm| {
        let keys: Vec<String> = form.keys().iter().map(|key| format!("`{key}`")).collect();
        keys.join(" and ")
    };
    let nearest = DataForm::nearest(record);
    let others = DataForm::RECORDS
        .into_iter()
        .filter(|form| *form != nearest);
    let others: Vec<String> = others.map(quoted).collect();
    Flaw(format!(
        "has {}, and so no known form; nearest: {nearest}, which needs {}; others need {}",
        seen_keys(record),
        quoted(nearest),
        others.join(", or ")
    ))
}

fn seen_keys(record: &Map<String, Value>) -> String {
    const SHOWN: usize = 8;
    let shown = record.keys().take(SHOWN);
    let keys: Vec<String> = shown.map(|key| format!("`{}`", short(key))).collect();
    let more = record.len().saturating_sub(SHOWN);
    match (keys.len(), more) {
        (0, _) => "no keys".into(),
        (1, _) => format!("the key {}", keys[0]),
        (_, 0) => format!("the keys {}", keys.join(", ")),
        (_, more) => format!("the keys {} and {more} more", keys.join(", ")),
    }
}

/// The beginning of a name that may be as long as a file.
pub(crate) fn short(name: &str) -> Cow<'_, str> {
    const MOST: usize = 100;
    match name.len() {
        0..=MOST => name.into(),
        _ => format!("{}…", &name[..name.floor_char_boundary(MOST)]).into(),
    }
}

fn missing(record: &Map<String, Value>, key: &str) -> Flaw {
    Flaw(format!("has no `{key}` (seen: {})", seen_keys(record)))
}

fn list<'a>(record: &'a Map<String, Value>, key: &str) -> Parsed<&'a Vec<Value>> {
    match record.get(key) {
        Some(Value::Array(list)) => Ok(list),
        Some(other) => Err(Flaw(format!(
            "its `{key}` is {}; expected a list",
            kind(other)
        ))),
        None => Err(missing(record, key)),
    }
}

fn text(record: &Map<String, Value>, key: &str) -> Parsed<String> {
    match record.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(Flaw(format!(
            "its `{key}` is {}; expected a text",
            kind(other)
        ))),
        None => Err(missing(record, key)),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// `prompt` and `completion`: two texts, or two lists of messages.
fn pair(record: &Map<String, Value>) -> Parsed<Content> {
    match (record.get("prompt"), record.get("completion")) {
        (Some(Value::Array(prompt)), Some(Value::Array(completion))) => {
            let mut messages = conversation("prompt", prompt)?;
            let first = messages.len();
            messages.extend(conversation("completion", completion)?);
            if !messages[first..].iter().any(|m| m.role == Role::Assistant) {
                let detail =
                    "its `completion` has no message of the assistant, so nothing to learn";
                return Err(Flaw::new(detail));
            }
            Ok(Content::Chat {
                messages,
                completion: first,
            })
        }
        (Some(Value::Array(_)), Some(Value::String(_)))
        | (Some(Value::String(_)), Some(Value::Array(_))) => Err(Flaw::new(
            "one of its `prompt` and `completion` is a list, the other a text; \
             both must be texts or both lists of messages",
        )),
        _ => Ok(Content::Pair {
            prompt: text(record, "prompt")?,
            completion: text(record, "completion")?,
        }),
    }
}

/// A conversation whose completion is the last turn of the assistant.
fn chat(messages: Vec<Message>) -> Parsed<Content> {
    let by_assistant = |message: &Message| message.role == Role::Assistant;
    let Some(last) = messages.iter().rposition(by_assistant) else {
        let detail = "has no message of the assistant, so nothing to learn";
        return Err(Flaw::new(detail));
    };
    let before = messages[..last].iter().rposition(|m| !by_assistant(m));
    Ok(Content::Chat {
        completion: before.map_or(0, |before| before + 1),
        messages,
    })
}

fn conversation(key: &str, list: &[Value]) -> Parsed<Vec<Message>> {
    if list.is_empty() {
        return Err(Flaw(format!("its `{key}` are empty")));
    }
    let numbered = list.iter().enumerate();
    numbered.map(|(i, value)| message(i + 1, value)).collect()
}

/// A message with `role` and `content`, or with ShareGPT's `from` and `value`.
fn message(number: usize, value: &Value) -> Parsed<Message> {
    let name = |key: &str| value.get(key).and_then(Value::as_str);
    let role = match (name("role"), name("from")) {
        (Some(name), _) => Role::from_name(name).ok_or((name, Role::NAMES.join(", "))),
        (None, Some(name)) => speaker(name).ok_or((name, SPEAKERS.join(", "))),
        (None, None) => return Err(Flaw(format!("message {number} has no `role`"))),
    };
    let role = role.map_err(|(seen, known)| {
        Flaw(format!(
            "message {number} has the unknown role `{}`; known: {known}",
            short(seen)
        ))
    })?;
    let key = if value.get("content").is_some() || value.get("value").is_none() {
        "content"
    } else {
        "value"
    };
    match value.get(key) {
        Some(Value::String(text)) => Ok(Message::new(role, text.as_str())),
        Some(Value::Array(parts)) => Ok(Message::new(role, join(number, key, parts)?)),
        _ => Err(no_text(number, key, value)),
    }
}

/// A message or a part of one that has no text where it should.
fn no_text(number: usize, key: &str, holder: &Value) -> Flaw {
    let seen = match (holder, holder.get(key)) {
        (_, Some(other)) => kind(other).into(),
        (Value::Object(record), None) => seen_keys(record),
        (other, None) => kind(other).into(),
    };
    Flaw(format!(
        "message {number} has no text `{key}` (seen: {seen})"
    ))
}

/// Content in parts: `[{"type": "text", "text": …}, …]`, put together as they are.
fn join(number: usize, key: &str, parts: &[Value]) -> Parsed<String> {
    let mut joined = String::new();
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        if kind != "text" {
            return Err(Flaw(format!(
                "message {number} has a part of type `{}` in its `{key}`; only text is learned",
                short(kind)
            )));
        }
        let text = part.as_str().or_else(|| part.get("text")?.as_str());
        joined += text.ok_or_else(|| no_text(number, "text", part))?;
    }
    Ok(joined)
}

const SPEAKERS: [&str; 6] = ["human", "gpt", "system", "user", "assistant", "tool"];

/// Who speaks in ShareGPT's words, those of its descendants included.
fn speaker(name: &str) -> Option<Role> {
    match name {
        "human" => Some(Role::User),
        "gpt" | "chatgpt" | "bing" | "bard" | "bot" | "model" | "function_call" => {
            Some(Role::Assistant)
        }
        "function_response" | "observation" => Some(Role::Tool),
        other => Role::from_name(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Content, String> {
        let record = object(serde_json::from_str(text).unwrap()).map_err(|flaw| flaw.0)?;
        let form = DataForm::recognise(&record).unwrap_or_default();
        parse(form, &record).map_err(|flaw| flaw.0)
    }

    fn chat(completion: usize, messages: &[(Role, &str)]) -> Result<Content, String> {
        let message = |(role, text): &(Role, &str)| Message::new(*role, *text);
        Ok(Content::Chat {
            messages: messages.iter().map(message).collect(),
            completion,
        })
    }

    #[test]
    fn messages() {
        let read = read(
            r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"},
                {"role": "assistant", "content": "A"}, {"role": "user", "content": "R"},
                {"role": "assistant", "content": [{"type": "text", "text": "B"}, " C"]},
                {"role": "assistant", "content": "D"}, {"role": "user", "content": "E"}], "id": 3}"#,
        );
        let expected = [
            (Role::System, "S"),
            (Role::User, "Q"),
            (Role::Assistant, "A"),
            (Role::User, "R"),
            (Role::Assistant, "B C"),
            (Role::Assistant, "D"),
            (Role::User, "E"),
        ];
        assert_eq!(read, chat(4, &expected));
        assert_eq!(read.unwrap().characters(), 9);
    }

    #[test]
    fn prompt_and_completion() {
        let pair = Content::Pair {
            prompt: "2 + 2 =".into(),
            completion: " 4".into(),
        };
        assert_eq!(
            read(r#"{"prompt": "2 + 2 =", "completion": " 4"}"#),
            Ok(pair)
        );
        let lists = read(
            r#"{"prompt": [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"},
                {"role": "user", "content": "R"}],
                "completion": [{"role": "assistant", "content": "B"}]}"#,
        );
        let expected = [
            (Role::User, "Q"),
            (Role::Assistant, "A"),
            (Role::User, "R"),
            (Role::Assistant, "B"),
        ];
        assert_eq!(lists, chat(3, &expected));
    }

    #[test]
    fn alpaca_sharegpt_and_text() {
        let instruction = |input: &str| Content::Instruction {
            instruction: "I".into(),
            input: input.into(),
            output: "O".into(),
        };
        let alpaca = read(r#"{"instruction": "I", "input": "X", "output": "O", "text": "all"}"#);
        assert_eq!(alpaca, Ok(instruction("X")));
        for input in ["", r#", "input": null"#, r#", "input": """#] {
            let text = format!(r#"{{"instruction": "I", "output": "O"{input}}}"#);
            assert_eq!(read(&text), Ok(instruction("")));
        }
        let shared = read(
            r#"{"system": "S", "conversations": [{"from": "human", "value": "Q"},
                {"from": "gpt", "value": "A"}, {"from": "observation", "value": "T"},
                {"from": "gpt", "value": "B"}]}"#,
        );
        let expected = [
            (Role::System, "S"),
            (Role::User, "Q"),
            (Role::Assistant, "A"),
            (Role::Tool, "T"),
            (Role::Assistant, "B"),
        ];
        assert_eq!(shared, chat(4, &expected));
        assert_eq!(
            read(r#"{"text": "All."}"#),
            Ok(Content::Text("All.".into()))
        );
    }

    #[test]
    fn flaws_say_what_was_seen_and_what_was_expected() {
        let said = |text: &str| read(text).unwrap_err();
        insta::assert_snapshot!(said("[1]"), @"is a list; a record is an object: {…}");
        insta::assert_snapshot!(said("{}"), @"has no keys, and so no known form; nearest: messages, which needs `messages`; others need `conversations`, or `prompt` and `completion`, or `instruction` and `output`, or `text`");
        insta::assert_snapshot!(said(r#"{"prompt": "", "answer": ""}"#), @"has the keys `prompt`, `answer`, and so no known form; nearest: completion, which needs `prompt` and `completion`; others need `messages`, or `conversations`, or `instruction` and `output`, or `text`");
        insta::assert_snapshot!(said(r#"{"messages": "Hi"}"#), @"its `messages` is a text; expected a list");
        insta::assert_snapshot!(said(r#"{"messages": []}"#), @"its `messages` are empty");
        insta::assert_snapshot!(said(r#"{"messages": [{"content": "Hi"}]}"#), @"message 1 has no `role`");
        insta::assert_snapshot!(said(r#"{"messages": [{"role": "gpt", "content": "Hi"}]}"#), @"message 1 has the unknown role `gpt`; known: system, user, assistant, tool");
        insta::assert_snapshot!(said(r#"{"conversations": [{"from": "me", "value": "Hi"}]}"#), @"message 1 has the unknown role `me`; known: human, gpt, system, user, assistant, tool");
        insta::assert_snapshot!(said(r#"{"conversations": [{"from": "gpt", "value": null}]}"#), @"message 1 has no text `value` (seen: null)");
        insta::assert_snapshot!(said(r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#), @"message 1 has a part of type `image_url` in its `content`; only text is learned");
        insta::assert_snapshot!(said(r#"{"messages": [{"role": "user", "content": "Hi"}]}"#), @"has no message of the assistant, so nothing to learn");
        insta::assert_snapshot!(said(r#"{"prompt": "Q", "completion": []}"#), @"one of its `prompt` and `completion` is a list, the other a text; both must be texts or both lists of messages");
        insta::assert_snapshot!(said(r#"{"prompt": 3, "completion": "A"}"#), @"its `prompt` is a number; expected a text");
        insta::assert_snapshot!(said(r#"{"instruction": "I", "input": 3, "output": "O"}"#), @"its `input` is a number; expected a text");
        insta::assert_snapshot!(said(r#"{"text": " \n"}"#), @"its `text` is empty");
    }
}
