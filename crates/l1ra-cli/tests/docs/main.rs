//! README.md and every chapter of `docs/`: commands are run, example files are read, recipes are
//! parsed, code is compiled, links lead somewhere, and the table of keys is the code's.
//!
//! | block | what happens |
//! |---|---|
//! | `sh` | every line is run, in one temporary folder a page; it must exit with 0 |
//! | `sh fail` | the same, but it must exit with 2 |
//! | `console` | its lines must be in what the command before it printed; `…` stands for others |
//! | `json NAME`, `toml NAME`, `text NAME` | is written into that folder as the file `NAME` first |
//! | `toml` | must be a recipe |
//! | `rust` | must be an excerpt of the file that the comment `code: FILE` before it names |
//! | others | nothing |
//!
//! `L1RA_BLESS=1 cargo test --workspace --test docs` writes the table of keys anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]
#![cfg(unix)]

mod bench;
mod code;
#[allow(unreachable_pub)]
#[path = "../../../../docs/code/job.rs"]
mod job;
mod keys;
mod links;
mod page;
mod recipes;
mod shortened;

use bench::Bench;
use page::Page;

/// A test for each page, so that they run side by side and a failure names its page.
macro_rules! pages {
    ($($test:ident: $path:literal,)+) => {
        const PAGES: &[&str] = &[$($path),+];

        mod commands {
            $(
                #[test]
                fn $test() {
                    super::run_commands($path);
                }
            )+
        }
    };
}

pages! {
    readme: "README.md",
    contents: "docs/README.md",
    get_started: "docs/get-started.md",
    recipes: "docs/recipes.md",
    data: "docs/data.md",
    how_l1ra_works: "docs/how-l1ra-works.md",
    report: "docs/report.md",
    compare: "docs/compare.md",
    embed: "docs/embed.md",
    adapter_files: "docs/adapter-files.md",
    backends: "docs/backends.md",
    checkpoints: "docs/checkpoints.md",
    performance: "docs/performance.md",
    troubleshooting: "docs/troubleshooting.md",
}

fn run_commands(path: &str) {
    let page = Page::read(path);
    let bench = Bench::new();
    let mut printed = String::new();
    for block in page.blocks() {
        match (block.language(), block.file_name()) {
            (_, Some(name)) => bench.write(name, &block.text),
            ("sh", _) => {
                let expected = if block.has_word("fail") { 2 } else { 0 };
                for (line, command) in block.commands() {
                    let result = bench.run(&command, expected);
                    printed = result.unwrap_or_else(|e| panic!("{path}, line {line}: {e}"));
                }
            }
            ("console", _) => {
                if let Some(missing) = block.missing_from(&printed) {
                    let line = block.line;
                    panic!("{path}, line {line}: `{missing}` is not in\n{printed}");
                }
            }
            _ => {}
        }
    }
}

/// The run that `docs/embed.md` shows as code.
#[test]
fn the_code_of_the_chapter_runs() {
    let root = page::root();
    let output = tempfile::tempdir().unwrap();
    let at = |path: &str| root.join(path).display().to_string();
    let run = output.path().join("run");
    let sets = [
        format!("model.path={}", at("examples/finetune/model")),
        format!("data.train={}", at("examples/finetune/data/eval.jsonl")),
        "data.eval=[]".to_string(),
        "data.eval_rows=4".to_string(),
        "data.cache=false".to_string(),
        format!("output={}", run.display()),
        "train.steps=4".to_string(),
        "train.batch_size=2".to_string(),
        "train.warmup_steps=1".to_string(),
        "train.eval_every=0".to_string(),
        "adapters.update_ratio=0.5".to_string(),
    ];
    let log = output.path().join("ranks.log");
    let file = std::fs::File::create(&log).unwrap();
    let recipe = root.join("recipes/tiny.toml");
    let finished = job::train(&recipe, &sets, Box::new(job::RankLog(file))).unwrap();
    assert_eq!(finished.report.losses.len(), 4);
    assert!(run.join("adapter").is_dir());
    let lines = std::fs::read_to_string(log).unwrap();
    assert!(lines.starts_with("step 0  model.layers.0."), "{lines}");
}

#[test]
fn every_page_is_tested() {
    let mut found: Vec<String> = page::all().into_iter().map(|page| page.path).collect();
    let mut known: Vec<String> = PAGES.iter().map(ToString::to_string).collect();
    found.sort();
    known.sort();
    assert_eq!(found, known, "name the page in `pages!` of this file");
}

#[test]
fn the_table_of_contents_names_every_chapter() {
    let contents = Page::read("docs/README.md").text;
    for path in PAGES.iter().filter_map(|path| path.strip_prefix("docs/")) {
        let link = format!("({path})");
        assert!(
            path == "README.md" || contents.contains(&link),
            "docs/README.md has no link to {path}"
        );
    }
}
