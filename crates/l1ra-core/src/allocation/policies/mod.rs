//! The policies: what each begins with, whether its gates are trained, when its ranks move, and its
//! decision, as pure logic over plain numbers.
//!
//! Adding one is a file here and a line in [`Policy::logic`].

mod fixed;
mod gradient;
mod l1ra;
mod lasso;
mod lora;
mod reference;

use std::ops::RangeInclusive;

use crate::{
    allocation::plan::{AdapterGates, PlanRules, RankPlan, assemble},
    config::{Init, L1raConfig, Policy},
};

/// Where ranks are before the first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// As the configuration says.
    Even,
    /// By the squared singular values of every layer's gradient, per parameter ([`super::start`]).
    Gradient,
}

/// What happens to gates in the optimizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gates {
    /// They are constants: no gradient, nothing in the graph.
    Constant,
    /// All are trained at `eta_c` and pulled to zero by `eta_c · lambda` a step.
    Trained,
    /// Those below 1 are; a gate at 1 is a constant. Rates follow from the period of updates.
    Marked,
}

/// A policy.
pub trait RankPolicy: Sync {
    /// Where ranks begin.
    fn start(&self) -> Start {
        Start::Even
    }

    /// What happens to gates.
    fn gates(&self) -> Gates {
        Gates::Constant
    }

    /// How A begins where the configuration does not say.
    fn init(&self) -> Init {
        Init::Kaiming
    }

    /// The steps between which ranks may move, in a run of `steps` with `warmup` of them; `None`: they
    /// never do.
    fn window(
        &self,
        _config: &L1raConfig,
        _steps: usize,
        _warmup: usize,
    ) -> Option<RangeInclusive<usize>> {
        None
    }

    /// Whether the decision is from [importance](AdapterGates::importance), too.
    fn needs_importance(&self) -> bool {
        false
    }

    /// Most ranks of an adapter that began with `initial`, where the configuration does not say.
    fn max_rank(&self, _initial: usize) -> usize {
        usize::MAX
    }

    /// Which ranks go and where new ones come. Every gate is finite.
    fn decide(&self, adapters: &[AdapterGates], _rules: &PlanRules) -> RankPlan {
        unchanged(adapters)
    }
}

impl Policy {
    /// What the policy does.
    pub fn logic(self) -> &'static dyn RankPolicy {
        match self {
            Self::L1ra => &l1ra::L1ra,
            Self::Lora => &lora::Lora,
            Self::Gradient => &gradient::Gradient,
            Self::Lasso => &lasso::Lasso,
            Self::Reference => &reference::Reference,
            Self::Fixed => &fixed::Fixed,
        }
    }
}

/// The plan that changes nothing.
fn unchanged(adapters: &[AdapterGates]) -> RankPlan {
    let pruned = vec![Vec::new(); adapters.len()];
    assemble(adapters, pruned, &vec![0; adapters.len()])
}
