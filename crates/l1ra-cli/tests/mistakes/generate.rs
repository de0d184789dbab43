//! `l1ra generate` and `l1ra eval`.

use insta::assert_snapshot;

use crate::{
    eval,
    support::{Place, model},
};

/// What `l1ra generate` says of its mistake with the repository's model.
fn generate(more: &[&str]) -> String {
    let model = model();
    Place::new().mistake(&[&["generate", "--model", &model], more].concat())
}

/// The same with a prompt that is as it should be.
fn asked(more: &[&str]) -> String {
    generate(&[&["--prompt", "Hi"], more].concat())
}

#[test]
fn neither_a_prompt_nor_a_chat() {
    assert_snapshot!(generate(&[]), @"error: nothing to answer: give --prompt, or --chat for a conversation");
    assert_snapshot!(asked(&["--chat"]), @"
    error: the argument '--prompt <P>' cannot be used with '--chat'

    Usage: l1ra generate --model <M> --prompt <P>

    For more information, try '--help'.
    ");
}

#[test]
fn plain_text_with_instructions() {
    assert_snapshot!(asked(&["--raw", "--system", "Be brief."]), @"
    error: the argument '--raw' cannot be used with '--system <TEXT>'

    Usage: l1ra generate --model <M> --prompt <P> --raw

    For more information, try '--help'.
    ");
}

#[test]
fn a_temperature_below_zero() {
    assert_snapshot!(asked(&["--temperature=-0.5"]), @"error: --temperature -0.5: zero or a positive number");
    assert_snapshot!(asked(&["--temperature", "warm"]), @"
    error: invalid value 'warm' for '--temperature <T>': invalid float literal

    For more information, try '--help'.
    ");
}

#[test]
fn a_probability_that_is_none() {
    assert_snapshot!(asked(&["--top-p", "0"]), @"error: --top-p 0: a probability in (0, 1]");
    assert_snapshot!(asked(&["--top-p", "1.5"]), @"error: --top-p 1.5: a probability in (0, 1]");
}

#[test]
fn a_choice_among_no_tokens() {
    assert_snapshot!(asked(&["--top-k", "0"]), @"error: --top-k 0: at least 1");
}

#[test]
fn a_penalty_that_is_none() {
    assert_snapshot!(asked(&["--repetition-penalty", "0"]), @"error: --repetition-penalty 0: a positive number; 1 changes nothing");
}

#[test]
fn an_answer_without_tokens() {
    assert_snapshot!(asked(&["--max-new-tokens", "0"]), @"error: --max-new-tokens 0: at least 1");
}

#[test]
fn a_stop_that_is_empty() {
    assert_snapshot!(asked(&["--stop", ""]), @"error: --stop an empty text: texts of at least one letter");
}

#[test]
fn a_prompt_that_is_empty() {
    assert_snapshot!(generate(&["--raw", "--prompt", ""]), @"error: prompt = no tokens: at least one token");
}

#[test]
fn a_prompt_longer_than_the_context() {
    assert_snapshot!(generate(&["--prompt", &"current ".repeat(600)]), @"error: the prompt has 1213 tokens, and this model reads 512 with the answer (max_position_embeddings): shorten the prompt or begin a new conversation");
}

#[test]
fn a_model_without_a_chat_template() {
    let place = Place::new();
    place.copy_model();
    place.change(
        "model/tokenizer_config.json",
        "\"chat_template\"",
        "\"former_template\"",
    );
    let said = place.mistake(&["generate", "--model", "model", "--prompt", "Hi"]);
    assert_snapshot!(said, @"error: model: has no chat template; give one with --chat-template, or continue plain text with --raw");
}

#[test]
fn an_evaluation_without_data() {
    assert_snapshot!(eval(&Place::new(), &[]), @"
    error: the following required arguments were not provided:
      --data <F>

    Usage: l1ra eval --model <M> --data <F>

    For more information, try '--help'.
    ");
    assert_snapshot!(eval(&Place::new(), &["--data", "nothing.jsonl"]), @"error: nothing.jsonl: no such file; data is .jsonl, .json, .parquet, .txt or .md, by name or by a pattern such as data/*.jsonl");
}

#[test]
fn an_evaluation_of_no_rows_at_a_time() {
    assert_snapshot!(eval(&Place::new(), &["--data", "good.jsonl", "--batch-size", "0"]), @"error: --batch-size 0: at least 1");
}

#[test]
fn an_evaluation_of_too_short_rows() {
    assert_snapshot!(eval(&Place::new(), &["--data", "good.jsonl", "--max-length", "1"]), @"error: --max-length 1: at least 2");
    assert_snapshot!(eval(&Place::new(), &["--data", "good.jsonl", "--max-length", "4"]), @"error: good.jsonl: holds no sample with a target within the first 4 tokens; raise max_length or train on all tokens");
}
