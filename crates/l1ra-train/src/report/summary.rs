//! The summary of a run in a terminal.

use crate::report::{
    adapted::{Movement, most_adapted},
    number::counted,
    overview::{Fact, facts},
    record::RunRecord,
};

const WIDTH: usize = 96;

/// The run in plain text: losses, time, memory, the rank table, and which components needed most
/// adaptation. Ends with a line end.
pub fn summary(record: &RunRecord) -> String {
    let mut parts = Vec::new();
    if !record.notes.is_empty() {
        let notes: Vec<String> = record.notes.iter().map(|note| wrapped(note)).collect();
        parts.push(notes.join("\n"));
    }
    let lines: Vec<String> = facts(record)
        .iter()
        .filter(|fact| fact.name != "ranks") // The table says it.
        .map(line)
        .collect();
    if !lines.is_empty() {
        parts.push(lines.join("\n"));
    }
    let adaptation = most_adapted(record);
    if let Some(table) = record.ranks().filter(|table| !table.entries.is_empty()) {
        let heading = match adaptation.movement {
            Movement::Some | Movement::AllZero => format!(
                "ranks after {} (change from the start)",
                counted(adaptation.updates, "update")
            ),
            _ => format!("ranks after {}", counted(adaptation.updates, "update")),
        };
        parts.push(format!("{heading}\n{table}"));
    }
    parts.push(wrapped(&adaptation.to_string()));
    parts.join("\n\n") + "\n"
}

fn line(fact: &Fact) -> String {
    let before = fact.before.as_ref();
    let before = before.map_or(String::new(), |before| format!("{before} → "));
    let text = format!("{:<12}{before}{}", fact.name, fact.value);
    match fact.note.as_str() {
        "" => text,
        note if note.starts_with("in ") || note.starts_with("at ") => format!("{text} {note}"),
        note => format!("{text}, {note}"),
    }
}

/// Breaks a paragraph into lines.
fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if line.is_empty() {
            line.push_str(word);
        } else if line.chars().count() + 1 + word.chars().count() <= WIDTH {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines.join("\n")
}
