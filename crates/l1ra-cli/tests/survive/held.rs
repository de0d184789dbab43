//! One run a folder.

use crate::{STEPS, TRAIN, assert_whole, finish, place, start, steps_done, wait_until};

#[test]
fn a_second_run_is_refused_and_says_by_whom() {
    let place = place(STEPS);
    let mut child = start(&place, &TRAIN, &[]);
    wait_until(&mut child, || steps_done(&place) >= 1);
    for more in ["--overwrite", "--resume"] {
        let ran = place.run(&["train", "recipe.toml", "--quiet", more]);
        assert_eq!(ran.code, Some(2), "{}", ran.stderr);
        let id = child.id();
        let expected = format!("error: out: another run holds this folder (process {id} on ");
        assert!(ran.stderr.starts_with(&expected), "{}", ran.stderr);
    }
    assert_eq!(finish(&mut child), Some(0));
    assert_whole(&place);
}

#[test]
fn a_dead_holder_s_lock_is_taken_over() {
    let place = place(STEPS);
    let mut child = start(&place, &TRAIN, &[]);
    wait_until(&mut child, || steps_done(&place) >= 1);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(place.read("out/run.lock").starts_with("process "));
    place
        .run(&["train", "recipe.toml", "--quiet", "--overwrite"])
        .well();
    assert_whole(&place);
}
