//! Prose out of the packages' own forms: one paragraph a line, an empty line between sections.

/// Paragraphs of a text whose paragraphs are separated by empty lines and broken into lines.
fn blocks<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<Vec<&'a str>> {
    let mut blocks = vec![Vec::new()];
    for line in lines {
        if !line.trim().is_empty() {
            blocks
                .last_mut()
                .into_iter()
                .for_each(|block: &mut Vec<_>| block.push(line));
        } else if blocks.last().is_some_and(|block| !block.is_empty()) {
            blocks.push(Vec::new());
        }
    }
    blocks.retain(|block| !block.is_empty());
    blocks
}

/// Lines of one paragraph as one line. A word broken at its hyphen is joined again, with it.
fn join(lines: &[&str]) -> String {
    let mut text = String::new();
    for line in lines {
        let mut letters = text.chars().rev();
        let hyphenated =
            letters.next() == Some('-') && letters.next().is_some_and(char::is_alphabetic);
        if !text.is_empty() && !hyphenated {
            text.push(' ');
        }
        text.push_str(line.trim());
    }
    tidy(&text)
}

/// Plain quotation marks and dashes, no soft hyphens, no doubled spaces.
fn tidy(text: &str) -> String {
    // Line breaks of the originals left spaces just inside of curly quotation marks.
    let text = text.replace("“ ", "“").replace(" ”", "”");
    let mut tidied = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\u{ad}' => {}
            '“' | '”' => tidied.push('"'),
            '‘' | '’' | '´' => tidied.push('\''),
            '—' => tidied.push_str("--"),
            _ => tidied.push(letter),
        }
    }
    tidied.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn indent(line: &str) -> usize {
    line.chars().take_while(|letter| *letter == ' ').count()
}

/// Output of `bible -f`: `Ge1:1 In the beginning …`; a verse a line, an empty line after a chapter.
pub(crate) fn bible(printed: &str) -> String {
    let mut text = String::new();
    let mut chapter = "";
    for line in printed.lines() {
        let Some((reference, verse)) = line.trim().split_once(' ') else {
            continue;
        };
        let Some((of, _)) = reference.rsplit_once(':') else {
            continue;
        };
        if of != chapter && !chapter.is_empty() {
            text.push('\n');
        }
        chapter = of;
        text.push_str(&tidy(verse));
        text.push('\n');
    }
    text
}

/// A novel as lines; the title page, headings and what follows the end are dropped.
pub(crate) fn novel(lines: &[String]) -> String {
    let mut text = String::new();
    let mut started = false;
    for block in blocks(lines.iter().map(String::as_str)) {
        let first = block[0].trim().to_uppercase();
        if first.starts_with("CHAPTER") && block.len() == 1 {
            if started {
                text.push('\n');
            }
            started = true;
        } else if first.starts_with("A NOTE ON THE TEXT") {
            break;
        } else if started && !is_heading(&block) {
            text.push_str(&join(&block).replace('_', ""));
            text.push('\n');
        }
    }
    text
}

fn is_heading(block: &[&str]) -> bool {
    let line = block[0].trim();
    let volume = line.starts_with("VOLUME ") || line.starts_with("Volume ");
    let end = ["FINIS", "THE END"].contains(&line.to_uppercase().trim_end_matches('.'));
    block.len() == 1 && (volume || end || line.chars().all(|letter| "* ".contains(letter)))
}

/// "The Devil's Dictionary": the preface and the entries; verse and its signatures are dropped.
pub(crate) fn devil(dictionary: &str) -> String {
    let lines = dictionary
        .lines()
        .skip_while(|line| line.trim() != "PREFACE")
        .skip(1);
    let mut text = String::new();
    for block in blocks(lines) {
        if indent(block[0]) == 0 && is_entry(block[0]) && !text.is_empty() {
            text.push('\n');
        }
        for paragraph in split_at_indents(&block) {
            text.push_str(&join(paragraph).replace('_', "").replace(" [sic]", ""));
            text.push('\n');
        }
    }
    text
}

fn is_entry(line: &str) -> bool {
    let word = line.split([',', '.']).next().unwrap_or_default();
    word.len() > 1
        && word
            .chars()
            .all(|letter| letter.is_uppercase() || "-' ".contains(letter))
}

