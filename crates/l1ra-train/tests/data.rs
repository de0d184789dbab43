//! Targets are exactly what the assistant says, to the token at the boundary of prompt and
//! completion; cuts are counted; plain text loses nothing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};

use l1ra_models::{ChatTemplate, Message, Role, TextTokenizer};
use l1ra_train::data::{
    Conversation, DataReport, Document, Encoder, Sample, TrainOn, read_documents,
};

const SYSTEM: &str = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by \
                      Hugging Face<|im_end|>\n";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

struct Parts {
    tokenizer: TextTokenizer,
    template: ChatTemplate,
}

impl Parts {
    /// The small model's tokenizer with SmolLM2's template, which adds a system message.
    fn new() -> Self {
        let template = ChatTemplate::from_dir(&repository("tests/fixtures/smollm2")).unwrap();
        Self {
            tokenizer: TextTokenizer::from_dir(&repository("examples/finetune/model")).unwrap(),
            template: template.unwrap(),
        }
    }

    fn encoder(&self, max_length: usize, train_on: TrainOn) -> Encoder<'_> {
        Encoder {
            tokenizer: &self.tokenizer,
            template: Some(&self.template),
            max_length,
            train_on,
        }
    }

    fn encode(&self, messages: &[(Role, &str)], train_on: TrainOn) -> Sample {
        let document = chat(&[messages]);
        let (mut samples, report) = self
            .encoder(512, train_on)
            .encode(Path::new("data.jsonl"), &document)
            .unwrap();
        assert_eq!(
            (samples.len(), report.cut_samples, report.dropped),
            (1, 0, 0)
        );
        assert_eq!(report.targets, samples[0].targets());
        samples.remove(0)
    }

    fn ids(&self, text: &str) -> Vec<u32> {
        self.tokenizer.encode(text).unwrap()
    }

    /// Text of the tokens, special ones spelled out.
    fn spelled(&self, ids: &[u32]) -> String {
        let mut text = String::new();
        let mut plain = Vec::new();
        for id in ids {
            let name = self.tokenizer.token(*id).unwrap();
            if name.starts_with("<|") {
                text += &self.tokenizer.decode(&std::mem::take(&mut plain)).unwrap();
                text += &name;
            } else {
                plain.push(*id);
            }
        }
        text + &self.tokenizer.decode(&plain).unwrap()
    }

    /// Text of each run of targets, or of the tokens that are none.
    fn stretches(&self, sample: &Sample, targets: bool) -> Vec<String> {
        let mut stretches: Vec<Vec<u32>> = vec![Vec::new()];
        for (id, is_target) in sample.ids.iter().zip(&sample.is_target) {
            if *is_target == targets {
                stretches.last_mut().unwrap().push(*id);
            } else if !stretches.last().unwrap().is_empty() {
                stretches.push(Vec::new());
            }
        }
        stretches.retain(|ids| !ids.is_empty());
        stretches.iter().map(|ids| self.spelled(ids)).collect()
    }
}

fn chat(conversations: &[&[(Role, &str)]]) -> Document {
    let conversation = |(index, messages): (usize, &&[(Role, &str)])| Conversation {
        line: index + 1,
        messages: messages
            .iter()
            .map(|(role, text)| Message::new(*role, *text))
            .collect(),
    };
    Document::Chat(conversations.iter().enumerate().map(conversation).collect())
}

#[rstest::rstest]
#[case("A flow of electricity through a conductor.")]
#[case("42")]
#[case("")] // Only the end of the turn is learned.
#[case(" begins with a space")]
#[case("\nbegins with a line")]
#[case("\n\n\n")]
#[case("größer als früher 🙂")]
#[case("user\nassistant")]
fn prompt_and_completion_are_tokenised_apart(#[case] answer: &str) {
    let parts = Parts::new();
    let question = "Define the noun \"current\".";
    let sample = parts.encode(
        &[(Role::User, question), (Role::Assistant, answer)],
        TrainOn::Completions,
    );

    let prompt = format!("{SYSTEM}<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n");
    let completion = format!("{answer}<|im_end|>\n");
    let (before, after) = (parts.ids(&prompt), parts.ids(&completion));
    assert_eq!(sample.ids, [before.clone(), after.clone()].concat());
    let expected: Vec<bool> = (0..sample.ids.len())
        .map(|position| position >= before.len())
        .collect();
    assert_eq!(sample.is_target, expected);
    assert_eq!(sample.targets(), after.len());
    assert_eq!(parts.stretches(&sample, true), [completion]);
    assert_eq!(parts.stretches(&sample, false), [prompt]);
    // What the model is asked at generation is what it was trained after.
    let asked = parts
        .template
        .render(&[Message::new(Role::User, question)], true)
        .unwrap();
    assert_eq!(sample.ids[..before.len()], parts.ids(&asked));
}

