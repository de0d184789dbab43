//! `l1ra generate`: text, as it comes.

use std::io::{BufRead, IsTerminal, Read, Write};

use anyhow::Result;
use l1ra_models::{
    ChatTemplate, LoadedModel, Sampling,
    chat::ChatSession,
    generate::{Finish, TextGeneration},
};
use serde::Serialize;

use crate::{
    args::GenerateArgs,
    failure::{as_flag, mistake},
    load::Opened,
    output::Output,
};

#[derive(Serialize)]
struct Generated {
    text: String,
    finish: Finish,
    prompt_tokens: usize,
    new_tokens: usize,
}

pub(crate) fn generate(args: &GenerateArgs, output: &Output) -> Result<()> {
    if args.prompt.is_none() && !args.chat {
        return Err(mistake(
            "nothing to answer: give --prompt, or --chat for a conversation",
        ));
    }
    let sampling = sampling(args);
    sampling.validate().map_err(as_flag)?;
    let opened = Opened::new(&args.model, *output)?;
    if !args.raw && opened.files.template.is_none() {
        return Err(mistake(format!(
            "{}: has no chat template; give one with --chat-template, or continue plain text with \
             --raw",
            args.model.model
        )));
    }
    let prompt = match args.prompt.as_deref() {
        Some("-") => read_prompt()?,
        Some(text) => text.to_string(),
        None => String::new(),
    };
    let loaded = opened.load()?;
    match &loaded.template {
        Some(template) if args.chat => chat(args, &loaded, template, &sampling, output),
        Some(template) if !args.raw => answer(args, &loaded, template, &prompt, sampling, output),
        _ => continue_text(&loaded, &prompt, sampling, output),
    }
}

fn sampling(args: &GenerateArgs) -> Sampling {
    let default = Sampling::default();
    Sampling {
        max_new_tokens: args.max_new_tokens.unwrap_or(default.max_new_tokens),
        temperature: args.temperature.unwrap_or(default.temperature),
        top_k: args.top_k.or(default.top_k),
        top_p: args.top_p.unwrap_or(default.top_p),
        repetition_penalty: args
            .repetition_penalty
            .unwrap_or(default.repetition_penalty),
        stop: args.stop.clone(),
        seed: args.seed.unwrap_or(default.seed),
    }
}

fn read_prompt() -> Result<String> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| mistake(format!("standard input cannot be read as text: {error}")))?;
    Ok(text)
}

fn session<'a>(
    args: &GenerateArgs,
    loaded: &'a LoadedModel,
    template: &'a ChatTemplate,
) -> ChatSession<'a> {
    let session = ChatSession::new(&loaded.tokenizer, template);
    match &args.system {
        Some(system) => session.with_system(system),
        None => session,
    }
}

fn answer(
    args: &GenerateArgs,
    loaded: &LoadedModel,
    template: &ChatTemplate,
    prompt: &str,
    sampling: Sampling,
    output: &Output,
) -> Result<()> {
    let mut session = session(args, loaded, template);
    let answer = session.say(&loaded.model, prompt, sampling, &mut |piece| {
        output.stream(piece);
    })?;
    output.end_stream(&answer)
}

fn continue_text(
    loaded: &LoadedModel,
    prompt: &str,
    sampling: Sampling,
    output: &Output,
) -> Result<()> {
    let ids = loaded.tokenizer.encode_text(prompt)?;
    let generation = TextGeneration::new(&loaded.model, &loaded.tokenizer, &ids, sampling)?;
    let mut generation = generation.continuing();
    let mut text = String::new();
    for piece in &mut generation {
        let piece = piece?;
        output.stream(&piece);
        text.push_str(&piece);
    }
    output.end_stream(&Generated {
        text,
        finish: generation.finish().unwrap_or(Finish::Length),
        prompt_tokens: ids.len(),
        new_tokens: generation.generated().len(),
    })
}

/// A line in, an answer out, until an empty line or the end of the input. With `--json`, a line of
/// JSON an answer.
fn chat(
    args: &GenerateArgs,
    loaded: &LoadedModel,
    template: &ChatTemplate,
    sampling: &Sampling,
    output: &Output,
) -> Result<()> {
    let mut session = session(args, loaded, template);
    let stdin = std::io::stdin();
    let asks = stdin.is_terminal();
    if asks {
        output.say("An empty line ends the conversation; /clear forgets it.");
    }
    loop {
        if asks {
            let mut err = std::io::stderr();
            let _ = write!(err, "> ").and_then(|()| err.flush());
        }
        let mut line = String::new();
        let read = stdin.lock().read_line(&mut line);
        let read = read.map_err(|error| mistake(format!("standard input: {error}")))?;
        let line = line.trim();
        if read == 0 || line.is_empty() {
            return Ok(());
        }
        if line == "/clear" {
            session.clear();
            continue;
        }
        let answer = session.say(&loaded.model, line, sampling.clone(), &mut |piece| {
            output.stream(piece);
        })?;
        output.end_stream(&answer)?;
    }
}
