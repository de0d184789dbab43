//! Links between pages, files and headings.

use std::collections::BTreeSet;

use crate::page::{self, Page, root};

/// Targets of Markdown links in a line, inline code left out.
fn targets(line: &str) -> Vec<&str> {
    let prose: Vec<&str> = line.split('`').step_by(2).collect();
    let mut found = Vec::new();
    // A link's text may be code, so the target is looked for in what follows the code.
    for part in prose {
        for (start, _) in part.match_indices("](") {
            let rest = &part[start + 2..];
            found.extend(rest.split_once(')').map(|(target, _)| target));
        }
    }
    found
}

/// Anchors of a page's headings, as GitHub makes them.
fn anchors(page: &Page) -> BTreeSet<String> {
    let headings = page
        .prose()
        .into_iter()
        .filter(|(_, line)| line.starts_with('#'));
    headings
        .map(|(_, line)| {
            let title = line.trim_start_matches('#').trim().to_lowercase();
            let kept = title
                .chars()
                .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}

fn problem(from: &Page, target: &str) -> Option<String> {
    if target.starts_with("http://") || target.starts_with("https://") {
        return None;
    }
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = from.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let file = if path.is_empty() {
        root().join(&from.path)
    } else {
        root().join(folder).join(path)
    };
    if !file.exists() {
        return Some(format!("`{target}` does not exist"));
    }
    if anchor.is_empty() {
        return None;
    }
    let file = file.canonicalize().unwrap();
    let name = file.strip_prefix(root()).unwrap().display().to_string();
    let known = anchors(&Page::read(&name));
    (!known.contains(anchor)).then(|| format!("`{target}` has no such heading: {known:?}"))
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for page in page::all() {
        for (number, line) in page.prose() {
            for problem in targets(line).into_iter().filter_map(|t| problem(&page, t)) {
                problems.push(format!("{}, line {number}: {problem}", page.path));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn targets_are_found() {
    let line = "see [a](a.md#b), [`x(y)`](c.md) and `[no](no.md)` ![p](p.svg)";
    assert_eq!(targets(line), ["a.md#b", "c.md", "p.svg"]);
}
