//! [`L1raConfig`]: every option of the adapters and of their rank allocation.

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{allocation::policies::Start, error::ConfigError, target::Targets};

/// How ranks are allocated. What each one does is in a file of
/// [`allocation::policies`](crate::allocation::policies).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Policy {
    /// Ranks go where the gradient of the frozen weights is largest per parameter, before the first
    /// step; early in the run a market moves ranks whose gates the loss does not defend. No lambda,
    /// no eta_c.
    #[default]
    L1ra,
    /// Plain LoRA, as PEFT's: no trained gates, ranks never move.
    Lora,
    /// The start of `l1ra` alone: ranks by the gradient's singular values, then plain LoRA.
    Gradient,
    /// Every gate is pulled to zero by `eta_c · lambda` a step; gates at zero are pruned and their
    /// ranks handed on, the budget conserved whatever happens. The default until 0.1; worse than `lora`
    /// at equal parameters in everything that was measured.
    Lasso,
    /// The authors' code step by step, with its quirks: all optimizer moments are dropped when a
    /// rank moves, spare ranks are lost when no adapter may grow, growth has no bound, and updates
    /// happen until the last step.
    Reference,
    /// Gates are trained and penalised, ranks never move.
    Fixed,
}

/// Initial values of A. B is zero in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Init {
    /// `A ~ N(0, 1/r0²)`: the L1RA authors'.
    Gaussian,
    /// `A ~ U(±1/√d_in)`: PEFT's default (`kaiming_uniform_` with `a = √5`).
    Kaiming,
}

impl Init {
    /// What a unit draw is multiplied by: standard normal for [`Gaussian`](Self::Gaussian), `U(±1)` for
    /// [`Kaiming`](Self::Kaiming).
    pub fn scale(self, d_in: usize, initial_rank: usize) -> f32 {
        match self {
            Self::Gaussian => 1.0 / initial_rank.max(1) as f32,
            Self::Kaiming => 1.0 / (d_in.max(1) as f32).sqrt(),
        }
    }
}

/// What the budget counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BudgetUnit {
    /// The sum of ranks stays as it was at the start. Parameters may grow, because ranks move to
    /// wide layers.
    #[default]
    Ranks,
    /// The number of adapter parameters never passes its value at the start. A rank of an adapter
    /// costs `d_in + d_out + 1`.
    Parameters,
}

impl BudgetUnit {
    /// What is counted, for messages.
    pub(crate) fn plural(self) -> &'static str {
        match self {
            Self::Ranks => "ranks",
            Self::Parameters => "parameters",
        }
    }
}

/// Options of the adapters, their optimizer terms and their rank allocation.
///
/// Defaults are the authors' where they have one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct L1raConfig {
    /// Initial rank `r0` of every adapter (at least 1).
    pub rank: usize,
    /// Scale numerator: adapters are multiplied by `s = alpha / r0`.
    pub alpha: f64,
    /// Dropout probability on the adapter's input, in `[0, 1)`.
    pub dropout: f64,
    /// Which linear layers get an adapter.
    pub targets: Targets,
    /// Initial ranks that differ from `rank`: the key is a regular expression that matches
    /// `(.*\.)?(key)$` of a layer's path; the first match wins.
    pub rank_pattern: IndexMap<String, usize>,
    /// Alphas that differ from `alpha`, by the same kind of key.
    pub alpha_pattern: IndexMap<String, f64>,
    /// How ranks are pruned and handed on.
    pub policy: Policy,
    /// Layers that may receive ranks besides the targets, in the same forms; they begin without any.
    pub open: Option<Targets>,
    /// Initial values of A: gaussian (N(0, 1/r0²)) or kaiming (U(±1/√d_in), PEFT's default). Unset:
    /// kaiming for l1ra, lora and gradient, gaussian for the others.
    pub init: Option<Init>,
    /// What the budget counts: ranks or parameters. Unset: parameters, but for the reference policy,
    /// which knows ranks only.
    pub budget: Option<BudgetUnit>,
    /// L1 coefficient on the gates (lasso, reference and fixed): each optimizer step shrinks a gate by
    /// `eta_c · lambda`.
    pub lambda: f64,
    /// Constant learning rate of the gates (lasso, reference and fixed). 0: gates stay as they are.
    pub eta_c: f64,
    /// Share of all optimizer steps between two rank updates, in `(0, 1)`.
    pub update_ratio: f64,
    /// A gate under this value is pruned (reference policy; the others prune exact zeros).
    pub prune_threshold: f64,
    /// Whether pruned ranks go to other adapters. Without, the total only shrinks.
    pub reassign: bool,
    /// Whether an adapter that lost a rank in an update may not grow in the same update.
    pub exclude_pruned: bool,
    /// Share of the run at its end in which no rank moves (lasso policy), in `[0, 1)`.
    pub settle_ratio: f64,
    /// Most ranks one adapter may hold; unset: four times its initial rank for the lasso policy, no
    /// bound for l1ra and gradient. The smaller side of its matrix bounds it in any case.
    pub max_rank: Option<usize>,
    /// Whether an adapter may lose its last rank (lasso policy).
    pub allow_zero_rank: bool,
    /// Seed of the adapters' initial values and of grown ranks.
    pub seed: u64,
}

