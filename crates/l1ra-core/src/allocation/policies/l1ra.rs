//! The `l1ra` decision: a market with a margin, in the first third of the run.
//!
//! Gates stand at 1 and are constants. A rank that earns little for its parameters is *marked*: its
//! gate is put just below 1, and from then on the optimizer pulls it to zero, against what the loss
//! wants of it. A gate that comes to zero by the next update was not defended: its rank is pruned and
//! its parameters go to the adapter whose least important rank earns most for its parameters. A gate
//! that comes back to 1 was defended, and is a constant again.
//!
//! Nothing is marked unless the place where the parameters would go earns [`MARGIN`] times as much.
//! Without a mark the run is LoRA, bit for bit, with the ranks that it began with.

use std::ops::RangeInclusive;

use super::{Gates, RankPolicy, Start};
use crate::{
    allocation::plan::{AdapterGates, PlanRules, RankPlan, assemble},
    config::L1raConfig,
};

/// How many times as much a rank must earn per parameter where it would go: it begins anew, and what
/// the marked one has learnt is lost.
pub(super) const MARGIN: f32 = 10.0;
/// Largest share of the budget that is marked in an update.
const TURNOVER: f64 = 0.05;

/// The default policy.
pub(super) struct L1ra;

impl RankPolicy for L1ra {
    fn start(&self) -> Start {
        Start::Gradient
    }

    fn gates(&self) -> Gates {
        Gates::Marked
    }

    fn needs_importance(&self) -> bool {
        true
    }

    /// From the end of the warm-up to a third of the run: later moves have no time to pay.
    fn window(
        &self,
        _config: &L1raConfig,
        steps: usize,
        warmup: usize,
    ) -> Option<RangeInclusive<usize>> {
        Some(warmup + 1..=steps / 3)
    }

    /// Prunes gates at zero, hands their parameters on, and marks the next ones.
    ///
    /// - An adapter keeps its last rank.
    /// - The budget is never passed; what is left of it is less than the cheapest rank that may grow.
    /// - Ties are broken by path.
    fn decide(&self, adapters: &[AdapterGates], rules: &PlanRules) -> RankPlan {
        let pruned: Vec<Vec<usize>> = adapters.iter().map(undefended).collect();
        let mut ranks: Vec<usize> = adapters
            .iter()
            .zip(&pruned)
            .map(|(adapter, pruned)| adapter.gates.len() - pruned.len())
            .collect();
        let held = |ranks: &[usize]| -> usize {
            let prices = adapters.iter().map(|adapter| rules.price(adapter));
            prices.zip(ranks).map(|(price, ranks)| price * ranks).sum()
        };
        let order = by_worth(adapters, rules, &pruned);
        let mut grown = Vec::new();
        if pruned.iter().any(|pruned| !pruned.is_empty()) {
            let mut left = rules.budget.saturating_sub(held(&ranks));
            // One each in turn: what a further rank earns falls with every one.
            loop {
                let before = grown.len();
                for index in &order {
                    let price = rules.price(&adapters[*index]);
                    if price <= left && ranks[*index] < rules.capacity(&adapters[*index]) {
                        ranks[*index] += 1;
                        left -= price;
                        grown.push(*index);
                    }
                }
                if grown.len() == before {
                    break;
                }
            }
        }
        let mut added = vec![0; adapters.len()];
        grown.iter().for_each(|index| added[*index] += 1);
        let excluded = (0..adapters.len())
            .filter(|index| !pruned[*index].is_empty())
            .collect();
        let marked = mark(adapters, rules, &pruned, &order);
        let mut plan = assemble(adapters, pruned, &added);
        plan.excluded = excluded;
        plan.order = order;
        plan.grown = grown;
        plan.marked = marked;
        plan
    }
}

/// Ranks whose gate came to zero, but for an adapter's last one.
fn undefended(adapter: &AdapterGates) -> Vec<usize> {
    let gates = adapter.gates.iter().enumerate();
    let mut zero: Vec<usize> = gates
        .filter(|(_, gate)| **gate <= 0.0)
        .map(|(index, _)| index)
        .collect();
    if zero.len() == adapter.gates.len() {
        zero.pop();
    }
    zero
}

/// What the least important of the ranks that stay earns per parameter.
fn worth(adapter: &AdapterGates, pruned: &[usize]) -> f32 {
    let stays = |index: &usize| pruned.binary_search(index).is_err();
    let kept = (0..adapter.gates.len()).filter(stays);
    let least = kept
        .filter_map(|index| adapter.importance.get(index).copied())
        .fold(f32::INFINITY, f32::min);
    match least.is_finite() {
        true => least / adapter.rank_cost() as f32,
        false => 0.0,
    }
}

