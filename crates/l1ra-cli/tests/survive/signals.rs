//! Ctrl-C and SIGTERM.

use insta::assert_snapshot;

use crate::{
    PAUSE, PAUSE_NAME, RESUME, STEPS, TRAIN, assert_whole, checkpoints, finish, place, said, send,
    start, steps_done, wait_until,
};

#[test]
fn the_first_signal_saves_and_says_how_to_go_on() {
    let mut ends = Vec::new();
    for (signal, code) in [("INT", 130), ("TERM", 143)] {
        let place = place(STEPS);
        let mut child = start(&place, &["train", "recipe.toml", "--plain"], &PAUSE);
        wait_until(&mut child, || steps_done(&place) >= 3);
        send(&child, signal);
        assert_eq!(finish(&mut child), Some(code), "{}", said(&place));
        let said = said(&place);
        // Whether it is answered in words before the step ends is a matter of milliseconds.
        let (_, end) = said.split_once("go on with").unwrap();
        let done = steps_done(&place).to_string();
        let end = end.replace(&format!("{done:0>8}"), "[step]");
        let end: Vec<&str> = end
            .lines()
            .filter(|line| !line.starts_with("step "))
            .collect();
        let end = end.join("\n");
        ends.push(end.replace(&format!("after step {done} "), "after step [n] "));
        place.run(&RESUME).well();
        assert_whole(&place);
    }
    assert_eq!(ends[0], ends[1]);
    assert_snapshot!(ends[0], @"
    : l1ra train --resume out
    error: stopped after step [n] of 16; saved as out/checkpoints/step-[step].safetensors
    ");
}

#[test]
fn the_second_signal_stops_at_once() {
    let place = place(STEPS);
    // A slow save: the first signal is not through when the second one comes.
    let pause = [(PAUSE_NAME, "1500")];
    let mut child = start(&place, &TRAIN, &pause);
    wait_until(&mut child, || {
        steps_done(&place) >= 2
            && checkpoints(&place)
                .iter()
                .any(|name| name.ends_with(".tmp"))
    });
    send(&child, "INT");
    std::thread::sleep(std::time::Duration::from_millis(50));
    send(&child, "INT");
    assert_eq!(finish(&mut child), Some(130), "{}", said(&place));
    assert!(
        checkpoints(&place)
            .iter()
            .any(|name| name.ends_with(".tmp")),
        "the save was waited for"
    );
    place.run(&RESUME).well();
    assert_whole(&place);
}

#[test]
fn before_the_first_step_there_is_nothing_to_save() {
    let place = place(STEPS);
    place.change_recipe("eval_rows = 2", "eval_rows = 3");
    let mut child = start(&place, &["train", "recipe.toml", "--plain"], &PAUSE);
    wait_until(&mut child, || place.path("out/ranks.jsonl").exists());
    send(&child, "INT");
    let code = finish(&mut child);
    assert_eq!(code, Some(130), "{}", said(&place));
}
