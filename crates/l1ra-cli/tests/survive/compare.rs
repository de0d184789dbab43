//! A comparison that is stopped goes on where it was, and finds what an undisturbed one finds.

use serde_json::Value;

use crate::{PAUSE, finish, place, said, send, start, support::Place, wait_until};

const COMPARE: [&str; 7] = [
    "compare",
    "recipe.toml",
    "--policies",
    "fixed,l1ra",
    "--seeds",
    "2",
    "--plain",
];

/// The runs of a comparison without what a machine had to do with them.
fn runs(place: &Place) -> Vec<Value> {
    let table: Value = serde_json::from_str(&place.read("out-compare/compare.json")).unwrap();
    let mut runs = table["runs"].as_array().unwrap().clone();
    for run in &mut runs {
        let run = run.as_object_mut().unwrap();
        run.remove("step_seconds");
        run.remove("peak_bytes");
    }
    runs
}

#[test]
fn a_signal_saves_and_the_same_words_go_on() {
    let whole = place(16);
    whole.run(&COMPARE).well();
    let place = place(16);
    let mut child = start(&place, &COMPARE, &PAUSE);
    let metrics = place.path("out-compare/runs/fixed-r4-lr1e-2-s0/metrics.jsonl");
    wait_until(&mut child, || {
        let text = std::fs::read_to_string(&metrics).unwrap_or_default();
        text.matches("\"loss\"").count() >= 3
    });
    send(&child, "INT");
    assert_eq!(finish(&mut child), Some(130), "{}", said(&place));
    let said = said(&place);
    let again = format!("go on with: l1ra {}\n", COMPARE.join(" "));
    assert!(said.contains(&again), "{said}");
    assert!(!place.path("out-compare/compare.json").exists());
    let ran = place.run(&COMPARE).well();
    assert!(ran.stderr.contains("resumes   "), "{}", ran.stderr);
    assert_eq!(runs(&place), runs(&whole));
    for run in place.names("out-compare/runs") {
        let name = format!("out-compare/runs/{run}/adapter/adapter_model.safetensors");
        let bytes = |place: &Place| std::fs::read(place.path(&name)).unwrap();
        assert!(bytes(&place) == bytes(&whole), "{run}");
    }
}
