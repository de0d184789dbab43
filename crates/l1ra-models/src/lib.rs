//! Llama- and Mistral-family models for [Burn](burn), with adapter hooks.
//!
//! One decoder serves the whole family; what differs is data in [`ModelConfig`], not a second copy
//! of the code. Module paths are the Hugging Face names (`model.layers.0.self_attn.q_proj`), so
//! that adapters keep theirs in every file.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | Hugging Face `config.json` and what is made of it |
//! | [`causal_lm`] | the model: embedding, blocks, head |
//! | [`weights`] | safetensors (single, sharded) and GGUF, in |
//! | [`tokenizer`], [`chat`] | text to ids and back, chat templates |
//! | [`generate`] | greedy and sampled generation with a key/value cache |
//! | [`load`] | all of it from one path |
//! | [`inspect`](mod@inspect) | what a path holds, told without building it |
//! | [`merge`] | base and adapter as one model, out |
//! | [`segments`] | several texts in one row |
//! | [`hub`], [`fetch`] | a path from a hub name (feature `hub`) |
//!
//! An architecture or option that is not supported is refused by name; nothing is half-run.

pub mod attention;
pub mod block;
pub mod cache;
pub mod causal_lm;
pub mod chat;
pub mod config;
pub mod error;
pub mod fetch;
mod fit;
pub mod generate;
pub mod inspect;
mod json;
pub mod load;
pub mod merge;
pub mod mlp;
pub mod positions;
pub mod rope;
pub mod segments;
pub mod tokenizer;
mod tokenizer_parts;
pub mod weights;

pub use cache::{KvCache, PromptCache};
pub use causal_lm::CausalLm;
pub use chat::{Answer, ChatSession, ChatTemplate, Message, Role};
pub use config::ModelConfig;
pub use error::ModelError;
pub use fetch::fetch_model;
pub use generate::{Finish, Generation, Sampling, TextGeneration, TextStream};
pub use inspect::{Inspection, inspect};
pub use l1ra_hub as hub;
pub use l1ra_hub::ModelRef;
pub use l1ra_ops as ops;
pub use load::{LoadOptions, LoadedModel, ModelFiles, load_model};
pub use merge::{MergeOptions, MergeReport, merge_to_dir};
pub use segments::Segments;
pub use tokenizer::TextTokenizer;
