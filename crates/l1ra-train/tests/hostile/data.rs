//! Training data: JSONL, JSON and plain text, read, inspected and tokenised.

use std::{fs, path::Path};

use l1ra_models::{ChatTemplate, TextTokenizer};
use l1ra_train::data::{
    DataOptions, DataSource, RowCache, inspect_data, prepare_data_with, read_sources,
};

use crate::{
    damage::Shell,
    format::{Crafted, Format, Outcome, Seed, repository, run, run_crafted},
};

/// The options for the data file in a folder.
pub(crate) fn options(dir: &Path) -> DataOptions {
    let is_data = |path: &Path| path.file_stem().is_some_and(|stem| stem == "data");
    let files = fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(|path| is_data(path)).unwrap();
    DataOptions {
        train: vec![DataSource::new(file.display().to_string())],
        max_length: 64,
        ..Default::default()
    }
}

fn read(dir: &Path) -> Outcome {
    let options = options(dir);
    let sources = read_sources(&options)?;
    for source in &sources.train {
        let _ = source.characters();
        if let Some(error) = source.error() {
            return Err(error.into());
        }
    }
    let _ = inspect_data(Path::new(&options.train[0].path))?.to_string();
    Ok(())
}

/// What samples are made with.
pub(crate) fn tokenizer() -> (TextTokenizer, ChatTemplate) {
    let model = repository("examples/finetune/model");
    let template = ChatTemplate::from_dir(&model).unwrap().unwrap();
    (TextTokenizer::from_dir(&model).unwrap(), template)
}

const RECORDS: [(&str, &str); 5] = [
    (
        "messages",
        r#"{"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "Hi."}, {"role": "assistant", "content": [{"type": "text", "text": "Ho."}]}]}"#,
    ),
    (
        "sharegpt",
        r#"{"conversations": [{"from": "human", "value": "Hi."}, {"from": "gpt", "value": "Ho."}], "system": "S"}"#,
    ),
    ("completion", r#"{"prompt": "2 + 2 =", "completion": " 4"}"#),
    (
        "alpaca",
        r#"{"instruction": "Say it.", "input": "", "output": "It."}"#,
    ),
    ("text", r#"{"text": "All of it \u00e9."}"#),
];

/// The record with a number in its texts: equal samples are not told apart.
fn numbered(record: &str, number: usize) -> String {
    let texts = ["Hi.", "2 + 2", "Say it.", "All of it"];
    texts.iter().fold(record.to_string(), |record, text| {
        record.replace(text, &format!("{number} {text}"))
    })
}

fn seeds() -> Vec<Seed> {
    let mut seeds = Vec::new();
    for (_, record) in RECORDS {
        let lines: String = (0..4).map(|at| numbered(record, at) + "\n").collect();
        seeds.push(Seed::new(Shell::Text, "data.jsonl", lines));
        let list = [0, 1, 2].map(|at| numbered(record, at)).join(",\n ");
        seeds.push(Seed::new(
            Shell::Text,
            "data.json",
            format!("{{\"data\": [{list}]}}"),
        ));
    }
    let list = [0, 1, 2].map(|at| numbered(RECORDS[4].1, at)).join(",\n ");
    seeds.push(Seed::new(Shell::Text, "data.json", format!("[{list}]")));
    seeds.push(Seed::new(
        Shell::Text,
        "data.txt",
        "A text.\n\nOf lines.\n".repeat(9),
    ));
    seeds
}

fn reading() -> Format {
    let mut format = Format::new("data", read);
    // A record's JSON is a tree; a JSON file is one as a whole.
    format.factor = 120;
    format.inputs = 2000;
    format.seeds = seeds();
    format
}

fn tokenising() -> Format {
    let (tokenizer, template) = tokenizer();
    let mut format = Format::new("data-tokenised", move |dir| {
        let options = options(dir);
        let (template, off) = (Some(&template), RowCache::off());
        prepare_data_with(&options, &tokenizer, template, &off, &())?;
        Ok(())
    });
    // The library describes every token of a text with some 130 bytes, and a letter may be several.
    format.factor = 600;
    format.allowance = 16 << 20;
    format.inputs = 600;
    format.seeds = seeds();
    format
}

#[test]
fn data() {
    run(reading);
}

#[test]
fn data_tokenised() {
    run(tokenising);
}

fn crafted() -> Crafted {
    let lines = |line: &str, count: usize| {
        Seed::new(Shell::Text, "data.jsonl", format!("{line}\n").repeat(count))
    };
    let json = |text: String| Seed::new(Shell::Text, "data.json", text);
    let text = RECORDS[4].1;
    let long_key = "k".repeat(1_000_000);
    let zeros = "0,".repeat(500_000);
    (
        reading(),
        vec![
            ("lines of nothing", lines("", 2_000_000)),
            (
                "lines of a number",
                Seed {
                    bytes: format!("{text}\n{}", "1\n".repeat(300_000)).into(),
                    ..lines("", 1)
                },
            ),
            (
                "lines of an object",
                Seed {
                    bytes: format!("{text}\n{}", "{}\n".repeat(100_000)).into(),
                    ..lines("", 1)
                },
            ),
            (
                "a record with a long list",
                lines(&format!("{{\"text\": \"a\", \"b\": [{zeros}0]}}"), 2),
            ),
            ("a long list", json(format!("[{zeros}0]"))),
            (
                "an object with a long list",
                json(format!("{{\"data\": [{zeros}0]}}")),
            ),
            ("a long key", lines(&format!("{{\"{long_key}\": 1}}"), 1)),
            (
                "a long role",
                lines(
                    &format!("{{\"messages\": [{{\"role\": \"{long_key}\", \"content\": \"\"}}]}}"),
                    1,
                ),
            ),
            (
                "nested lists",
                lines(&format!("{{\"text\": {}", "[".repeat(1_000_000)), 1),
            ),
            ("nested objects", json("{\"data\":".repeat(100_000))),
            ("one line", lines(&"a".repeat(2_000_000), 1)),
            ("an empty file", json(String::new())),
            (
                "a text of nothing",
                Seed::new(Shell::Text, "data.txt", "\n".repeat(2_000_000)),
            ),
        ],
    )
}

#[test]
fn data_crafted() {
    run_crafted(crafted);
}