#[test]
fn a_token_of_both_sides_would_have_moved_the_boundary() {
    let mut parts = Parts::new();
    // A template whose prompt ends within a word.
    let source = "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}\
                  {{ 'One a' }}{% endif %}{{ m.content + '\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ 'assistant: One a' }}{% endif %}";
    parts.template = ChatTemplate::new(source, "", "").unwrap();
    let (prompt, completion) = ("user: What?\nassistant: One a", "nd two.\n");
    let apart = [parts.ids(prompt), parts.ids(completion)].concat();
    let together = parts.ids(&format!("{prompt}{completion}"));
    assert_ne!(apart, together, "this text no longer shows the difference");
    let messages = [(Role::User, "What?"), (Role::Assistant, "nd two.")];
    let sample = parts.encode(&messages, TrainOn::Completions);
    assert_eq!(sample.ids, apart);
    assert_eq!(parts.stretches(&sample, true), [completion]);
}

#[test]
fn of_several_turns_only_the_assistant_s_are_targets() {
    let parts = Parts::new();
    let messages = [
        (Role::System, "Be short."),
        (Role::User, "One?"),
        (Role::Assistant, "First."),
        (Role::User, "Two?"),
        (Role::Tool, "2"),
        (Role::Assistant, "Second."),
        (Role::User, "Never answered."),
    ];
    let sample = parts.encode(&messages, TrainOn::Completions);
    assert_eq!(
        parts.stretches(&sample, true),
        ["First.<|im_end|>\n", "Second.<|im_end|>\n"]
    );
    assert_eq!(
        parts.stretches(&sample, false),
        [
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n\
             <|im_start|>assistant\n",
            "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n\
             <|im_start|>assistant\n",
        ]
    );

    // On all: the same row, every token but the first.
    let all = parts.encode(&messages, TrainOn::All);
    assert_eq!(all.ids, sample.ids);
    let expected: Vec<bool> = (0..all.ids.len()).map(|position| position > 0).collect();
    assert_eq!(all.is_target, expected);
}

#[test]
fn two_assistant_messages_in_a_row_are_two_completions() {
    let parts = Parts::new();
    let sample = parts.encode(
        &[
            (Role::User, "Go."),
            (Role::Assistant, "One."),
            (Role::Assistant, "Two."),
        ],
        TrainOn::Completions,
    );
    assert_eq!(
        parts.stretches(&sample, true),
        ["One.<|im_end|>\n", "Two.<|im_end|>\n"]
    );
}

#[test]
fn cuts_and_rows_without_a_target_are_reported() {
    let parts = Parts::new();
    let short = [(Role::User, "Hi."), (Role::Assistant, "Yes.")];
    let long_answer = "A flow of electricity through a conductor. ".repeat(20);
    let long_answer = [(Role::User, "Hi."), (Role::Assistant, long_answer.as_str())];
    let long_question = "A flow of electricity through a conductor. ".repeat(20);
    let long_question = [
        (Role::User, long_question.as_str()),
        (Role::Assistant, "Yes."),
    ];
    let whole: Vec<Sample> = [&short, &long_answer, &long_question]
        .map(|messages| parts.encode(messages, TrainOn::Completions))
        .to_vec();
    let max_length = 64;
    let lengths: Vec<usize> = whole.iter().map(|sample| sample.ids.len()).collect();
    assert!(lengths[0] <= max_length && lengths[1] > max_length && lengths[2] > max_length);

    let document = chat(&[&short, &long_answer, &long_question]);
    let encoder = parts.encoder(max_length, TrainOn::Completions);
    let (samples, report) = encoder.encode(Path::new("data.jsonl"), &document).unwrap();
    assert_eq!(samples[0], whole[0]);
    assert_eq!(samples[1].ids, whole[1].ids[..max_length]);
    assert_eq!(samples[1].is_target, whole[1].is_target[..max_length]);
    let expected = DataReport {
        samples: 2,
        tokens: lengths[0] + max_length,
        targets: samples[0].targets() + samples[1].targets(),
        longest: max_length,
        cut_samples: 2,
        cut_tokens: lengths[1] + lengths[2] - 2 * max_length,
        dropped: 1,
    };
    assert_eq!(report, expected);
    let said = report.to_string();
    assert!(
        said.ends_with(&format!(
            "longest 64; 2 cut, {} tokens lost; 1 dropped, as the cut left no target",
            report.cut_tokens
        )),
        "{said}"
    );

    // On all tokens nothing is dropped; where nothing is left, that is an error with a remedy.
    let encoder = parts.encoder(max_length, TrainOn::All);
    assert_eq!(
        encoder
            .encode(Path::new("data.jsonl"), &document)
            .unwrap()
            .1
            .dropped,
        0
    );
    let encoder = parts.encoder(4, TrainOn::Completions);
    let error = encoder
        .encode(Path::new("data.jsonl"), &document)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("within the first 4 tokens; raise max_length"),
        "{error}"
    );
}

