//! A headless browser for tests: the page as its own script leaves it. Included by the tests of
//! `l1ra-train` and of `l1ra-cli`.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use tempfile::TempDir;

const BROWSERS: [&str; 4] = [
    "chromium",
    "chromium-browser",
    "google-chrome",
    "google-chrome-stable",
];

const ARGUMENTS: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--virtual-time-budget=3000",
    "--dump-dom",
];

/// Longest a browser may take for a page.
const PATIENCE: Duration = Duration::from_secs(120);

/// The first browser on the `PATH`. Without one, says so and returns `None`, or fails under
/// `L1RA_REQUIRE_BROWSER=1`.
pub(crate) fn browser() -> Option<PathBuf> {
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

/// The document of `page` at `fragment` (`#update=0`, or nothing) after its script ran.
pub(crate) fn dom(browser: &Path, page: &Path, fragment: &str) -> String {
    let folder = TempDir::new().unwrap();
    let profile = folder.path().join("profile");
    let output = folder.path().join("dom.html");
    let child = Command::new(browser)
        .args(ARGUMENTS)
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("file://{}{fragment}", page.display()))
        .stdout(Stdio::from(File::create(&output).unwrap()))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let status = wait(child);
    assert!(status.success(), "{}: {status}", browser.display());
    fs::read_to_string(output).unwrap()
}

fn wait(mut child: Child) -> ExitStatus {
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("the browser took longer than {PATIENCE:?}");
}

/// Fails unless the report's script ran to its end.
pub(crate) fn assert_ready(dom: &str) {
    assert!(
        dom.contains("data-ready=\"1\""),
        "the page's script did not run to its end"
    );
}

/// The value of an attribute of a tag, `td class="…" data-rank="…"`.
pub(crate) fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = tag.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// The cells of the report's heat map by layer and module, read by `read` from a cell's tag and
/// its text.
pub(crate) fn heat_map<T>(
    dom: &str,
    read: impl Fn(&str, &str) -> T,
) -> BTreeMap<(String, String), T> {
    let (_, table) = dom.split_once("id=\"heat\"").expect("a heat map");
    let (table, _) = table.split_once("</table>").unwrap();
    let mut cells = BTreeMap::new();
    for cell in table.split('<').filter(|tag| tag.starts_with("td ")) {
        let (tag, text) = cell.split_once('>').unwrap();
        let Some(layer) = attribute(tag, "data-layer") else {
            continue;
        };
        let module = attribute(tag, "data-module").unwrap();
        let key = (layer.to_owned(), module.to_owned());
        let old = cells.insert(key, read(tag, text));
        assert!(old.is_none(), "two cells for layer {layer}, {module}");
    }
    cells
}
