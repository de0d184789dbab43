//! [`Encoder`]: records as tokens, with exact targets.

use std::ops::Range;

use l1ra_models::{ChatTemplate, Message, ModelError, Role, TextTokenizer, tokenizer::Encoded};

use crate::data::{Content, DataOptions, Sample, TrainOn, record::Flaw};

/// Turns records into samples.
///
/// A text is tokenised as a whole, and a token is a target if it begins within what is learned; so
/// the ids are those that the model would read, also with a tokenizer that puts a blank before a
/// text. Where a token would hold letters of both sides of a boundary, of the prompt's last and the
/// completion's first, say, the text is tokenised on both sides of that boundary apart: targets are
/// exactly the completion, and the tokens before it are what the model is given when it is asked.
#[derive(Clone, Debug)]
pub struct Encoder<'a> {
    tokenizer: &'a TextTokenizer,
    template: Option<&'a ChatTemplate>,
    train_on: TrainOn,
    max_length: usize,
    /// Tokens before and after a text that no template frames.
    affixes: [Vec<u32>; 2],
    /// Whether the tokenizer puts something before a text, as SentencePiece puts a blank.
    prepends: bool,
}

/// A stretch of a text that is tokenised with care, and whether it is learned.
struct Turn {
    span: Range<usize>,
    learned: bool,
}

impl<'a> Encoder<'a> {
    /// An encoder for a model's tokenizer and chat template.
    ///
    /// # Errors
    /// A tokenizer that cannot encode.
    pub fn new(
        tokenizer: &'a TextTokenizer,
        template: Option<&'a ChatTemplate>,
        options: &DataOptions,
    ) -> Result<Self, ModelError> {
        let mut affixes = tokenizer.affixes()?;
        // A text ends with the model's own end, whether or not the tokenizer adds it.
        if let Some(end) = tokenizer
            .end_of_text()
            .filter(|end| !affixes[1].contains(end))
        {
            affixes[1].push(end);
        }
        let mut encoder = Self {
            tokenizer,
            template,
            train_on: options.train_on,
            max_length: options.max_length,
            affixes,
            prepends: true,
        };
        encoder.prepends = encoder.continued("a")?.ids != tokenizer.encode("a")?;
        Ok(encoder)
    }

    /// The samples of a record, not yet cut: one, or the rows of a whole file's text.
    pub(crate) fn encode(&self, content: &Content) -> Result<Vec<Sample>, Flaw> {
        let sample = match (content, self.template) {
            (Content::Text(text), _) => self.framed(text, 0)?,
            (Content::Document(text), _) => return self.rows(text),
            (
                Content::Chat {
                    messages,
                    completion,
                },
                Some(template),
            ) => self.conversation(template, messages, *completion)?,
            (Content::Chat { .. }, None) => {
                let detail = "is a conversation, and this model has no chat template; give one \
                              (model.chat_template or --chat-template), or use data with prompt \
                              and completion, or plain text";
                return Err(Flaw(detail.into()));
            }
            (Content::Pair { prompt, completion }, Some(template)) => {
                self.question(template, prompt, completion)?
            }
            (Content::Pair { prompt, completion }, None) => {
                self.framed(&format!("{prompt}{completion}"), prompt.len())?
            }
            (
                Content::Instruction {
                    instruction,
                    input,
                    output,
                },
                Some(template),
            ) => {
                let blank = if input.is_empty() { "" } else { "\n\n" };
                self.question(template, &format!("{instruction}{blank}{input}"), output)?
            }
            (
                Content::Instruction {
                    instruction,
                    input,
                    output,
                },
                None,
            ) => {
                let prompt = alpaca_prompt(instruction, input);
                self.framed(&format!("{prompt}{output}"), prompt.len())?
            }
        };
        Ok(vec![sample])
    }

    /// A user's question and the assistant's answer.
    fn question(
        &self,
        template: &ChatTemplate,
        question: &str,
        answer: &str,
    ) -> Result<Sample, Flaw> {
        let messages = [
            Message::new(Role::User, question),
            Message::new(Role::Assistant, answer),
        ];
        self.conversation(template, &messages, 1)
    }

    /// A conversation up to the assistant's last message, as the template renders it.
    fn conversation(
        &self,
        template: &ChatTemplate,
        messages: &[Message],
        completion: usize,
    ) -> Result<Sample, Flaw> {
        let by_assistant = |message: &Message| message.role == Role::Assistant;
        let last = messages.iter().rposition(by_assistant);
        let count = last.map_or(0, |last| last + 1);
        let render = |count: usize, prompt: bool| {
            let text = template.render(&messages[..count], prompt);
            text.map_err(|error| Flaw(error.to_string()))
        };
        let text = render(count, false)?;
        let first = match self.train_on {
            TrainOn::All => count, // No boundary is needed: every token is a target.
            TrainOn::Assistant => 0,
            TrainOn::Completions => completion,
        };
        let mut turns = Vec::new();
        for i in (first..count).filter(|i| by_assistant(&messages[*i])) {
            let prompt = render(i, true)?;
            let full = if i + 1 == count {
                text.clone()
            } else {
                render(i + 1, false)?
            };
            if !full.starts_with(&prompt) || !text.starts_with(&full) {
                return Err(Flaw(format!(
                    "the chat template renders message {} in a way that does not continue what \
                     came before, so its completion cannot be told apart; give another template, or \
                     train on all",
                    i + 1
                )));
            }
            turns.push(Turn {
                span: prompt.len()..full.len(),
                learned: true,
            });
        }
        if self.train_on == TrainOn::All {
            turns.push(Turn {
                span: 0..text.len(),
                learned: true,
            });
        }
        let mut sample = Sample::default();
        self.append(&mut sample, &text, &turns)?;
        sample.spare_first();
        Ok(sample)
    }

