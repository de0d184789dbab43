//! Targets are exactly what the assistant says, to the token at the boundary of prompt and
//! completion, with byte-level and SentencePiece tokenizers, with and without a chat template.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use l1ra_models::{ChatTemplate, Message, Role, TextTokenizer, weights::gguf::GgufFile};
use l1ra_train::data::{
    DataForm, DataOptions, DataSource, DataStats, PreparedData, RowCache, Sample, TooLong, TrainOn,
    prepare_data_with, prepare_eval_data,
};
use serde_json::{Value, json};
use tempfile::TempDir;

const SYSTEM: &str = "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by \
                      Hugging Face<|im_end|>\n";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path)
}

/// A tokenizer and perhaps a template, with a folder for data.
struct Parts {
    tokenizer: TextTokenizer,
    template: Option<ChatTemplate>,
    dir: TempDir,
}

impl Parts {
    /// The small model's tokenizer with SmolLM2's template, which adds a system message.
    fn new() -> Self {
        let template = ChatTemplate::from_dir(&repository("tests/fixtures/smollm2")).unwrap();
        Self {
            tokenizer: TextTokenizer::from_dir(&repository("examples/finetune/model")).unwrap(),
            template,
            dir: TempDir::new().unwrap(),
        }
    }

    /// A tokenizer that puts a blank before a text, with a template of the Mistral kind.
    fn sentencepiece() -> Self {
        let path = repository("crates/l1ra-models/tests/fixtures/gguf/spm.gguf");
        let template = "{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' + m.content + \
                        ' [/INST]' }}{% else %}{{ ' ' + m.content + '</s>' }}{% endif %}\
                        {% endfor %}";
        Self {
            tokenizer: TextTokenizer::new(GgufFile::open(&path).unwrap().tokenizer().unwrap()),
            template: Some(ChatTemplate::new(template, "", "").unwrap()),
            dir: TempDir::new().unwrap(),
        }
    }

    fn without_template(self) -> Self {
        Self {
            template: None,
            ..self
        }
    }

    /// Writes records as JSON lines.
    fn write(&self, name: &str, records: &[Value]) -> DataSource {
        let text: String = records.iter().map(|record| format!("{record}\n")).collect();
        self.write_text(name, &text)
    }

    fn write_text(&self, name: &str, text: &str) -> DataSource {
        let path = self.dir.path().join(name);
        fs::write(&path, text).unwrap();
        DataSource::new(path.display().to_string())
    }

    fn prepare(&self, options: &DataOptions) -> Result<PreparedData, String> {
        let template = self.template.as_ref();
        let prepared = prepare_data_with(options, &self.tokenizer, template, &RowCache::off(), &());
        let dir = self.dir.path().display().to_string();
        prepared.map_err(|error| error.to_string().replace(&dir, "[dir]"))
    }

    /// The samples of records, all of them, and their figures.
    fn samples(&self, options: &DataOptions, records: &[Value]) -> Result<Samples, String> {
        let train = self.write("data.jsonl", records);
        self.samples_of(options, train)
    }

    fn samples_of(&self, options: &DataOptions, train: DataSource) -> Result<Samples, String> {
        let eval = self.write("eval.jsonl", &[json!({"text": "Not looked at."})]);
        let options = DataOptions {
            train: vec![train],
            eval: vec![eval],
            ..options.clone()
        };
        let prepared = self.prepare(&options)?;
        Ok((prepared.train, prepared.train_stats))
    }

