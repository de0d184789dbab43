//! Code that a chapter shows: excerpts of files that are compiled.

use std::fs;

use crate::page::{self, Block, root};

/// A line that stands for what an excerpt leaves out.
const LEFT_OUT: &str = "// …";

/// The file that a block is an excerpt of, from the comment before it.
fn source(block: &Block) -> Option<&str> {
    let comment = block.before.strip_prefix("<!-- code:")?;
    comment.strip_suffix("-->").map(str::trim)
}

/// Lines with text, indentation left out.
fn lines(text: &str) -> Vec<&str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect()
}

/// The first part of `excerpt` that `file` does not hold after the parts before it.
fn missing(excerpt: &str, file: &str) -> Option<String> {
    let file = lines(file);
    let excerpt = lines(excerpt);
    let mut from = 0;
    for part in excerpt
        .split(|line| *line == LEFT_OUT)
        .filter(|part| !part.is_empty())
    {
        let rest = &file[from..];
        match rest.windows(part.len()).position(|window| window == part) {
            Some(start) => from += start + part.len(),
            None => return Some(part.join("\n")),
        }
    }
    None
}

#[test]
fn rust_is_an_excerpt_of_what_is_compiled() {
    for page in page::all()
        .iter()
        .filter(|page| page.path.starts_with("docs/"))
    {
        for block in page
            .blocks()
            .iter()
            .filter(|block| block.language() == "rust")
        {
            let place = format!("{}, line {}", page.path, block.line);
            let path = source(block)
                .unwrap_or_else(|| panic!("{place}: no comment `<!-- code: FILE -->` before it"));
            let file = fs::read_to_string(root().join(path))
                .unwrap_or_else(|error| panic!("{place}: {path}: {error}"));
            if let Some(part) = missing(&block.text, &file) {
                panic!("{place}: {path} does not hold\n{part}");
            }
        }
    }
}

#[test]
fn excerpts_may_leave_something_out() {
    let file = "a\n  b\nc\nd\n";
    assert_eq!(missing("b\n// …\nd", file), None);
    assert_eq!(missing("b\nd", file).as_deref(), Some("b\nd"));
    assert_eq!(missing("d\n// …\na", file).as_deref(), Some("a"));
}
