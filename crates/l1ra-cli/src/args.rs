//! The command line. Options that a library documents take their help from its documentation.

// The comments are the program's help: their brackets are read by people, not by rustdoc.
#![allow(rustdoc::broken_intra_doc_links)]

use std::path::PathBuf;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use l1ra_core::peft::Layout;
use l1ra_models::{Sampling, weights::Storage};
use l1ra_train::{
    activations::Activations,
    bench::Method,
    data::{DataForm, TrainOn},
    recipe,
    report::Trainer,
};

/// Fine-tune Llama- and Mistral-family models with adapters whose ranks move.
#[derive(Debug, Parser)]
#[command(name = "l1ra", version, propagate_version = true, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON line as the result; everything else goes to standard error
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) json: bool,
    /// Say nothing but the result and errors
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Output"
    )]
    pub(crate) quiet: bool,
    /// Say more
    #[arg(short, long, global = true, help_heading = "Output")]
    pub(crate) verbose: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train adapters as a recipe says
    Train(TrainArgs),
    /// Loss and perplexity of a model on data
    Eval(EvalArgs),
    /// Write text
    Generate(GenerateArgs),
    /// Fold an adapter into its model: a Hugging Face folder
    Merge(MergeArgs),
    /// Write an adapter's PEFT files in another lay-out
    Export(ExportArgs),
    /// Check a recipe and say what it would do; trains nothing
    Plan(PlanArgs),
    /// Compare rank policies, ranks, learning rates and seeds on one recipe
    Compare(CompareArgs),
    /// Show a run: an HTML file, SVGs and a summary
    Report(ReportArgs),
    /// Say what a model, adapter or data file holds
    Inspect(InspectArgs),
    /// List the devices of this build and what they can do
    Devices(DevicesArgs),
    /// Measure a training step, a forward or generation on random tokens
    #[command(
        after_help = "--model may be a config.json: a model of that shape, with weights that are drawn."
    )]
    Bench(BenchArgs),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct DevicesArgs {
    /// Only this backend, in this process
    #[arg(long, hide = true)]
    pub(crate) backend: Option<String>,
}

/// What lays values over a recipe.
#[derive(Args, Clone, Debug)]
pub(crate) struct RecipeArgs {
    /// Recipe, a TOML file; without one, --model and --data and the defaults tell the run
    pub(crate) recipe: Option<PathBuf>,
    /// Lay a value over the recipe; may be repeated (keys: see below)
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Model: Hugging Face folder, .gguf file or hub name (org/name[@revision]); key model.path
    #[arg(long, value_name = "M")]
    pub(crate) model: Option<String>,
    /// Data to train on: file or glob, may be repeated; key data.train
    #[arg(long, value_name = "F")]
    pub(crate) data: Vec<String>,
    /// Data to evaluate on; key data.eval
    #[arg(long, value_name = "F")]
    pub(crate) eval_data: Vec<String>,
    /// Folder for everything the run writes; key output
    #[arg(long, value_name = "DIR")]
    pub(crate) output: Option<String>,
    /// Device: flex, ndarray, wgpu, vulkan, metal, cuda or rocm, cuda:1, or several, cuda:0,1; key
    /// device
    #[arg(long, value_name = "D")]
    pub(crate) device: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct TrainArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// A line every few steps in place of the live display
    #[arg(long)]
    pub(crate) plain: bool,
    /// Go on with an interrupted run: from the newest whole checkpoint in the folder R of a run, or
    /// from the checkpoint file R; without R, in the recipe's output folder. Without a recipe, the run's
    /// own is taken
    #[arg(long, value_name = "R", num_args = 0..=1, conflicts_with = "overwrite")]
    pub(crate) resume: Option<Option<PathBuf>>,
    /// Train into a folder that already holds a run, whose files are then replaced
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Train although the predicted memory is not there
    #[arg(long)]
    pub(crate) force: bool,
}