    /// The one sample of a record.
    fn sample(&self, train_on: TrainOn, record: Value) -> Sample {
        let options = DataOptions {
            train_on,
            ..Default::default()
        };
        let (mut samples, stats) = self.samples(&options, &[record]).unwrap();
        assert_eq!((stats.samples, stats.cut, stats.without_target), (1, 0, 0));
        assert_eq!(stats.targets, samples[0].targets());
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
            if name.starts_with("<|") || name == "</s>" {
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

type Samples = (Vec<Sample>, DataStats);

fn chat(messages: &[(Role, &str)]) -> Value {
    let message = |(role, text): &(Role, &str)| json!({"role": role.to_string(), "content": text});
    json!({"messages": messages.iter().map(message).collect::<Vec<_>>()})
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
fn the_completion_and_nothing_else_is_learned(#[case] answer: &str) {
    let parts = Parts::new();
    let question = "Define the noun \"current\".";
    let sample = parts.sample(
        TrainOn::Completions,
        chat(&[(Role::User, question), (Role::Assistant, answer)]),
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
    let asked = [Message::new(Role::User, question)];
    let asked = parts.template.as_ref().unwrap().render(&asked, true);
    assert_eq!(sample.prompt(), parts.ids(&asked.unwrap()));
}

#[test]
fn a_token_of_both_sides_is_taken_apart() {
    let mut parts = Parts::new();
    // A template whose prompt ends within a word.
    let source = "{% for m in messages %}{{ m.role + ': ' }}{% if m.role == 'assistant' %}\
                  {{ 'One a' }}{% endif %}{{ m.content + '\n' }}{% endfor %}\
                  {% if add_generation_prompt %}{{ 'assistant: One a' }}{% endif %}";
    parts.template = Some(ChatTemplate::new(source, "", "").unwrap());
    let (prompt, completion) = ("user: What?\nassistant: One a", "nd two.\n");
    let apart = [parts.ids(prompt), parts.ids(completion)].concat();
    let together = parts.ids(&format!("{prompt}{completion}"));
    assert_ne!(apart, together, "this text no longer shows the difference");
    let record = chat(&[(Role::User, "What?"), (Role::Assistant, "nd two.")]);
    let sample = parts.sample(TrainOn::Completions, record.clone());
    assert_eq!(sample.ids, apart);
    assert_eq!(parts.stretches(&sample, true), [completion]);
    // Where all is learned there is no boundary.
    assert_eq!(parts.sample(TrainOn::All, record).ids, together);

    // The same without a template, and with the blank in the prompt, where many files have it.
    let parts = parts.without_template();
    let record = json!({"prompt": "The word is ", "completion": "river."});
    let sample = parts.sample(TrainOn::Completions, record);
    let expected = [
        parts.ids("The word is "),
        parts.ids("river."),
        parts.ids("<|im_end|>"),
    ];
    assert_eq!(sample.ids, expected.concat());
    assert_eq!(parts.stretches(&sample, true), ["river.<|im_end|>"]);
}

#[test]
fn sentencepiece_puts_no_blank_into_a_text() {
    let parts = Parts::sentencepiece();
    let record = chat(&[(Role::User, "the river"), (Role::Assistant, "the stones")]);
    let sample = parts.sample(TrainOn::Completions, record);
    // As a whole: with prompt and completion apart, the completion would begin with two blanks.
    assert_eq!(
        sample.ids,
        parts.ids("[INST] the river [/INST] the stones</s>")
    );
    let (before, after) = (
        parts.ids("[INST] the river [/INST]"),
        parts.ids(" the stones</s>"),
    );
    assert_ne!(sample.ids, [before.clone(), after].concat());
    assert_eq!(sample.prompt(), before);

    // A boundary within a token: `the` behind the blank that the prompt ends with.
    let parts = parts.without_template();
    let record = json!({"prompt": "the river ", "completion": "the stones"});
    let sample = parts.sample(TrainOn::Completions, record);
    let names = |ids: &[u32]| -> Vec<String> {
        ids.iter()
            .map(|id| parts.tokenizer.token(*id).unwrap())
            .collect()
    };
    let prompt = sample.prompt();
    // The tokenizer's own beginning of a text comes first.
    assert_eq!(prompt[1..], parts.ids("the river "));
    assert_eq!(parts.tokenizer.token(prompt[0]).unwrap(), "<s>");
    let completion = names(&sample.ids[prompt.len()..]).concat();
    assert_eq!(completion, "the▁stones");
}

#[test]
fn the_turns_that_are_learned() {
    let parts = Parts::new();
    let record = chat(&[
        (Role::System, "Be short."),
        (Role::User, "One?"),
        (Role::Assistant, "First."),
        (Role::User, "Two?"),
        (Role::Tool, "2"),
        (Role::Assistant, "Second."),
        (Role::User, "Never answered."),
    ]);
    let turns = parts.sample(TrainOn::Assistant, record.clone());
    assert_eq!(
        parts.stretches(&turns, true),
        ["First.<|im_end|>\n", "Second.<|im_end|>\n"]
    );
    assert_eq!(
        parts.stretches(&turns, false),
        [
            "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nOne?<|im_end|>\n\
             <|im_start|>assistant\n",
            "<|im_start|>user\nTwo?<|im_end|>\n<|im_start|>tool\n2<|im_end|>\n\
             <|im_start|>assistant\n",
        ]
    );

    // The same tokens; of completions only the last turn is a target, of all every token.
    let last = parts.sample(TrainOn::Completions, record.clone());
    assert_eq!(last.ids, turns.ids);
    assert_eq!(parts.stretches(&last, true), ["Second.<|im_end|>\n"]);
    let all = parts.sample(TrainOn::All, record);
    assert_eq!(all.ids, turns.ids);
    let expected: Vec<bool> = (0..all.ids.len()).map(|position| position > 0).collect();
    assert_eq!(all.is_target, expected);
}

#[test]
fn two_assistant_messages_in_a_row_are_one_turn() {
    let parts = Parts::new();
    let sample = parts.sample(
        TrainOn::Completions,
        chat(&[
            (Role::User, "Go."),
            (Role::Assistant, "One."),
            (Role::Assistant, "Two."),
        ]),
    );
    let turns = ["One.<|im_end|>\n", "Two.<|im_end|>\n"];
    assert_eq!(parts.stretches(&sample, true), turns);
}

#[test]
fn the_forms_of_one_conversation_are_one_sample() {
    let parts = Parts::new();
    let (question, answer) = ("Define current.", "A flow.");
    let chat = chat(&[(Role::User, question), (Role::Assistant, answer)]);
    let messages = chat["messages"].as_array().unwrap().clone();
    let sample = parts.sample(TrainOn::Completions, chat);
    let others = [
        json!({"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}),
        json!({"prompt": question, "completion": answer}),
        json!({"prompt": messages[..1], "completion": messages[1..]}),
        json!({"instruction": question, "input": "", "output": answer}),
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": question}]}, messages[1]]}),
    ];
    for record in others {
        assert_eq!(
            parts.sample(TrainOn::Completions, record.clone()),
            sample,
            "{record}"
        );
    }
    let with_input = json!({"instruction": "Define", "input": "current", "output": answer});
    let sample = parts.sample(TrainOn::Completions, with_input);
    let asked = parts.spelled(sample.prompt());
    assert!(
        asked.contains("user\nDefine\n\ncurrent<|im_end|>"),
        "{asked}"
    );

    // A completion in messages is learned whole, whatever the turns before it.
    let lists = json!({
        "prompt": [{"role": "user", "content": "A?"}, {"role": "assistant", "content": "B."},
                   {"role": "user", "content": "C?"}],
        "completion": [{"role": "assistant", "content": "D."}, {"role": "user", "content": "E?"},
                       {"role": "assistant", "content": "F."}],
    });
    let sample = parts.sample(TrainOn::Completions, lists.clone());
    assert_eq!(
        parts.stretches(&sample, true),
        ["D.<|im_end|>\n", "F.<|im_end|>\n"]
    );
    let sample = parts.sample(TrainOn::Assistant, lists);
    assert_eq!(parts.stretches(&sample, true).len(), 3);
}

#[test]
fn without_a_template_texts_are_as_they_are() {
    let parts = Parts::new().without_template();
    let sample = parts.sample(
        TrainOn::Completions,
        json!({"prompt": "2 + 2 =", "completion": " 4"}),
    );
    assert_eq!(parts.stretches(&sample, false), ["2 + 2 ="]);
    assert_eq!(parts.stretches(&sample, true), [" 4<|im_end|>"]);
    // An end that the data brings is not doubled.
    let ended = json!({"prompt": "2 + 2 =", "completion": " 4<|im_end|>"});
    assert_eq!(parts.sample(TrainOn::Completions, ended), sample);

    let record = json!({"instruction": "Add.", "input": "2 2", "output": "4"});
    let sample = parts.sample(TrainOn::Completions, record);
    insta::assert_snapshot!(parts.spelled(&sample.ids), @"
    Below is an instruction that describes a task, paired with an input that provides further context. Write a response that appropriately completes the request.

    ### Instruction:
    Add.

    ### Input:
    2 2

    ### Response:
    4<|im_end|>
    ");
    assert_eq!(parts.stretches(&sample, true), ["4<|im_end|>"]);
    let record = json!({"instruction": "Add.", "output": "4"});
    let sample = parts.sample(TrainOn::Completions, record);
    insta::assert_snapshot!(parts.spelled(sample.prompt()), @"
    Below is an instruction that describes a task. Write a response that appropriately completes the request.

    ### Instruction:
    Add.

    ### Response:
    ");

    // Of a text, everything is learned, its end included.
    let sample = parts.sample(TrainOn::Completions, json!({"text": "A flow."}));
    assert_eq!(sample.ids, parts.ids("A flow.<|im_end|>"));
    assert_eq!(sample.targets(), sample.len() - 1);

    let record = chat(&[(Role::User, "Hi."), (Role::Assistant, "Yes.")]);
    let error = parts
        .samples(&DataOptions::default(), &[record])
        .unwrap_err();
    insta::assert_snapshot!(error, @"[dir]/data.jsonl, line 1: is a conversation, and this model has no chat template; give one (model.chat_template or --chat-template), or use data with prompt and completion, or plain text");
}

#[test]
fn tokens_that_the_tokenizer_itself_adds_are_there_once() {
    let mut parts = Parts::new().without_template();
    // A tokenizer that begins a text with a token of its own, as Llama's does.
    let mut json: Value = serde_json::from_str(&parts.tokenizer.to_json().unwrap()).unwrap();
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    });
    // Neither of these may change what a text's ids are.
    json["truncation"] =
        json!({"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 40}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    let eos = parts.tokenizer.eos.clone();
    let path = parts.dir.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    parts.tokenizer = TextTokenizer::from_dir(parts.dir.path()).unwrap();
    parts.tokenizer.eos = eos;
    let record = json!({"prompt": "", "completion": "A flow of water."});
    let sample = parts.sample(TrainOn::Completions, record);
    assert_eq!(
        parts.spelled(&sample.ids),
        "<|endoftext|>A flow of water.<|im_end|>"
    );
    assert_eq!(sample.targets(), sample.len() - 1);
    let record = json!({"prompt": "A flow", "completion": " of water."});
    let sample = parts.sample(TrainOn::Completions, record);
    assert_eq!(parts.stretches(&sample, false), ["<|endoftext|>A flow"]);
    assert_eq!(parts.stretches(&sample, true), [" of water.<|im_end|>"]);
}

#[test]
fn cuts_and_samples_without_a_target_are_counted() {
    let parts = Parts::new();
    let long = "A flow of electricity through a conductor. ".repeat(20);
    let records = [
        chat(&[(Role::User, "Hi."), (Role::Assistant, "Yes.")]),
        chat(&[(Role::User, "Hi."), (Role::Assistant, &long)]),
        chat(&[(Role::User, &long), (Role::Assistant, "Yes.")]),
    ];
    let whole = records
        .clone()
        .map(|record| parts.sample(TrainOn::Completions, record));
    let max_length = 64;
    let lengths = whole.clone().map(|sample| sample.len());
    assert!(lengths[0] <= max_length && lengths[1] > max_length && lengths[2] > max_length);

    let options = DataOptions {
        max_length,
        ..Default::default()
    };
    let (samples, stats) = parts.samples(&options, &records).unwrap();
    assert_eq!((samples.len(), &samples[0]), (2, &whole[0]));
    assert_eq!(samples[1].ids, whole[1].ids[..max_length]);
    assert_eq!(samples[1].is_target, whole[1].is_target[..max_length]);
    assert_eq!((stats.samples, stats.tokens), (2, lengths[0] + max_length));
    assert_eq!(stats.targets, samples[0].targets() + samples[1].targets());
    assert_eq!(
        (stats.lengths.min, stats.lengths.max),
        (lengths[0], max_length)
    );
    assert_eq!((stats.cut, stats.cut_share), (1, 0.5));
    assert_eq!(stats.cut_tokens, lengths[1] - max_length);
    assert_eq!((stats.too_long, stats.without_target), (0, 1));

    let drop = DataOptions {
        too_long: TooLong::Drop,
        ..options.clone()
    };
    let (samples, stats) = parts.samples(&drop, &records).unwrap();
    assert_eq!(samples, whole[..1]);
    assert_eq!((stats.cut, stats.too_long, stats.without_target), (0, 2, 0));

    // On all tokens nothing is dropped; where nothing is left, that is an error with a remedy.
    let all = DataOptions {
        train_on: TrainOn::All,
        ..options.clone()
    };
    let (samples, stats) = parts.samples(&all, &records).unwrap();
    assert_eq!((samples.len(), stats.without_target), (3, 0));
    let short = DataOptions {
        max_length: 4,
        ..options
    };
    insta::assert_snapshot!(parts.samples(&short, &records).unwrap_err(), @"[dir]/data.jsonl: holds no sample with a target within the first 4 tokens; raise max_length or train on all tokens");
}

#[rstest::rstest]
#[case(16, 0)]
#[case(16, 1)] // A last row of one token has no target and is left out.
#[case(16, 7)]
#[case(512, 0)]
fn a_text_file_is_cut_into_rows(#[case] max_length: usize, #[case] rest: usize) {
    let parts = Parts::new().without_template();
    let ids = parts.ids(&"A flow of electricity through a conductor.\n".repeat(12));
    // A text of a number of tokens of our choice, the end of the text counted.
    let count = if max_length > ids.len() {
        ids.len()
    } else {
        3 * max_length + rest - 1
    };
    let text = parts.tokenizer.decode(&ids[..count]).unwrap();
    let whole = parts.ids(&(text.clone() + "<|im_end|>"));
    assert_eq!(
        whole.len(),
        count + 1,
        "decoding and encoding give the same tokens"
    );

    let options = DataOptions {
        max_length,
        ..Default::default()
    };
    let source = parts.write_text("data.txt", &text);
    let (samples, stats) = parts.samples_of(&options, source).unwrap();
    let kept: Vec<u32> = samples
        .iter()
        .flat_map(|sample| sample.ids.clone())
        .collect();
    let expected = if rest == 1 { count } else { count + 1 };
    assert_eq!(kept, whole[..expected]);
    for sample in &samples {
        assert_eq!(sample.targets(), sample.len() - 1);
        assert!(!sample.is_target[0] && sample.len() <= max_length);
    }
    assert_eq!((stats.samples, stats.tokens), (samples.len(), expected));
    assert_eq!((stats.cut, stats.too_long, stats.without_target), (0, 0, 0));
}

#[test]
fn a_template_that_changes_the_past_is_refused_where_it_matters() {
    let mut parts = Parts::new();
    // Only the last message is shown in full, as some templates do with earlier reasoning.
    let source = "{% for m in messages %}{% if loop.last %}{{ m.content }}{% else %}…{% endif %}\
                  {% endfor %}{% if add_generation_prompt %}>{% endif %}";
    parts.template = Some(ChatTemplate::new(source, "", "").unwrap());
    let records = [
        chat(&[(Role::User, "Hi."), (Role::Assistant, "Yes.")]),
        chat(&[(Role::User, "Ha."), (Role::Assistant, "No.")]),
    ];
    let samples = |train_on| {
        let options = DataOptions {
            train_on,
            ..Default::default()
        };
        parts.samples(&options, &records)
    };
    insta::assert_snapshot!(samples(TrainOn::Completions).unwrap_err(), @"[dir]/data.jsonl, line 1: the chat template renders message 2 in a way that does not continue what came before, so its completion cannot be told apart; give another template, or train on all (1 more line cannot be used: 2)");
    assert_eq!(samples(TrainOn::All).unwrap().0.len(), 2);
}

#[test]
fn the_repository_s_data_has_the_tokens_of_prompt_and_completion_apart() {
    let mut parts = Parts::new();
    for model in ["examples/finetune/model", "tests/fixtures/smollm2"] {
        parts.template = ChatTemplate::from_dir(&repository(model)).unwrap();
        let template = parts.template.as_ref().unwrap();
        let options = DataOptions {
            train: vec![source("train.jsonl")],
            eval: vec![source("eval.jsonl")],
            max_length: 128,
            ..Default::default()
        };
        let prepared = parts.prepare(&options).unwrap();
        assert_eq!(prepared.notes, [""; 0]);
        let sets = [
            ("train.jsonl", &prepared.train, &prepared.train_stats, 3000),
            ("eval.jsonl", &prepared.eval, &prepared.eval_stats, 400),
        ];
        for (name, samples, stats, count) in sets {
            let path = repository("examples/finetune/data").join(name);
            let text = fs::read_to_string(path).unwrap();
            assert_eq!(
                (text.lines().count(), samples.len()),
                (count, count),
                "{stats}"
            );
            for (line, sample) in text.lines().zip(samples) {
                let record: Value = serde_json::from_str(line).unwrap();
                let message = |at: usize, role| {
                    Message::new(role, record["messages"][at]["content"].as_str().unwrap())
                };
                let asked = [message(0, Role::User)];
                let prompt = parts.ids(&template.render(&asked, true).unwrap());
                let answer = record["messages"][1]["content"].as_str().unwrap();
                let completion = parts.ids(&format!("{answer}<|im_end|>\n"));
                let mut expected = [prompt.clone(), completion].concat();
                expected.truncate(128);
                assert_eq!(sample.ids, expected, "{name}: {line}");
                assert_eq!(sample.prompt(), prompt, "{name}: {line}");
                assert!(
                    sample.is_target[prompt.len()..]
                        .iter()
                        .all(|target| *target)
                );
            }
        }
    }
}

fn source(name: &str) -> DataSource {
    let path = repository("examples/finetune/data").join(name);
    DataSource::new(path.display().to_string())
}

#[test]
fn evaluation_data_alone() {
    let parts = Parts::new();
    let options = DataOptions {
        eval: vec![source("eval.jsonl")],
        eval_rows: 200,
        cache: false,
        form: DataForm::Messages,
        ..Default::default()
    };
    let template = parts.template.as_ref();
    let set = prepare_eval_data(&options, &parts.tokenizer, template, &()).unwrap();
    assert_eq!((set.samples.len(), set.stats.samples), (200, 200));
    assert_eq!((set.sources.len(), set.sources[0].samples), (1, 400));
    let none = DataOptions {
        eval: Vec::new(),
        ..options
    };
    let error = prepare_eval_data(&none, &parts.tokenizer, template, &()).unwrap_err();
    insta::assert_snapshot!(error, @"data.eval = (nothing): a file, a pattern such as data/*.jsonl, or a list of them");
}
