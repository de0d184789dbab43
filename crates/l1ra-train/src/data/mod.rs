//! Text files to token rows to batches.

mod batch;
mod sample;
mod source;

pub use batch::{TokenBatch, TokenBatcher, loader};
pub use sample::{DataReport, Encoder, Sample, TrainOn};
pub use source::{Conversation, Document, read_documents};
