//! [`AllocatorState`]: what a [`RankAllocator`](super::RankAllocator) knows of its run.

use serde::{Deserialize, Serialize};

use crate::{config::BudgetUnit, error::CoreError};

/// What the next rank update depends on besides the gates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocatorState {
    /// Optimizer steps taken.
    pub step: usize,
    /// Ranks grown so far, over all adapters.
    pub grown: usize,
    /// Ranks or parameters that the adapters may hold together.
    pub budget: usize,
    /// What the budget counts.
    pub unit: BudgetUnit,
    /// Every adapter, in the module's order.
    pub adapters: Vec<KnownAdapter>,
}

/// An adapter as an allocator knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownAdapter {
    /// Path of the adapted layer.
    pub path: String,
    /// Rank it started with.
    pub initial_rank: usize,
    /// Whether it lost its last rank; it then holds one slot that counts for nothing.
    pub asleep: bool,
}

impl AllocatorState {
    /// Whether `adapters`, each with its `[d_in, r, d_out]`, are those of this state and hold no more
    /// than the budget.
    pub(crate) fn check<'a>(
        &self,
        adapters: impl Iterator<Item = (&'a str, [usize; 3])>,
    ) -> Result<(), CoreError> {
        let (mut count, mut held) = (0, 0_usize);
        for (path, [d_in, rank, d_out]) in adapters {
            let known = self.adapters.get(count);
            count += 1;
            let Some(known) = known.filter(|known| known.path == path) else {
                let name = known.map_or("no other adapter", |known| &known.path);
                let detail = format!("the rank allocator expected {name} here");
                return Err(CoreError::adapter(path, detail));
            };
            if known.asleep && rank != 1 || known.initial_rank == 0 {
                let detail = format!("has rank {rank}, and the rank allocator knows it otherwise");
                return Err(CoreError::adapter(path, detail));
            }
            if !known.asleep {
                let price = match self.unit {
                    BudgetUnit::Ranks => 1,
                    BudgetUnit::Parameters => d_in.saturating_add(d_out).saturating_add(1),
                };
                held = held.saturating_add(rank.saturating_mul(price));
            }
        }
        if count != self.adapters.len() {
            let detail = format!("has {count} adapters; expected {}", self.adapters.len());
            return Err(CoreError::adapter("(module)", detail));
        }
        if held > self.budget {
            let detail = format!(
                "its adapters hold {held} {}; the budget is {}",
                self.unit.plural(),
                self.budget
            );
            return Err(CoreError::adapter("(module)", detail));
        }
        Ok(())
    }
}