/// Adapters without an undefended rank, the one whose least important rank earns most first.
fn by_worth(adapters: &[AdapterGates], rules: &PlanRules, pruned: &[Vec<usize>]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..adapters.len())
        .filter(|index| pruned[*index].is_empty() && !adapters[*index].gates.is_empty())
        .filter(|index| adapters[*index].gates.len() < rules.capacity(&adapters[*index]))
        .collect();
    order.sort_by(|a, b| {
        worth(&adapters[*b], &pruned[*b])
            .total_cmp(&worth(&adapters[*a], &pruned[*a]))
            .then_with(|| adapters[*a].path.cmp(&adapters[*b].path))
    });
    order
}

/// The ranks to mark, in each adapter ascending: those that earn least per parameter, as long as the
/// best place earns [`MARGIN`] times as much and no more than [`TURNOVER`] of the budget is marked.
fn mark(
    adapters: &[AdapterGates],
    rules: &PlanRules,
    pruned: &[Vec<usize>],
    order: &[usize],
) -> Vec<Vec<usize>> {
    let mut marked = vec![Vec::new(); adapters.len()];
    let Some(best) = order.first() else {
        return marked;
    };
    let least = worth(&adapters[*best], &pruned[*best]) / MARGIN;
    let mut candidates = Vec::new();
    for (index, adapter) in adapters.iter().enumerate() {
        for (rank, gate) in adapter.gates.iter().enumerate() {
            let earns = adapter
                .importance
                .get(rank)
                .copied()
                .unwrap_or(f32::INFINITY)
                / adapter.rank_cost() as f32;
            if *gate >= 1.0 && earns < least && index != *best {
                candidates.push((earns, index, rank));
            }
        }
    }
    candidates.sort_by(|(a, i, j), (b, k, l)| {
        a.total_cmp(b)
            .then_with(|| adapters[*i].path.cmp(&adapters[*k].path))
            .then_with(|| j.cmp(l))
    });
    let mut left = (rules.budget as f64 * TURNOVER) as usize;
    let at_one = |adapter: &AdapterGates| adapter.gates.iter().filter(|gate| **gate >= 1.0).count();
    let mut stay: Vec<usize> = adapters.iter().map(at_one).collect();
    for (_, index, rank) in candidates {
        let price = rules.price(&adapters[index]);
        if price <= left && stay[index] > 1 {
            left -= price;
            stay[index] -= 1;
            marked[index].push(rank);
        }
    }
    marked.iter_mut().for_each(|ranks| ranks.sort_unstable());
    marked
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::allocation::plan::plan;

    fn adapter(path: &str, gates: &[f32], importance: &[f32]) -> AdapterGates {
        AdapterGates {
            path: path.into(),
            d_in: 64,
            d_out: 64,
            initial_rank: gates.len(),
            gates: gates.to_vec(),
            importance: importance.to_vec(),
        }
    }

    fn decide(adapters: &[AdapterGates]) -> RankPlan {
        plan(adapters, &PlanRules::new(&L1raConfig::default(), adapters)).unwrap()
    }

    #[test]
    fn nothing_moves_within_the_margin() {
        let adapters = [
            adapter("a", &[1.0; 20], &[1.0; 20]),
            adapter("b", &[1.0; 20], &[MARGIN * 0.9; 20]),
        ];
        let plan = decide(&adapters);
        assert!(!plan.is_change());
        assert!(plan.marked.iter().all(Vec::is_empty));
    }

    #[test]
    fn the_least_important_are_marked_up_to_the_turnover() {
        let mut importance = [1.0; 20];
        importance[7] = 0.5;
        importance[3] = 0.6;
        importance[9] = 0.7;
        let adapters = [
            adapter("a", &[1.0; 20], &importance),
            adapter("b", &[1.0; 20], &[MARGIN * 2.0; 20]),
        ];
        let plan = decide(&adapters);
        assert!(!plan.is_change());
        assert_eq!(plan.marked, [vec![3, 7], vec![]], "5 % of 40 ranks");
    }

    #[test]
    fn an_undefended_rank_goes_where_ranks_earn_most_and_a_defended_one_stays() {
        let adapters = [
            adapter("a", &[1.0, 0.0, 0.4], &[1.0, 0.1, 0.1]),
            adapter("b", &[1.0, 1.0], &[3.0, 2.0]),
            adapter("c", &[1.0, 1.0], &[9.0, 1.5]),
        ];
        let plan = decide(&adapters);
        assert_eq!(plan.ranks(), [2, 3, 2]);
        assert_eq!(plan.changes[0].pruned, [1]);
        assert_eq!(plan.order, [1, 2]);
    }

    #[test]
    fn the_last_rank_stays() {
        let adapters = [
            adapter("a", &[0.0], &[0.0]),
            adapter("b", &[1.0, 1.0], &[90.0, 90.0]),
        ];
        let plan = decide(&adapters);
        assert_eq!(plan.ranks(), [1, 2]);
        assert!(plan.marked.iter().all(Vec::is_empty));
    }
}
