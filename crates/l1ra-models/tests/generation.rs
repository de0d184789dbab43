//! Text comes out piece by piece as it does at once, stop texts and the context end it, and a
//! conversation goes on from what is cached.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use burn::tensor::Device;
use l1ra_models::{
    ChatSession, Finish, Generation, LoadOptions, LoadedModel, Message, Role, Sampling,
    TextGeneration, TextStream, TextTokenizer, generate::generate_text, load_model,
    weights::gguf::GgufFile,
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The small model of the repository, loaded once.
fn small() -> &'static LoadedModel {
    static SMALL: OnceLock<LoadedModel> = OnceLock::new();
    SMALL.get_or_init(|| {
        let path = root().join("examples/finetune/model");
        load_model(&path, LoadOptions::default(), &Device::flex()).unwrap()
    })
}

fn sampling(max_new_tokens: usize) -> Sampling {
    Sampling {
        max_new_tokens,
        ..Default::default()
    }
}

fn prompt(text: &str) -> Vec<u32> {
    small().tokenizer.encode(text).unwrap()
}

const TEXTS: [&str; 6] = [
    "Hello world 2024!",
    " a  blank before, two within, and one after ",
    "naïve → 日本語 🙂👩‍👩‍👧 Ω≈ç√",
    "\n\n\tlines\n  and tabs\t",
    "🙂🙂",
    "",
];

#[rstest::rstest]
#[case::byte_level(small().tokenizer.clone())]
#[case::smollm(gguf("tiny-llama.gguf"))]
#[case::sentencepiece(gguf("sentencepiece.gguf"))]
fn pieces_are_the_text(#[case] tokenizer: TextTokenizer) {
    for text in TEXTS {
        let ids = tokenizer.encode(text).unwrap();
        let whole = tokenizer.decode(&ids).unwrap();
        let mut stream = TextStream::new(&tokenizer);
        let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
        pieces.push(stream.finish().unwrap());
        assert_eq!(pieces.concat(), whole, "{text:?}");
        if !whole.contains('\u{FFFD}') {
            assert!(
                pieces.iter().all(|piece| !piece.contains('\u{FFFD}')),
                "{pieces:?}"
            );
        }
        // A text that was cut within a character comes out as at once, too.
        for cut in 1..ids.len() {
            let mut stream = TextStream::new(&tokenizer);
            let mut shown: String = ids[..cut]
                .iter()
                .map(|id| stream.push(*id).unwrap())
                .collect();
            shown += &stream.finish().unwrap();
            assert_eq!(
                shown,
                tokenizer.decode(&ids[..cut]).unwrap(),
                "{text:?} {cut}"
            );
        }
    }
}

fn gguf(name: &str) -> TextTokenizer {
    let file = GgufFile::open(&root().join("tests/fixtures/gguf").join(name)).unwrap();
    TextTokenizer::new(file.tokenizer().unwrap())
}

#[test]
fn a_continuation_keeps_the_blank_before_it() {
    let tokenizer = gguf("sentencepiece.gguf");
    let all = tokenizer.encode("Hello world again").unwrap();
    // The first cut where a word begins.
    let cut = (1..all.len())
        .find(|cut| tokenizer.token(all[*cut]).unwrap().starts_with('▁'))
        .unwrap();
    let (before, after) = all.split_at(cut);
    let shown = |mut stream: TextStream<'_>| -> String {
        after.iter().map(|id| stream.push(*id).unwrap()).collect()
    };
    let alone = shown(TextStream::new(&tokenizer));
    let continued = shown(TextStream::after(&tokenizer, before));
    assert_eq!(continued, format!(" {alone}"));
    let whole = tokenizer.decode(before).unwrap() + &continued;
    assert_eq!(whole, tokenizer.decode(&all).unwrap());
}

#[test]
fn no_part_of_a_stop_text_is_shown() {
    let tokenizer = &small().tokenizer;
    let ids = prompt("one STOP two. <end> three");
    for (stop, wanted) in [
        (vec!["STOP"], "one "),
        (vec!["<end>", "two"], "one STOP "),
        (vec!["STOPPED", "three"], "one STOP two. <end> "),
        (vec!["thrice", ""], "one STOP two. <end> three"),
    ] {
        let mut stream = TextStream::new(tokenizer).with_stop(stop.iter().map(ToString::to_string));
        let mut shown = String::new();
        for id in &ids {
            shown += &stream.push(*id).unwrap();
            assert!(wanted.starts_with(&shown), "{shown:?} of {wanted:?}");
        }
        let stopped = stream.stopped();
        shown += &stream.finish().unwrap();
        assert_eq!(shown, wanted);
        assert_eq!(stopped, stop[0] != "thrice");
    }
}

#[test]
fn generation_ends_before_a_stop_text() {
    let LoadedModel {
        model, tokenizer, ..
    } = small();
    let prompt = prompt("And he said unto them,");
    let whole = generate_text(model, tokenizer, &prompt, sampling(40)).unwrap();
    let mut pieces = TextGeneration::new(model, tokenizer, &prompt, sampling(40)).unwrap();
    let shown: Vec<String> = (&mut pieces).map(Result::unwrap).collect();
    assert!(
        shown.len() > 10 && !shown.iter().any(String::is_empty),
        "{shown:?}"
    );
    assert_eq!(shown.concat(), whole);
    assert_eq!(pieces.finish(), Some(Finish::Length));

    let words: Vec<&str> = whole.split_whitespace().collect();
    let stop = words[5].to_string();
    let stopped = Sampling {
        stop: vec![stop.clone()],
        ..sampling(40)
    };
    let mut run = TextGeneration::new(model, tokenizer, &prompt, stopped).unwrap();
    let text: String = (&mut run).map(Result::unwrap).collect();
    assert_eq!(text, whole[..whole.find(&stop).unwrap()]);
    assert_eq!(run.finish(), Some(Finish::Stop));
    assert!(run.next().is_none());
}

