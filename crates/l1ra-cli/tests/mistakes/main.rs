//! Every mistake a user of `l1ra` can make ends with exit code 2 and a message that says what is
//! wrong, where, the value seen and the remedy; nothing is trained, and no file is made or changed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod adapter_files;
mod adapters;
mod command_line;
mod compare;
mod data;
mod device;
mod generate;
mod inspect;
mod model;
mod output;
mod recipe;
mod report;

use support::{Place, model};

/// What `l1ra train recipe.toml` and `more` says of its mistake.
fn train(place: &Place, more: &[&str]) -> String {
    place.mistake(&[&["train", "recipe.toml"], more].concat())
}

/// What `l1ra eval` and `more` says of its mistake with the repository's model.
fn eval(place: &Place, more: &[&str]) -> String {
    place.mistake(&[&["eval", "--model", &model()], more].concat())
}

/// What `l1ra train recipe.toml` says in a place where nothing else is wrong.
fn train_anew(more: &[&str]) -> String {
    train(&Place::new(), more)
}
