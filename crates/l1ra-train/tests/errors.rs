//! Every message about data, recipes and run folders, as it is printed: file, place, what was seen,
//! what was expected.

#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use l1ra_train::{
    TrainError,
    data::{DataFile, DataForm, DataOptions, DataSource, SourceFile, read_sources},
    recipe::{Override, RecipeFile},
    report::RunRecord,
};
use tempfile::TempDir;

/// A message with the folder written as `[dir]`.
fn told(dir: &Path, error: &TrainError) -> String {
    assert!(error.is_users_mistake(), "{error}");
    error
        .to_string()
        .replace(&dir.display().to_string(), "[dir]")
}

/// What the reader of data says of a file with that name and content.
fn data(name: &str, form: DataForm, content: &[u8]) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    let file = DataFile {
        path,
        weight: 1.0,
        form,
    };
    let read = SourceFile::read(&file);
    let error = read.map_or_else(Some, |source| source.error());
    told(dir.path(), &error.unwrap())
}

/// The messages of a table of contents, each under its name.
fn table(name: &str, cases: &[(&str, &[u8])]) -> String {
    let case = |(case, content): &(&str, &[u8])| {
        format!("{case}:\n  {}", data(name, DataForm::Auto, content))
    };
    cases.iter().map(case).collect::<Vec<_>>().join("\n")
}

#[test]
fn jsonl() {
    let good = "{\"text\": \"a\"}\n";
    let after = |line: &str| format!("{good}\n{line}\n{good}");
    let deep = after(&format!("{{\"text\": {}", "[".repeat(100_000)));
    let number = after("{\"text\": 1e999}");
    let cut = format!("{good}{{\"text\": \"b");
    let many = format!("{good}{}", "x\n".repeat(20_000));
    insta::assert_snapshot!(table(
        "a.jsonl",
        &[
            ("empty", b""),
            ("blank lines", b"\n \n\t\n"),
            ("no UTF-8", b"{\"text\": \"a\xff\"}\n"),
            ("no JSON", after("text: a").as_bytes()),
            ("a line that is cut off", cut.as_bytes()),
            ("half a letter", after("{\"text\": \"\\ud800\"}").as_bytes()),
            (
                "a control character",
                after("{\"text\": \"a\tb\"}").as_bytes()
            ),
            ("lists without end", deep.as_bytes()),
            ("a number beyond all numbers", number.as_bytes()),
            (
                "two values a line",
                after("{\"text\": \"a\"} {\"text\": \"b\"}").as_bytes()
            ),
            ("a list", after("[1]").as_bytes()),
            ("a number for a text", after("{\"text\": 3}").as_bytes()),
            ("an empty text", after("{\"text\": \" \"}").as_bytes()),
            ("another key", after("{\"txt\": \"a\"}").as_bytes()),
            (
                "another form",
                after("{\"prompt\": \"a\", \"completion\": \"b\"}").as_bytes()
            ),
            (
                "an unknown form",
                b"{\"question\": \"a\", \"answer\": \"b\"}\n"
            ),
            ("20,000 lines of no use", many.as_bytes()),
        ]
    ));
}