#[derive(Args, Debug)]
pub(crate) struct PlanArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Plan from a model's config.json alone: no weights, no tokenizer
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    pub(crate) config: Option<PathBuf>,
    /// Leave the time out: it is measured on the device, for a few seconds
    #[arg(long)]
    pub(crate) no_time: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CompareArgs {
    #[command(flatten)]
    pub(crate) recipe: RecipeArgs,
    /// Rank policies; default: lora and the recipe's own
    #[arg(long, value_name = "P,…", value_delimiter = ',')]
    pub(crate) policies: Option<Vec<String>>,
    /// Initial ranks; default: the recipe's. The scale alpha / rank is that of the recipe
    #[arg(long, value_name = "R,…", value_delimiter = ',')]
    pub(crate) ranks: Option<Vec<usize>>,
    /// Learning rates, of which each policy is shown at its best; default: the recipe's
    #[arg(long, value_name = "LR,…", value_delimiter = ',')]
    pub(crate) lrs: Option<Vec<f64>>,
    /// Number of seeds, of the adapters and of the data's order [default: 3]
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<u64>,
    /// Layers with an adapter, several choices: "all-linear;q_proj,v_proj". The rank of all but the
    /// first is chosen for as many parameters as the first has, or somewhat fewer; default: the recipe's
    #[arg(long, value_name = "T;…", value_delimiter = ';')]
    pub(crate) targets: Option<Vec<String>>,
    /// A line a run in place of the progress bar
    #[arg(long)]
    pub(crate) plain: bool,
    /// Run again what is in the folder with other settings, model or data
    #[arg(long)]
    pub(crate) overwrite: bool,
    /// Train although the predicted memory is not there
    #[arg(long)]
    pub(crate) force: bool,
}

/// A model, and perhaps an adapter on it.
#[derive(Args, Debug)]
pub(crate) struct ModelArgs {
    /// Model: Hugging Face folder, .gguf file or hub name (org/name[@revision])
    #[arg(long, value_name = "M")]
    pub(crate) model: String,
    /// Folder of an adapter to put on it
    #[arg(long, value_name = "A")]
    pub(crate) adapter: Option<PathBuf>,
    /// Device: flex, ndarray, wgpu, vulkan, metal, cuda or rocm, cuda:1
    #[arg(long, value_name = "D", default_value = "flex")]
    pub(crate) device: String,
    /// What matrices are kept in: f32, bf16, f16 or stored (as the file has them)
    #[arg(long, default_value = "f32")]
    pub(crate) dtype: Storage,
    /// File with a chat template to use in place of the model's
    #[arg(long, value_name = "FILE")]
    pub(crate) chat_template: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(crate) struct EvalArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// Data: file or glob, may be repeated
    #[arg(long, value_name = "F", required = true)]
    pub(crate) data: Vec<String>,
    #[arg(long, default_value = "auto")]
    pub(crate) form: DataForm,
    #[arg(long, default_value = "completions")]
    pub(crate) train_on: TrainOn,
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub(crate) max_length: usize,
    /// Most samples, 0: all
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) rows: usize,
    /// Rows of a batch
    #[arg(long, value_name = "N", default_value_t = 8)]
    pub(crate) batch_size: usize,
}

#[derive(Args, Debug)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// What to answer, through the model's chat template; `-` reads standard input
    #[arg(long, value_name = "P", conflicts_with = "chat")]
    pub(crate) prompt: Option<String>,
    /// Converse: a line from the terminal, an answer, and so on; an empty line ends it
    #[arg(long)]
    pub(crate) chat: bool,
    /// Instructions before the conversation
    #[arg(long, value_name = "TEXT")]
    pub(crate) system: Option<String>,
    /// Continue the prompt as plain text, without the chat template
    #[arg(long, conflicts_with_all = ["chat", "system"])]
    pub(crate) raw: bool,
    #[arg(long, value_name = "T")]
    pub(crate) temperature: Option<f64>,
    #[arg(long, value_name = "K")]
    pub(crate) top_k: Option<usize>,
    #[arg(long, value_name = "P")]
    pub(crate) top_p: Option<f64>,
    #[arg(long, value_name = "X")]
    pub(crate) repetition_penalty: Option<f64>,
    #[arg(long, value_name = "N")]
    pub(crate) max_new_tokens: Option<usize>,
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Text that ends the answer and is no part of it; may be repeated
    #[arg(long, value_name = "TEXT")]
    pub(crate) stop: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct MergeArgs {
    /// Model: Hugging Face folder, .gguf file or hub name (org/name[@revision])
    #[arg(long, value_name = "M")]
    pub(crate) model: String,
    /// Folder of the adapter
    #[arg(long, value_name = "A")]
    pub(crate) adapter: PathBuf,
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What tensors are written as: f32, bf16, f16 or stored (as the model has them)
    #[arg(long, default_value = "stored")]
    pub(crate) dtype: Storage,
}