    /// A text that no template frames, between the tokens that begin and end a text; learned from
    /// the byte `learned` on.
    fn framed(&self, text: &str, learned: usize) -> Result<Sample, Flaw> {
        let [before, after] = &self.affixes;
        let learned = match self.train_on {
            TrainOn::All => 0,
            TrainOn::Completions | TrainOn::Assistant => learned,
        };
        let mut sample = Sample::default();
        sample.push(before, learned == 0);
        let turn = Turn {
            span: learned..text.len(),
            learned: true,
        };
        self.append(&mut sample, text, &[turn])?;
        // A text may bring its own end.
        let given = after
            .iter()
            .take_while(|id| sample.ids.last() == Some(id))
            .count();
        sample.push(&after[given..], true);
        sample.spare_first();
        Ok(sample)
    }

    /// A text as rows of `max_length` tokens; the last one may be shorter. One token alone has no
    /// target.
    fn rows(&self, text: &str) -> Result<Vec<Sample>, Flaw> {
        let whole = self.framed(text, 0)?;
        let starts = (0..whole.len()).step_by(self.max_length);
        let rows = starts.map(|start| start..whole.len().min(start + self.max_length));
        Ok(rows
            .filter(|row| row.len() > 1)
            .map(|row| whole.part(row))
            .collect())
    }

    /// Tokenises `text` and marks the tokens that begin within a learned turn.
    fn append(&self, sample: &mut Sample, text: &str, turns: &[Turn]) -> Result<(), Flaw> {
        let encoded = self
            .tokenise(text, turns)
            .map_err(|error| Flaw(error.to_string()))?;
        let mut turns = turns.iter().filter(|turn| turn.learned).peekable();
        for (id, span) in encoded.ids.iter().zip(&encoded.spans) {
            while turns.next_if(|turn| turn.span.end <= span.start).is_some() {}
            let learned = turns
                .peek()
                .is_some_and(|turn| turn.span.start <= span.start);
            sample.push(&[*id], learned);
        }
        Ok(())
    }

    /// Tokenises `text` as a whole, or in parts where a token would lie across a boundary.
    fn tokenise(&self, text: &str, turns: &[Turn]) -> Result<Encoded, ModelError> {
        let mut cuts: Vec<usize> = Vec::new();
        loop {
            let encoded = self.parts(text, &cuts)?;
            let across = |place: &usize| {
                let holds = |span: &Range<usize>| span.start < *place && *place < span.end;
                encoded.spans.iter().any(holds)
            };
            let boundaries = turns
                .iter()
                .flat_map(|turn| [turn.span.start, turn.span.end]);
            let more: Vec<usize> = boundaries.filter(across).collect();
            if more.is_empty() {
                return Ok(encoded);
            }
            cuts.extend(more); // None of them is a cut yet: no token lies across a cut.
            cuts.sort_unstable();
            cuts.dedup();
        }
    }

    fn parts(&self, text: &str, cuts: &[usize]) -> Result<Encoded, ModelError> {
        let end = cuts.first().copied().unwrap_or(text.len());
        let mut encoded = self.tokenizer.encode_spans(&text[..end])?;
        let ends = cuts.iter().skip(1).copied().chain([text.len()]);
        for (start, end) in cuts.iter().copied().zip(ends) {
            let part = self.continued(&text[start..end])?;
            let moved = part.spans.iter().map(|s| s.start + start..s.end + start);
            encoded.spans.extend(moved);
            encoded.ids.extend(part.ids);
        }
        Ok(encoded)
    }

    /// Tokenises a text as the continuation of another, without what the tokenizer puts before a
    /// text: behind a line break, which is then taken away.
    fn continued(&self, text: &str) -> Result<Encoded, ModelError> {
        if self.prepends {
            let encoded = self.tokenizer.encode_spans(&format!("\n{text}"))?;
            let first = encoded
                .spans
                .iter()
                .take_while(|span| span.end <= 1)
                .count();
            if encoded.spans[first..].iter().all(|span| span.start >= 1) {
                let moved = encoded.spans[first..].iter();
                return Ok(Encoded {
                    spans: moved.map(|span| span.start - 1..span.end - 1).collect(),
                    ids: encoded.ids[first..].to_vec(),
                });
            }
        }
        self.tokenizer.encode_spans(text)
    }
}

/// The wording of the Alpaca data, for models without a chat template.
fn alpaca_prompt(instruction: &str, input: &str) -> String {
    if input.is_empty() {
        format!(
            "Below is an instruction that describes a task. Write a response that appropriately \
             completes the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
        )
    } else {
        format!(
            "Below is an instruction that describes a task, paired with an input that provides \
             further context. Write a response that appropriately completes the request.\n\n\
             ### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
        )
    }
}
