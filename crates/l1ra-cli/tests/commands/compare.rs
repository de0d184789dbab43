//! `l1ra compare`.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    run::with_data,
    support::{Place, Ran, model},
};

const RECIPE: &str = r#"output = "out"

[model]
path = 'MODEL'

[data]
train = "train.jsonl"
eval = "eval.jsonl"
max_length = 48

[adapters]
rank = 4
alpha = 8.0
lambda = 1.0
eta_c = 0.3
update_ratio = 0.34
settle_ratio = 0.1

[train]
steps = 6
batch_size = 2
lr = 2e-2
warmup_steps = 1
"#;

fn place() -> Place {
    let place = with_data(TempDir::new().unwrap());
    place.write("recipe.toml", RECIPE.replace("MODEL", &model()));
    place
}

/// `l1ra --json compare` of two policies, with `more` words.
fn compare(place: &Place, more: &[&str]) -> Ran {
    let words = [
        "--json",
        "compare",
        "recipe.toml",
        "--policies",
        "fixed,l1ra",
    ];
    place.run(&[&words[..], more].concat()).well()
}

fn bytes(place: &Place, folder: &str) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| {
        let path = place.path(folder).join(&name);
        (name, fs::read(path).unwrap())
    };
    place.names(folder).into_iter().map(read).collect()
}

fn runs_said(ran: &Ran) -> usize {
    ran.stderr
        .lines()
        .filter(|line| line.starts_with("run "))
        .count()
}

#[test]
fn a_comparison_is_made_extended_and_not_made_again() {
    let place = place();
    let ran = compare(&place, &["--seeds", "2"]);
    let table = ran.json();
    assert_eq!(runs_said(&ran), 4, "{}", ran.stderr);
    assert_eq!(
        place.names("out-compare").join(" "),
        "compare.csv compare.html compare.json compare.md run.lock runs"
    );
    let first = "out-compare/runs/fixed-r4-lr2e-2-s0";
    assert_eq!(
        place.names("out-compare/runs").join(" "),
        "fixed-r4-lr2e-2-s0 fixed-r4-lr2e-2-s1 l1ra-r4-lr2e-2-s0 l1ra-r4-lr2e-2-s1"
    );
    assert_eq!(
        place.names(first).join(" "),
        "adapter metrics.jsonl ranks.jsonl recipe.toml result.json"
    );
    let saved: Value = serde_json::from_str(&place.read("out-compare/compare.json")).unwrap();
    assert_eq!(table, saved);
    assert_eq!(table["baseline"], "fixed");
    let rows = table["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["difference"], Value::Null);
    assert!(rows[1]["difference"]["half"].as_f64().unwrap() >= 0.0);
    assert!(rows[1]["moved"].as_f64().unwrap() > 0.0, "{table}");
    assert_eq!(rows[0]["moved"], 0.0);
    assert_eq!(rows[0]["agreement"], Value::Null);
    let csv = place.read("out-compare/compare.csv");
    assert_eq!(csv.lines().count(), 5);
    assert!(
        ran.stderr.contains("# Comparison with fixed"),
        "{}",
        ran.stderr
    );
    let page = place.read("out-compare/compare.html");
    assert!(page.starts_with("<!doctype html>"));
    assert!(!page.contains("http://") && !page.contains("https://"));

    // Nothing is trained again, and the same comes out.
    let made = place.tree();
    let again = compare(&place, &["--seeds", "2"]);
    assert_eq!(runs_said(&again), 0, "{}", again.stderr);
    assert!(
        again.stderr.contains("nothing to train"),
        "{}",
        again.stderr
    );
    assert_eq!(again.json(), table);
    assert_eq!(place.tree(), made);

    // Another rank is all that is trained.
    let more = compare(&place, &["--seeds", "2", "--ranks", "4,2"]);
    assert_eq!(runs_said(&more), 4, "{}", more.stderr);
    assert!(more.stderr.contains("of which 4 are in"), "{}", more.stderr);
    let more = more.json();
    assert_eq!(more["rows"].as_array().unwrap()[..2], rows[..]);
    assert_eq!(more["runs"].as_array().unwrap().len(), 8);

    // The saved recipe of a run is that run, at the scale of the recipe.
    let small = place.read("out-compare/runs/l1ra-r2-lr2e-2-s1/recipe.toml");
    for line in [
        "rank = 2\n",
        "alpha = 4.0\n",
        "seed = 1\n",
        "save_every = 0\n",
    ] {
        assert!(small.contains(line), "{line}{small}");
    }
    let recipe = format!("{first}/recipe.toml");
    place
        .run(&["train", "--quiet", &recipe, "--output", "alone"])
        .well();
    let adapter = |folder: &str| bytes(&place, &format!("{folder}/adapter"));
    assert!(adapter("alone") == adapter(first), "another adapter");

    // Other settings are another run: said, and made with --overwrite.
    let changed = ["--set", "adapters.lambda=0.5", "--seeds", "1"];
    let words = ["compare", "recipe.toml", "--policies", "fixed,l1ra"];
    let said = place.mistake(&[&words[..], &changed].concat());
    assert_eq!(
        said,
        format!(
            "error: {first}: is of another run: adapters.lambda is 0.5, and was 1.0; choose another \
             folder with --output, or run it again with --overwrite"
        )
    );
    let ran = compare(&place, &[&changed[..], &["--overwrite"]].concat());
    assert_eq!(runs_said(&ran), 2, "{}", ran.stderr);
    assert!(Path::new(&place.path("out-compare/runs/fixed-r2-lr2e-2-s1")).is_dir());
}

/// The layers of the second choice get as many parameters as those of the first, or fewer.
#[test]
fn targets_are_compared_at_equal_parameters() {
    let place = place();
    let args = [
        "--seeds",
        "1",
        "--ranks",
        "2",
        "--targets",
        "all-linear;q_proj,v_proj",
    ];
    let table = compare(&place, &args).json();
    let rows = table["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["policy"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "fixed on all-linear",
            "l1ra on all-linear",
            "fixed on q_proj, v_proj",
            "l1ra on q_proj, v_proj"
        ]
    );
    let start = |row: usize| rows[row]["parameters"][0].as_f64().unwrap();
    assert!(start(2) <= start(0) && start(2) > start(0) * 0.9, "{table}");
}
