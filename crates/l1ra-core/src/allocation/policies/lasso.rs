//! Every gate is pulled to zero; the budget is conserved whatever happens.

use std::{cmp::Ordering, ops::RangeInclusive};

use super::{Gates, RankPolicy};
use crate::{
    allocation::plan::{AdapterGates, PlanRules, RankPlan, assemble},
    config::{Init, L1raConfig},
};

/// The authors' method with what is a defect there mended.
pub(super) struct Lasso;

impl RankPolicy for Lasso {
    fn gates(&self) -> Gates {
        Gates::Trained
    }

    fn init(&self) -> Init {
        Init::Gaussian
    }

    /// After the warm-up, and not in the last `settle_ratio` of the run: new ranks have time to train.
    fn window(
        &self,
        config: &L1raConfig,
        steps: usize,
        warmup: usize,
    ) -> Option<RangeInclusive<usize>> {
        let settle = (config.settle_ratio * steps as f64).ceil() as usize;
        Some(warmup + 1..=steps.saturating_sub(settle))
    }

    fn max_rank(&self, initial: usize) -> usize {
        4 * initial
    }

    fn decide(&self, adapters: &[AdapterGates], rules: &PlanRules) -> RankPlan {
        plan(adapters, rules)
    }
}

/// Prunes gates that are zero and deals what the budget then leaves, one rank at a time:
/// round-robin in descending order of the smallest gate before pruning, first to the adapters that
/// lost nothing, then, should those be full, to the others.
///
/// - An adapter keeps at least one rank, the one with the largest gate, unless zero is allowed.
/// - No adapter grows past its capacity.
/// - In ranks, the total is the budget after every plan: those that were pruned can always take
///   their own ranks back. In parameters, it is never above the budget, and below it by less than
///   the cheapest rank that may still grow.
/// - Ties are broken by path, so neither ids nor the order of the input matter.
fn plan(adapters: &[AdapterGates], rules: &PlanRules) -> RankPlan {
    let pruned: Vec<Vec<usize>> = adapters.iter().map(|a| dead_ranks(a, rules)).collect();
    let excluded: Vec<usize> = (0..adapters.len())
        .filter(|index| !pruned[*index].is_empty())
        .collect();
    let kept: Vec<usize> = adapters
        .iter()
        .zip(&pruned)
        .map(|(a, pruned)| a.gates.len() - pruned.len())
        .collect();

    let (order, grown) = if rules.reassign {
        deal(adapters, rules, &excluded, &kept)
    } else {
        (Vec::new(), Vec::new())
    };
    let mut added = vec![0; adapters.len()];
    grown.iter().for_each(|index| added[*index] += 1);

    let mut plan = assemble(adapters, pruned, &added);
    plan.excluded = excluded;
    plan.order = order;
    plan.grown = grown;
    plan
}

/// Ranks whose gate is zero, but for the one that must stay.
fn dead_ranks(adapter: &AdapterGates, rules: &PlanRules) -> Vec<usize> {
    let gates = &adapter.gates;
    let mut dead: Vec<usize> = (0..gates.len())
        .filter(|index| gates[*index] <= 0.0)
        .collect();
    if dead.len() == gates.len() && !rules.allow_zero_rank && !gates.is_empty() {
        // All are zero or below: the largest stays, the first among equals.
        let largest = gates.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let stays = gates.iter().position(|gate| *gate == largest);
        dead.retain(|index| Some(*index) != stays);
    }
    dead
}

/// The order of growth and the adapter of each new rank.
fn deal(
    adapters: &[AdapterGates],
    rules: &PlanRules,
    excluded: &[usize],
    kept: &[usize],
) -> (Vec<usize>, Vec<usize>) {
    let held: usize = adapters
        .iter()
        .zip(kept)
        .map(|(a, kept)| kept * rules.price(a))
        .sum();
    let mut left = rules.budget.saturating_sub(held);
    let mut ranks = kept.to_vec();
    let mut grown = Vec::new();
    let mut order = Vec::new();
    for tier in tiers(adapters, rules, excluded) {
        loop {
            let mut dealt = false;
            for &index in &tier {
                let (adapter, price) = (&adapters[index], rules.price(&adapters[index]));
                if price <= left && ranks[index] < rules.capacity(adapter) {
                    ranks[index] += 1;
                    left -= price;
                    grown.push(index);
                    dealt = true;
                }
            }
            if !dealt {
                break;
            }
        }
        order.extend(tier);
    }
    (order, grown)
}

