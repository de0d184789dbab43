//! Fine-tunes a Llama-family model with adapters whose ranks move.
//!
//! ```text
//! cargo run --release -p finetune                                        the model in the repository
//! cargo run --release -p finetune -- --model models/smollm2 --data FILE.jsonl
//! ```
//!
//! Exit codes: 0 done, 1 failed, 2 the user's mistake, found before training.
#![allow(clippy::print_stdout)] // A program: its output is the point.

mod args;

use std::{path::Path, process::ExitCode};

use anyhow::Result;
use args::Args;
use clap::Parser;
use l1ra_core::target::adapter_specs;
use l1ra_models::{
    CausalLm, ChatTemplate, LoadOptions, Role, Sampling, TextTokenizer, generate::generate_text,
    load::ModelFiles, weights::linear_paths,
};
use l1ra_train::{
    RunReport, TrainError, TrainOptions,
    data::{Document, Encoder, Sample, read_documents},
    finetune,
    progress::Progress,
    run::RunInput,
};

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let late = error
                .downcast_ref::<TrainError>()
                .is_some_and(|e| !e.is_users_mistake());
            ExitCode::from(if late { 1 } else { 2 })
        }
    }
}

fn run(args: &Args) -> Result<()> {
    // Everything that can be wrong with the input is found before the weights are loaded.
    let options = args.options();
    options.validate()?;
    anyhow::ensure!(
        args.output.is_dir() || !args.output.exists(),
        "{}: is a file; --output takes a folder, which is made if it is not there",
        args.output.display()
    );
    let device = l1ra_core::parse_device(&args.device)?;
    let mut files = ModelFiles::open(&args.model)?;
    adapter_specs(&options.adapters, &linear_paths(&files.config)).map_err(TrainError::from)?;
    if let Some(path) = &args.chat_template {
        files.template = Some(read_template(path, &files.tokenizer)?);
    }
    let data = Data::read(args, &files, &options)?;

    println!("model    {}", args.model.display());
    println!("train    {}", data.train_report);
    println!("eval     {}", data.eval_report);
    let storage = args.dtype;
    let loaded = files.load(LoadOptions { storage }, &device)?;
    let (tokenizer, prompt) = (&loaded.tokenizer, &data.prompt);
    let sample_before = sample(&loaded.model, tokenizer, prompt)?;

    let input = RunInput {
        model: loaded.model,
        model_name: &args.model.display().to_string(),
        train: data.train,
        eval: data.eval,
        pad: tokenizer.pad.unwrap_or(0),
        device: &device,
        output: &args.output,
    };
    let progress = Box::new(Progress::new(options.steps));
    let (model, report) = finetune(&options, input, vec![progress])?;

    print_report(&report);
    if !prompt.text.is_empty() {
        println!("\nprompt   {}", prompt.text);
        println!("before   {}", one_line(&sample_before));
        println!("after    {}", one_line(&sample(&model, tokenizer, prompt)?));
    }
    let output = args.output.display();
    println!("\nadapter  {output}/adapter (PEFT files; gates and ranks beside them)");
    println!("metrics  {output}/metrics.jsonl, {output}/ranks.jsonl");
    println!("go on    cargo run --release -p finetune -- --data YOUR.jsonl --output runs/mine");
    Ok(())
}

fn read_template(path: &Path, tokenizer: &TextTokenizer) -> Result<ChatTemplate> {
    let source = std::fs::read_to_string(path)
        .map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
    let token = |id: Option<u32>| id.and_then(|id| tokenizer.token(id)).unwrap_or_default();
    let eos = tokenizer.eos.first().copied();
    Ok(ChatTemplate::new(source, token(tokenizer.bos), token(eos))?)
}

/// Rows to train and to evaluate on, and a prompt to try.
struct Data {
    train: Vec<Sample>,
    eval: Vec<Sample>,
    train_report: String,
    eval_report: String,
    prompt: Prompt,
}

#[derive(Default)]
struct Prompt {
    text: String,
    ids: Vec<u32>,
}

impl Data {
    fn read(args: &Args, files: &ModelFiles, options: &TrainOptions) -> Result<Self> {
        let encoder = Encoder {
            tokenizer: &files.tokenizer,
            template: files.template.as_ref(),
            max_length: options.max_length,
            train_on: options.train_on,
        };
        let document = read_documents(&args.data)?;
        let (mut train, report) = encoder.encode(&args.data, &document)?;
        let mut train_report = report.to_string();
        let eval_path = args.eval_data();
        let (mut eval, eval_report, eval_document) = match &eval_path {
            Some(path) => {
                let eval_document = read_documents(path)?;
                let (rows, report) = encoder.encode(path, &eval_document)?;
                (rows, report.to_string(), eval_document)
            }
            None => {
                let held_out = (train.len() / 10).clamp(1, args.eval_rows.max(1));
                anyhow::ensure!(
                    train.len() > held_out,
                    "{}: holds {} sample; training and evaluation need one each \
                     (or give --eval-data)",
                    args.data.display(),
                    train.len()
                );
                train_report += &format!("; the last {held_out} are held out");
                (
                    train.split_off(train.len() - held_out),
                    "held out".into(),
                    document,
                )
            }
        };
        let eval_report = match eval.len() > args.eval_rows {
            true => format!("{eval_report}; the first {} are used", args.eval_rows),
            false => eval_report,
        };
        eval.truncate(args.eval_rows.max(1));
        let prompt = Prompt::new(&eval_document, &encoder)?;
        Ok(Self {
            train,
            eval,
            train_report,
            eval_report,
            prompt,
        })
    }
}

impl Prompt {
    /// The first question of the evaluation data, as the model reads it.
    fn new(document: &Document, encoder: &Encoder<'_>) -> Result<Self> {
        let (Document::Chat(conversations), Some(template)) = (document, encoder.template) else {
            return Ok(Self::default());
        };
        let Some(first) = conversations.first() else {
            return Ok(Self::default());
        };
        let turns = first
            .messages
            .iter()
            .take_while(|message| message.role != Role::Assistant);
        let turns: Vec<_> = turns.cloned().collect();
        let text = turns
            .last()
            .map(|message| message.content.clone())
            .unwrap_or_default();
        let ids = encoder.tokenizer.encode(&template.render(&turns, true)?)?;
        Ok(Self { text, ids })
    }
}

fn sample(model: &CausalLm, tokenizer: &TextTokenizer, prompt: &Prompt) -> Result<String> {
    if prompt.ids.is_empty() {
        return Ok(String::new());
    }
    let sampling = Sampling {
        max_new_tokens: 40,
        ..Default::default()
    };
    Ok(generate_text(model, tokenizer, &prompt.ids, sampling)?)
}

fn print_report(report: &RunReport) {
    let RunReport {
        before,
        after,
        ranks,
        updates,
        parameters,
        tokens,
        seconds,
        ..
    } = report;
    println!("\neval loss   {:.4} → {:.4}", before.loss, after.loss);
    println!(
        "perplexity  {:.2} → {:.2}",
        before.perplexity, after.perplexity
    );
    let [first, last] = parameters;
    println!("parameters  {first} → {last} in adapters");
    println!(
        "training    {tokens} tokens in {seconds:.0} s, {:.0} tokens/s",
        *tokens as f64 / seconds.max(1e-9)
    );
    println!(
        "\nranks after {} updates (change from the start)\n{ranks}",
        updates.len()
    );
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
