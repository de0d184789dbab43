//! `l1ra report`.

use std::fs;

use insta::assert_snapshot;

use crate::support::{Place, made_run::write_run};

fn report(place: &Place) -> String {
    place.mistake(&["report", "run"])
}

#[test]
fn a_run_that_is_not_there() {
    assert_snapshot!(report(&Place::new()), @"error: run: there is no such folder; name the output folder of a run");
}

#[test]
fn a_folder_that_holds_no_run() {
    let place = Place::new();
    fs::create_dir(place.path("run")).unwrap();
    assert_snapshot!(report(&place), @"error: run: no metrics.jsonl in it, so it is not the output folder of a run; name the folder that the run wrote to");
}

#[test]
fn a_run_whose_metrics_are_damaged() {
    let place = Place::new();
    write_run(&place.path("run"));
    place.change("run/metrics.jsonl", "{\"step\":3,", "{\"step\"3,");
    assert_snapshot!(report(&place), @"error: run/metrics.jsonl, line 4: no JSON (expected `:` at column 8); correct the line or delete it");
}

#[test]
fn a_run_whose_ranks_are_of_another_run() {
    let place = Place::new();
    write_run(&place.path("run"));
    place.change(
        "run/ranks.jsonl",
        "\"ranks\":[4,3,5,4,4,4]",
        "\"ranks\":[4,3,5]",
    );
    assert_snapshot!(report(&place), @"error: run/ranks.jsonl, line 2: `ranks` has 3 entries, and the run has 6 adapters (line 1); was the file put together from two runs?");
}
