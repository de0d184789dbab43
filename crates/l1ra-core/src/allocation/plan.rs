//! Gates in, [`RankPlan`] out.

use serde::{Deserialize, Serialize};

use crate::{
    config::{BudgetUnit, L1raConfig, Policy},
    error::CoreError,
};

/// What the decision needs to know of one adapter.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterGates {
    /// Path of the adapted layer.
    pub path: String,
    /// Inputs of the layer.
    pub d_in: usize,
    /// Outputs of the layer.
    pub d_out: usize,
    /// Rank the adapter started with.
    pub initial_rank: usize,
    /// Gates of its ranks. Empty for an adapter without a rank.
    pub gates: Vec<f32>,
    /// What each rank is worth to the loss, in a unit that all adapters share; empty where the policy
    /// does not ask for it (`allocation/importance.rs` has the formula).
    pub importance: Vec<f32>,
}

impl AdapterGates {
    /// Parameters of one rank: a column of A, a gate, a row of B.
    pub fn rank_cost(&self) -> usize {
        self.d_in + self.d_out + 1
    }

    /// The smallest gate; infinity for an adapter without ranks.
    pub(crate) fn smallest(&self) -> f32 {
        self.gates.iter().copied().fold(f32::INFINITY, f32::min)
    }
}

/// The rules of a decision, fixed for a run.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRules {
    /// Policy.
    pub policy: Policy,
    /// Unit of the budget.
    pub unit: BudgetUnit,
    /// Ranks or parameters that the adapters may hold together.
    pub budget: usize,
    /// A gate under this is pruned (reference policy).
    pub prune_threshold: f32,
    /// Whether pruned ranks are handed on.
    pub reassign: bool,
    /// Whether an adapter that lost a rank may not grow in the same update.
    pub exclude_pruned: bool,
    /// Most ranks of one adapter; `None`: what the policy has.
    pub max_rank: Option<usize>,
    /// Whether an adapter may lose its last rank.
    pub allow_zero_rank: bool,
}

impl PlanRules {
    /// The rules that `config` asks for, with the budget that `adapters` hold now.
    pub fn new(config: &L1raConfig, adapters: &[AdapterGates]) -> Self {
        let mut rules = Self {
            policy: config.policy,
            unit: config.budget_unit(),
            budget: 0,
            prune_threshold: config.prune_threshold as f32,
            reassign: config.reassign,
            exclude_pruned: config.exclude_pruned,
            max_rank: config.max_rank,
            allow_zero_rank: config.allow_zero_rank,
        };
        rules.budget = adapters
            .iter()
            .map(|a| a.gates.len() * rules.price(a))
            .sum();
        rules
    }

    /// What one rank of `adapter` takes from the budget.
    pub fn price(&self, adapter: &AdapterGates) -> usize {
        match self.unit {
            BudgetUnit::Ranks => 1,
            BudgetUnit::Parameters => adapter.rank_cost(),
        }
    }

    /// Most ranks that `adapter` may hold: the cap, bounded by its matrix, never below its start.
    pub fn capacity(&self, adapter: &AdapterGates) -> usize {
        let initial = adapter.initial_rank;
        let cap = self
            .max_rank
            .unwrap_or_else(|| self.policy.logic().max_rank(initial))
            .max(initial);
        cap.min(adapter.d_in.min(adapter.d_out))
    }
}

/// What happens to one adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankChange {
    /// Path of the adapted layer.
    pub path: String,
    /// Rank before.
    pub before: usize,
    /// Indices of the ranks that go, ascending.
    pub pruned: Vec<usize>,
    /// Number of ranks that are added at the end.
    pub added: usize,
}

impl RankChange {
    /// Rank after.
    pub fn after(&self) -> usize {
        self.before - self.pruned.len() + self.added
    }

    /// Indices of the ranks that stay, ascending.
    pub fn kept(&self) -> Vec<usize> {
        (0..self.before)
            .filter(|index| self.pruned.binary_search(index).is_err())
            .collect()
    }

