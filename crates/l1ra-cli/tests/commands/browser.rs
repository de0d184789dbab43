//! From training to the picture: the page that `l1ra report` writes for a real run, in a headless
//! browser.
//!
//! Without a browser on the `PATH` the test says so and passes, unless `L1RA_REQUIRE_BROWSER=1`.

#[path = "../../../../tests/support/headless.rs"]
mod headless;

use std::{collections::BTreeMap, fs};

use headless::{assert_ready, browser, dom, heat_map};
use serde_json::Value;

use crate::{
    run::trained,
    support::{copy_folder, json_lines},
};

/// Ranks by layer and module.
type Cells = BTreeMap<(String, String), String>;

/// Ranks from the adapters in the first line of `ranks.jsonl` and the ranks in its last one.
fn expected(lines: &[Value]) -> Cells {
    let adapters = lines[0]["adapters"].as_array().unwrap();
    let ranks = lines.last().unwrap()["ranks"].as_array().unwrap();
    let cell = |(adapter, rank): (&Value, &Value)| {
        let path: Vec<&str> = adapter["path"].as_str().unwrap().split('.').collect();
        let key = (path[2].to_owned(), path[path.len() - 1].to_owned());
        (key, rank.to_string())
    };
    adapters.iter().zip(ranks).map(cell).collect()
}

#[test]
fn the_heat_map_of_a_run_shows_its_ranks() {
    let Some(browser) = browser() else { return };
    let place = &trained().place;
    copy_folder(&place.path("out"), &place.path("shown"));
    fs::remove_file(place.path("shown/report.html")).unwrap();
    place.run(&["report", "shown"]).well();

    let page = place.path("shown/report.html").canonicalize().unwrap();
    let dom = dom(&browser, &page, "");
    assert_ready(&dom);
    let expected = expected(&json_lines(&place.read("out/ranks.jsonl")));
    assert_eq!(expected.len(), 6 * 7);
    assert_eq!(heat_map(&dom, |_, text| text.to_owned()), expected);
    // The run has something to show.
    assert!(expected.values().any(|rank| rank != "4"));
}
