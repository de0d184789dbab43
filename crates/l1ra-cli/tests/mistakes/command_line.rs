//! Words of the command line itself, and what a program reads of a mistake.

use insta::assert_snapshot;

use crate::support::Place;

#[test]
fn a_command_that_is_unknown() {
    assert_snapshot!(Place::new().mistake(&["trian", "recipe.toml"]), @"
    error: unrecognized subcommand 'trian'

      tip: a similar subcommand exists: 'train'

    Usage: l1ra [OPTIONS] <COMMAND>

    For more information, try '--help'.
    ");
}

#[test]
fn an_option_that_is_unknown() {
    assert_snapshot!(Place::new().mistake(&["train", "recipe.toml", "--step", "8"]), @"
    error: unexpected argument '--step' found

      tip: a similar argument exists: '--set'

    Usage: l1ra train --set <KEY=VALUE> <RECIPE>

    For more information, try '--help'.
    ");
}

#[test]
fn more_and_less_at_once() {
    assert_snapshot!(Place::new().mistake(&["inspect", ".", "--quiet", "--verbose"]), @"
    error: the argument '--quiet' cannot be used with '--verbose'

    Usage: l1ra inspect --quiet <PATH>

    For more information, try '--help'.
    ");
}

#[test]
fn a_type_that_is_unknown() {
    let place = Place::new();
    let args = [
        "eval",
        "--model",
        "m",
        "--data",
        "good.jsonl",
        "--dtype",
        "q4",
    ];
    assert_snapshot!(place.mistake(&args), @"
    error: invalid value 'q4' for '--dtype <DTYPE>': type `q4` is unknown; known: f32, bf16, f16, stored

    For more information, try '--help'.
    ");
}

#[test]
fn words_that_are_no_choice_of_an_evaluation() {
    let place = Place::new();
    let eval = ["eval", "--model", "m", "--data", "good.jsonl"];
    let said = place.mistake(&[&eval[..], &["--form", "csv"]].concat());
    assert_snapshot!(said, @"
    error: invalid value 'csv' for '--form <FORM>': `csv` is unknown; known: auto, messages, sharegpt, completion, alpaca, text

    For more information, try '--help'.
    ");
    let said = place.mistake(&[&eval[..], &["--train-on", "user"]].concat());
    assert_snapshot!(said, @"
    error: invalid value 'user' for '--train-on <TRAIN_ON>': `user` is unknown; known: completions, assistant, all

    For more information, try '--help'.
    ");
}

/// The error in words on standard error, and one line of JSON on standard output.
fn json(args: &[&str]) -> String {
    let place = Place::new();
    let ran = place.run(args);
    assert_eq!(ran.code, Some(2), "{}", ran.stderr);
    let line = ran.json();
    assert_eq!(line["exit_code"], 2);
    let error = line["error"].as_str().unwrap();
    assert!(ran.stderr.contains(error), "{error}\n{}", ran.stderr);
    ran.stdout.trim_end().to_string()
}

#[test]
fn a_mistake_as_a_line_of_json() {
    assert_snapshot!(json(&["--json", "train", "nothing.toml"]), @r#"{"error":"nothing.toml: no such file; a recipe is a TOML file (see the folder recipes)","exit_code":2}"#);
    assert_snapshot!(json(&["inspect", "nothing", "--json"]), @r#"{"error":"nothing: no such file or folder; give the folder of a model or adapter, a .gguf file or a data file","exit_code":2}"#);
}

#[test]
fn a_mistake_of_the_command_line_as_a_line_of_json() {
    assert_snapshot!(json(&["--json", "train", "--steps", "8"]), @r#"{"error":"unexpected argument '--steps' found\n\n  tip: a similar argument exists: '--set'\n\nUsage: l1ra train --set <KEY=VALUE> [RECIPE]\n\nFor more information, try '--help'.","exit_code":2}"#);
}

/// `--quiet` leaves errors: nobody should wonder why nothing happened.
#[test]
fn a_quiet_mistake_is_said() {
    let place = Place::new();
    let said = place.mistake(&["--quiet", "train", "nothing.toml"]);
    assert_eq!(said, place.mistake(&["train", "nothing.toml"]));
}
