//! Data files: JSONL with conversations, or plain text.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
};

use l1ra_models::{Message, Role};
use serde_json::Value;

use crate::error::TrainError;

/// A conversation, and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conversation {
    /// Line in the file, from 1.
    pub line: usize,
    /// The messages.
    pub messages: Vec<Message>,
}

/// What a data file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Document {
    /// Conversations, one a line: `{"messages": [{"role": …, "content": …}, …]}`.
    Chat(Vec<Conversation>),
    /// One text.
    Text(String),
}

/// Reads a `.jsonl` file of conversations, or any other file as plain text.
///
/// # Errors
/// A file that cannot be read or is empty; a line that is no JSON, has no messages, or has a
/// message with an unknown role or without text.
pub fn read_documents(path: &Path) -> Result<Document, TrainError> {
    if !path.is_file() {
        let detail = "no such file; give a .jsonl file with conversations \
                      ({\"messages\": [{\"role\": \"user\", \"content\": …}, …]}) or a text file";
        return Err(TrainError::Data {
            path: path.into(),
            detail: detail.into(),
        });
    }
    if path
        .extension()
        .is_none_or(|extension| extension != "jsonl")
    {
        let text = std::fs::read_to_string(path).map_err(|error| TrainError::io(path, error))?;
        return if text.trim().is_empty() {
            Err(empty(path))
        } else {
            Ok(Document::Text(text))
        };
    }
    let file = File::open(path).map_err(|error| TrainError::io(path, error))?;
    let mut conversations = Vec::new();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let text = line.map_err(|error| TrainError::io(path, error))?;
        if text.trim().is_empty() {
            continue;
        }
        let line = index + 1;
        let messages = conversation(&text).map_err(|detail| TrainError::Line {
            path: path.into(),
            line,
            detail,
        })?;
        conversations.push(Conversation { line, messages });
    }
    if conversations.is_empty() {
        Err(empty(path))
    } else {
        Ok(Document::Chat(conversations))
    }
}

fn empty(path: &Path) -> TrainError {
    let detail = "holds no samples; training needs at least one".to_string();
    TrainError::Data {
        path: path.into(),
        detail,
    }
}

/// The messages of one line.
fn conversation(line: &str) -> Result<Vec<Message>, String> {
    let value: Value = serde_json::from_str(line).map_err(|error| not_json(&error))?;
    let messages = value.get("messages").and_then(Value::as_array).ok_or_else(|| {
        let keys: Vec<&str> =
            value.as_object().into_iter().flat_map(|map| map.keys().map(String::as_str)).collect();
        let seen = if keys.is_empty() { "no object".into() } else { keys.join(", ") };
        format!("has no list `messages` (seen: {seen}); expected {{\"messages\": [{{\"role\": …, \"content\": …}}, …]}}")
    })?;
    if messages.is_empty() {
        return Err("its `messages` are empty".into());
    }
    messages
        .iter()
        .enumerate()
        .map(|(i, message)| parse_message(i + 1, message))
        .collect()
}

/// The parser's message without its own line number: there is one line, and the caller names it.
fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    format!("is not JSON: {message} (column {})", error.column())
}

fn parse_message(number: usize, value: &Value) -> Result<Message, String> {
    let role = value.get("role").and_then(Value::as_str);
    let role = role.ok_or_else(|| format!("message {number} has no `role`"))?;
    let known = Role::from_name(role).ok_or_else(|| {
        format!(
            "message {number} has the unknown role `{role}`; known: {}",
            Role::NAMES.join(", ")
        )
    })?;
    let content = value.get("content").and_then(Value::as_str);
    let content = content.ok_or_else(|| format!("message {number} has no text `content`"))?;
    Ok(Message::new(known, content))
}
