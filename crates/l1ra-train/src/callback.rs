//! [`RankCallback`]: rank reallocation in any model's `TrainStep`.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams},
    train::{Interrupter, Learner, LearnerModel, TrainStep},
};
use l1ra_core::{
    CoreError, RankAllocator, RankPlan, TrainingState,
    walk::{self, AdapterView},
};
use serde::{Deserialize, Serialize};

use crate::update_log::UpdateLog;

/// Rank reallocation as the last part of an optimizer step, in every strategy of Burn's Learner.
///
/// Keep it in the model behind `#[module(skip)]` and call it from `TrainStep::optimize` and
/// `optimize_multi`, which own the model and see the optimizer:
///
/// ```ignore
/// fn optimize(self, optim: &mut ModuleOptimizer, lr: ModuleLearningRate, grads: GradientsParams) -> Self {
///     let ranks = self.ranks.clone();
///     ranks.optimize(self, optim, lr, grads)
/// }
/// ```
///
/// Clones share one state, as Burn clones the model at every step.
#[derive(Clone)]
pub struct RankCallback {
    state: Arc<Mutex<State>>,
}

struct State {
    allocator: RankAllocator,
    updates: UpdateLog,
    error: Option<String>,
    interrupter: Option<Interrupter>,
    observer: Option<Observer>,
    /// The next call of `optimize` is to save, and takes no step.
    wanted: bool,
    saved: Option<Result<TrainingState, CoreError>>,
}

type Observer = Box<dyn FnMut(usize, &[AdapterView]) + Send>;

/// A rank update that was carried out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RankUpdate {
    /// Optimizer steps taken before it.
    pub step: usize,
    /// The decision.
    pub plan: RankPlan,
    /// The gates that it was made from, one list an adapter.
    pub gates: Vec<Vec<f32>>,
}

impl RankCallback {
    /// A callback around `allocator`.
    pub fn new(allocator: RankAllocator) -> Self {
        let state = State {
            allocator,
            updates: UpdateLog::default(),
            error: None,
            interrupter: None,
            observer: None,
            wanted: false,
            saved: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// The callback of a run that goes on, `updates` being those so far.
    pub fn with_updates(self, updates: Vec<RankUpdate>) -> Self {
        self.lock().updates = updates.iter().collect();
        self
    }

    /// The state of the run that `learner` is in, between two steps.
    ///
    /// A learner shows its optimizer to its model's `optimize` only. So that is called once more,
    /// without gradients, and takes no step.
    ///
    /// # Errors
    /// When the state cannot be read, or the model's `optimize` does not call this callback's.
    pub fn capture<M: LearnerModel + TrainStep>(
        &self,
        learner: &mut Learner<M>,
    ) -> Result<TrainingState, CoreError> {
        self.lock().wanted = true;
        learner.optimizer_step(GradientsParams::new());
        let mut state = self.lock();
        state.wanted = false;
        state.saved.take().unwrap_or_else(|| {
            let detail = "the model's `optimize` does not call the rank callback's";
            Err(CoreError::OptimizerState(detail.into()))
        })
    }

    /// Whether this call is to save; it then has.
    fn is_capture<M: Module>(&self, model: &M, optimizer: &ModuleOptimizer) -> bool {
        let mut state = self.lock();
        let wanted = std::mem::take(&mut state.wanted);
        if wanted {
            let saved = TrainingState::capture(model, optimizer, &state.allocator);
            state.saved = Some(saved);
        }
        wanted
    }

    /// Stops Burn's training when ranks cannot be decided, because a gate is not finite.
    pub fn with_interrupter(self, interrupter: Interrupter) -> Self {
        self.lock().interrupter = Some(interrupter);
        self
    }

    /// Shows every step's adapters to `observer`, after the optimizer and before any rank moves.
    pub fn with_observer(
        self,
        observer: impl FnMut(usize, &[AdapterView]) + Send + 'static,
    ) -> Self {
        self.lock().observer = Some(Box::new(observer));
        self
    }

    /// The optimizer step on one device's gradients, and what follows it.
    pub fn optimize<M: Module>(
        &self,
        model: M,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: GradientsParams,
    ) -> M {
        if self.is_capture(&model, optimizer) {
            return model;
        }
        let model = optimizer.step(lr, model, grads);
        self.after_step(model, optimizer)
    }

    /// The optimizer step on several devices' gradients, and what follows it.
    pub fn optimize_multi<M: Module>(
        &self,
        model: M,
        optimizer: &mut ModuleOptimizer,
        lr: ModuleLearningRate,
        grads: MultiGradientsParams,
    ) -> M {
        if self.is_capture(&model, optimizer) {
            return model;
        }
        let model = optimizer.step_multi(lr, model, grads);
        self.after_step(model, optimizer)
    }

    fn after_step<M: Module>(&self, model: M, optimizer: &mut ModuleOptimizer) -> M {
        let mut state = self.lock();
        let next = state.allocator.step() + 1;
        if let Some(observer) = &mut state.observer {
            observer(next, &walk::adapters(&model));
        }
        match state.allocator.after_step(model, optimizer) {
            Ok((model, outcome)) => {
                if let Some(plan) = outcome.plan {
                    state.updates.push(&RankUpdate {
                        step: outcome.step,
                        plan,
                        gates: outcome.gates,
                    });
                }
                model
            }
            Err((model, error)) => {
                if let Some(interrupter) = &state.interrupter {
                    interrupter.stop(Some(&error.to_string()));
                }
                state.error = Some(error.to_string());
                model
            }
        }
    }

    /// Every update so far.
    pub fn updates(&self) -> Vec<RankUpdate> {
        self.updates_since(0)
    }

    /// The updates after the first `known` ones.
    pub(crate) fn updates_since(&self, known: usize) -> Vec<RankUpdate> {
        self.lock().updates.since(known)
    }

    /// The steps after which ranks are updated.
    pub fn update_steps(&self) -> Vec<usize> {
        self.lock().allocator.schedule().steps().collect()
    }

    /// Optimizer steps so far.
    pub fn step(&self) -> usize {
        self.lock().allocator.step()
    }

    /// Ranks or parameters that the adapters hold together.
    pub fn budget(&self) -> usize {
        self.lock().allocator.budget()
    }

    /// What went wrong, if anything did.
    pub fn error(&self) -> Option<String> {
        self.lock().error.clone()
    }

    /// A panic elsewhere leaves the state whole: it is only written in one place, to the end.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for RankCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RankCallback")
    }
}