#[test]
fn a_penalty_lets_nothing_be_said_twice() {
    let LoadedModel {
        model, tokenizer, ..
    } = small();
    let prompt = prompt("the the the the");
    let run = |penalty: f64| {
        let sampling = Sampling {
            repetition_penalty: penalty,
            ..sampling(40)
        };
        let end = tokenizer.eos.iter().copied();
        let run = Generation::new(model, &prompt, end, sampling).unwrap();
        run.collect::<Result<Vec<u32>, _>>().unwrap()
    };
    let strong = run(1000.0);
    let mut seen: std::collections::BTreeSet<u32> = prompt.iter().copied().collect();
    assert!(strong.iter().all(|id| seen.insert(*id)), "{strong:?}");
    assert_ne!(run(1.0), strong);
}

#[test]
fn the_same_seed_gives_the_same_text() {
    let LoadedModel {
        model, tokenizer, ..
    } = small();
    let prompt = prompt("It is a truth");
    let run = |seed: u64| {
        let sampling = Sampling {
            temperature: 1.0,
            top_k: Some(50),
            top_p: 0.95,
            repetition_penalty: 1.1,
            seed,
            ..sampling(20)
        };
        generate_text(model, tokenizer, &prompt, sampling).unwrap()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn the_context_is_the_limit() {
    let LoadedModel {
        model, tokenizer, ..
    } = small();
    let context = model.config().max_position_embeddings;
    let long = |length: usize| prompt("the").repeat(length)[..length].to_vec();
    let start = |length: usize| Generation::new(model, &long(length), [], sampling(100));
    let mut run = start(context - 3).unwrap();
    assert_eq!(run.limit(), 3);
    assert_eq!((&mut run).map(Result::unwrap).count(), 3);
    assert_eq!(run.finish(), Some(Finish::Context));
    assert_eq!(start(10).unwrap().limit(), 100);
    insta::assert_snapshot!(
        start(context).unwrap_err(),
        @"the prompt has 512 tokens, and this model reads 512 with the answer (max_position_embeddings): shorten the prompt or begin a new conversation"
    );
    let error = TextGeneration::new(model, tokenizer, &[9999], sampling(1)).unwrap_err();
    insta::assert_snapshot!(
        error,
        @"tokenizer: token id 9999 is outside the model's vocabulary of 4096; is this the model's tokenizer?"
    );
}

#[test]
fn a_cache_of_another_text_changes_no_token() {
    let LoadedModel { model, .. } = small();
    let first = prompt("In the beginning God created the heaven and the earth.");
    let run = |prompt: &[u32]| Generation::new(model, prompt, [], sampling(12)).unwrap();
    let mut before = run(&first);
    let said: Vec<u32> = (&mut before).map(Result::unwrap).collect();
    let cache = before.into_cache().unwrap();
    // The last token was yielded, not read.
    assert_eq!(cache.tokens().len(), first.len() + said.len() - 1);
    let longer = [first.clone(), said.clone(), prompt(" And")].concat();
    let other = [first[..4].to_vec(), prompt(" the sea and all")].concat();
    for (next, shared) in [
        (longer, first.len() + said.len() - 1),
        (other, 4),
        // Its last token has to be read again for the first new one.
        (first.clone(), first.len() - 1),
        (prompt("Nothing alike"), 0),
    ] {
        let mut cached = run(&next).with_cache(cache.clone());
        assert_eq!(cached.cached(), shared);
        let with: Vec<u32> = (&mut cached).map(Result::unwrap).collect();
        let without: Vec<u32> = run(&next).map(Result::unwrap).collect();
        assert_eq!(with, without);
    }
}

#[test]
fn a_conversation_goes_on_from_what_is_cached() {
    let LoadedModel {
        model,
        tokenizer,
        template,
    } = small();
    let template = template.as_ref().unwrap();
    let mut session = ChatSession::new(tokenizer, template).with_system("Be brief.");
    let mut shown = String::new();
    let first = session
        .say(model, "Who art thou?", sampling(16), &mut |piece| {
            shown += piece;
        })
        .unwrap();
    assert_eq!(first.text, shown);
    assert_eq!(first.cached_tokens, 0);
    let second = session
        .say(model, "And what is a lamp?", sampling(16), &mut |_| {})
        .unwrap();
    assert!(second.cached_tokens >= first.prompt_tokens, "{second:?}");
    assert!(second.cached_tokens < second.prompt_tokens);
    let roles: Vec<Role> = session
        .messages()
        .iter()
        .map(|message| message.role)
        .collect();
    assert_eq!(
        roles,
        [
            Role::System,
            Role::User,
            Role::Assistant,
            Role::User,
            Role::Assistant
        ]
    );

    // A session that reads all of it again says the same.
    let mut fresh = ChatSession::new(tokenizer, template);
    for message in &session.messages()[..3] {
        fresh.push(message.clone());
    }
    let again = fresh
        .say(model, "And what is a lamp?", sampling(16), &mut |_| {})
        .unwrap();
    assert_eq!((again.cached_tokens, &again.text), (0, &second.text));

    // A turn that cannot be answered leaves the conversation as it was.
    let before = session.messages().to_vec();
    let too_long = "lamp ".repeat(600);
    let error = session.say(model, too_long, sampling(16), &mut |_| {});
    assert!(error.unwrap_err().to_string().contains("reads 512"));
    assert_eq!(session.messages(), before);
    session.clear();
    assert_eq!(
        session.messages(),
        [Message::new(Role::System, "Be brief.")]
    );
}
