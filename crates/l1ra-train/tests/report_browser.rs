//! The report in a real browser, headless: the heat map as the page's own script leaves it.
//!
//! Without a browser on the `PATH` the tests say so and pass, unless `L1RA_REQUIRE_BROWSER=1`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[path = "../../../tests/support/headless.rs"]
mod headless;
mod report_run;

use std::{collections::BTreeMap, path::PathBuf};

use headless::{assert_ready, attribute, browser, dom, heat_map};
use l1ra_train::report::{RunRecord, write_report};
use report_run::{MadeRun, named};
use tempfile::TempDir;

fn report(run: &MadeRun) -> (TempDir, Vec<PathBuf>) {
    let dir = TempDir::new().unwrap();
    run.write_all(dir.path());
    let record = RunRecord::read(dir.path()).unwrap();
    let files = write_report(&record, dir.path()).unwrap();
    let files = files.iter().map(|file| file.canonicalize().unwrap());
    (dir, files.collect())
}

/// By layer and module, `data-rank` and the text.
type Cells = BTreeMap<(String, String), (usize, usize)>;

/// The cells of the heat map.
fn cells(dom: &str) -> Cells {
    heat_map(dom, |tag, text| {
        let rank = attribute(tag, "data-rank").unwrap();
        (rank.parse().unwrap(), text.parse().unwrap())
    })
}

fn expected(ranks: &[usize]) -> Cells {
    let modules = ["q_proj", "k_proj", "up_proj"];
    let places = ranks.iter().enumerate();
    places
        .map(|(index, rank)| {
            let key = ((index / 3).to_string(), modules[index % 3].to_owned());
            (key, (*rank, *rank))
        })
        .collect()
}

/// Text of the element with this id.
fn text_of<'a>(dom: &'a str, id: &str) -> &'a str {
    let (_, rest) = dom
        .split_once(&format!("id=\"{id}\""))
        .expect("the element");
    let (_, rest) = rest.split_once('>').unwrap();
    rest.split_once('<').unwrap().0
}

#[test]
fn the_heat_map_shows_every_adapter_at_every_update() {
    let Some(browser) = browser() else { return };
    let run = MadeRun::small();
    let (_dir, files) = report(&run);
    let page = &files[0];

    let end = dom(&browser, page, "");
    assert_ready(&end);
    assert_eq!(cells(&end).len(), 4 * 3);
    assert_eq!(cells(&end), expected(&run.updates[2].1));
    assert_eq!(text_of(&end, "moment-label"), "end");
    assert_eq!(text_of(&end, "moment-moved"), "10");

    let start = dom(&browser, page, "#update=0");
    assert_eq!(cells(&start), expected(&[4; 12]));
    assert_eq!(text_of(&start, "moment-label"), "start");

    let second = dom(&browser, page, "#update=2");
    assert_eq!(cells(&second), expected(&run.updates[1].1));
    assert_eq!(text_of(&second, "moment-label"), "update 2");
    assert_eq!(text_of(&second, "moment-step"), "20");
    assert_eq!(
        text_of(&second, "gates-note"),
        "The gates that update 2 decided from, step 20."
    );
    // Colours follow: layer 0's k_proj lost two ranks, layer 3's up_proj gained two.
    let class = |layer: usize, module: &str| {
        let place = format!("data-layer=\"{layer}\" data-module=\"{module}\"");
        let tag = second.split('<').find(|tag| tag.contains(&place)).unwrap();
        attribute(tag, "class").unwrap().to_owned()
    };
    assert_eq!(class(0, "k_proj"), "cell lc-l2");
    assert_eq!(class(3, "up_proj"), "cell lc-g2");
    assert_eq!(class(0, "q_proj"), "cell lc-k0");
}

#[test]
fn names_from_files_are_only_text() {
    let Some(browser) = browser() else { return };
    let evil = "model.layers.0.</script><img src=x onerror=document['title']=1>";
    let run = MadeRun::ending(named(&[evil, "model.layers.0.q"]), 4, &[5, 3]);
    let (_dir, files) = report(&run);
    let page = dom(&browser, &files[0], "");
    assert_ready(&page);
    assert!(!page.contains("<img"));
    assert!(page.contains("<title>org/tiny: report of a run</title>"));
    let ranks: Vec<(usize, usize)> = cells_any(&page);
    assert_eq!(ranks, [(5, 5), (3, 3)]);
    // The pictures are well-formed XML with the name as text; a browser says so if they are not.
    for picture in files.iter().filter(|file| {
        let name = file.file_stem().unwrap();
        name == "ranks" || name == "modules"
    }) {
        let picture = dom(&browser, picture, "");
        assert!(picture.contains("&lt;/script&gt;"), "{picture}");
        assert!(!picture.contains("parsererror"), "{picture}");
    }
}

/// Ranks of the cells, whatever their names: a serialised attribute may hold `>` as it is.
fn cells_any(page: &str) -> Vec<(usize, usize)> {
    let (_, table) = page.split_once("id=\"heat\"").expect("a heat map");
    let (table, _) = table.split_once("</table>").unwrap();
    let ranks = table.split(" data-rank=\"").skip(1);
    ranks
        .map(|rest| {
            let (rank, rest) = rest.split_once('"').unwrap();
            let text = rest.split_once("\">").unwrap().1.split_once('<').unwrap().0;
            (rank.parse().unwrap(), text.parse().unwrap())
        })
        .collect()
}
