//! From training to the picture: the page that `l1ra report` writes for a real run, in a headless
//! browser.
//!
//! Without a browser on the `PATH` the test says so and passes, unless `L1RA_REQUIRE_BROWSER=1`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    run::trained,
    support::{copy_folder, json_lines},
};

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

/// Longest a browser may take for a page.
const PATIENCE: Duration = Duration::from_secs(120);

fn browser() -> Option<PathBuf> {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths)
        .flat_map(|folder| BROWSERS.map(|name| folder.join(name)))
        .find(|path| path.is_file());
    if found.is_none() {
        let required = std::env::var("L1RA_REQUIRE_BROWSER").is_ok_and(|value| value == "1");
        assert!(
            !required,
            "L1RA_REQUIRE_BROWSER=1, and none of {BROWSERS:?} is on the PATH"
        );
        eprintln!("skipped: none of {BROWSERS:?} is on the PATH");
    }
    found
}

/// The document of `page` after its script ran.
fn dom(browser: &Path, page: &Path) -> String {
    let profile = TempDir::new().unwrap();
    let output = profile.path().join("dom.html");
    let mut child = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--virtual-time-budget=3000",
            "--dump-dom",
        ])
        .arg(format!(
            "--user-data-dir={}",
            profile.path().join("profile").display()
        ))
        .arg(format!("file://{}", page.display()))
        .stdout(Stdio::from(File::create(&output).unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            panic!("{} took longer than {PATIENCE:?}", browser.display());
        }
        sleep(Duration::from_millis(20));
    };
    assert!(status.success(), "{}: {status}", browser.display());
    fs::read_to_string(output).unwrap()
}

fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!("{name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// Ranks by layer and module.
type Cells = BTreeMap<(String, String), String>;

/// The cells of the heat map: what a person reads in each.
fn cells(dom: &str) -> Cells {
    let (_, table) = dom.split_once("id=\"heat\"").expect("a heat map");
    let (table, _) = table.split_once("</table>").unwrap();
    let mut cells = BTreeMap::new();
    for tag in table.split("<td ").skip(1) {
        let (attributes, rest) = tag.split_once('>').unwrap();
        let Some(layer) = attribute(attributes, "data-layer") else {
            continue;
        };
        let module = attribute(attributes, "data-module").unwrap();
        let text = rest.split_once('<').unwrap().0.to_owned();
        let old = cells.insert((layer.to_owned(), module.to_owned()), text);
        assert_eq!(old, None, "two cells for layer {layer}, {module}");
    }
    cells
}

/// The same from the adapters in the first line of `ranks.jsonl` and the ranks in its last one.
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
    let dom = dom(&browser, &page);
    assert!(
        dom.contains("data-ready=\"1\""),
        "the page's script did not run to its end"
    );
    let expected = expected(&json_lines(&place.read("out/ranks.jsonl")));
    assert_eq!(expected.len(), 6 * 7);
    assert_eq!(cells(&dom), expected);
    // The run has something to show.
    assert!(expected.values().any(|rank| rank != "4"));
}
