//! [`TextGeneration`]: one run of generation, as text.

use crate::{
    cache::PromptCache,
    causal_lm::CausalLm,
    error::ModelError,
    generate::{Finish, Generation, Sampling, TextStream},
    tokenizer::TextTokenizer,
};

/// One run of generation: yields pieces of text as they are clear, none of them empty. Ends at the
/// tokenizer's end-of-text tokens and at [`Sampling::stop`].
#[derive(Debug)]
pub struct TextGeneration<'a> {
    generation: Generation<'a>,
    stream: TextStream<'a>,
    tokenizer: &'a TextTokenizer,
    prompt: Vec<u32>,
    stop: Vec<String>,
    finish: Option<Finish>,
    ended: bool,
}

impl<'a> TextGeneration<'a> {
    /// Starts after `prompt`.
    ///
    /// # Errors
    /// As [`Generation::new`].
    pub fn new(
        model: &'a CausalLm,
        tokenizer: &'a TextTokenizer,
        prompt: &[u32],
        sampling: Sampling,
    ) -> Result<Self, ModelError> {
        let (end, stop) = (tokenizer.eos.iter().copied(), sampling.stop.clone());
        Ok(Self {
            generation: Generation::new(model, prompt, end, sampling)?,
            stream: TextStream::new(tokenizer).with_stop(stop.clone()),
            tokenizer,
            prompt: prompt.to_vec(),
            stop,
            finish: None,
            ended: false,
        })
    }

    /// The text is shown right after the prompt's own: a blank before its first word is kept.
    pub fn continuing(mut self) -> Self {
        self.stream = TextStream::after(self.tokenizer, &self.prompt).with_stop(self.stop.clone());
        self
    }

    /// As [`Generation::with_cache`].
    pub fn with_cache(mut self, cached: PromptCache) -> Self {
        self.generation = self.generation.with_cache(cached);
        self
    }

    /// As [`Generation::into_cache`].
    pub fn into_cache(self) -> Option<PromptCache> {
        self.generation.into_cache()
    }

    /// As [`Generation::limit`].
    pub fn limit(&self) -> usize {
        self.generation.limit()
    }

    /// As [`Generation::cached`].
    pub fn cached(&self) -> usize {
        self.generation.cached()
    }

    /// The tokens so far; those of a stop text are among them.
    pub fn generated(&self) -> &[u32] {
        self.generation.generated()
    }

    /// Why the run ended; `None` while it goes on and after an error.
    pub fn finish(&self) -> Option<Finish> {
        self.finish
    }

    /// The next piece, which may be empty; `None` at the end.
    fn step(&mut self) -> Option<Result<String, ModelError>> {
        if self.ended {
            return None;
        }
        match self.generation.next() {
            Some(Ok(id)) => {
                let piece = self.stream.push(id);
                if self.stream.stopped() {
                    self.finish = Some(Finish::Stop);
                }
                self.ended = piece.is_err() || self.stream.stopped();
                Some(piece)
            }
            Some(Err(error)) => {
                self.ended = true;
                Some(Err(error))
            }
            None => {
                self.ended = true;
                self.finish = self.generation.finish();
                Some(self.stream.finish())
            }
        }
    }
}

impl Iterator for TextGeneration<'_> {
    type Item = Result<String, ModelError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let piece = self.step()?;
            if !matches!(&piece, Ok(text) if text.is_empty()) {
                return Some(piece);
            }
        }
    }
}

/// Generates a whole text after `prompt`.
///
/// # Errors
/// As [`Generation::new`], or when the tokenizer cannot decode.
pub fn generate_text(
    model: &CausalLm,
    tokenizer: &TextTokenizer,
    prompt: &[u32],
    sampling: Sampling,
) -> Result<String, ModelError> {
    TextGeneration::new(model, tokenizer, prompt, sampling)?.collect()
}
