//! Damaged files: every loader ends in success or an error of a type, never in a panic, within 5 s
//! and within a bound on memory. And what was found that way before.
//!
//! | file | holds |
//! |---|---|
//! | `format.rs` | a format, and the run over its inputs |
//! | `damage.rs`, `dice.rs` | ways to damage a file, from a seed |
//! | `memory.rs`, `watch.rs` | an allocator that counts; the end of what takes too long |
//! | the others | a format each |
//!
//! `cargo test -p l1ra-train --test hostile -- --nocapture` says what each format took.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    missing_docs
)]

mod adapter;
mod checkpoint;
mod config;
mod damage;
mod data;
mod dice;
mod format;
mod gguf;
mod memory;
#[cfg(feature = "parquet")]
mod parquet;
mod recipe;
mod report;
#[path = "../report_run/mod.rs"]
mod report_run;
mod rows;
mod safetensors;
mod template;
mod tokenizer;
mod watch;

#[global_allocator]
static ALLOCATOR: memory::Counting = memory::Counting;

/// Writes what the fuzzer begins with into `fuzz/seeds`: `cargo test -p l1ra-train --test hostile --
/// --ignored fuzz_seeds`.
#[test]
#[ignore = "writes files that are in the repository"]
fn fuzz_seeds() {
    adapter::fuzz_seeds();
    checkpoint::fuzz_seeds();
    safetensors::fuzz_seeds();
    #[cfg(feature = "parquet")]
    parquet::fuzz_seeds();
}
