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
    assert_snapshot!(policies("fixed,fixed"), @"error: --policies fixed: each once; this is twice");
    assert_snapshot!(compare(&place, &["--ranks", "2,0"]), @"error: --ranks 0: an adapter has a rank of at least 1");
    assert_snapshot!(compare(&place, &["--ranks", "2,2"]), @"error: --ranks 2: each once; this is twice");
    assert_snapshot!(compare(&place, &["--lrs", "0"]), @"error: --lrs 0: a positive number");
    assert_snapshot!(compare(&place, &["--seeds", "0"]), @"error: --seeds 0: at least 1, and 5 for an interval that says something");
    assert_snapshot!(compare(&place, &["--lrs", "fast"]), @"
    error: invalid value 'fast' for '--lrs <LR,…>': invalid float literal

    For more information, try '--help'.
    ");
}

#[test]
fn runs_that_cannot_be() {
    let place = Place::new();
    assert_snapshot!(compare(&place, &["--ranks", "2,4000"]), @"error: run fixed-r4000-lr5e-4-s0: rank = 4000: at most 192 for `model.layers.0.self_attn.q_proj` ([192, 192])");
    assert_snapshot!(compare(&place, &["--targets", "all-linear;x_proj"]), @"error: run fixed-x_proj-r4-lr5e-4-s0: target `x_proj` matches no linear layer of this model; nearest: k_proj, o_proj, q_proj, v_proj");
    let pattern = ["--set", "adapters.rank_pattern.q_proj=2"];
    assert_snapshot!(compare(&place, &[&pattern[..], &["--ranks", "2,4"]].concat()), @"error: --set adapters.rank_pattern.q_proj=2: adapters.rank_pattern.q_proj gives layers a value of their own, which a comparison of several ranks cannot scale; leave it out, or compare at the recipe's rank alone");
}

#[test]
fn a_folder_of_something_else() {
    let place = Place::new();
    assert_snapshot!(compare(&place, &["--output", "good.jsonl"]), @"error: --output good.jsonl: output = good.jsonl: a folder, made if it is not there; this is a file");
    fs::create_dir(place.path("out-compare")).unwrap();
    place.write("out-compare/notes.txt", "mine");
    assert_snapshot!(compare(&place, &[]), @"error: out-compare: holds `notes.txt`, which is no part of a comparison; choose another folder with --output");
}
