//! One run a folder.

use crate::{
    PAUSE, STEPS, TRAIN, assert_whole, finish, place, send, start, steps_done, support::Place,
    wait_until,
};

/// Every way to lay a hand on a folder that `id` holds is refused with its name.
#[track_caller]
fn assert_refused(place: &Place, id: u32) {
    for more in [&["--overwrite"][..], &["--resume"], &["--resume", "out"]] {
        let ran = place.run(&[&["train", "recipe.toml", "--quiet"], more].concat());
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        let expected = format!("error: out: another run holds this folder (process {id} on ");
        assert!(ran.stderr.starts_with(&expected), "{}", ran.stderr);
    }
}

#[test]
fn a_second_run_is_refused_and_says_by_whom() {
    let place = place(STEPS);
    // Held where it is, first with no checkpoint yet and then after some: it must not end meanwhile.
    let mut child = start(&place, &TRAIN, &PAUSE);
    let id = child.id();
    for steps in [0, 3] {
        wait_until(&mut child, || {
            let held = place.path("out/ranks.jsonl").exists();
            held && steps_done(&place) >= steps
        });
        send(&child, "STOP");
        assert_refused(&place, id);
        send(&child, "CONT");
    }
    assert_eq!(finish(&mut child), Some(0));
    assert_whole(&place);
}

#[test]
fn a_dead_holder_s_lock_is_taken_over() {
    let place = place(STEPS);
    let mut child = start(&place, &TRAIN, &PAUSE);
    wait_until(&mut child, || steps_done(&place) >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.read("out/run.lock").starts_with("process "));
    place
        .run(&["train", "recipe.toml", "--quiet", "--overwrite"])
        .well();
    assert_whole(&place);
}
