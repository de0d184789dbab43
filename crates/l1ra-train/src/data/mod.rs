//! Data: files to records to samples to batches.
//!
//! [`prepare_data`] is all of it; [`DataOptions`] is what it goes by, the section `data` of a recipe.
//!
//! | a file | holds |
//! |---|---|
//! | `.jsonl` | a record a line |
//! | `.json` | a list of records, or an object with such a list as `data` |
//! | `.parquet` | a record a row (feature `parquet`) |
//! | `.txt`, `.md` | one text, cut into rows of `max_length` tokens without loss |
//!
//! | form | record | learned (`train_on = "completions"`) |
//! |---|---|---|
//! | `messages` | `{"messages": [{"role": "user", "content": …}, …]}` | the assistant's last turn |
//! | `sharegpt` | `{"conversations": [{"from": "human", "value": …}, …]}`, perhaps `system` | the assistant's last turn |
//! | `completion` | `{"prompt": …, "completion": …}`, two texts or two lists of messages | the completion |
//! | `alpaca` | `{"instruction": …, "input": …, "output": …}` | the output |
//! | `text` | `{"text": …}` | all of it |
//!
//! The form of a file is recognised from its first record; every other record must have it. With a
//! chat template, a prompt or instruction is the user's turn and a completion or output the
//! assistant's; without, prompt and completion follow each other as they are, and an instruction has
//! the Alpaca wording. What ends a completion (the template's end of turn, or the model's end of
//! text) is learned with it.
//!
//! | file | holds |
//! |---|---|
//! | `options.rs`, `form.rs`, `files.rs` | what the user says, the forms, the files of a pattern |
//! | `source.rs`, `record.rs`, `parquet.rs` | files to records |
//! | `inspect.rs` | what a file holds |
//! | `encode.rs` | records to samples, with exact targets |
//! | `prepare.rs`, `split.rs`, `cache.rs` | all files, in parallel; held-out samples, weights; the cache |
//! | `pack.rs`, `order.rs`, `batch.rs`, `loader.rs` | samples to batches |
//! | `stats.rs` | figures |

mod batch;
mod cache;
mod encode;
mod files;
mod form;
mod inspect;
mod loader;
mod options;
mod order;
mod pack;
#[cfg(feature = "parquet")]
mod parquet;
mod prepare;
mod record;
mod rows;
mod sample;
mod source;
mod split;
mod stats;

pub use batch::{Origin, TokenBatch, TokenBatcher};
pub use cache::RowCache;
pub use encode::Encoder;
pub use files::{DataFile, DataFiles};
pub use form::{DataForm, TooLong, TrainOn};
pub use inspect::{DataInspection, inspect_data};
pub use loader::{Position, TokenLoader, loader};
pub use options::{DataOptions, DataSource};
pub use order::Order;
pub use pack::{PackedPadding, Packing, PaddingReport};
pub use prepare::{
    DataProgress, PreparedData, PreparedSet, SourceReport, prepare_data, prepare_data_with,
    prepare_eval_data,
};
pub use record::{Content, Record};
pub use sample::Sample;
pub use source::{Malformed, SourceFile, Sources, read_sources};
pub use stats::{DataStats, Lengths};
