//! [`RankAllocator`]: schedule, decision and surgery for one training run.

use std::collections::{HashMap, HashSet};

use burn::{
    module::{Module, ModuleMapper, Param},
    optim::ModuleOptimizer,
    tensor::Tensor,
};

use crate::{
    allocation::{
        importance::importance,
        plan::{AdapterGates, PlanRules, RankPlan, plan, resized},
        policies::{Gates, Start},
        schedule::UpdateSchedule,
        start::{StartLayer, start_ranks},
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
        let mut initial_ranks = HashMap::new();
        let mut dormant = HashSet::new();
        for view in &views {
            // An open layer begins with one slot that counts for nothing.
            let open = view.rank() == 1 && view.gates()? == [0.0];
            let rank = if open { config.rank } else { view.rank() };
            initial_ranks.insert(view.path.clone(), rank);
            if open {
                dormant.insert(view.path.clone());
            }
        }
        let mut allocator = Self {
            config: config.clone(),
            optimizer: optimizer.clone(),
            schedule,
            rules: PlanRules::new(config, &[]),
            paths: views.iter().map(|view| view.path.clone()).collect(),
            initial_ranks,
            dormant,
            noise: Box::new(SeededNoise::new(config.seed)),
            step: 0,
            grown: 0,
        };
        let adapters = allocator.read(&views, None)?;
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
            let views = walk::adapters(&module);
            let decision = self.read(&views, Some(optimizer)).and_then(|adapters| {
                let plan = plan(&adapters, &self.rules)?;
                Ok((plan, adapters))
            });
            let (mut plan, adapters) = match decision {
                Ok(decision) => decision,
                Err(error) => return Err((module, error)),
            };
            if !self.updates_follow() {
                plan.marked.clear(); // No update would judge them.
            }
            module = self.mark(module, &plan, &adapters);
            module = self.carry_out(module, optimizer, &plan)?;
            if let Err(error) = self.check_update(&module, &plan) {
                return Err((module, error));
            }
            module = self.prepare_gates(module)?;
            outcome.plan = Some(plan);
            outcome.gates = adapters.into_iter().map(|adapter| adapter.gates).collect();
        }
        if self.config.policy == Policy::Reference {
            module = module.map(&mut Clamp::default());
        }
        Ok((module, outcome))
    }

    /// Whether the policy asks for a measurement of the layers before the first step, for
    /// [`start`](Self::start).
    pub fn measures(&self) -> Start {
        self.config.policy.logic().start()
    }

    /// Ranks before the first step by what `values` say that the first, second, … rank of each adapter
    /// is worth, in the module's order; see [`start_ranks`]. A rank update at step 0.
    ///
    /// # Errors
    /// As [`after_step`](Self::after_step); as many lists of values as adapters are needed.
    pub fn start<M: Module>(
        &mut self,
        module: M,
        optimizer: &mut ModuleOptimizer,
        values: &[Vec<f64>],
    ) -> Result<(M, StepOutcome), (M, CoreError)> {
        let adapters = match self.read(&walk::adapters(&module), None) {
            Ok(adapters) if adapters.len() == values.len() => adapters,
            Ok(adapters) => {
                let detail = format!(
                    "{} measurements for {} adapters",
                    values.len(),
                    adapters.len()
                );
                return Err((module, CoreError::adapter("(module)", detail)));
            }
            Err(error) => return Err((module, error)),
        };
        let layer = |(adapter, values): (&AdapterGates, &Vec<f64>)| StartLayer {
            path: adapter.path.clone(),
            price: self.rules.price(adapter),
            most: match self.rules.max_rank {
                Some(most) => most.min(adapter.d_in.min(adapter.d_out)),
                None => adapter.d_in.min(adapter.d_out),
            },
            values: values.clone(),
        };
        let layers: Vec<StartLayer> = adapters.iter().zip(values).map(layer).collect();
        let plan = resized(&adapters, &start_ranks(&layers, self.rules.budget));
        let module = self.carry_out(module, optimizer, &plan)?;
        if let Err(error) = self.check_update(&module, &plan) {
            return Err((module, error));
        }
        let outcome = StepOutcome {
            step: self.step,
            plan: Some(plan),
            gates: adapters.into_iter().map(|adapter| adapter.gates).collect(),
        };
        Ok((module, outcome))
    }

    /// Whether an update comes after the present step.
    fn updates_follow(&self) -> bool {
        self.schedule.steps().any(|step| step > self.step)
    }

    /// Trains the gates that the policy trains, and makes constants of the others: the last thing that
    /// a module needs before a run, or after it was restored.
    ///
    /// # Errors
    /// When the device cannot be read; the module is then as it was.
    pub fn prepare_gates<M: Module>(&self, module: M) -> Result<M, (M, CoreError)> {
        let views = walk::adapters(&module);
        let gates = views
            .iter()
            .map(AdapterView::gates)
            .collect::<Result<Vec<_>, _>>();
        let gates = match gates {
            Ok(gates) => gates,
            Err(error) => return Err((module, error)),
        };
        let trained: Vec<bool> = gates
            .iter()
            .map(|gates| match self.config.policy.logic().gates() {
                Gates::Constant => false,
                Gates::Trained => true,
                Gates::Marked => {
                    self.updates_follow() && gates.iter().any(|gate| *gate > 0.0 && *gate < 1.0)
                }
            })
            .collect();
        Ok(surgery::set_gates(module, &gates, &trained))
    }

    /// Puts the gates that `plan` marks as far below 1 as the penalty takes in a step.
    fn mark<M: Module>(&self, module: M, plan: &RankPlan, adapters: &[AdapterGates]) -> M {
        if plan.marked.iter().all(Vec::is_empty) {
            return module;
        }
        let below = 1.0 - 1.0 / self.schedule.period() as f32;
        let gates: Vec<Vec<f32>> = adapters
            .iter()
            .zip(&plan.marked)
            .map(|(adapter, marked)| {
                let mut gates = adapter.gates.clone();
                marked.iter().for_each(|rank| gates[*rank] = below);
                gates
            })
            .collect();
        surgery::set_gates(module, &gates, &vec![true; gates.len()])
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
        plan(&self.read(&walk::adapters(module), None)?, &self.rules)
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
        let (noise, init) = (self.noise.as_mut(), self.config.initial_values());
        let (ranks, grown) = (&self.initial_ranks, self.grown);
        let module = surgery::apply_to_module(module, plan, ranks, noise, init, grown)
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

    /// What the policy decides from.
    fn read(
        &self,
        views: &[AdapterView],
        optimizer: Option<&ModuleOptimizer>,
    ) -> Result<Vec<AdapterGates>, CoreError> {
        if views.len() != self.paths.len() {
            let (seen, known) = (views.len(), self.paths.len());
            let detail = format!("has {seen} adapters; it had {known} when the run began");
            return Err(CoreError::adapter("(module)", detail));
        }
        let mut values = match optimizer {
            Some(optimizer) if self.config.policy.logic().needs_importance() => {
                importance(views, optimizer)?
            }
            _ => Vec::new(),
        }
        .into_iter();
        views
            .iter()
            .zip(&self.paths)
            .map(|(view, path)| {
                let importance = values.next().unwrap_or_default();
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
                    importance: if asleep { Vec::new() } else { importance },
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