impl Default for L1raConfig {
    fn default() -> Self {
        Self {
            rank: 16,
            alpha: 16.0,
            dropout: 0.0,
            targets: Targets::default(),
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            policy: Policy::default(),
            open: None,
            init: None,
            budget: None,
            lambda: 1e-3,
            eta_c: 2e-2,
            update_ratio: 0.1,
            prune_threshold: 1e-10,
            reassign: true,
            exclude_pruned: true,
            settle_ratio: 0.2,
            max_rank: None,
            allow_zero_rank: false,
            seed: 0,
        }
    }
}

impl L1raConfig {
    /// Checks every value that needs no model and no schedule.
    ///
    /// # Errors
    /// The first value outside its range.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let zero_pattern = self.rank_pattern.iter().find(|(_, rank)| **rank == 0);
        if let Some((key, _)) = zero_pattern {
            return Err(value(
                "rank_pattern",
                format!("{{\"{key}\": 0}}"),
                "a rank is at least 1; leave the layer out of `targets` instead",
            ));
        }
        check(
            self.rank >= 1,
            "rank",
            self.rank,
            "an adapter has a rank of at least 1",
        )?;
        for alpha in self.alpha_pattern.values().chain([&self.alpha]) {
            check(positive(*alpha), "alpha", alpha, "a positive number")?;
        }
        check(
            (0.0..1.0).contains(&self.dropout),
            "dropout",
            self.dropout,
            "a number in [0, 1)",
        )?;
        check(
            self.lambda.is_finite() && self.lambda >= 0.0,
            "lambda",
            self.lambda,
            "zero or a positive number",
        )?;
        check(
            self.eta_c.is_finite() && self.eta_c >= 0.0,
            "eta_c",
            self.eta_c,
            "zero or a positive number",
        )?;
        check(
            self.update_ratio > 0.0 && self.update_ratio < 1.0,
            "update_ratio",
            self.update_ratio,
            "a share of the run between 0 and 1, both excluded (policy = \"lora\" turns updates off)",
        )?;
        check(
            self.prune_threshold.is_finite(),
            "prune_threshold",
            self.prune_threshold,
            "a finite number",
        )?;
        check(
            (0.0..1.0).contains(&self.settle_ratio),
            "settle_ratio",
            self.settle_ratio,
            "a share of the run in [0, 1)",
        )?;
        if let Some(max_rank) = self.max_rank {
            let largest = self
                .rank_pattern
                .values()
                .copied()
                .fold(self.rank, usize::max);
            check(
                max_rank >= largest,
                "max_rank",
                max_rank,
                format!("at least the largest initial rank, {largest}"),
            )?;
        }
        check(
            self.policy != Policy::Reference || self.budget != Some(BudgetUnit::Parameters),
            "budget",
            "parameters",
            "the reference policy counts ranks; use policy = \"l1ra\" for a parameter budget",
        )?;
        check(
            self.open.is_none() || self.policy.logic().start() != Start::Even,
            "open",
            self.open
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
            "left out: with this policy no rank would ever reach these layers; use policy = \"l1ra\"",
        )
    }

    /// What the budget counts.
    pub fn budget_unit(&self) -> BudgetUnit {
        self.budget.unwrap_or(match self.policy {
            Policy::Reference => BudgetUnit::Ranks,
            _ => BudgetUnit::Parameters,
        })
    }

    /// How A begins.
    pub fn initial_values(&self) -> Init {
        self.init.unwrap_or_else(|| self.policy.logic().init())
    }
}

fn positive(number: f64) -> bool {
    number.is_finite() && number > 0.0
}

fn value(field: &'static str, seen: impl ToString, expected: impl ToString) -> ConfigError {
    ConfigError::Value {
        field,
        seen: seen.to_string(),
        expected: expected.to_string(),
    }
}

fn check(
    holds: bool,
    field: &'static str,
    seen: impl ToString,
    expected: impl ToString,
) -> Result<(), ConfigError> {
    if holds {
        Ok(())
    } else {
        Err(value(field, seen, expected))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        L1raConfig::default().validate().unwrap();
    }

    #[test]
    fn rank_zero_is_refused_with_the_remedy() {
        let error = L1raConfig {
            rank: 0,
            ..Default::default()
        }
        .validate()
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "rank = 0: an adapter has a rank of at least 1"
        );
    }

    #[test]
    fn bad_values_name_the_field() {
        let bad = [
            (
                "alpha",
                L1raConfig {
                    alpha: f64::NAN,
                    ..Default::default()
                },
            ),
            (
                "dropout",
                L1raConfig {
                    dropout: 1.0,
                    ..Default::default()
                },
            ),
            (
                "eta_c",
                L1raConfig {
                    eta_c: -1.0,
                    ..Default::default()
                },
            ),
            (
                "update_ratio",
                L1raConfig {
                    update_ratio: 0.0,
                    ..Default::default()
                },
            ),
            (
                "max_rank",
                L1raConfig {
                    max_rank: Some(4),
                    ..Default::default()
                },
            ),
            (
                "budget",
                L1raConfig {
                    policy: Policy::Reference,
                    budget: Some(BudgetUnit::Parameters),
                    ..Default::default()
                },
            ),
        ];
        for (field, config) in bad {
            let message = config.validate().unwrap_err().to_string();
            assert!(message.starts_with(field), "{message}");
        }
    }
}
