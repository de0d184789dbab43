//! `l1ra`: fine-tune Llama- and Mistral-family models with adapters whose ranks move.
//!
//! A thin shell: each command is a file in `commands`, and everything that it does is a documented
//! call of `l1ra-train`, `l1ra-models` or `l1ra-core`.
//!
//! Exit codes: 0 done, 1 failed, 2 the user's mistake, found before long work, 128 + n interrupted by
//! signal n, the run saved. With `--json`, one
//! line on standard output holds the result; everything else goes to standard error.

mod args;
mod commands;
mod failure;
mod load;
mod output;
mod progress;
mod recipe;
mod signals;

use std::process::ExitCode;

use args::Command;
use l1ra_core::device::guard;
use output::Output;

fn main() -> ExitCode {
    l1ra_train::memory::keep_freed_memory();
    let cli = match args::parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print(); // A closed terminal: nobody is left to tell.
            let code = u8::try_from(error.exit_code()).unwrap_or(2);
            if code != 0 && std::env::args_os().any(|word| word == "--json") {
                let text = error.to_string();
                output::error_line(text.trim_start_matches("error: ").trim_end(), code);
            }
            return ExitCode::from(code);
        }
    };
    let output = Output::new(cli.json, cli.quiet, cli.verbose);
    let run = || match &cli.command {
        Command::Train(args) => commands::train(args, &output),
        Command::Eval(args) => commands::eval(args, &output),
        Command::Generate(args) => commands::generate(args, &output),
        Command::Merge(args) => commands::merge(args, &output),
        Command::Export(args) => commands::export(args, &output),
        Command::Plan(args) => commands::plan(args, &output),
        Command::Compare(args) => commands::compare(args, &output),
        Command::Report(args) => commands::report(args, &output),
        Command::Inspect(args) => commands::inspect(args, &output),
        Command::Devices(args) => commands::devices(args, &output),
        Command::Bench(args) => commands::bench(args, &output),
    };
    // What a device says outside of training, which has an error of its own for it.
    let result = guard(run).unwrap_or_else(|failure| Err(failure.into()));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let code = failure::exit_code(&error);
            output.error(&error, code);
            ExitCode::from(code)
        }
    }
}
