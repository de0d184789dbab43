//! Development tasks, run as `cargo xtask <task>`.
//!
//! | task | does |
//! |---|---|
//! | `check` | format, lints, spelling |
//! | `test` | `cargo test --workspace` |
//! | `device-tests` | the tests that compare a GPU backend, or `ndarray`, with the CPU |
//! | `setup` | what a machine needs for a GPU backend |
//! | `gpu-check` | everything that has to be seen on a real GPU, in one run |
//! | `doc` | the documentation, where a warning is an error |
//! | `licenses` | every dependency's licence against `deny.toml` |
//! | `validate` | all of the above |
//! | `fetch` | a model to try the programs on |
//! | `corpus` | the text that the embedded model was pre-trained on |
//! | `fixtures` | the reference numbers again, from PyTorch |
//! | `interop` | our adapters in PEFT |
//! | `bench` | our steps beside PyTorch's, on this machine |
#![allow(clippy::print_stdout)] // a program for the terminal: what it prints is its result

mod bench;
mod check;
mod corpus;
mod device;
mod download;
mod fetch;
mod fixtures;
mod gpu_check;
mod interop;
mod licenses;
mod process;
mod python;
mod setup;
mod spdx;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Development tasks of l1ra"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check format, lints and (where `typos` is installed) spelling
    Check,
    /// Run every test: `cargo test --workspace`
    Test {
        /// Passed on to `cargo test`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Run the tests that compare a backend's device with the CPU: logits, gradients, recorded traces, a
    /// short fine-tuning
    DeviceTests {
        #[arg(value_enum)]
        backend: device::Backend,
        /// Passed on to the test programs
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Say what this machine needs for a GPU backend, and what of it is there
    Setup {
        #[command(subcommand)]
        backend: Setup,
    },
    /// Build for a GPU backend and see everything there: tests, fine-tuning, speed
    GpuCheck(gpu_check::GpuCheck),
    /// Build the documentation of the workspace; a warning is an error
    Doc,
    /// Check every dependency's licence against the allow list of deny.toml
    Licenses,
    /// Run check, test, doc and licenses
    Validate,
    /// Fetch a model to try the programs on
    Fetch {
        model: fetch::Model,
        /// Where to put it (default: `models/<MODEL>`)
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Gather the public-domain text that the embedded model is pre-trained on
    Corpus {
        /// Where to put it [default: target/corpus]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Time our steps beside PyTorch's, alternating, and write a table
    Bench {
        /// A model as a Hugging Face folder with safetensors
        #[arg(long)]
        model: PathBuf,
        /// A Python that has torch, transformers and peft
        #[arg(long, default_value = "python3")]
        python: PathBuf,
        #[arg(long, default_value_t = 2)]
        threads: usize,
        /// How often everything is repeated; medians count
        #[arg(long, default_value_t = 3)]
        runs: usize,
        /// Where the table goes [default: target/speed.md]
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Make the reference fixtures again with PyTorch
    Fixtures {
        #[command(flatten)]
        python: python::Choice,
        /// Where to write them [default: tests/fixtures]
        #[arg(long)]
        output: Option<PathBuf>,
    },
    /// Load our adapter files with PEFT and compare logits
    Interop {
        #[command(flatten)]
        python: python::Choice,
        /// Compare the adapters in this folder instead of making them first
        #[arg(long)]
        adapter: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum Setup {
    /// NVIDIA GPUs
    Cuda {
        /// An LLVM with static libraries and the NVPTX target, to build with in place of the one that the
        /// first build fetches
        #[arg(long, value_name = "DIR")]
        llvm: Option<PathBuf>,
    },
    /// GPUs through Vulkan, Metal or DirectX
    Wgpu,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> Result<()> {
    let root = process::root();
    match task {
        Task::Check => check::check(),
        Task::Test { arguments } => check::test(&arguments),
        Task::DeviceTests { backend, arguments } => device::test(backend, &arguments),
        Task::Setup { backend } => match backend {
            Setup::Cuda { llvm } => setup::cuda(llvm.as_deref()),
            Setup::Wgpu => setup::wgpu(),
        },
        Task::GpuCheck(options) => gpu_check::run(&options),
        Task::Doc => check::doc(),
        Task::Licenses => licenses::run(),
        Task::Validate => check::validate(),
        Task::Fetch { model, dir } => fetch::run(model, dir),
        Task::Corpus { dir } => corpus::run(&dir.unwrap_or(root.join("target/corpus"))),
        Task::Bench {
            model,
            python,
            threads,
            runs,
            output,
        } => {
            let output = output.unwrap_or_else(bench::default_output);
            bench::run(&model, &python, threads, runs, &output)
        }
        Task::Fixtures { python, output } => {
            fixtures::run(&python, &output.unwrap_or(root.join("tests/fixtures")))
        }
        Task::Interop { python, adapter } => interop::run(&python, adapter.as_deref()),
    }
}
