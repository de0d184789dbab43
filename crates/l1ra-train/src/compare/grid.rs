//! [`Grid`]: which runs a comparison is made of.

use std::{fmt, path::Path};

use l1ra_core::{Policy, target::Targets};
use serde::{Deserialize, Serialize};

use crate::{
    error::TrainError,
    recipe::{Recipe, keys},
};

/// The policy that others are compared with, where it is in the grid.
pub const BASELINE: &str = "lora";

/// Policies × targets × ranks × learning rates × seeds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Grid {
    /// Rank policies, as `adapters.policy` takes them.
    pub policies: Vec<Policy>,
    /// Choices of layers. The rank of all but the first is chosen for as many adapter parameters as the
    /// first one has, or as few less as ranks allow.
    pub targets: Vec<Targets>,
    /// Initial ranks, of the first targets.
    pub ranks: Vec<usize>,
    /// Peak learning rates of A and B.
    pub lrs: Vec<f64>,
    /// Seeds, 0 and up: each is that of the adapters and of the data's order.
    pub seeds: u64,
}

/// One run of a grid.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    /// The policy.
    pub policy: Policy,
    /// The layers, where the grid has several choices.
    pub targets: Option<Targets>,
    /// Initial rank, of the grid's first targets.
    pub rank: usize,
    /// Peak learning rate.
    pub lr: f64,
    /// Seed.
    pub seed: u64,
}

impl Grid {
    /// The grid for a recipe where nothing else is said: [`BASELINE`] and the recipe's own policy (or
    /// the default one), the recipe's targets, rank and learning rate, three seeds.
    pub fn of(recipe: &Recipe) -> Self {
        let own = recipe.adapters.policy;
        let mut policies: Vec<Policy> = policy(BASELINE).into_iter().collect();
        for other in [own, Policy::default()] {
            if policies.len() < 2 && !policies.contains(&other) {
                policies.push(other);
            }
        }
        Self {
            policies,
            targets: vec![recipe.adapters.targets.clone()],
            ranks: vec![recipe.adapters.rank],
            lrs: vec![recipe.train.lr],
            seeds: 3,
        }
    }

    /// Checks every list.
    ///
    /// # Errors
    /// A list that is empty or says something twice; a value out of range.
    pub fn validate(&self) -> Result<(), TrainError> {
        let names: Vec<String> = self.policies.iter().map(|policy| name(*policy)).collect();
        list("policies", &names)?;
        list("targets", &self.targets)?;
        list("ranks", &self.ranks)?;
        list("lrs", &self.lrs)?;
        if self.ranks.contains(&0) {
            let expected = "an adapter has a rank of at least 1";
            return Err(TrainError::option("ranks", 0, expected));
        }
        if let Some(lr) = self.lrs.iter().find(|lr| !(lr.is_finite() && **lr > 0.0)) {
            return Err(TrainError::option("lrs", lr, "a positive number"));
        }
        match self.seeds {
            0 => Err(TrainError::option(
                "seeds",
                0,
                "at least 1, and 5 for an interval that says something",
            )),
            _ => Ok(()),
        }
    }

    /// Every run. Runs that are compared with each other are neighbours, so that a machine whose speed
    /// changes is the same for all of them.
    pub fn cells(&self) -> Vec<Cell> {
        let mut cells = Vec::new();
        for rank in &self.ranks {
            for lr in &self.lrs {
                for seed in 0..self.seeds {
                    for targets in &self.targets {
                        cells.extend(self.policies.iter().map(|policy| Cell {
                            policy: *policy,
                            targets: (self.targets.len() > 1).then(|| targets.clone()),
                            rank: *rank,
                            lr: *lr,
                            seed,
                        }));
                    }
                }
            }
        }
        cells
    }
}

impl fmt::Display for Grid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let policies: Vec<String> = self.policies.iter().map(|policy| name(*policy)).collect();
        let ranks: Vec<String> = self.ranks.iter().map(ToString::to_string).collect();
        let lrs: Vec<String> = self.lrs.iter().map(|lr| format!("{lr:e}")).collect();
        write!(f, "policies {}", policies.join(", "))?;
        if self.targets.len() > 1 {
            let targets: Vec<String> = self.targets.iter().map(ToString::to_string).collect();
            write!(f, " · targets {}", targets.join("; "))?;
        }
        write!(
            f,
            " · ranks {} · rates {} · seeds 0–{}",
            ranks.join(", "),
            lrs.join(", "),
            self.seeds.saturating_sub(1)
        )
    }
}

impl Cell {
    /// The run's name, which is also that of its folder: `l1ra-r4-lr2e-3-s0`.
    pub fn name(&self) -> String {
        let targets = self.targets.as_ref().map_or(String::new(), |targets| {
            let text = targets.to_string().replace(", ", "+");
            let plain = |c: char| c.is_ascii_alphanumeric() || "+-_.".contains(c);
            let text: String = text.chars().filter(|c| plain(*c)).collect();
            format!("-{text}")
        });
        let Self { rank, lr, seed, .. } = self;
        format!("{}{targets}-r{rank}-lr{lr:e}-s{seed}", name(self.policy))
    }

    /// What is compared: the policy, with its targets where the grid has several.
    pub fn arm(&self) -> String {
        let policy = name(self.policy);
        match &self.targets {
            Some(targets) => format!("{policy} on {targets}"),
            None => policy,
        }
    }

