//! The data: files, forms, records, lengths.

use std::fs;

use insta::assert_snapshot;

use crate::{
    support::{GOOD, Place},
    train, train_anew,
};

/// What is said of a file `data.jsonl` that holds `text`.
fn of(text: &str) -> String {
    let place = Place::new();
    place.write("data.jsonl", text);
    train(&place, &["--data", "data.jsonl"])
}

#[test]
fn data_that_is_not_there() {
    assert_snapshot!(train_anew(&["--data", "nothing.jsonl"]), @r#"error: --data nothing.jsonl: no such file; data is .jsonl, .json, .parquet, .txt or .md, by name or by a pattern such as data/*.jsonl"#);
    assert_snapshot!(train_anew(&["--eval-data", "nothing.jsonl"]), @r#"error: --eval-data nothing.jsonl: no such file; data is .jsonl, .json, .parquet, .txt or .md, by name or by a pattern such as data/*.jsonl"#);
}

#[test]
fn a_pattern_that_matches_nothing() {
    assert_snapshot!(train_anew(&["--data", "part-*.jsonl"]), @r#"error: --data part-*.jsonl: this pattern matches no file; it begins in the folder where the command runs"#);
}

#[test]
fn a_pattern_that_is_none() {
    assert_snapshot!(train_anew(&["--data", "part-[.jsonl"]), @r#"error: --data part-[.jsonl: is no pattern: invalid range pattern; a file whose name holds `[` is written with `[[]`"#);
}

#[test]
fn a_folder_in_place_of_a_file() {
    let place = Place::new();
    fs::create_dir(place.path("data")).unwrap();
    assert_snapshot!(train(&place, &["--data", "data"]), @r#"error: --data data: is a folder; give its files, for example data/*.jsonl"#);
}

#[test]
fn a_kind_of_file_that_is_not_read() {
    let place = Place::new();
    place.write("data.csv", "prompt,completion\n");
    assert_snapshot!(train(&place, &["--data", "data.csv"]), @r#"error: --data data.csv: data of the kind `.csv` is not known; known: .jsonl, .json, .parquet, .txt, .md (with form = "text", any other file is read as plain text)"#);
}

#[test]
fn a_parquet_file_that_cannot_be_read() {
    let place = Place::new();
    place.write("data.parquet", "PAR1");
    let said = train(&place, &["--data", "data.parquet"]);
    // Built alone, the program reads no Parquet; with the workspace, it does.
    if said.contains("--features parquet") {
        assert_snapshot!(said, @r#"error: --data data.parquet: reading Parquet was not compiled in; build again with `--features parquet`"#);
    } else {
        assert_snapshot!(said, @r#"error: --data data.parquet: is no Parquet file that can be read: EOF: Parquet file too small. Size is 4 but need 8"#);
    }
}

#[test]
fn a_line_that_is_not_json() {
    assert_snapshot!(of(&format!("{GOOD}\n\n{{\"messages\": [\n")), @"error: data.jsonl, line 3: is not JSON: EOF while parsing a list (column 14)");
    assert_snapshot!(of(&format!("{GOOD}\n{GOOD},\n[{GOOD}]\n")), @"error: data.jsonl, line 2: is not JSON: trailing characters (column 156) (1 more line cannot be used: 3)");
}

#[test]
fn a_file_that_is_no_text() {
    let place = Place::new();
    place.write("data.jsonl", [&[0xff, 0xfe], GOOD.as_bytes()].concat());
    assert_snapshot!(train(&place, &["--data", "data.jsonl"]), @r#"error: --data data.jsonl: is not UTF-8 text (byte 0 is not); save it as UTF-8"#);
}

#[test]
fn a_first_record_without_a_known_form() {
    assert_snapshot!(of("{\"question\": \"a\", \"answer\": \"b\"}\n"), @"error: data.jsonl, line 1: has the keys `question`, `answer`, and so no known form; nearest: alpaca, which needs `instruction` and `output`; others need `messages`, or `conversations`, or `prompt` and `completion`, or `text`");
    assert_snapshot!(of("{\"message\": []}\n"), @"error: data.jsonl, line 1: has the key `message`, and so no known form; nearest: messages, which needs `messages`; others need `conversations`, or `prompt` and `completion`, or `instruction` and `output`, or `text`");
}

#[test]
fn a_record_of_another_form_than_the_first() {
    let other = "{\"prompt\": \"a\", \"completion\": \"b\"}";
    assert_snapshot!(of(&format!("{GOOD}\n{other}\n{GOOD}\n{other}\n")), @"error: data.jsonl, line 2: has no `messages` (seen: the keys `prompt`, `completion`); the file is read as messages, as its first record is; this record is completion (1 more line cannot be used: 4)");
}

#[test]
fn a_form_that_the_data_does_not_have() {
    assert_snapshot!(train_anew(&["--set", "data.form=alpaca"]), @"error: good.jsonl, line 1: has no `instruction` (seen: the key `messages`); the file is read as alpaca, as the options say; this record is messages (7 more lines cannot be used: 2, 3, 4, 5, 6, 7, 8)");
    assert_snapshot!(train_anew(&["--set", "data.form=chatml"]), @r#"error: --set data.form=chatml: data.form = "chatml": expected one of auto, messages, completion, alpaca, sharegpt, text"#);
}

#[test]
fn a_role_that_is_unknown() {
    assert_snapshot!(of(&GOOD.replace("\"assistant\"", "\"bot\"")), @"error: data.jsonl, line 1: message 2 has the unknown role `bot`; known: system, user, assistant, tool");
}

#[test]
fn a_message_without_content() {
    assert_snapshot!(of(r#"{"messages": [{"role": "user", "text": "Hi"}]}"#), @"error: data.jsonl, line 1: message 1 has no text `content` (seen: the keys `role`, `text`)");
}

#[test]
fn a_message_with_a_picture() {
    let picture = r#"{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}"#;
    assert_snapshot!(of(picture), @"error: data.jsonl, line 1: message 1 has a part of type `image_url` in its `content`; only text is learned");
}

#[test]
fn a_conversation_without_messages() {
    assert_snapshot!(of(&format!("{GOOD}\n{{\"messages\": []}}\n")), @"error: data.jsonl, line 2: its `messages` are empty");
}

#[test]
fn a_conversation_without_the_assistant() {
    assert_snapshot!(of(&GOOD.replace("\"assistant\"", "\"user\"")), @"error: data.jsonl, line 1: has no message of the assistant, so nothing to learn");
}

#[test]
fn data_that_is_empty() {
    assert_snapshot!(of("\n  \n"), @r#"error: --data data.jsonl: holds no samples; training needs at least one"#);
    let place = Place::new();
    place.write("notes.txt", "");
    assert_snapshot!(train(&place, &["--data", "notes.txt"]), @r#"error: --data notes.txt: holds no samples; training needs at least one"#);
}

#[test]
fn one_sample_for_training_and_evaluation() {
    assert_snapshot!(of(GOOD), @r#"error: --data data.jsonl: holds 1 sample; training and evaluation need one each (or give evaluation data)"#);
    assert_snapshot!(of(&format!("{GOOD}\n{GOOD}\n")), @r#"error: --data data.jsonl: holds 2 samples, all of them the same; training and evaluation need one each (or give evaluation data)"#);
}

#[test]
fn rows_too_short_to_hold_a_target() {
    assert_snapshot!(train_anew(&["--set", "data.max_length=4"]), @"error: recipe.toml, line 7: good.jsonl: holds no sample with a target within the first 4 tokens; raise max_length or train on all tokens");
    assert_snapshot!(train_anew(&["--set", "data.max_length=1"]), @"error: --set data.max_length=1: data.max_length = 1: at least 2");
}

#[test]
fn samples_that_are_all_dropped() {
    let sets = ["--set", "data.max_length=16", "--set", "data.too_long=drop"];
    assert_snapshot!(train_anew(&sets), @"error: recipe.toml, line 7: good.jsonl: holds no sample with a target within the first 16 tokens; raise max_length or train on all tokens");
}

#[test]
fn rows_longer_than_the_model_can_read() {
    let place = Place::new();
    place.write("long.txt", "current ".repeat(600));
    let sets = ["--data", "long.txt", "--eval-data", "good.jsonl"];
    let said = train(
        &place,
        &[&sets[..], &["--set", "data.max_length=4096"]].concat(),
    );
    assert_snapshot!(said, @"error: --set data.max_length=4096: data.max_length = 4096: at most 512, the tokens that this model reads (max_position_embeddings); the longest sample has 1203");
}

#[test]
fn a_weight_that_cannot_be() {
    let place = Place::new();
    let table = "train = { path = \"good.jsonl\", weight = 0 }";
    place.change_recipe("train = \"good.jsonl\"", table);
    assert_snapshot!(train(&place, &[]), @"error: recipe.toml, line 7: data.train = good.jsonl with weight 0: a weight is a positive number, 1000 at most");
    let eval = "data.eval={path=\"good.jsonl\",weight=2}";
    assert_snapshot!(train_anew(&["--set", eval]), @r#"error: --set data.eval={path="good.jsonl",weight=2}: data.eval = good.jsonl with weight 2: evaluation data is used as it is; leave the weight out"#);
}

#[test]
fn a_source_with_an_unknown_key() {
    let place = Place::new();
    let table = "train = [{ path = \"good.jsonl\", wieght = 2 }]";
    place.change_recipe("train = \"good.jsonl\"", table);
    assert_snapshot!(train(&place, &[]), @"error: recipe.toml, line 7: data.train[0].wieght: unknown field `wieght`, expected one of `path`, `weight`, `form`");
}
