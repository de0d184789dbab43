//! The output folder.

use std::fs;

use insta::assert_snapshot;

use crate::{support::Place, train};

#[test]
fn an_output_that_is_a_file() {
    let place = Place::new();
    assert_snapshot!(train(&place, &["--output", "good.jsonl"]), @"error: --output good.jsonl: output = good.jsonl: a folder, made if it is not there; this is a file");
    place.change_recipe("\"out\"", "\"good.jsonl\"");
    assert_snapshot!(train(&place, &[]), @"error: recipe.toml, line 1: output = good.jsonl: a folder, made if it is not there; this is a file");
}

#[test]
fn an_output_below_a_file() {
    let place = Place::new();
    assert_snapshot!(train(&place, &["--output", "good.jsonl/run"]), @"error: --output good.jsonl/run: output = good.jsonl/run: cannot be made, as good.jsonl is a file");
}

#[test]
fn an_output_that_holds_a_run() {
    let place = Place::new();
    fs::create_dir(place.path("out")).unwrap();
    place.write("out/metrics.jsonl", "{}\n");
    assert_snapshot!(train(&place, &[]), @"error: out: holds a run already; go on with it with --resume, choose another folder with --output, or say --overwrite");
}