#[test]
fn conversations() {
    insta::assert_snapshot!(table("a.jsonl", &[
        ("no list", br#"{"messages": "Hi"}"#),
        ("no messages", br#"{"messages": []}"#),
        ("a message that is none", br#"{"messages": ["Hi"]}"#),
        ("no role", br#"{"messages": [{"content": "Hi"}]}"#),
        ("an unknown role", br#"{"messages": [{"role": "robot", "content": "Hi"}]}"#),
        ("an unknown speaker", br#"{"conversations": [{"from": "me", "value": "Hi"}]}"#),
        ("no text", br#"{"messages": [{"role": "user", "content": null}]}"#),
        ("an image", br#"{"messages": [{"role": "user", "content": [{"type": "image"}]}]}"#),
        ("nobody answers", br#"{"messages": [{"role": "user", "content": "Hi"}]}"#),
        ("a list and a text", br#"{"prompt": [{"role": "user", "content": "Q"}], "completion": "A"}"#),
        ("nothing to learn", br#"{"prompt": [{"role": "user", "content": "Q"}], "completion": [{"role": "user", "content": "R"}]}"#),
        ("no output", br#"{"instruction": "I", "output": null}"#),
    ]));
}

#[test]
fn json() {
    insta::assert_snapshot!(table(
        "a.json",
        &[
            ("empty", b" \n"),
            ("a number", b"3"),
            ("an empty list", b"[]"),
            ("an empty list below `data`", br#"{"data": []}"#),
            (
                "a list that is cut off",
                b"[{\"text\": \"a\"},\n {\"text\":"
            ),
            ("something after the list", b"[{\"text\": \"a\"}] {}"),
            ("a number in the list", b"[{\"text\": \"a\"}, 3]"),
            ("an unknown form", b"[{\"txt\": 3}]"),
            ("no UTF-8", b"[\"\xc3\"]"),
        ]
    ));
}

#[test]
fn other_files() {
    let said = |name: &str, form: DataForm, content: &[u8]| data(name, form, content);
    let lines = [
        said("a.txt", DataForm::Auto, b" \n"),
        said("a.txt", DataForm::Auto, b"ab\xffc"),
        said("a.md", DataForm::Messages, b"a"),
        said("a.csv", DataForm::Auto, b"a,b"),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

/// With the feature, a damaged file is told as such; the words are Parquet's own.
#[cfg(feature = "parquet")]
#[test]
fn parquet() {
    for content in [&b"PAR1"[..], b"", b"PAR1 and more that is none PAR1"] {
        let said = data("a.parquet", DataForm::Auto, content);
        let start = "[dir]/a.parquet: is no Parquet file that can be read: ";
        assert!(said.starts_with(start), "{said}");
    }
}

#[test]
fn sources() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.jsonl"), "{\"text\": \"a\"}\n").unwrap();
    let said = |path: &str, weight: f64| {
        let source = DataSource {
            path: dir.path().join(path).display().to_string(),
            weight,
            form: None,
        };
        let options = DataOptions {
            train: vec![source],
            ..Default::default()
        };
        told(dir.path(), &read_sources(&options).unwrap_err())
    };
    let lines = [
        said("b.jsonl", 1.0),
        said("b*.jsonl", 1.0),
        said("[", 1.0),
        said("", 1.0),
        said("a.jsonl", 0.0),
        said("a.jsonl", f64::NAN),
        said("a.jsonl", 1e300),
    ];
    insta::assert_snapshot!(lines.join("\n"));
}

const RECIPE: &str = "output = \"runs/x\"\n\n[model]\npath = \"m\"\n\n[data]\ntrain = \"d.jsonl\"\n\n\
                      [train]\nsteps = 40\n";

/// What is said of the recipe with `from` written as `to`.
fn recipe(from: &str, to: &str) -> String {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("r.toml");
    assert!(RECIPE.contains(from), "{from}");
    fs::write(&path, RECIPE.replace(from, to)).unwrap();
    told(dir.path(), &RecipeFile::load(&path, &[]).unwrap_err())
}

#[test]
fn recipes() {
    let deep = format!("steps = {}", "[".repeat(100_000));
    let cases = [
        ("no TOML", "steps = 40", "steps = = 40"),
        ("a text that does not end", "\"m\"", "\"m"),
        ("a key twice", "steps = 40", "steps = 40\nsteps = 41"),
        ("a section twice", "[train]", "[model]\n[train]"),
        ("lists without end", "steps = 40", deep.as_str()),
        ("an unknown key", "steps", "step"),
        ("an unknown section", "[train]", "[trian]"),
        (
            "a section as a value",
            "[model]\npath = \"m\"",
            "[model.path]\nx = 1",
        ),
        ("a value as a section", "output = \"runs/x\"", "train = 3"),
        ("a text for a number", "40", "\"many\""),
        ("a number below zero", "40", "-1"),
        ("a number beyond all numbers", "40", "99999999999999999999"),
        ("a fraction", "40", "1.5"),
        ("a date", "40", "2026-11-24"),
        ("a list for a text", "\"m\"", "[\"m\"]"),
        ("no data", "train = \"d.jsonl\"", ""),
        ("no model", "path = \"m\"", ""),
        ("a source without path", "\"d.jsonl\"", "{ weight = 2 }"),
        (
            "a source with a weight beyond all numbers",
            "\"d.jsonl\"",
            "{ path = \"d\", weight = 1e300 }",
        ),
        (
            "an unknown word",
            "steps = 40",
            "steps = 40\nschedule = \"cosinus\"",
        ),
        ("a rate that is none", "steps = 40", "steps = 40\nlr = nan"),
        ("a rank of zero", "[train]", "[adapters]\nrank = 0\n[train]"),
    ];
    let lines = cases.map(|(case, from, to)| format!("{case}:\n  {}", recipe(from, to)));
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn recipes_that_are_none() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("r.toml");
    let said = |path: &Path| told(dir.path(), &RecipeFile::load(path, &[]).unwrap_err());
    let mut lines = vec![said(&path), said(dir.path())];
    fs::write(&path, b"a = \"\xff\"").unwrap();
    lines.push(said(&path));
    let set = |text: &str| Override::set(text).unwrap_err().to_string();
    lines.extend([set("train.steps"), set("=3")]);
    insta::assert_snapshot!(lines.join("\n"));
}

const STEP: &str = "{\"step\": 1, \"loss\": 2.5, \"grad_norm\": 1.0, \"lr\": 0.001}\n";
const START: &str = "{\"steps\": 4, \"update_steps\": [2], \"budget\": 4, \"unit\": \"ranks\", \
                     \"adapters\": [{\"path\": \"layers.0.q_proj\", \"d_in\": 8, \"d_out\": 8, \
                     \"rank\": 4}]}\n";

/// What is said of the folder of a run with these two files.
fn run(metrics: &str, ranks: &str) -> String {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("metrics.jsonl"), metrics).unwrap();
    fs::write(dir.path().join("ranks.jsonl"), ranks).unwrap();
    told(dir.path(), &RunRecord::read(dir.path()).unwrap_err())
}

#[test]
fn runs() {
    let dir = TempDir::new().unwrap();
    let said = |path: &Path| told(dir.path(), &RunRecord::read(path).unwrap_err());
    let mut lines = vec![said(&dir.path().join("x")), said(dir.path())];
    let ranks = |line: &str| run(STEP, &format!("{START}{line}\n"));
    let cases = [
        (
            "a line that is no JSON",
            run(&format!("{STEP}loss 3\n{STEP}"), START),
        ),
        (
            "a line of another kind",
            run(&format!("{STEP}{{\"a\": 1}}\n"), START),
        ),
        (
            "a step as a text",
            run("{\"step\": \"1\", \"loss\": 2}\n", START),
        ),
        (
            "a step beyond all steps",
            run("{\"step\": 18446744073709551615, \"loss\": 2}\n", START),
        ),
        (
            "an evaluation without its step",
            run("{\"eval_loss\": 2}\n", START),
        ),
        ("a start that is none", run(STEP, "{\"steps\": 4}\n")),
        ("a rank below zero", ranks("{\"step\": 2, \"ranks\": [-1]}")),
        (
            "a rank beyond all ranks",
            ranks("{\"step\": 2, \"ranks\": [18446744073709551615]}"),
        ),
        (
            "ranks of two adapters",
            ranks("{\"step\": 2, \"ranks\": [4, 4]}"),
        ),
        (
            "gates of two adapters",
            ranks("{\"step\": 2, \"ranks\": [4], \"gates\": [[1], [1]]}"),
        ),
        (
            "something after the end",
            ranks("{\"final\": true, \"step\": 4, \"ranks\": [4]}\n{\"step\": 5, \"ranks\": [4]}"),
        ),
    ];
    lines.extend(cases.map(|(case, said)| format!("{case}:\n  {said}")));
    insta::assert_snapshot!(lines.join("\n"));
}
