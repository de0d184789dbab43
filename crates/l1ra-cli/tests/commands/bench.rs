//! `l1ra bench`.

use insta::assert_snapshot;
use serde_json::Value;

use crate::support::{Place, model};

const SMALL: [&str; 8] = [
    "--seq", "8", "--batch", "2", "--steps", "2", "--warmup", "1",
];

fn bench(more: &[&str]) -> Value {
    let model = model();
    let start = ["--json", "bench", "--model", &model];
    Place::new()
        .run(&[&start[..], &SMALL, more].concat())
        .well()
        .json()
}

#[test]
fn a_line_has_the_keys_of_other_programs() {
    let line = bench(&[]);
    let keys: Vec<&String> = line.as_object().unwrap().keys().collect();
    assert_snapshot!(format!("{keys:?}"), @r#"["impl", "method", "seq", "batch", "threads", "r", "checkpointing", "activations", "target_share", "steps", "trainable", "median_step_s", "min_step_s", "max_step_s", "tokens_per_s", "rss_after_load_mb", "peak_rss_mb", "setup_s", "first_step_s", "loss", "breakdown", "dtype", "device", "load_s"]"#);
    assert_eq!(line["steps"], 2);
    assert_eq!(line["trainable"], 16 * 20_394);
    assert!(line["median_step_s"].as_f64().unwrap() > 0.0);
    assert!(line["loss"].as_f64().unwrap() > 0.0);
}

#[test]
fn every_method_and_recompute() {
    let loss = |more: &[&str]| bench(more)["loss"].as_f64();
    let l1ra = loss(&["--method", "l1ra"]).unwrap();
    // The third step: the first two have moved B away from zero.
    let again = loss(&["--recompute"]).unwrap();
    assert!((l1ra - again).abs() < 1e-5 * l1ra, "{l1ra} {again}");
    assert!(loss(&["--method", "lora"]).is_some());
    assert!(loss(&["--targets", "0.5"]).is_some());
    assert_eq!(loss(&["--method", "forward"]), None);
    let generated = bench(&["--method", "generate"]);
    assert_eq!([&generated["steps"], &generated["batch"]], [2, 1]);
    let halves = bench(&["--dtype", "bf16"]);
    assert_eq!([&halves["dtype"], &halves["activations"]], ["bf16"; 2]);
}

#[test]
fn a_configuration_is_measured_with_weights_that_are_drawn() {
    let configuration = format!("{}/config.json", model());
    let start = ["--json", "bench", "--model", &configuration];
    let ran = Place::new().run(&[&start[..], &SMALL].concat()).well();
    let line = ran.json();
    assert_eq!(line["trainable"], 16 * 20_394);
    assert!(line["loss"].as_f64().unwrap() > 0.0);
}

#[test]
fn sizes_that_cannot_be() {
    let said = |more: &[&str]| {
        let model = model();
        let start = ["bench", "--model", &model];
        let ran = Place::new().run(&[&start[..], more].concat());
        assert_eq!(ran.code, Some(2));
        ran.stderr.trim_end().to_string()
    };
    assert_snapshot!(said(&["--steps", "0"]), @"error: --steps 0: at least 1");
    assert_snapshot!(said(&["--seq", "1"]), @"error: --seq 1: at least 2: a target follows a token");
    assert_snapshot!(said(&["--seq", "100000"]), @"error: --seq 100000: at most 512, by the model's context");
    assert_snapshot!(said(&["--rank", "500"]), @"error: --rank 500: at most 64, the width of the narrowest layer");
    assert_snapshot!(said(&["--targets", "0"]), @"error: --targets 0: a share above 0, at most 1");
    assert_snapshot!(said(&["--method", "nothing"]), @"
    error: invalid value 'nothing' for '--method <METHOD>': `nothing`: l1ra, lora, forward or generate

    For more information, try '--help'.
    ");
}
