//! Recipes that a page shows, whole or in part.

use std::path::Path;

use l1ra_train::recipe::{Override, RecipeFile};

use crate::page;

/// What every recipe needs and a part of one need not say.
const NEEDED: [(&str, &str, &str); 2] = [
    ("model", "path", "examples/finetune/model"),
    ("data", "train", "answers.jsonl"),
];

#[test]
fn every_toml_block_is_a_recipe() {
    for page in page::all() {
        for block in page
            .blocks()
            .iter()
            .filter(|block| block.language() == "toml")
        {
            let place = format!("{}, line {}", page.path, block.line);
            let table: toml::Table =
                toml::from_str(&block.text).unwrap_or_else(|error| panic!("{place}: {error}"));
            let missing = NEEDED.iter().filter(|(section, key, _)| {
                table
                    .get(*section)
                    .and_then(|section| section.get(*key))
                    .is_none()
            });
            let overrides: Vec<Override> = missing
                .map(|(section, key, value)| {
                    Override::flag("", &format!("{section}.{key}"), value.to_string())
                })
                .collect();
            if let Err(error) = RecipeFile::parse(Path::new("recipe"), &block.text, &overrides) {
                panic!("{place}: {error}");
            }
        }
    }
}