    /// `base` as this run's recipe, written to `folder`: the scale `alpha / rank` is that of `base`,
    /// and the run is saved only where it is interrupted.
    pub fn recipe(&self, base: &Recipe, folder: &Path) -> Recipe {
        let mut recipe = base.clone();
        recipe.output = folder.into();
        recipe.adapters.policy = self.policy;
        if let Some(targets) = &self.targets {
            recipe.adapters.targets = targets.clone();
        }
        set_rank(&mut recipe, self.rank);
        recipe.adapters.seed = self.seed;
        recipe.train.seed = self.seed;
        recipe.train.lr = self.lr;
        recipe.checkpoint.save_every = Some(0);
        recipe.checkpoint.keep_best = false;
        recipe.log.report = false;
        recipe.log.tensorboard = false;
        recipe
    }
}

/// Another rank at the same scale `alpha / rank`.
pub(super) fn set_rank(recipe: &mut Recipe, rank: usize) {
    let adapters = &mut recipe.adapters;
    if rank != adapters.rank {
        adapters.alpha *= rank as f64 / adapters.rank as f64;
        adapters.rank = rank;
    }
}

/// A policy by its name in a recipe.
///
/// # Errors
/// A name that no policy has, with those that there are.
pub fn policy(name: &str) -> Result<Policy, TrainError> {
    serde_json::from_value(name.into()).map_err(|_| {
        let known = keys().into_iter().find(|key| key.key == "adapters.policy");
        let known = known.map_or(String::new(), |key| key.choices.join(", "));
        TrainError::option("policies", name, format!("one of {known}"))
    })
}

/// A choice of layers, as a recipe has it or as names between commas.
pub fn targets(text: &str) -> Targets {
    let text = text.trim();
    let name = |part: &str| {
        let letter = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
        !part.is_empty() && part.chars().all(letter)
    };
    if let Ok(targets) = serde_json::from_str(text) {
        return targets;
    }
    let parts: Vec<&str> = text.split(',').map(str::trim).collect();
    if text != l1ra_core::target::ALL_LINEAR && parts.iter().all(|part| name(part)) {
        return Targets::Names(parts.into_iter().map(String::from).collect());
    }
    Targets::from(text)
}

/// A policy's name in a recipe.
pub fn name(policy: Policy) -> String {
    let value = serde_json::to_value(policy).ok();
    let name = value.as_ref().and_then(serde_json::Value::as_str);
    name.unwrap_or_default().into()
}

fn list<T: PartialEq + fmt::Display>(field: &'static str, values: &[T]) -> Result<(), TrainError> {
    if values.is_empty() {
        return Err(TrainError::option(field, "(nothing)", "at least one"));
    }
    let mut seen = values.iter().enumerate();
    match seen.find(|(index, value)| values[..*index].contains(value)) {
        Some((_, twice)) => Err(TrainError::option(field, twice, "each once; this is twice")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grid() -> Grid {
        Grid {
            policies: vec![policy("l1ra").unwrap(), policy("fixed").unwrap()],
            targets: vec![Targets::AllLinear],
            ranks: vec![2, 4],
            lrs: vec![2e-3],
            seeds: 2,
        }
    }

    #[test]
    fn every_run_once_and_pairs_beside_each_other() {
        let names: Vec<String> = grid().cells().iter().map(Cell::name).collect();
        assert_eq!(
            names,
            [
                "l1ra-r2-lr2e-3-s0",
                "fixed-r2-lr2e-3-s0",
                "l1ra-r2-lr2e-3-s1",
                "fixed-r2-lr2e-3-s1",
                "l1ra-r4-lr2e-3-s0",
                "fixed-r4-lr2e-3-s0",
                "l1ra-r4-lr2e-3-s1",
                "fixed-r4-lr2e-3-s1",
            ]
        );
    }

    #[test]
    fn a_run_is_the_recipe_at_the_same_scale() {
        let mut base = Recipe::default();
        (base.adapters.rank, base.adapters.alpha) = (8, 16.0);
        let cell = grid().cells().pop().unwrap();
        let recipe = cell.recipe(&base, Path::new("x"));
        let adapters = &recipe.adapters;
        assert_eq!((adapters.rank, adapters.alpha, adapters.seed), (4, 8.0, 1));
        assert_eq!(name(adapters.policy), "fixed");
        assert_eq!((recipe.train.seed, recipe.train.lr), (1, 2e-3));
        assert_eq!(recipe.checkpoint.save_every, Some(0));
        assert!(!recipe.log.report);
        assert_eq!(recipe.output, Path::new("x"));
    }

    #[test]
    fn bad_lists_are_named() {
        let said = |change: fn(&mut Grid)| {
            let mut grid = grid();
            change(&mut grid);
            grid.validate().unwrap_err().to_string()
        };
        assert_eq!(
            said(|grid| grid.ranks.clear()),
            "ranks = (nothing): at least one"
        );
        assert_eq!(
            said(|grid| grid.ranks = vec![2, 0]),
            "ranks = 0: an adapter has a rank of at least 1"
        );
        assert_eq!(
            said(|grid| grid.lrs = vec![-1.0]),
            "lrs = -1: a positive number"
        );
        assert_eq!(
            said(|grid| grid.policies.push(grid.policies[0])),
            "policies = l1ra: each once; this is twice"
        );
        assert!(said(|grid| grid.seeds = 0).starts_with("seeds = 0: at least 1"));
        let unknown = policy("lara").unwrap_err().to_string();
        assert!(
            unknown.starts_with("policies = lara: one of l1ra, "),
            "{unknown}"
        );
    }

    #[test]
    fn targets_are_a_recipe_s_or_names() {
        let names = |names: &[&str]| Targets::Names(names.iter().map(|n| (*n).into()).collect());
        assert_eq!(targets("all-linear"), Targets::AllLinear);
        assert_eq!(targets("q_proj, v_proj"), names(&["q_proj", "v_proj"]));
        assert_eq!(targets(r#"["q_proj"]"#), names(&["q_proj"]));
        assert_eq!(targets(".*_proj"), Targets::Regex(".*_proj".into()));
    }
}
