//! `l1ra devices`.

use serde_json::Value;

use crate::support::Place;

/// What else is compiled in depends on what is built along with it.
#[test]
fn the_cpu_is_a_device() {
    let place = Place::new();
    let ran = place.run(&["devices"]).well();
    assert_eq!(ran.stderr, "");
    let line = |start: &str| ran.stdout.lines().find(|line| line.starts_with(start));
    assert!(line("flex ").unwrap().contains("f32"), "{}", ran.stdout);
    assert!(
        line("memory ").unwrap().contains(" GB left"),
        "{}",
        ran.stdout
    );
    if !cfg!(feature = "rocm") {
        let other = line("not built ").unwrap();
        assert!(
            other.contains("rocm") && other.contains("--features "),
            "{other}"
        );
    }
    let json = place.run(&["--json", "devices"]).well().json();
    let devices = json["devices"].as_array().unwrap();
    let flex = devices.iter().find(|device| device["name"] == "flex");
    assert_eq!(flex.unwrap()["problem"], Value::Null);
}