/// Adapters by who is served first: untouched ones, those that were pruned, those without ranks.
fn tiers(adapters: &[AdapterGates], rules: &PlanRules, excluded: &[usize]) -> [Vec<usize>; 3] {
    let mut tiers = [Vec::new(), Vec::new(), Vec::new()];
    for (index, adapter) in adapters.iter().enumerate() {
        let tier = if adapter.gates.is_empty() {
            2
        } else {
            usize::from(rules.exclude_pruned && excluded.binary_search(&index).is_ok())
        };
        tiers[tier].push(index);
    }
    for tier in &mut tiers {
        tier.sort_by(|a, b| growth_order(&adapters[*a], &adapters[*b]));
    }
    tiers
}

fn growth_order(a: &AdapterGates, b: &AdapterGates) -> Ordering {
    b.smallest()
        .total_cmp(&a.smallest())
        .then_with(|| a.path.cmp(&b.path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        allocation::plan::plan,
        config::{BudgetUnit, L1raConfig, Policy},
    };

    fn config() -> L1raConfig {
        L1raConfig {
            policy: Policy::Lasso,
            budget: Some(BudgetUnit::Ranks),
            ..Default::default()
        }
    }

    fn adapter(path: &str, dims: [usize; 2], gates: &[f32]) -> AdapterGates {
        let [d_in, d_out] = dims;
        let gates = gates.to_vec();
        AdapterGates {
            path: path.into(),
            d_in,
            d_out,
            initial_rank: gates.len(),
            gates,
            importance: Vec::new(),
        }
    }

    fn decide(config: &L1raConfig, adapters: &[AdapterGates]) -> RankPlan {
        plan(adapters, &PlanRules::new(config, adapters)).unwrap()
    }

    #[test]
    fn spare_ranks_go_to_the_adapter_with_the_largest_smallest_gate() {
        let adapters = [
            adapter("a", [8, 8], &[0.0, 0.3]),
            adapter("b", [8, 8], &[0.5, 0.2]),
            adapter("c", [8, 8], &[0.4, 0.9]),
        ];
        let plan = decide(&config(), &adapters);
        assert_eq!(plan.ranks(), [1, 2, 3]);
        assert!(!plan.restart_optimizer);
    }

    #[test]
    fn the_budget_survives_when_every_adapter_is_pruned() {
        let adapters = [
            adapter("a", [8, 8], &[0.0, 0.3]),
            adapter("b", [8, 8], &[0.0, 0.2]),
        ];
        let plan = decide(&config(), &adapters);
        assert_eq!(plan.ranks(), [2, 2]);
    }

    #[test]
    fn growth_stops_at_the_matrix_and_at_the_cap() {
        let adapters = [
            adapter("a", [8, 8], &[0.0, 0.0, 0.0, 0.0, 0.0, 0.1]),
            adapter("b", [3, 8], &[0.5, 0.2]),
            adapter("c", [8, 8], &[0.4, 0.9]),
        ];
        let config = L1raConfig {
            max_rank: Some(6),
            rank: 2,
            ..config()
        };
        let plan = decide(&config, &adapters);
        assert_eq!(plan.ranks(), [1, 3, 6]);
    }

    #[test]
    fn the_largest_of_dead_gates_stays_unless_zero_is_allowed() {
        let adapters = [
            adapter("a", [8, 8], &[0.0, 0.0]),
            adapter("b", [8, 8], &[0.5, 0.2]),
        ];
        assert_eq!(decide(&config(), &adapters).ranks(), [1, 3]);
        let config = L1raConfig {
            allow_zero_rank: true,
            ..config()
        };
        assert_eq!(decide(&config, &adapters).ranks(), [0, 4]);
    }

    #[test]
    fn a_parameter_budget_is_never_passed() {
        let adapters = [
            adapter("a", [4, 4], &[0.0, 0.3]),
            adapter("b", [10, 10], &[0.5, 0.2]),
        ];
        let config = L1raConfig {
            budget: Some(BudgetUnit::Parameters),
            ..config()
        };
        // A freed rank of `a` is 9 parameters, one of `b` costs 21: it goes back to `a`.
        assert_eq!(decide(&config, &adapters).ranks(), [2, 2]);
    }
}
