//! The authors' decision, step by step (raul-singh/L1RA at 76be3bb), quirks included.

use std::ops::RangeInclusive;

use super::{Gates, RankPolicy};
use crate::{
    allocation::plan::{AdapterGates, PlanRules, RankPlan, assemble},
    config::{Init, L1raConfig},
};

/// The authors' method to the letter.
pub(super) struct Reference;

impl RankPolicy for Reference {
    fn gates(&self) -> Gates {
        Gates::Trained
    }

    fn init(&self) -> Init {
        Init::Gaussian
    }

    fn window(
        &self,
        _config: &L1raConfig,
        steps: usize,
        _warmup: usize,
    ) -> Option<RangeInclusive<usize>> {
        Some(1..=steps)
    }

    fn decide(&self, adapters: &[AdapterGates], rules: &PlanRules) -> RankPlan {
        plan(adapters, rules)
    }
}

/// Prunes every gate under the threshold, keeps the LAST one where all would go, and deals the
/// spare ranks one by one, round-robin, to the adapters without a gate under the threshold, in
/// descending order of their smallest gate before pruning.
///
/// With no adapter left to grow, the spare ranks are lost and the optimizer restarts all the same.
fn plan(adapters: &[AdapterGates], rules: &PlanRules) -> RankPlan {
    let under = |adapter: &AdapterGates| -> Vec<usize> {
        let gates = adapter.gates.iter().enumerate();
        gates
            .filter(|(_, gate)| **gate < rules.prune_threshold)
            .map(|(index, _)| index)
            .collect()
    };
    let mut pruned: Vec<Vec<usize>> = adapters.iter().map(under).collect();
    let excluded: Vec<usize> = (0..adapters.len())
        .filter(|index| !pruned[*index].is_empty())
        .collect();
    for (adapter, pruned) in adapters.iter().zip(&mut pruned) {
        if pruned.len() == adapter.gates.len() {
            pruned.pop();
        }
    }
    let spare: usize = pruned.iter().map(Vec::len).sum();

    let order = if rules.reassign {
        growth_order(adapters, &excluded, rules)
    } else {
        Vec::new()
    };
    let grown: Vec<usize> = order.iter().copied().cycle().take(spare).collect();
    let mut added = vec![0; adapters.len()];
    grown.iter().for_each(|index| added[*index] += 1);

    let mut plan = assemble(adapters, pruned, &added);
    plan.restart_optimizer = spare > 0;
    plan.excluded = excluded;
    plan.order = order;
    plan.grown = grown;
    plan
}

/// Descending smallest gate, lower index first among equals.
fn growth_order(adapters: &[AdapterGates], excluded: &[usize], rules: &PlanRules) -> Vec<usize> {
    let mut order: Vec<usize> = (0..adapters.len()).collect();
    order.sort_by(|a, b| adapters[*b].smallest().total_cmp(&adapters[*a].smallest()));
    if rules.exclude_pruned {
        order.retain(|index| !excluded.contains(index));
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{allocation::plan::plan, config::Policy};

    fn adapter(path: &str, gates: &[f32]) -> AdapterGates {
        let gates = gates.to_vec();
        AdapterGates {
            path: path.into(),
            d_in: 8,
            d_out: 8,
            initial_rank: gates.len(),
            gates,
            importance: Vec::new(),
        }
    }

    fn rules(adapters: &[AdapterGates]) -> PlanRules {
        let config = L1raConfig {
            policy: Policy::Reference,
            ..Default::default()
        };
        PlanRules::new(&config, adapters)
    }

    #[test]
    fn keeps_the_last_gate_and_deals_round_robin() {
        let adapters = [
            adapter("a", &[-0.2, -0.1]),
            adapter("b", &[0.5, 0.4]),
            adapter("c", &[0.9, -0.3]),
            adapter("d", &[0.6, 0.7]),
        ];
        let plan = plan(&adapters, &rules(&adapters)).unwrap();
        assert_eq!(plan.changes[0].pruned, [0]);
        assert_eq!(plan.changes[2].pruned, [1]);
        assert_eq!(plan.order, [3, 1]);
        assert_eq!(plan.grown, [3, 1]);
        assert!(plan.restart_optimizer);
    }

    #[test]
    fn spare_ranks_are_lost_when_all_are_excluded() {
        let adapters = [adapter("a", &[-0.2, 0.1]), adapter("b", &[-0.5, 0.4])];
        let plan = plan(&adapters, &rules(&adapters)).unwrap();
        assert_eq!(plan.ranks(), [1, 1]);
        assert!(plan.restart_optimizer);
    }

    #[test]
    fn rank_one_under_the_threshold_excludes_without_pruning() {
        let adapters = [adapter("a", &[-0.2]), adapter("b", &[0.4])];
        let plan = plan(&adapters, &rules(&adapters)).unwrap();
        assert_eq!(plan.excluded, [0]);
        assert_eq!(plan.spare, 0);
        assert!(!plan.restart_optimizer);
    }
}
