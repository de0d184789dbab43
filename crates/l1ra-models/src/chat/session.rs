//! [`ChatSession`]: a conversation of several turns.

use serde::Serialize;

use crate::{
    cache::PromptCache,
    causal_lm::CausalLm,
    chat::{ChatTemplate, Message, Role},
    error::ModelError,
    generate::{Finish, Sampling, TextGeneration},
    tokenizer::TextTokenizer,
};

/// A conversation with a model: its messages, and what the model has computed of them.
///
/// Every turn renders the whole conversation with the model's template, as it was trained; what the
/// new text has in common with the one before is taken from the key/value cache. A session belongs
/// to one model.
#[derive(Clone, Debug)]
pub struct ChatSession<'a> {
    tokenizer: &'a TextTokenizer,
    template: &'a ChatTemplate,
    messages: Vec<Message>,
    cache: Option<PromptCache>,
}

/// The model's part of a turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Answer {
    /// What it says.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// Tokens of the conversation before it.
    pub prompt_tokens: usize,
    /// Those of them that came from the cache.
    pub cached_tokens: usize,
    /// Tokens generated.
    pub new_tokens: usize,
}

impl<'a> ChatSession<'a> {
    /// An empty conversation.
    pub fn new(tokenizer: &'a TextTokenizer, template: &'a ChatTemplate) -> Self {
        Self {
            tokenizer,
            template,
            messages: Vec::new(),
            cache: None,
        }
    }

    /// Puts instructions before the conversation.
    pub fn with_system(mut self, text: impl Into<String>) -> Self {
        self.messages.retain(|message| message.role != Role::System);
        self.messages.insert(0, Message::new(Role::System, text));
        self
    }

    /// What was said so far.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// Adds a message that somebody else wrote.
    pub fn push(&mut self, message: Message) {
        self.messages.push(message);
    }

    /// Forgets the conversation, not the instructions before it.
    pub fn clear(&mut self) {
        self.messages.retain(|message| message.role == Role::System);
    }

    /// Ids of the conversation so far, up to where the model's next answer begins.
    ///
    /// # Errors
    /// When the template refuses the conversation or the tokenizer cannot encode it.
    pub fn prompt(&self) -> Result<Vec<u32>, ModelError> {
        let text = self.template.render(&self.messages, true)?;
        self.tokenizer.encode(&text)
    }

    /// Says `text` and has `model` answer; pieces of the answer are told to `show` as they come.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt) and [`TextGeneration::new`]; the conversation is then as it was.
    pub fn say(
        &mut self,
        model: &CausalLm,
        text: impl Into<String>,
        sampling: Sampling,
        show: &mut dyn FnMut(&str),
    ) -> Result<Answer, ModelError> {
        self.messages.push(Message::new(Role::User, text));
        let answer = self.answer(model, sampling, show);
        match &answer {
            Ok(answer) => {
                let said = Message::new(Role::Assistant, answer.text.clone());
                self.messages.push(said);
            }
            Err(_) => {
                self.messages.pop();
            }
        }
        answer
    }

    fn answer(
        &mut self,
        model: &CausalLm,
        sampling: Sampling,
        show: &mut dyn FnMut(&str),
    ) -> Result<Answer, ModelError> {
        let prompt = self.prompt()?;
        let mut generation = TextGeneration::new(model, self.tokenizer, &prompt, sampling)?;
        if let Some(cache) = self.cache.take() {
            generation = generation.with_cache(cache);
        }
        let cached_tokens = generation.cached();
        let mut text = String::new();
        for piece in &mut generation {
            let piece = piece?;
            show(&piece);
            text.push_str(&piece);
        }
        let answer = Answer {
            text,
            finish: generation.finish().unwrap_or(Finish::Length),
            prompt_tokens: prompt.len(),
            cached_tokens,
            new_tokens: generation.generated().len(),
        };
        self.cache = generation.into_cache();
        Ok(answer)
    }
}
