//! Every chart of a run, drawn once.

use crate::report::{
    chart::{self, Chart},
    history::History,
    record::RunRecord,
};

/// The charts that the run's files allow.
pub(super) struct Charts {
    pub(super) history: Option<History>,
    pub(super) loss: Chart,
    pub(super) rate: Chart,
    pub(super) norm: Chart,
    pub(super) ranks: Option<Chart>,
    pub(super) modules: Option<Chart>,
    pub(super) gates: Option<Chart>,
    pub(super) parameters: Option<Chart>,
}

impl Charts {
    pub(super) fn new(record: &RunRecord) -> Self {
        let history = History::new(record);
        let last = record.last_step();
        let of = |draw: &dyn Fn(&History) -> Chart| history.as_ref().map(draw);
        let parameters = record.start.as_ref().zip(history.as_ref());
        Self {
            loss: chart::loss(record),
            rate: chart::learning_rate(record),
            norm: chart::gradient_norm(record),
            ranks: of(&chart::heat),
            modules: of(&|history| chart::modules(history, last)),
            gates: of(&chart::gates),
            parameters: parameters.map(|(start, history)| chart::parameters(history, start, last)),
            history,
        }
    }

    /// The charts in the page whose values can be pointed at.
    pub(super) fn plotted(&self) -> impl Iterator<Item = &Chart> {
        let always = [Some(&self.loss), Some(&self.rate), Some(&self.norm)];
        let more = [self.modules.as_ref(), self.parameters.as_ref()];
        always.into_iter().chain(more).flatten()
    }

    /// The charts that are files of their own.
    pub(super) fn files(&self) -> impl Iterator<Item = &Chart> {
        let charts = [
            Some(&self.loss),
            self.ranks.as_ref(),
            self.modules.as_ref(),
            self.gates.as_ref(),
            self.parameters.as_ref(),
        ];
        charts.into_iter().flatten()
    }
}
