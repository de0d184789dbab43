//! No room, no permission, no folder.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use insta::assert_snapshot;

use crate::{
    PAUSE, RESUME, STEPS, TRAIN, assert_whole, checkpoints, finish, place, said, start, steps_done,
    support::Place, through, wait_until,
};

/// The program under a limit on the size of files, which fails like a full disk: `EFBIG` in place of
/// `ENOSPC`, after part of the file was written.
fn limited(place: &Place, blocks: u64, args: &[&str]) -> (Option<i32>, String) {
    let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
    let output = through(place, &["bash", "-c", &script], args)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), place.portable(&said))
}

#[test]
fn a_disk_that_fills_up_costs_no_checkpoint() {
    // A first part of the run with room enough.
    let place = place(STEPS);
    let mut child = start(&place, &TRAIN, &PAUSE);
    wait_until(&mut child, || steps_done(&place) >= 3);
    crate::send(&child, "INT");
    finish(&mut child);
    let before = checkpoints(&place);
    assert!(!before.is_empty());
    let size = fs::metadata(place.path("out/checkpoints").join(&before[0]))
        .unwrap()
        .len();

    // Then room for everything but a checkpoint.
    let (code, said) = limited(&place, size / 2048, &RESUME);
    assert_eq!(code, Some(1), "{said}");
    let number = |name: &String| name[5..13].trim_start_matches('0').to_string();
    let next = before
        .last()
        .map(|name| number(name).parse::<usize>().unwrap() + 1)
        .unwrap();
    let shown = said
        .replace(&format!("{next:08}"), "[next]")
        .replace(&format!("{:08}", next - 1), "[last]")
        .replace(&format!("step {next}"), "step [n]");
    assert_snapshot!(shown.trim_end(), @"error: no checkpoint could be written after step [n]: out/checkpoints/step-[next].safetensors: File too large (os error 27); the last one is out/checkpoints/step-[last].safetensors");
    assert_eq!(
        checkpoints(&place),
        before,
        "every checkpoint is still there, and nothing besides"
    );

    // Told so, it goes on without; the adapter is then what does not fit.
    let mut args = RESUME.to_vec();
    args.splice(2..3, ["--plain", "--set", "checkpoint.on_error=continue"]);
    let (code, said) = limited(&place, size / 2048, &args);
    assert!(said.contains("going on without: "), "{said}");
    assert!(matches!(code, Some(0 | 1)), "{code:?} {said}");

    place.run(&RESUME).well();
    assert_whole(&place);
}

#[test]
fn a_folder_that_vanishes_is_said() {
    let place = place(STEPS);
    let mut child = start(&place, &TRAIN, &PAUSE);
    wait_until(&mut child, || steps_done(&place) >= 2);
    fs::rename(place.path("out"), place.path("moved")).unwrap();
    assert_eq!(finish(&mut child), Some(1), "{}", said(&place));
    let text = said(&place);
    assert!(
        text.contains("no checkpoint could be written after step "),
        "{text}"
    );
    assert!(text.contains("out/checkpoints: "), "{text}");
    // Nothing was made in its place, and the run goes on where it is now.
    assert!(!place.path("out").exists());
    place.run(&["train", "--resume", "moved", "--quiet"]).well();
    fs::rename(place.path("moved"), place.path("out")).unwrap();
    assert_whole(&place);
}

/// The program as a user who owns nothing here, where this one may write everywhere; `None` where that cannot
/// be arranged.
fn unprivileged(place: &Place, args: &[&str]) -> Option<Command> {
    let nobody = [
        "setpriv",
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
    ];
    let open = fs::Permissions::from_mode(0o755);
    fs::set_permissions(place.path(""), open).unwrap();
    let there = through(place, &nobody, &["--version"]).output().ok()?;
    there
        .status
        .success()
        .then(|| through(place, &nobody, args))
}

#[test]
fn a_folder_that_may_not_be_written_is_said_before_training() {
    let place = place(STEPS);
    fs::create_dir(place.path("out")).unwrap();
    let closed = fs::Permissions::from_mode(0o555);
    fs::set_permissions(place.path("out"), closed).unwrap();
    let may_write = fs::write(place.path("out/probe"), "").is_ok();
    let mut command = match may_write {
        false => through(&place, &[], &TRAIN),
        true => match unprivileged(&place, &TRAIN) {
            Some(command) => command,
            None => {
                eprintln!("this user may write everywhere: nothing to see");
                return;
            }
        },
    };
    if may_write {
        fs::remove_file(place.path("out/probe")).unwrap();
    }
    let output = command.output().unwrap();
    let said = place.portable(&String::from_utf8(output.stderr).unwrap());
    fs::set_permissions(place.path("out"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert_snapshot!(said.trim_end(), @"error: out/run.lock: Permission denied (os error 13); a run writes into its folder: choose another one with --output (a recipe's `output`), or let this user write there");
    assert!(!place.path("out/checkpoints").exists());
}
