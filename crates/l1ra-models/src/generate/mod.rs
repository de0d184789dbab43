//! Generation: greedy or sampled, with a key/value cache, as ids or as text.
//!
//! [`Generation`] yields ids, [`TextGeneration`] pieces of text that can be shown at once;
//! [`generate_text`] is the whole text.

mod ids;
mod sampling;
mod stream;
mod text;

pub use ids::{Finish, Generation};
pub use sampling::Sampling;
pub use stream::TextStream;
pub use text::{TextGeneration, generate_text};