#[rstest::rstest]
#[case(16, 0)]
#[case(16, 1)] // A last row of one token has no target and is left out.
#[case(16, 7)]
#[case(512, 0)]
fn plain_text_is_cut_into_rows(#[case] max_length: usize, #[case] rest: usize) {
    let parts = Parts::new();
    let ids = {
        let text = "A flow of electricity through a conductor.\n".repeat(12);
        parts.ids(&text)
    };
    // A text of a number of tokens of our choice.
    let count = if max_length > ids.len() {
        ids.len()
    } else {
        3 * max_length + rest
    };
    let text = parts.tokenizer.decode(&ids[..count]).unwrap();
    assert_eq!(
        parts.ids(&text),
        ids[..count],
        "decoding and encoding give the same tokens"
    );

    let encoder = Encoder {
        template: None,
        ..parts.encoder(max_length, TrainOn::Completions)
    };
    let document = Document::Text(text);
    let (samples, report) = encoder.encode(Path::new("data.txt"), &document).unwrap();
    let kept: Vec<u32> = samples
        .iter()
        .flat_map(|sample| sample.ids.clone())
        .collect();
    let expected = if rest == 1 { count - 1 } else { count };
    assert_eq!(kept, ids[..expected]);
    for sample in &samples {
        assert_eq!(sample.targets(), sample.ids.len() - 1);
        assert!(!sample.is_target[0] && sample.ids.len() <= max_length);
    }
    assert_eq!((report.samples, report.tokens), (samples.len(), expected));
    assert_eq!((report.cut_samples, report.dropped), (0, 0));
}

#[test]
fn conversations_need_a_template() {
    let parts = Parts::new();
    let encoder = Encoder {
        template: None,
        ..parts.encoder(64, TrainOn::Completions)
    };
    let document = chat(&[&[(Role::User, "Hi."), (Role::Assistant, "Yes.")]]);
    let error = encoder
        .encode(Path::new("data.jsonl"), &document)
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "data.jsonl: this model has no chat template; give one, or train on plain text"
    );
}

#[test]
fn a_template_that_changes_the_past_is_refused() {
    let mut parts = Parts::new();
    // Only the last message is shown in full, as some templates do with earlier reasoning.
    let source = "{% for m in messages %}{% if loop.last %}{{ m.content }}{% else %}…{% endif %}\
                  {% endfor %}{% if add_generation_prompt %}>{% endif %}";
    parts.template = ChatTemplate::new(source, "", "").unwrap();
    let bad: &[(Role, &str)] = &[(Role::User, "Hi."), (Role::Assistant, "Yes.")];
    let encoder = parts.encoder(64, TrainOn::Completions);
    let error = encoder
        .encode(Path::new("data.jsonl"), &chat(&[bad]))
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("data.jsonl, line 1: the chat template renders message 2"),
        "{error}"
    );
}

#[test]
fn the_repository_s_own_data_is_as_its_readme_says() {
    let parts = Parts::new();
    let own = ChatTemplate::from_dir(&repository("examples/finetune/model")).unwrap();
    for (name, least) in [("train.jsonl", 1000), ("eval.jsonl", 100)] {
        let path = repository("examples/finetune/data").join(name);
        let document = read_documents(&path).unwrap();
        let encoder = Encoder {
            template: own.as_ref(),
            ..parts.encoder(128, TrainOn::Completions)
        };
        let (samples, report) = encoder.encode(&path, &document).unwrap();
        assert!(samples.len() >= least, "{name}: {report}");
        assert_eq!(report.dropped, 0, "{name}: {report}");
        for sample in &samples {
            // The prompt's tokens come first; the row ends with the end of the turn or was cut.
            let first = sample.is_target.iter().position(|target| *target).unwrap();
            assert!(first > 0 && sample.is_target[first..].iter().all(|target| *target));
        }
    }
}
