//! The table of all keys in `docs/recipes.md`, made from the code.

use std::fs;

use l1ra_train::recipe::{KeyDoc, keys};

use crate::page::{Page, root};

const PATH: &str = "docs/recipes.md";
const BEGIN: &str = "<!-- keys -->\n";
const END: &str = "<!-- /keys -->\n";

/// A paragraph and a table for each section, in the order of the code.
fn tables() -> String {
    let mut text = String::new();
    let mut section = None;
    for doc in keys() {
        let place = doc
            .key
            .rsplit_once('.')
            .map_or("", |(place, _)| place)
            .to_string();
        if section.as_ref() != Some(&place) {
            let title = match place.as_str() {
                "" => "### Above all sections".to_string(),
                place => format!("### `[{place}]`"),
            };
            text +=
                &format!("\n{title}\n\n| key | takes | default | meaning |\n|---|---|---|---|\n");
            section = Some(place);
        }
        text += &row(&doc);
    }
    text.push('\n');
    text
}

fn row(doc: &KeyDoc) -> String {
    let default = doc
        .default
        .as_ref()
        .map_or_else(String::new, |value| format!("`{value}`"));
    let cells = [
        format!("`{}`", doc.key),
        doc.kind.clone(),
        default,
        doc.doc.clone(),
    ];
    let cells = cells.map(|cell| cell.replace('|', "\\|"));
    format!("| {} |\n", cells.join(" | "))
}

#[test]
fn the_table_of_keys_is_the_code_s() {
    let page = Page::read(PATH);
    let parts = page.text.split_once(BEGIN).and_then(|(head, rest)| {
        let (table, tail) = rest.split_once(END)?;
        Some((head, table, tail))
    });
    let (head, table, tail) = parts.expect("docs/recipes.md has both marks, each on its line");
    let expected = tables();
    if std::env::var_os("L1RA_BLESS").is_some() {
        let text = format!("{head}{BEGIN}{expected}{END}{tail}");
        fs::write(root().join(PATH), text).unwrap();
    } else {
        assert!(
            table == expected,
            "{PATH} is behind the code; write it anew with\n    \
             L1RA_BLESS=1 cargo test --workspace --test docs keys\n{expected}"
        );
    }
}
