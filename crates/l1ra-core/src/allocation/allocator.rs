//! [`RankAllocator`]: schedule, decision and surgery for one training run.

use std::collections::{HashMap, HashSet};

use burn::{
    module::{Module, ModuleMapper, Param},
    optim::ModuleOptimizer,
    tensor::Tensor,
};

use crate::{
    allocation::{
        plan::{AdapterGates, PlanRules, RankPlan, plan},
        schedule::UpdateSchedule,
        state::{AllocatorState, KnownAdapter},
        surgery,
    },
    config::{L1raConfig, Policy},
    error::CoreError,
    init::{Noise, SeededNoise},
    optim::AdamEConfig,
    optim::adapter_optimizer,
    target::ends_with_name,
    walk::{self, AdapterView},
};

/// Moves ranks between the adapters of one module over one training run.
///
/// Call [`after_step`](Self::after_step) once after every optimizer step.
pub struct RankAllocator {
    config: L1raConfig,
    optimizer: AdamEConfig,
    schedule: UpdateSchedule,
    rules: PlanRules,
    paths: Vec<String>,
    initial_ranks: HashMap<String, usize>,
    dormant: HashSet<String>,
    noise: Box<dyn Noise>,
    step: usize,
    grown: usize,
}

/// What [`RankAllocator::after_step`] did.
#[derive(Clone, Debug, Default)]
pub struct StepOutcome {
    /// Optimizer steps taken so far.
    pub step: usize,
    /// The decision, where the schedule asked for one.
    pub plan: Option<RankPlan>,
    /// The gates that it was made from, one list an adapter; empty without a decision.
    pub gates: Vec<Vec<f32>>,
}

impl RankAllocator {
    /// An allocator for `module`, whose adapters' ranks now are the budget. The module may be
    /// wrapped in another afterwards.
    ///
    /// # Errors
    /// A configuration or schedule that cannot work, or a module without adapters.
    pub fn new<M: Module>(
        module: &M,
        config: &L1raConfig,
        optimizer: &AdamEConfig,
        total_steps: usize,
        warmup_steps: usize,
    ) -> Result<Self, CoreError> {
        config.validate()?;
        let schedule = UpdateSchedule::new(config, total_steps, warmup_steps)?;
        let views = walk::adapters(module);
        if views.is_empty() {
            return Err(CoreError::adapter(
                "(module)",
                "has no adapters; attach them first",
            ));
        }
        let initial_ranks: HashMap<String, usize> = views
            .iter()
            .map(|view| (view.path.clone(), view.rank()))
            .collect();
        let mut allocator = Self {
            config: config.clone(),
            optimizer: optimizer.clone(),
            schedule,
            rules: PlanRules::new(config, &[]),
            paths: views.iter().map(|view| view.path.clone()).collect(),
            initial_ranks,
            dormant: HashSet::new(),
            noise: Box::new(SeededNoise::new(config.seed)),
            step: 0,
            grown: 0,
        };
        let adapters = allocator.read_gates(&views)?;
        allocator.rules = PlanRules::new(config, &adapters);
        Ok(allocator)
    }

    /// The allocator of a run that goes on: as it was when `state` was taken, under this
    /// configuration and length of the run. `module` holds the adapters of that time.
    ///
    /// # Errors
    /// As [`new`](Self::new), and a module whose adapters are not those of `state`.
    pub fn restore<M: Module>(
        module: &M,
        config: &L1raConfig,
        optimizer: &AdamEConfig,
        total_steps: usize,
        warmup_steps: usize,
        state: &AllocatorState,
    ) -> Result<Self, CoreError> {
        let mut allocator = Self::new(module, config, optimizer, total_steps, warmup_steps)?;
        let views = walk::adapters(module);
        let held = views.iter().map(|view| {
            let [d_in, d_out] = view.dims();
            (view.path.as_str(), [d_in, view.rank(), d_out])
        });
        state.check(held)?;
        allocator.initial_ranks = state
            .adapters
            .iter()
            .map(|adapter| (adapter.path.clone(), adapter.initial_rank))
            .collect();
        let asleep = state.adapters.iter().filter(|adapter| adapter.asleep);
        allocator.dormant = asleep.map(|adapter| adapter.path.clone()).collect();
        allocator.rules.budget = state.budget;
        allocator.step = state.step;
        allocator.grown = state.grown;
        Ok(allocator)
    }

    /// What the allocator knows of its run, for [`restore`](Self::restore).
    pub fn state(&self) -> AllocatorState {
        let known = |path: &String| KnownAdapter {
            path: path.clone(),
            initial_rank: self.initial_ranks.get(path).copied().unwrap_or(0),
            asleep: self.dormant.contains(path),
        };
        AllocatorState {
            step: self.step,
            grown: self.grown,
            budget: self.rules.budget,
            unit: self.rules.unit,
            adapters: self.paths.iter().map(known).collect(),
        }
    }

    /// Draws grown ranks from `noise` in place of the seeded generator.
    pub fn with_noise(mut self, noise: impl Noise + 'static) -> Self {
        self.noise = Box::new(noise);
        self
    }

    /// When ranks move.
    pub fn schedule(&self) -> &UpdateSchedule {
        &self.schedule
    }

    /// Ranks or parameters that the adapters hold together.
    pub fn budget(&self) -> usize {
        self.rules.budget
    }

    /// Optimizer steps taken so far.
    pub fn step(&self) -> usize {
        self.step
    }

