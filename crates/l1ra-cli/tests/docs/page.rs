//! [`Page`]: a Markdown file and its fenced blocks.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A Markdown file of the repository.
pub(crate) struct Page {
    /// Its path from the repository's root.
    pub(crate) path: String,
    pub(crate) text: String,
}

/// A fenced block.
#[derive(Debug, PartialEq)]
pub(crate) struct Block {
    /// Line of its opening fence, from 1.
    pub(crate) line: usize,
    /// The words after the fence: language, then what the test is to do with it.
    words: Vec<String>,
    /// Its lines, without the indentation of the fence.
    pub(crate) text: String,
    /// The last line with text before the fence.
    pub(crate) before: String,
}

/// The repository's root.
pub(crate) fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    root.canonicalize().unwrap()
}

/// README.md and the chapters of `docs/`.
pub(crate) fn all() -> Vec<Page> {
    let mut pages = vec![Page::read("README.md")];
    for entry in fs::read_dir(root().join("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            pages.push(Page::read(&format!("docs/{name}")));
        }
    }
    pages
}

impl Page {
    pub(crate) fn read(path: &str) -> Self {
        let file = root().join(path);
        let text =
            fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Self {
            path: path.into(),
            text,
        }
    }

    /// The fenced blocks, in order.
    pub(crate) fn blocks(&self) -> Vec<Block> {
        let mut blocks = Vec::new();
        let mut open: Option<(Block, usize)> = None;
        let mut before = "";
        for (index, line) in self.text.lines().enumerate() {
            let content = line.trim_start();
            let indentation = line.len() - content.len();
            let fence = content.strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let block = Block {
                        line: index + 1,
                        words: info.split_whitespace().map(String::from).collect(),
                        text: String::new(),
                        before: before.into(),
                    };
                    open = Some((block, indentation));
                }
                (Some(_), Some("")) => blocks.extend(open.take().map(|(block, _)| block)),
                (Some((block, indentation)), _) => {
                    let indentation = (*indentation).min(line.len() - content.len());
                    block.text += &line[indentation..];
                    block.text.push('\n');
                }
                (None, None) if !content.is_empty() => before = content,
                (None, None) => {}
            }
        }
        assert!(open.is_none(), "{}: a block is not closed", self.path);
        blocks
    }

    /// The lines outside of fenced blocks, with their numbers.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        let mut fenced = false;
        let mut lines = Vec::new();
        for (index, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                fenced = !fenced;
            } else if !fenced {
                lines.push((index + 1, line));
            }
        }
        lines
    }
}

impl Block {
    pub(crate) fn language(&self) -> &str {
        self.words.first().map_or("", String::as_str)
    }

    pub(crate) fn has_word(&self, word: &str) -> bool {
        self.words.iter().skip(1).any(|seen| seen == word)
    }

    /// The file that this block is: `json answers.jsonl`.
    pub(crate) fn file_name(&self) -> Option<&str> {
        let second = self.words.get(1).map(String::as_str);
        let is_file = matches!(self.language(), "json" | "toml" | "text");
        second.filter(|_| is_file)
    }

    /// The first of its lines that `printed` does not hold, blanks aside.
    pub(crate) fn missing_from(&self, printed: &str) -> Option<String> {
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let printed = words(printed);
        let lines = self.text.lines().map(words).filter(|line| line != "…");
        let mut lines = lines;
        lines.find(|line| !printed.contains(line))
    }

    /// Its commands with their lines, those that end with a backslash joined, comments left out.
    pub(crate) fn commands(&self) -> Vec<(usize, String)> {
        let mut commands = Vec::new();
        let mut joined = String::new();
        let mut first = None;
        for (index, line) in self.text.lines().enumerate() {
            let line = line.trim();
            if joined.is_empty() && (line.is_empty() || line.starts_with('#')) {
                continue;
            }
            let number = *first.get_or_insert(self.line + 1 + index);
            match line.strip_suffix('\\') {
                Some(part) => joined += part,
                None => {
                    commands.push((number, std::mem::take(&mut joined) + line));
                    first = None;
                }
            }
        }
        assert!(joined.is_empty(), "line {}: ends in a backslash", self.line);
        commands
    }
}

#[test]
fn blocks_and_commands_are_found() {
    let text = "a\n\n```sh fail\n# what\nl1ra x \\\n  y\n\nls # z\n```\n- b\n  ```json c.jsonl\n  {}\n  ```\n";
    let page = Page {
        path: "p".into(),
        text: text.into(),
    };
    let [commands, file] = &page.blocks()[..] else {
        panic!("two blocks");
    };
    assert!(commands.has_word("fail") && commands.before == "a");
    let expected = [(5, "l1ra x y".to_string()), (8, "ls # z".to_string())];
    assert_eq!(commands.commands(), expected);
    assert_eq!(
        (file.file_name(), file.text.as_str()),
        (Some("c.jsonl"), "{}\n")
    );
    assert_eq!(commands.missing_from("# what\nl1ra x \\ y ls  # z"), None);
    assert_eq!(commands.missing_from("ls").as_deref(), Some("# what"));
    assert_eq!(page.prose(), [(1, "a"), (2, ""), (10, "- b")]);
}