    /// Whether the adapter changes at all.
    pub fn is_change(&self) -> bool {
        self.added > 0 || !self.pruned.is_empty()
    }
}

/// A decision over all adapters. Positions are those of the input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankPlan {
    /// One entry an adapter.
    pub changes: Vec<RankChange>,
    /// Smallest gate of each adapter before pruning; infinity for one without ranks, `null` in JSON.
    #[serde(with = "infinity_is_null")]
    pub min_values: Vec<f32>,
    /// Adapters that may not grow because they had a gate to prune.
    pub excluded: Vec<usize>,
    /// Adapters that may grow, in the order in which ranks are dealt.
    pub order: Vec<usize>,
    /// The adapter of each new rank, in the order of dealing.
    pub grown: Vec<usize>,
    /// Number of pruned ranks.
    pub spare: usize,
    /// Whether all optimizer moments are dropped (a quirk of the reference policy).
    pub restart_optimizer: bool,
    /// Ranks of each adapter, as they were before the plan, whose gates are put below 1 (`l1ra`); empty
    /// where a policy marks none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marked: Vec<Vec<usize>>,
}

/// JSON has no infinity.
mod infinity_is_null {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[f32], to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(
            values
                .iter()
                .map(|value| value.is_finite().then_some(*value)),
        )
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f32>, D::Error> {
        let values = Vec::<Option<f32>>::deserialize(from)?;
        Ok(values
            .into_iter()
            .map(|value| value.unwrap_or(f32::INFINITY))
            .collect())
    }
}

impl RankPlan {
    /// Whether any rank moves.
    pub fn is_change(&self) -> bool {
        self.changes.iter().any(RankChange::is_change)
    }

    /// Ranks after the plan.
    pub fn ranks(&self) -> Vec<usize> {
        self.changes.iter().map(RankChange::after).collect()
    }
}

/// Decides which ranks go and where new ones come.
///
/// # Errors
/// A gate that is not finite: nothing can be decided from it.
pub fn plan(adapters: &[AdapterGates], rules: &PlanRules) -> Result<RankPlan, CoreError> {
    for adapter in adapters {
        if let Some(index) = adapter.gates.iter().position(|gate| !gate.is_finite()) {
            let detail = format!(
                "gate {index} is {}; a gate must be a finite number (has the loss diverged?)",
                adapter.gates[index]
            );
            return Err(CoreError::adapter(&adapter.path, detail));
        }
    }
    Ok(rules.policy.logic().decide(adapters, rules))
}

/// The plan that gives each adapter as many ranks as `ranks` say: the last ones go, new ones come at the
/// end.
pub(crate) fn resized(adapters: &[AdapterGates], ranks: &[usize]) -> RankPlan {
    let each = || {
        adapters
            .iter()
            .map(|adapter| adapter.gates.len())
            .zip(ranks)
    };
    let pruned = each().map(|(now, next)| (*next.min(&now)..now).collect());
    let added: Vec<usize> = each().map(|(now, next)| next.saturating_sub(now)).collect();
    let mut plan = assemble(adapters, pruned.collect(), &added);
    let grown = added.iter().enumerate();
    plan.grown = grown
        .flat_map(|(index, count)| std::iter::repeat_n(index, *count))
        .collect();
    plan
}

/// A plan from what is pruned and added, its report fields empty.
pub(crate) fn assemble(
    adapters: &[AdapterGates],
    pruned: Vec<Vec<usize>>,
    added: &[usize],
) -> RankPlan {
    let changes: Vec<RankChange> = adapters
        .iter()
        .zip(pruned)
        .zip(added)
        .map(|((adapter, pruned), added)| RankChange {
            path: adapter.path.clone(),
            before: adapter.gates.len(),
            pruned,
            added: *added,
        })
        .collect();
    RankPlan {
        spare: changes.iter().map(|change| change.pruned.len()).sum(),
        changes,
        min_values: adapters.iter().map(AdapterGates::smallest).collect(),
        excluded: Vec::new(),
        order: Vec::new(),
        grown: Vec::new(),
        restart_optimizer: false,
        marked: Vec::new(),
    }
}