    /// Counts one optimizer step; where the schedule asks for it, decides and carries out a rank
    /// update on `module` and `optimizer`; and brings gates back into `[0, 1]`.
    ///
    /// The reference policy decides on raw gates, before they are clamped: its forward clamps them
    /// in place, and its update comes before the next forward.
    ///
    /// # Errors
    /// A gate that is not finite, or an optimizer state that cannot be edited: `module` and
    /// `optimizer` are then as they were. A broken invariant (ranks that are not those of the plan, more
    /// than the budget): a mistake of this crate, after which the run should end.
    pub fn after_step<M: Module>(
        &mut self,
        module: M,
        optimizer: &mut ModuleOptimizer,
    ) -> Result<(M, StepOutcome), (M, CoreError)> {
        self.step += 1;
        let mut outcome = StepOutcome {
            step: self.step,
            ..Default::default()
        };
        let mut module = module;
        if self.schedule.is_update(self.step) {
            let decision = self
                .read_gates(&walk::adapters(&module))
                .and_then(|adapters| {
                    let plan = plan(&adapters, &self.rules)?;
                    Ok((plan, adapters))
                });
            let (plan, adapters) = match decision {
                Ok(decision) => decision,
                Err(error) => return Err((module, error)),
            };
            module = self.carry_out(module, optimizer, &plan)?;
            if let Err(error) = self.check_update(&module, &plan) {
                return Err((module, error));
            }
            outcome.plan = Some(plan);
            outcome.gates = adapters.into_iter().map(|adapter| adapter.gates).collect();
        }
        if self.config.policy == Policy::Reference {
            module = module.map(&mut Clamp::default());
        }
        Ok((module, outcome))
    }

    /// What has to hold after every update: ranks as the plan has them, A, c and B of one rank, and no
    /// more than the budget. (Moments are checked where they are edited.)
    fn check_update<M: Module>(&self, module: &M, plan: &RankPlan) -> Result<(), CoreError> {
        let views = walk::adapters(module);
        for (view, change) in views.iter().zip(&plan.changes) {
            let rank = change.after().max(1);
            let (a, c, b) = (view.a.dims()[1], view.rank(), view.b.dims()[0]);
            if [a, c, b] != [rank; 3] {
                let detail = format!("A, c and B have {a}, {c} and {b} ranks; planned: {rank}");
                return Err(CoreError::adapter(&change.path, detail));
            }
        }
        let held = views.iter().zip(&self.paths).map(|(view, path)| {
            let [d_in, d_out] = view.dims();
            (path.as_str(), [d_in, view.rank(), d_out])
        });
        self.state().check(held)
    }

    /// The decision for the gates as they are now; nothing is changed.
    ///
    /// # Errors
    /// A gate that is not finite.
    pub fn decide<M: Module>(&self, module: &M) -> Result<RankPlan, CoreError> {
        plan(&self.read_gates(&walk::adapters(module))?, &self.rules)
    }

    fn carry_out<M: Module>(
        &mut self,
        module: M,
        optimizer: &mut ModuleOptimizer,
        plan: &RankPlan,
    ) -> Result<M, (M, CoreError)> {
        let next_optimizer = if plan.restart_optimizer {
            adapter_optimizer(&self.config, &self.optimizer)
        } else if plan.is_change() {
            match surgery::apply_to_optimizer(optimizer, &module, plan) {
                Ok(optimizer) => optimizer,
                Err(error) => return Err((module, error)),
            }
        } else {
            return Ok(module);
        };
        let untouched = module.clone();
        let noise = self.noise.as_mut();
        let (ranks, grown) = (&self.initial_ranks, self.grown);
        let module = surgery::apply_to_module(module, plan, ranks, noise, grown)
            .map_err(|error| (untouched, error))?;
        *optimizer = next_optimizer;
        self.grown += plan.grown.len();
        for change in &plan.changes {
            if change.after() == 0 {
                self.dormant.insert(change.path.clone());
            } else {
                self.dormant.remove(&change.path);
            }
        }
        Ok(module)
    }

    fn read_gates(&self, views: &[AdapterView]) -> Result<Vec<AdapterGates>, CoreError> {
        if views.len() != self.paths.len() {
            let (seen, known) = (views.len(), self.paths.len());
            let detail = format!("has {seen} adapters; it had {known} when the run began");
            return Err(CoreError::adapter("(module)", detail));
        }
        views
            .iter()
            .zip(&self.paths)
            .map(|(view, path)| {
                if !ends_with_name(&view.path, path) {
                    let detail = format!("was at `{path}` when the run began");
                    return Err(CoreError::adapter(&view.path, detail));
                }
                let [d_in, d_out] = view.dims();
                let asleep = self.dormant.contains(path);
                Ok(AdapterGates {
                    d_in,
                    d_out,
                    initial_rank: *self.initial_ranks.get(path).unwrap_or(&view.rank()),
                    gates: if asleep { Vec::new() } else { view.gates()? },
                    path: path.clone(),
                })
            })
            .collect()
    }
}

impl std::fmt::Debug for RankAllocator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "RankAllocator(step {}, budget {})",
            self.step, self.rules.budget
        )
    }
}

/// Brings every gate of a module into `[0, 1]`.
#[derive(Debug, Default)]
pub struct Clamp {
    path: Vec<String>,
}

impl ModuleMapper for Clamp {
    fn enter_module(&mut self, name: &str, _container_type: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if !matches!(walk::split_part(&self.path), Some((_, "lora_c"))) {
            return param;
        }
        surgery::replace(param, |gates| gates.clamp(0.0, 1.0))
    }
}
