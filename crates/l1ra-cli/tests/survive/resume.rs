//! `--resume` and what it refuses.

use insta::assert_snapshot;

use crate::{STEPS, TRAIN, adapter, assert_whole, failed, place, support::Place};

/// A run that has nothing left to do but its end.
fn finished() -> Place {
    let place = place(STEPS);
    place.run(&TRAIN).well();
    place
}

#[test]
fn every_way_to_say_it_goes_on() {
    let place = finished();
    for args in [
        &["train", "recipe.toml", "--resume", "--quiet"][..],
        &["train", "recipe.toml", "--quiet", "--resume", "out"],
        &["train", "--quiet", "--resume", "out"],
        &[
            "train",
            "--quiet",
            "--resume",
            "out/checkpoints/step-00000015.safetensors",
        ],
        &["train", "--quiet", "--resume", "out", "--output", "./out"],
    ] {
        place.run(args).well();
        assert_whole(&place);
    }
    // More steps than the run had.
    let more = [
        "train",
        "--quiet",
        "--json",
        "--resume",
        "out",
        "--set",
        "train.steps=20",
    ];
    let ran = place.run(&more).well();
    assert_eq!(ran.json()["steps"], 20);
    assert_ne!(adapter(&place), *crate::WHOLE);
    assert!(place.read("out/recipe.toml").contains("steps = 20"));
}

#[test]
fn mistakes() {
    let place = finished();
    let mut said = Vec::new();
    for args in [
        &["--resume", "nowhere"][..],
        &["recipe.toml", "--output", "elsewhere", "--resume"],
        &["--resume", "recipe.toml"],
        &["--resume", "good.jsonl"],
        &["--resume", "out", "--output", "elsewhere"],
        &[
            "--resume",
            "out",
            "--set",
            "adapters.rank=8",
            "--set",
            "train.lr=0.5",
        ],
        &["--resume", "out", "--set", "data.max_length=40"],
        &["--resume", "out", "--set", "train.steps=4"],
        &["--resume", "out", "--overwrite"],
        &["recipe.toml"],
    ] {
        let mut words = vec!["train"];
        words.extend(args);
        let ran = place.run(&words);
        said.push(format!("{}\n{}", args.join(" "), failed(&ran, 2)));
    }
    assert_snapshot!(said.join("\n\n"), @r#"
    --resume nowhere
    error: nowhere/checkpoints: holds no checkpoint to go on from; train without --resume, or name another folder

    recipe.toml --output elsewhere --resume
    error: elsewhere/checkpoints: holds no checkpoint to go on from; train without --resume, or name another folder

    --resume recipe.toml
    error: --resume recipe.toml: is a recipe; say `l1ra train recipe.toml --resume`

    --resume good.jsonl
    error: good.jsonl: is no whole checkpoint: header too large; take another checkpoint

    --resume out --output elsewhere
    error: --output elsewhere: a run goes on in its own folder, out; leave --output out

    --resume out --set adapters.rank=8 --set train.lr=0.5
    goes on   from out/checkpoints/step-00000016.safetensors
    error: out/checkpoints/step-00000016.safetensors: is of another run: adapters.rank is 8, and was 4; train.lr is 0.5, and was 0.01; what may change: more steps, device, evaluations, checkpoints, logs, and what happens to numbers that are not finite

    --resume out --set data.max_length=40
    goes on   from out/checkpoints/step-00000016.safetensors
    error: out/checkpoints/step-00000016.safetensors: is of another run: data.max_length is 40, and was 48; the training data are 7 samples of 280 tokens (hash ee54ad51eb91), and were 7 samples of 287 tokens (hash 701920f11571); the evaluation data are 1 sample of 40 tokens (hash 0507f8980dbc), and were 1 sample of 41 tokens (hash 0f0d8debbcc6); what may change: more steps, device, evaluations, checkpoints, logs, and what happens to numbers that are not finite

    --resume out --set train.steps=4
    error: out/recipe.toml, line 34: rank reallocation cannot work with this schedule: update_ratio = 0.2 asks for more updates than the 4 optimizer steps of this run. Use an update_ratio of at least 0.250, train for more steps, or set policy = "lora"

    --resume out --overwrite
    error: the argument '--resume [<R>]' cannot be used with '--overwrite'

    Usage: l1ra train --resume [<R>] [RECIPE]

    For more information, try '--help'.

    recipe.toml
    error: out: holds a run already; go on with it with --resume, choose another folder with --output, or say --overwrite
    "#);
    assert_whole(&place);
}
