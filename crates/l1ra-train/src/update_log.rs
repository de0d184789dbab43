//! [`UpdateLog`]: the rank updates of a run, packed.

use crate::callback::RankUpdate;

/// Rank updates as MessagePack, one after another.
///
/// An update is some hundred short lists that live as long as the run. Each in its own place, they
/// scatter what the allocator has, and a run's memory grows by several times their size.
#[derive(Debug, Default)]
pub(crate) struct UpdateLog {
    bytes: Vec<u8>,
    /// Where each update begins.
    starts: Vec<usize>,
}

impl UpdateLog {
    #[expect(
        clippy::expect_used,
        reason = "an update is lists of numbers and texts, and memory takes all that is written to it"
    )]
    pub(crate) fn push(&mut self, update: &RankUpdate) {
        let start = self.bytes.len();
        rmp_serde::encode::write(&mut self.bytes, update).expect("an update can be packed");
        self.starts.push(start);
    }

    /// The updates after the first `known` ones.
    #[expect(
        clippy::expect_used,
        reason = "the bytes are those of `push`, and no one else writes them"
    )]
    pub(crate) fn since(&self, known: usize) -> Vec<RankUpdate> {
        let starts = self.starts.iter().skip(known);
        starts
            .map(|start| {
                let bytes = self.bytes.get(*start..).unwrap_or_default();
                rmp_serde::from_slice(bytes).expect("a packed update can be unpacked")
            })
            .collect()
    }
}

impl<'a> FromIterator<&'a RankUpdate> for UpdateLog {
    fn from_iter<I: IntoIterator<Item = &'a RankUpdate>>(updates: I) -> Self {
        let mut log = Self::default();
        updates.into_iter().for_each(|update| log.push(update));
        log
    }
}

#[cfg(test)]
mod tests {
    use l1ra_core::{RankPlan, allocation::RankChange};

    use super::*;

    fn update(step: usize) -> RankUpdate {
        RankUpdate {
            step,
            plan: RankPlan {
                changes: vec![RankChange {
                    path: "layers.0.self_attn.q_proj".into(),
                    before: 4,
                    pruned: vec![1, 3],
                    added: 1,
                }],
                min_values: vec![f32::INFINITY, 0.1, f32::MIN_POSITIVE / 3.0],
                excluded: vec![0],
                order: Vec::new(),
                grown: vec![usize::MAX],
                spare: 2,
                restart_optimizer: true,
                marked: vec![vec![2]],
            },
            gates: vec![vec![0.3, -0.0, 1e-45], Vec::new()],
        }
    }

    #[test]
    fn updates_come_back_as_they_were() {
        let updates: Vec<_> = [7, 300, 70_000].map(update).into();
        let log: UpdateLog = updates.iter().collect();
        assert_eq!(log.since(0), updates);
        assert_eq!(log.since(2), updates[2..]);
        assert_eq!(log.since(3), []);
        assert!(UpdateLog::default().since(0).is_empty());
    }
}
