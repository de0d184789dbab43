//! How far the preparation of a run is, as a bar.

use l1ra_train::{data::DataProgress, job::JobProgress};

use crate::output::{Bar, Output};

/// Bars for fetching a model and tokenising data.
pub(crate) struct Preparing {
    fetch: Bar,
    tokenise: Bar,
}

impl Preparing {
    pub(crate) fn new(output: Output) -> Self {
        Self {
            fetch: output.bar("fetch"),
            tokenise: output.bar("tokenise"),
        }
    }
}

impl DataProgress for Preparing {
    fn advance(&self, done: usize, total: usize) {
        self.tokenise.count(done, total);
    }
}

impl JobProgress for Preparing {
    fn fetch(&self, file: &str, done: u64, total: u64) {
        self.fetch.bytes(file, done, total);
    }
}
