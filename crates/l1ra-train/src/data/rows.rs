//! The samples of one file, as they are cached.

use crate::data::{DataForm, Sample, TooLong, stats::Dropped};

/// A sample, and how many of its tokens were cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) sample: Sample,
    pub(crate) lost: usize,
}

/// The samples of a file, in its order, and what is said of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FileRows {
    pub(crate) form: DataForm,
    pub(crate) records: usize,
    pub(crate) characters: usize,
    pub(crate) dropped: Dropped,
    pub(crate) rows: Vec<Row>,
}

impl FileRows {
    /// Takes a sample in, cut to `max_length` tokens, or leaves it out; either is counted.
    pub(crate) fn push(&mut self, mut sample: Sample, max_length: usize, too_long: TooLong) {
        if sample.len() > max_length && too_long == TooLong::Drop {
            self.dropped.too_long += 1;
            return;
        }
        let lost = sample.cut(max_length);
        if sample.targets() == 0 {
            self.dropped.without_target += 1;
            return;
        }
        self.rows.push(Row { sample, lost });
    }
}
