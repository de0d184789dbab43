//! [`Sample`]: a text as tokens, with the targets among them.

use std::ops::Range;

/// One sample: token ids, and which of them are targets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Whether the loss is taken on predicting this token. Never at position 0.
    pub is_target: Vec<bool>,
}

impl Sample {
    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no token.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Number of targets.
    pub fn targets(&self) -> usize {
        self.is_target.iter().filter(|target| **target).count()
    }

    /// The tokens before the first target: what the model is given when it is asked.
    pub fn prompt(&self) -> &[u32] {
        let first = self.is_target.iter().position(|target| *target);
        &self.ids[..first.unwrap_or(self.ids.len())]
    }

    pub(crate) fn push(&mut self, ids: &[u32], target: bool) {
        self.ids.extend_from_slice(ids);
        self.is_target.resize(self.ids.len(), target);
    }

    /// The tokens in `range`, as a sample of its own.
    pub(crate) fn part(&self, range: Range<usize>) -> Self {
        let mut part = Self {
            ids: self.ids[range.clone()].to_vec(),
            is_target: self.is_target[range].to_vec(),
        };
        part.spare_first();
        part
    }

    /// Nothing comes before the first token, so it is never predicted.
    pub(crate) fn spare_first(&mut self) {
        if let Some(first) = self.is_target.first_mut() {
            *first = false;
        }
    }

    /// Cuts to `length` tokens and returns how many were lost.
    pub(crate) fn cut(&mut self, length: usize) -> usize {
        let lost = self.ids.len().saturating_sub(length);
        self.ids.truncate(length);
        self.is_target.truncate(length);
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_ends_before_the_first_target() {
        let mut sample = Sample::default();
        sample.push(&[1, 2], false);
        sample.push(&[3], true);
        sample.push(&[4], false);
        sample.push(&[5], true);
        assert_eq!(sample.prompt(), [1, 2]);
        assert_eq!((sample.len(), sample.targets()), (5, 2));
        assert_eq!(sample.cut(3), 2);
        assert_eq!((sample.len(), sample.targets()), (3, 1));
        assert_eq!(sample.part(2..3).targets(), 0);
        assert_eq!(Sample::default().prompt(), [0_u32; 0]);
    }
}