#[derive(Args, Debug)]
pub(crate) struct ExportArgs {
    /// Folder of the adapter
    #[arg(long, value_name = "A")]
    pub(crate) adapter: PathBuf,
    /// folded (PEFT, llama.cpp), exact (PEFT) or padded (PEFT, llama.cpp, vLLM)
    #[arg(long, default_value = "folded")]
    pub(crate) layout: Layout,
    /// Folder to make
    #[arg(long, value_name = "DIR")]
    pub(crate) output: PathBuf,
    /// What the files name as their base model; default: as the adapter's own files say
    #[arg(long, value_name = "NAME")]
    pub(crate) base_model: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ReportArgs {
    /// Folder of a run
    pub(crate) dir: PathBuf,
    /// Print the ranks that the run ended with, and nothing else, in the form that another trainer
    /// takes: peft (JSON) or axolotl (YAML); llama-factory takes one rank for all and is refused
    #[arg(long, value_name = "TRAINER")]
    pub(crate) rank_pattern: Option<Trainer>,
}

#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// Model folder, .gguf file, adapter folder or data file
    pub(crate) path: PathBuf,
}

#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    #[command(flatten)]
    pub(crate) model: ModelArgs,
    /// l1ra or lora (a training step with or without gates), forward, generate
    #[arg(long, default_value = "l1ra")]
    pub(crate) method: Method,
    /// Tokens of a row; of the prompt, when generating
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) seq: usize,
    /// Rows
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub(crate) batch: usize,
    /// Steps that count; tokens, when generating
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) steps: usize,
    /// Steps before them
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub(crate) warmup: usize,
    /// Threads, 0: as many as there are cores
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) threads: usize,
    /// Rank of the adapters, on every linear layer
    #[arg(long, value_name = "R", default_value_t = 16)]
    pub(crate) rank: usize,
    /// Share of the tokens that are targets
    #[arg(long, value_name = "SHARE", default_value_t = 1.0)]
    pub(crate) targets: f64,
    /// Make the activations of blocks again in the backward
    #[arg(long)]
    pub(crate) recompute: bool,
    /// What activations within blocks are kept in: auto, f32, or base (as the frozen matrices are)
    #[arg(long, value_name = "TYPE", default_value_t = Activations::Auto)]
    pub(crate) activations: Activations,
}

/// Parses the command line.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    Cli::from_arg_matches(&command().try_get_matches()?)
}

/// The command line with the help that the libraries' documentation gives.
fn command() -> clap::Command {
    let keys = format!(
        "Keys of a recipe, for the file and for --set:\n{}",
        recipe::reference()
    );
    let sampling = recipe::keys_of::<Sampling>();
    let data = recipe::keys_of::<l1ra_train::data::DataOptions>();
    let mut command = Cli::command();
    for name in ["train", "plan", "compare"] {
        let keys = keys.clone();
        command = command.mut_subcommand(name, |c| c.after_long_help(keys));
    }
    command = command.mut_subcommand("generate", |c| documented(c, &sampling));
    command.mut_subcommand("eval", |c| documented(c, &data))
}

/// Gives every argument without a help the documentation of the key of its name.
fn documented(command: clap::Command, keys: &[recipe::KeyDoc]) -> clap::Command {
    command.mut_args(|arg| {
        let key = keys.iter().find(|key| key.key == arg.get_id().as_str());
        match key {
            Some(key) if arg.get_help().is_none() => {
                let doc = key.doc.trim_end_matches('.');
                let help = match &key.default {
                    Some(default) if arg.get_default_values().is_empty() => {
                        format!("{doc} [default: {default}]")
                    }
                    _ => doc.to_string(),
                };
                arg.help(help)
            }
            _ => arg,
        }
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_argument_has_a_help() {
        let command = super::command();
        command.clone().debug_assert();
        for sub in command.get_subcommands() {
            for arg in sub.get_arguments() {
                assert!(
                    arg.get_help().is_some(),
                    "{} {}",
                    sub.get_name(),
                    arg.get_id()
                );
            }
        }
    }
}
