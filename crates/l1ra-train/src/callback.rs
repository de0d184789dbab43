//! [`RankCallback`]: rank reallocation in any model's `TrainStep`.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use burn::{
    lr_scheduler::module_lr_scheduler::ModuleLearningRate,
    module::Module,
    optim::{GradientsParams, ModuleOptimizer, MultiGradientsParams},
    tensor::Device,
    train::{Interrupter, Learner, LearnerModel, TrainStep},
};
use l1ra_core::{
    CoreError, RankAllocator, RankPlan, TrainingState,
    allocation::StepOutcome,
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
///
/// Burn's strategies for several devices differ in who calls `optimize`. With one optimizer (`MultiDevice`),
/// the first device does, and this is all there is to it. With one optimizer a device
/// (`DistributedDataParallel`), each does, on gradients that all devices share; then the callback takes
/// [an allocator for each](Self::for_each_device).
#[derive(Clone)]
pub struct RankCallback {
    state: Arc<Mutex<State>>,
}

struct State {
    /// One, or one for each device.
    seats: Vec<Seat>,
    updates: UpdateLog,
    error: Option<String>,
    interrupter: Option<Interrupter>,
    observer: Option<Observer>,
    /// The next call of `optimize` is to save, and takes no step.
    wanted: bool,
    saved: Option<Result<TrainingState, CoreError>>,
}

struct Seat {
    /// Whose it is; nobody's before a device's first step, and everybody's where it is the only one.
    device: Option<Device>,
    allocator: RankAllocator,
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

impl RankUpdate {
    /// The update that an outcome holds, if it holds one.
    pub fn of(outcome: StepOutcome) -> Option<Self> {
        Some(Self {
            step: outcome.step,
            plan: outcome.plan?,
            gates: outcome.gates,
        })
    }
}

impl RankCallback {
    /// A callback around `allocator`.
    pub fn new(allocator: RankAllocator) -> Self {
        Self::for_each_device(vec![allocator])
    }

    /// A callback for training in which every device has an optimizer of its own, as Burn's
    /// `DistributedDataParallel` has: each device decides with an allocator of its own, from gates that
    /// are the same everywhere as long as the gradients are. The decisions are compared; one that is not
    /// that of the device that came first stops the training.
    ///
    /// The stop is a request to Burn's training. With an all-reduce that waits for every device (NCCL), the
    /// device that came first may wait in the next one for the other, which has stopped.
    ///
    /// `allocators` are as many as devices, each made by [`RankAllocator::new`] from the same model
    /// and the same configuration. At least one is needed.
    pub fn for_each_device(allocators: Vec<RankAllocator>) -> Self {
        let seat = |allocator| Seat {
            device: None,
            allocator,
        };
        let state = State {
            seats: allocators.into_iter().map(seat).collect(),
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
            let saved = state.seat_of(model).and_then(|seat| {
                TrainingState::capture(model, optimizer, &state.seats[seat].allocator)
            });
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
        let seat = match state.seat_of(&model) {
            Ok(seat) => seat,
            Err(error) => {
                state.stop(&error);
                return model;
            }
        };
        let next = state.seats[seat].allocator.step() + 1;
        if let Some(observer) = state.observer.as_mut().filter(|_| seat == 0) {
            observer(next, &walk::adapters(&model));
        }
        match state.seats[seat].allocator.after_step(model, optimizer) {
            Ok((model, outcome)) => {
                if let Some(update) = RankUpdate::of(outcome)
                    && let Err(error) = state.decided(update)
                {
                    state.stop(&error);
                }
                model
            }
            Err((model, error)) => {
                state.stop(&error);
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
        let state = self.lock();
        let first = state.seats.first();
        first.map_or_else(Vec::new, |seat| seat.allocator.schedule().steps().collect())
    }

    /// Optimizer steps so far.
    pub fn step(&self) -> usize {
        let state = self.lock();
        let steps = state.seats.iter().map(|seat| seat.allocator.step());
        steps.max().unwrap_or(0)
    }

    /// Ranks or parameters that the adapters hold together.
    pub fn budget(&self) -> usize {
        let state = self.lock();
        let first = state.seats.first();
        first.map_or(0, |seat| seat.allocator.budget())
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

impl State {
    /// The seat of the device that `model` is on; a device takes one with its first step.
    fn seat_of<M: Module>(&mut self, model: &M) -> Result<usize, CoreError> {
        if self.seats.len() == 1 {
            return Ok(0);
        }
        let adapters = walk::adapters(model);
        let device = adapters.first().map(|view| view.c.device().inner());
        let mut seats = self.seats.iter();
        let own = seats.position(|seat| seat.device.is_some() && seat.device == device);
        let mut seats = self.seats.iter();
        match own.or_else(|| seats.position(|seat| seat.device.is_none())) {
            Some(seat) => {
                self.seats[seat].device = device;
                Ok(seat)
            }
            None => {
                let known = self.seats.len();
                let detail = format!("is on {device:?}; all {known} allocators are other devices'");
                Err(CoreError::adapter("(module)", detail))
            }
        }
    }

    /// Keeps an update, unless another device has come to it before: then it must be the same.
    fn decided(&mut self, update: RankUpdate) -> Result<(), CoreError> {
        let known = match self.seats.len() {
            1 => None,
            _ => self
                .updates
                .since(0)
                .into_iter()
                .find(|known| known.step == update.step),
        };
        let Some(known) = known else {
            self.updates.push(&update);
            return Ok(());
        };
        let (seen, expected) = (update.plan.ranks(), known.plan.ranks());
        let mut changes = update.plan.changes.iter().zip(seen.iter().zip(&expected));
        match changes.find(|(_, (seen, expected))| seen != expected) {
            None if update.plan.changes == known.plan.changes => Ok(()),
            None => Err(CoreError::adapter(
                "(module)",
                format!(
                    "after step {}, devices gave up different ranks; their gradients were not the same",
                    update.step
                ),
            )),
            Some((change, (seen, expected))) => Err(CoreError::adapter(
                &change.path,
                format!(
                    "after step {}, devices decided on rank {expected} and on rank {seen}; their \
                 gradients were not the same",
                    update.step
                ),
            )),
        }
    }

    fn stop(&mut self, error: &CoreError) {
        if let Some(interrupter) = &self.interrupter {
            interrupter.stop(Some(&error.to_string()));
        }
        self.error = Some(error.to_string());
    }
}

impl fmt::Debug for RankCallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RankCallback")
    }
}
