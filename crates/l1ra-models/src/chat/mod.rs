//! Chat: the model's own template, rendered as transformers renders it, and conversations.

mod bounded;
mod engine;
mod environment;
mod json;
mod message;
mod methods;
mod session;
mod strftime;
mod tags;
mod template;

pub use message::{Message, Role};
pub use session::{Answer, ChatSession};
pub use template::ChatTemplate;
