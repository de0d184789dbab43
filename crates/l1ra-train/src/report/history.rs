//! Ranks over the updates of a run.

use crate::report::{gates::GateBars, grid::Grid, record::RunRecord};

/// A state of the adapters that the run wrote down.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Moment {
    /// `start`, `update 3`, `end`.
    pub(super) label: String,
    /// Optimizer steps taken before it.
    pub(super) step: usize,
    /// Rank of each adapter.
    pub(super) ranks: Vec<usize>,
    /// The gates then: at an update, those that it was decided from. None at the start.
    pub(super) gates: Option<GateBars>,
}

/// The adapters by layer and module, and their ranks at the start, after each update and at the
/// end.
pub(super) struct History {
    pub(super) grid: Grid,
    /// Never empty.
    pub(super) moments: Vec<Moment>,
    /// Largest change of a rank from its start, at any moment; at least [`SHADES`].
    pub(super) scale: usize,
}

/// Shades on each side of the starting rank.
pub(super) const SHADES: usize = 5;

impl History {
    /// `None` where the run wrote no adapters.
    pub(super) fn new(record: &RunRecord) -> Option<Self> {
        let start = record.start.as_ref()?;
        if start.adapters.is_empty() {
            return None;
        }
        let mut moments = vec![Moment {
            label: "start".into(),
            step: 0,
            ranks: start.adapters.iter().map(|adapter| adapter.rank).collect(),
            gates: None,
        }];
        let updates = record.updates.iter().enumerate();
        moments.extend(updates.map(|(index, update)| Moment {
            label: format!("update {}", index + 1),
            step: update.step,
            ranks: update.ranks.clone(),
            gates: GateBars::new(&update.gates),
        }));
        moments.extend(record.end.as_ref().map(|end| Moment {
            label: "end".into(),
            step: end.step,
            ranks: end.ranks.clone(),
            gates: GateBars::new(&end.gates),
        }));
        let mut history = Self {
            grid: Grid::new(&start.adapters),
            moments,
            scale: SHADES,
        };
        history.scale = history.largest_change().max(SHADES);
        Some(history)
    }

    pub(super) fn start(&self) -> &[usize] {
        self.moments.first().map_or(&[], |moment| &moment.ranks)
    }

    pub(super) fn last(&self) -> &[usize] {
        self.moments.last().map_or(&[], |moment| &moment.ranks)
    }

    /// Rank of `adapter` at the start.
    pub(super) fn before(&self, adapter: usize) -> usize {
        self.start().get(adapter).copied().unwrap_or(0)
    }

    /// Rank of `adapter` that is known last.
    pub(super) fn after(&self, adapter: usize) -> usize {
        self.last().get(adapter).copied().unwrap_or(0)
    }

    fn largest_change(&self) -> usize {
        let changes = self.moments.iter().flat_map(|moment| {
            let pairs = moment.ranks.iter().zip(self.start());
            pairs.map(|(rank, start)| rank.abs_diff(*start))
        });
        changes.max().unwrap_or(0)
    }

    /// The class of a cell whose rank changed from `start` to `rank`: `lc-k0` for none, `lc-g1` to
    /// `lc-g5` for gains, `lc-l1` to `lc-l5` for losses. Every change shows.
    pub(super) fn shade(&self, start: usize, rank: usize) -> String {
        let shade = (rank.abs_diff(start) * SHADES).div_ceil(self.scale);
        let side = match rank.cmp(&start) {
            std::cmp::Ordering::Less => 'l',
            std::cmp::Ordering::Equal => 'k',
            std::cmp::Ordering::Greater => 'g',
        };
        format!("lc-{side}{shade}")
    }

    /// The legend from the greatest loss to the greatest gain: class and the changes it stands for.
    pub(super) fn legend(&self) -> Vec<(String, String)> {
        let range = |shade: usize, sign: char| {
            let low = (shade - 1) * self.scale / SHADES + 1;
            let high = shade * self.scale / SHADES;
            match sign {
                _ if low == high => format!("{sign}{low}"),
                '−' => format!("−{high}…−{low}"),
                _ => format!("+{low}…+{high}"),
            }
        };
        let losses = (1..=SHADES).rev();
        let losses = losses.map(|shade| (format!("lc-l{shade}"), range(shade, '−')));
        let gains = (1..=SHADES).map(|shade| (format!("lc-g{shade}"), range(shade, '+')));
        let kept = std::iter::once(("lc-k0".to_owned(), "0".to_owned()));
        losses.chain(kept).chain(gains).collect()
    }

    /// Ranks that an adapter holds at `moment` beyond its start, over all adapters.
    pub(super) fn moved(&self, moment: &Moment) -> usize {
        let pairs = moment.ranks.iter().zip(self.start());
        pairs.map(|(rank, start)| rank.saturating_sub(*start)).sum()
    }
}
