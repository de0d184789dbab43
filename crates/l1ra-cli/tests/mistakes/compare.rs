//! What `l1ra compare` is asked for.

use std::fs;

use insta::assert_snapshot;

use crate::support::Place;

/// What `l1ra compare recipe.toml --policies fixed,l1ra` and `more` says of its mistake.
fn compare(place: &Place, more: &[&str]) -> String {
    let words = ["compare", "recipe.toml", "--policies", "fixed,l1ra"];
    place.mistake(&[&words[..], more].concat())
}

#[test]
fn lists() {
    let place = Place::new();
    let words = ["compare", "recipe.toml", "--policies"];
    let policies = |list: &str| place.mistake(&[&words[..], &[list]].concat());
    assert!(policies("fixed,lara").starts_with("error: --policies lara: one of "));
    assert!(policies("").starts_with("error: --policies : one of "));
    assert_snapshot!(policies("fixed,fixed"), @"");
    assert_snapshot!(compare(&place, &["--ranks", "2,0"]), @"");
    assert_snapshot!(compare(&place, &["--ranks", "2,2"]), @"");
    assert_snapshot!(compare(&place, &["--lrs", "0"]), @"");
    assert_snapshot!(compare(&place, &["--seeds", "0"]), @"");
    assert_snapshot!(compare(&place, &["--lrs", "fast"]), @"");
}

#[test]
fn runs_that_cannot_be() {
    let place = Place::new();
    assert_snapshot!(compare(&place, &["--ranks", "2,4000"]), @"");
    assert_snapshot!(compare(&place, &["--targets", "all-linear;x_proj"]), @"");
    let pattern = ["--set", "adapters.rank_pattern.q_proj=2"];
    assert_snapshot!(compare(&place, &[&pattern[..], &["--ranks", "2,4"]].concat()), @"");
}

#[test]
fn a_folder_of_something_else() {
    let place = Place::new();
    assert_snapshot!(compare(&place, &["--output", "good.jsonl"]), @"");
    fs::create_dir(place.path("out-compare")).unwrap();
    place.write("out-compare/notes.txt", "mine");
    assert_snapshot!(compare(&place, &[]), @"");
}
