//! SIGKILL at fifty random moments.

use std::{thread::sleep, time::Duration};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    PAUSE_NAME, RESUME, STEPS, TRAIN, assert_whole, checkpoints, finish, place, start, steps_done,
    wait_until,
};

const KILLS: usize = 50;

/// Kills, resumes, kills again, until the run is through; from a new run on each time that is, until
/// there were enough kills. Every run that is through has the undisturbed run's adapter.
#[test]
fn killed_at_any_moment_a_run_goes_on_to_the_same_bytes() {
    let mut draw = ChaCha8Rng::seed_from_u64(5);
    let (mut kills, mut within_saving, mut runs) = (0, 0, 0);
    while kills < KILLS {
        let place = place(STEPS);
        let mut through = false;
        while !through {
            let names = checkpoints(&place);
            let resume = names.iter().any(|name| name.ends_with(".safetensors"));
            let args: &[&str] = match (resume, place.path("out").exists()) {
                (true, _) => &RESUME,
                (false, false) => &TRAIN,
                (false, true) => &["train", "recipe.toml", "--quiet", "--overwrite"],
            };
            if kills >= KILLS {
                let mut child = start(&place, args, &[]);
                assert_eq!(finish(&mut child), Some(0), "{}", place.read("said"));
                break;
            }
            // A third of the kills while a file is whole and has not got its name.
            let saving = draw.random_bool(0.34);
            let pause = if saving { "40" } else { "0" };
            let mut child = start(&place, args, &[(PAUSE_NAME, pause)]);
            let half_written = || {
                let names = checkpoints(&place);
                names.iter().any(|name| name.ends_with(".tmp"))
            };
            if saving {
                let first = steps_done(&place);
                let steps = draw.random_range(1..5);
                let ended = wait(&mut child, || {
                    steps_done(&place) >= (first + steps).min(STEPS) && half_written()
                });
                within_saving += usize::from(!ended);
            } else {
                sleep(Duration::from_millis(draw.random_range(0..2500)));
            }
            match child.try_wait().unwrap() {
                Some(status) => {
                    assert!(status.success(), "{}", place.read("said"));
                    through = true;
                }
                None => {
                    child.kill().unwrap();
                    child.wait().unwrap();
                    kills += 1;
                }
            }
        }
        assert_whole(&place);
        assert!(
            checkpoints(&place)
                .iter()
                .all(|name| !name.ends_with(".tmp")),
            "{:?}",
            checkpoints(&place)
        );
        runs += 1;
    }
    assert!(
        within_saving >= 5,
        "{within_saving} kills during a save, {runs} runs"
    );
}

/// Waits for a moment that may not come; whether the program ended before.
fn wait(child: &mut std::process::Child, mut there: impl FnMut() -> bool) -> bool {
    loop {
        if there() {
            return false;
        }
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn killed_while_the_adapter_is_written_a_run_goes_on() {
    let place = place(STEPS);
    let mut child = start(&place, &TRAIN, &[(PAUSE_NAME, "60")]);
    let name = place.path("out/adapter/l1ra_adapter.safetensors.tmp");
    wait_until(&mut child, || name.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let mut child = start(&place, &RESUME, &[]);
    assert_eq!(finish(&mut child), Some(0), "{}", place.read("said"));
    assert_whole(&place);
}