/// A block's paragraphs, each but the first opening with an indented line. A run of indented
/// lines is verse, a line indented far is a signature: both are left out.
fn split_at_indents<'a, 'b>(block: &'a [&'b str]) -> Vec<&'a [&'b str]> {
    let mut paragraphs = Vec::new();
    let mut start = 0;
    for end in 1..=block.len() {
        if end == block.len() || indent(block[end]) > 0 {
            let paragraph = &block[start..end];
            if indent(paragraph[0]) == 0 || (paragraph.len() > 1 && indent(paragraph[0]) < 8) {
                paragraphs.push(paragraph);
            }
            start = end;
        }
    }
    paragraphs
}

/// The Jargon File: `term: definition`, then the entry's other paragraphs. Pronunciations,
/// figures, listings and paragraphs with addresses are dropped, cross-reference braces removed.
pub(crate) fn jargon(dictionary: &str) -> String {
    let mut text = String::new();
    let mut term = None;
    for block in blocks(dictionary.lines()) {
        if indent(block[0]) == 0 {
            term = Some(tidy(block[0])).filter(|term| !term.starts_with("00-"));
            continue;
        }
        let paragraph = unbrace(&join(&block));
        if !block.iter().all(|line| indent(line) == 4) || !is_prose(&paragraph) {
            continue;
        }
        if let Some(term) = term.take() {
            text.push_str(&format!("\n{term}: "));
        }
        text.push_str(&paragraph);
        text.push('\n');
    }
    text.trim_start().to_owned()
}

/// `{bit bucket}` without its braces, and the spaces that line breaks left inside of them.
fn unbrace(text: &str) -> String {
    let text = text.replace("{ ", "{").replace(" }", "}");
    text.replace(['{', '}'], "")
}

fn is_prose(text: &str) -> bool {
    let letters = text
        .chars()
        .filter(|letter| letter.is_alphabetic() || *letter == ' ')
        .count();
    let addresses = ["://", "@", "ftp.", "www."]
        .iter()
        .any(|mark| text.contains(mark));
    !addresses && letters * 10 >= text.chars().count() * 8 && text.contains(' ')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bible_verses_lose_their_references_and_chapters_are_set_apart() {
        let printed = "Ge1:1 In the  beginning.\nGe1:2 And the earth.\nGe2:1 Thus.\n";
        assert_eq!(
            bible(printed),
            "In the beginning.\nAnd the earth.\n\nThus.\n"
        );
    }

    #[test]
    fn a_novel_is_its_paragraphs() {
        let raw = "EMMA\n\nBy Jane Austen\n\nVOLUME I\n\nCHAPTER I\n\nEmma _was_ well-\nbred and\n\
                   rich--\n\n\"Yes.\"\n\nCHAPTER II\n\nEnd.\n\nFINIS\n\nA NOTE ON THE TEXT\n\nx";
        let lines: Vec<String> = raw.lines().map(str::to_owned).collect();
        assert_eq!(
            novel(&lines),
            "Emma was well-bred and rich--\n\"Yes.\"\n\nEnd.\n"
        );
    }

    #[test]
    fn the_devil_keeps_prose_and_drops_verse() {
        let raw = "00-database\n PREFACE\n\nFirst line\nsecond.\n    Next\none.\n       A.B.\n\n\
                   ABDICATION, n.  An act.\n\n    Poor Isabella's Dead,\n    Set all.\n       G.J.\n";
        assert_eq!(
            devil(raw),
            "First line second.\nNext one.\n\nABDICATION, n. An act.\n"
        );
    }

    #[test]
    fn jargon_entries_open_with_their_term() {
        let raw = "00-database-x\nhead\n\nzorch\n /zorch/\n\n    1. [TMRC] To attack; see {\n    \
                   heat sink}.\n\n        +--|<---+\n\n    Mail me@home.\n\n    “Good” karma is here.\n";
        assert_eq!(
            jargon(raw),
            "zorch: 1. [TMRC] To attack; see heat sink.\n\"Good\" karma is here.\n"
        );
    }
}
