//! [`StepStrategy`]: training by optimizer steps, within Burn's `SupervisedTraining`.
//!
//! Burn's built-in strategies count epochs; fine-tuning counts optimizer steps: evaluation by
//! steps, gradients normalised by the target tokens of a whole accumulation window, clipping by the
//! global norm.

use std::{
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use burn::{
    data::dataloader::DataLoader,
    module::Module,
    optim::GradientsParams,
    tensor::Device,
    train::{
        InferenceStep, Interrupter, Learner, LearnerModel, SupervisedLearningStrategy,
        SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingComponents, ValidLoader,
    },
};

use l1ra_core::device::guard;

use crate::{
    callback::RankCallback,
    checkpoint::{Checkpoint, CheckpointFolder, CheckpointOptions, Identity, OnError, Progress},
    clip::scale_and_clip,
    data::TokenBatch,
    error::TrainError,
    eval::{EvalResult, evaluate_until},
    finite::{NotFinite, first_not_finite},
    loss_scale::LossScale,
    memory::{device_bytes, peak_resident_bytes, resident_bytes},
    model::LossOutput,
    observe::{Observer, StepMetrics},
    options::TrainOptions,
    replicas::{Replicas, Window},
    stop::StopSignal,
};

/// Trains for a number of optimizer steps on one device or several.
pub struct StepStrategy {
    /// The first holds the optimizer.
    device: Device,
    others: Vec<Device>,
    steps: usize,
    accumulation: usize,
    eval_every: usize,
    max_grad_norm: f64,
    not_finite: NotFinite,
    max_skipped: usize,
    scale: LossScale,
    ranks: RankCallback,
    saver: Option<Saver>,
    stop: StopSignal,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    observers: Vec<Box<dyn Observer>>,
    outcome: Outcome,
}

/// Where checkpoints go.
struct Saver {
    folder: CheckpointFolder,
    options: CheckpointOptions,
    identity: Identity,
}

/// What a strategy leaves behind.
#[derive(Debug, Default)]
pub struct Outcome {
    /// How far the run came.
    pub progress: Progress,
    /// Evaluation after the last step.
    pub after: Option<EvalResult>,
    /// Peak memory, bytes: on a GPU the most that Burn held of it after a step; on a CPU the process's
    /// resident memory, by the system's mark, or where it keeps none, the largest after a step.
    pub peak_bytes: u64,
    /// What stopped the run before its end.
    pub error: Option<TrainError>,
}

impl StepStrategy {
    /// A strategy for `options` on `device`; `ranks` is the callback that the model carries.
    pub fn new(options: &TrainOptions, ranks: RankCallback, device: Device) -> Self {
        Self {
            device,
            others: Vec::new(),
            steps: options.steps,
            accumulation: options.accumulation,
            eval_every: options.eval_every,
            max_grad_norm: options.max_grad_norm,
            not_finite: options.not_finite,
            max_skipped: options.max_skipped,
            scale: LossScale::default(),
            ranks,
            saver: None,
            stop: StopSignal::default(),
            shared: Arc::new(Mutex::new(Shared {
                observers: Vec::new(),
                outcome: Outcome::default(),
            })),
        }
    }

    /// Deals the micro-batches of every window out to these devices as well: each holds a copy of the
    /// model, whose adapters follow those of the first device after every step. Evaluations are the
    /// first device's alone.
    pub fn with_further_devices(self, others: Vec<Device>) -> Self {
        Self { others, ..self }
    }

    /// Divides gradients by the scale that the model was given as well
    /// ([`FineTune::with_loss_scale`](crate::FineTune::with_loss_scale)).
    pub fn with_loss_scale(self, scale: LossScale) -> Self {
        Self { scale, ..self }
    }

    /// Adds someone who wants to know.
    pub fn with_observer(self, observer: Box<dyn Observer>) -> Self {
        self.with_shared(|shared| shared.observers.push(observer));
        self
    }

    /// Saves the run in `folder`, as `options` say; `identity` is what it is known by.
    pub fn with_checkpoints(
        self,
        folder: CheckpointFolder,
        options: &CheckpointOptions,
        identity: Identity,
    ) -> Self {
        let saver = Saver {
            folder,
            options: options.clone(),
            identity,
        };
        Self {
            saver: Some(saver),
            ..self
        }
    }

    /// Ends the run after a step, saved, when `stop` is requested.
    pub fn with_stop(self, stop: StopSignal) -> Self {
        Self { stop, ..self }
    }

    /// Goes on from there. Model, optimizer, schedules, ranks and the training loader are the caller's
    /// to bring to the same place.
    pub fn starting_at(self, progress: Progress) -> Self {
        self.with_shared(|shared| shared.outcome.progress = progress);
        self
    }

    /// What the run left behind; empty from then on.
    pub fn take_outcome(&self) -> Outcome {
        self.with_shared(|shared| std::mem::take(&mut shared.outcome))
    }

    fn with_shared<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn progress<T>(&self, act: impl FnOnce(&mut Progress) -> T) -> T {
        self.with_shared(|shared| act(&mut shared.outcome.progress))
    }

    /// Tells every observer something, in their order, until one fails.
    ///
    /// # Errors
    /// The first observer's error. Where the run is to go on without what cannot be written, such an
    /// error is told to the observers instead.
    pub fn tell(
        &self,
        mut what: impl FnMut(&mut dyn Observer) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        let goes_on = self
            .saver
            .as_ref()
            .is_some_and(|saver| saver.options.on_error == OnError::Continue);
        self.with_shared(|shared| {
            let mut unwritten = Vec::new();
            for observer in &mut shared.observers {
                match what(observer.as_mut()) {
                    Err(error @ TrainError::Io { .. }) if goes_on => unwritten.push(error),
                    told => told?,
                }
            }
            let step = shared.outcome.progress.step;
            for error in &unwritten {
                for observer in &mut shared.observers {
                    observer.not_saved(step, error)?;
                }
            }
            Ok(())
        })
    }

    fn run<M>(
        &self,
        learner: &mut Learner<M>,
        train: &dyn DataLoader<TokenBatch>,
        valid: &dyn DataLoader<TokenBatch>,
        interrupter: &Interrupter,
    ) -> Result<(), TrainError>
    where
        M: LearnerModel
            + TrainStep<Input = TokenBatch, Output = LossOutput>
            + InferenceStep<Input = TokenBatch, Output = LossOutput>,
    {
        let first = self.progress(|progress| progress.step);
        let replicas = Replicas::new(&learner.model(), &self.device, &self.others);
        let mut replicas = replicas.map_err(|error| TrainError::Stopped {
            step: first,
            detail: format!("no thread for a device: {error}"),
        })?;
        if first < self.steps && (first == 0 || self.is_evaluation(first)) {
            // Before the first step; or the one that an interrupted run still owes.
            self.evaluate_once(learner, &replicas, valid)?;
        }
        self.stop_if_asked(learner)?;
        let before = self.progress(|progress| progress.seconds);
        let started = Instant::now();
        let mut beside = 0.0;
        let mut told = self.ranks.updates().len();
        // At once, so that a list that grows does not scatter the allocator's memory.
        self.with_shared(|shared| {
            let losses = &mut shared.outcome.progress.losses;
            losses.reserve_exact(self.steps.saturating_sub(losses.len()));
        });
        let mut batches = Endless {
            loader: train,
            iterator: train.iter(),
        };
        for step in first + 1..=self.steps {
            let mut metrics = self.optimizer_step(learner, &replicas, &mut batches, step)?;
            metrics.seconds = before + started.elapsed().as_secs_f64() - beside;
            let on_device = device_bytes(&self.device);
            metrics.resident_bytes = on_device.or_else(resident_bytes).unwrap_or(0);
            self.count(&metrics, on_device.or_else(peak_resident_bytes));
            self.tell(|observer| observer.step(&metrics))?;
            let updates = self.ranks.updates_since(told);
            told += updates.len();
            for update in &updates {
                self.tell(|observer| observer.ranks_moved(update))?;
            }
            if let Some(detail) = self.ranks.error() {
                return Err(TrainError::Stopped { step, detail });
            }
            if replicas.devices() > 1 {
                let followed = replicas.follow(&learner.model(), !updates.is_empty());
                followed.map_err(|error| TrainError::Stopped {
                    step,
                    detail: error.to_string(),
                })?;
            }
            let began = Instant::now();
            let better = step < self.steps
                && self.is_evaluation(step)
                && self.stop.requested().is_none()
                && self.evaluate_once(learner, &replicas, valid)?;
            let is_due = |saver: &Saver| {
                saver.options.is_due(step, self.steps) || better && saver.options.keep_best
            };
            if self.saver.as_ref().is_some_and(is_due) {
                self.save(learner)?;
            }
            self.stop_if_asked(learner)?;
            beside += began.elapsed().as_secs_f64();
            if interrupter.should_stop() {
                let detail = interrupter
                    .get_message()
                    .unwrap_or_else(|| "interrupted".into());
                return Err(TrainError::Stopped { step, detail });
            }
        }
        self.evaluate_once(learner, &replicas, valid)?;
        self.stop_if_asked(learner)?;
        if let Some(saver) = &self.saver {
            let best = self.progress(|progress| progress.best.map(|best| best.step));
            saver.folder.retain(&saver.options, best)?;
        }
        self.with_shared(|shared| {
            let last = shared.outcome.progress.evaluated;
            shared.outcome.after = last.map(|last| last.result);
        });
        Ok(())
    }

    fn is_evaluation(&self, step: usize) -> bool {
        self.eval_every > 0 && step.is_multiple_of(self.eval_every)
    }

    fn count(&self, metrics: &StepMetrics, peak: Option<u64>) {
        self.with_shared(|shared| {
            let outcome = &mut shared.outcome;
            outcome.progress.step = metrics.step;
            outcome.progress.losses.push(metrics.loss);
            outcome.progress.seconds = metrics.seconds;
            outcome.progress.tokens += metrics.tokens;
            let peak = peak.unwrap_or(metrics.resident_bytes);
            outcome.peak_bytes = outcome.peak_bytes.max(peak);
        });
    }

    /// One window: micro-batches, their gradients summed and divided by all targets, one step. A
    /// window that is not finite is skipped, where that is wanted, and the next one takes its place.
    fn optimizer_step<M>(
        &self,
        learner: &mut Learner<M>,
        replicas: &Replicas<M>,
        batches: &mut Endless<'_>,
        step: usize,
    ) -> Result<StepMetrics, TrainError>
    where
        M: LearnerModel
            + TrainStep<Input = TokenBatch, Output = LossOutput>
            + InferenceStep<Input = TokenBatch, Output = LossOutput>,
    {
        loop {
            let given = (0..self.accumulation).map(|_| batches.next());
            let given = given.collect::<Result<Vec<_>, _>>();
            let given = given.map_err(|detail| TrainError::Stopped { step, detail })?;
            let model = learner.model();
            let (window, loss, grads, grad_norm) = loop {
                let mut window = replicas.window(&model, given.clone());
                let loss = window.loss();
                let (grads, norm) = self.scaled(&model, &mut window);
                // Gradients that the scale made too large for f16 are made again.
                let overflows = loss.is_finite() && !norm.is_finite();
                if !(overflows && self.scale.lower()) {
                    break (window, loss, grads, norm);
                }
            };
            if loss.is_finite() && grad_norm.is_finite() {
                drop(model); // The optimizer replaces its tensors: no second handle on them.
                learner.lr_step();
                learner.optimizer_step(grads);
                self.progress(|progress| progress.batches += self.accumulation);
                return Ok(StepMetrics {
                    step,
                    loss,
                    grad_norm,
                    lr: learner.lr_current().base(),
                    targets: window.targets,
                    tokens: window.tokens,
                    seconds: 0.0,
                    resident_bytes: 0,
                });
            }
            let flaw = flaw(loss, grad_norm, &model, &grads, &window.samples);
            drop((model, grads));
            let skipped = self.progress(|progress| progress.skipped);
            let remedy = match self.not_finite {
                NotFinite::Skip if skipped < self.max_skipped => {
                    self.tell(|observer| observer.skipped(step, &flaw))?;
                    self.progress(|progress| {
                        progress.skipped += 1;
                        progress.batches += self.accumulation;
                    });
                    continue;
                }
                NotFinite::Skip => format!(
                    "train.max_skipped = {} windows were skipped before",
                    self.max_skipped
                ),
                NotFinite::Stop => "try a lower learning rate or a longer warm-up, or \
                     train.not_finite = \"skip\" to leave such windows out"
                    .into(),
            };
            // No step was taken: the state is the last good one.
            self.save_again(learner)?;
            let detail = format!("{flaw}; {remedy}");
            return Err(TrainError::Stopped { step, detail });
        }
    }

    /// The window's gradients as those of the mean loss, clipped, and their norm before that.
    fn scaled<M: Module>(&self, model: &M, window: &mut Window) -> (GradientsParams, f64) {
        let mean = 1.0 / (window.targets.max(1) as f64 * self.scale.value());
        let grads = std::mem::take(&mut window.grads);
        scale_and_clip(model, grads, mean, self.max_grad_norm)
    }

    /// Evaluates unless the state was evaluated already; returns whether it is the best so far.
    /// A stop that is asked for meanwhile ends the evaluation without a result.
    fn evaluate_once<M>(
        &self,
        learner: &Learner<M>,
        replicas: &Replicas<M>,
        valid: &dyn DataLoader<TokenBatch>,
    ) -> Result<bool, TrainError>
    where
        M: LearnerModel
            + TrainStep<Input = TokenBatch, Output = LossOutput>
            + InferenceStep<Input = TokenBatch, Output = LossOutput>,
    {
        if self.progress(|progress| progress.is_evaluated()) {
            return Ok(false);
        }
        let step = self.progress(|progress| progress.step);
        let mut told = Ok(());
        let model = learner.model().valid();
        let losses = |batches| replicas.losses(&model, batches);
        let result = evaluate_until(valid, replicas.devices(), losses, |done, total| {
            if told.is_ok() {
                told = self.tell(|observer| observer.evaluating(step, done, total));
            }
            match self.stop.requested() {
                Some(_) => ControlFlow::Break(()),
                None => ControlFlow::Continue(()),
            }
        });
        told?;
        let result = result.map_err(|error| match error {
            TrainError::Stopped { detail, .. } => TrainError::Stopped { step, detail },
            other => other,
        })?;
        let Some(result) = result else {
            return Ok(false);
        };
        self.tell(|observer| observer.evaluated(step, &result))?;
        Ok(self.progress(|progress| progress.evaluated(result)))
    }

    /// Ends the run, saved, if that was asked for.
    fn stop_if_asked<M>(&self, learner: &mut Learner<M>) -> Result<(), TrainError>
    where
        M: LearnerModel + TrainStep,
    {
        let Some(reason) = self.stop.requested() else {
            return Ok(());
        };
        let step = self.progress(|progress| progress.step);
        Err(TrainError::Interrupted {
            step,
            steps: self.steps,
            checkpoint: self.save_again(learner)?,
            reason,
        })
    }

    /// Saves the run unless its state is saved already, or is its beginning.
    fn save_again<M>(&self, learner: &mut Learner<M>) -> Result<Option<PathBuf>, TrainError>
    where
        M: LearnerModel + TrainStep,
    {
        let step = self.progress(|progress| progress.step);
        // Files of other runs, and of later steps, were removed when this one began.
        let there = self.saver.as_ref().map(|saver| saver.folder.file(step));
        match there {
            _ if step == 0 => Ok(None),
            Some(there) if there.is_file() => Ok(Some(there)),
            _ => self.save(learner),
        }
    }

    fn save<M>(&self, learner: &mut Learner<M>) -> Result<Option<PathBuf>, TrainError>
    where
        M: LearnerModel + TrainStep,
    {
        let Some(saver) = &self.saver else {
            return Ok(None);
        };
        let checkpoint = Checkpoint {
            progress: self.progress(|progress| progress.clone()),
            identity: saver.identity.clone(),
            updates: self.ranks.updates(),
            state: self.ranks.capture(learner)?,
        };
        let step = checkpoint.progress.step;
        self.tell(|observer| observer.saving(step))?;
        match saver.folder.save(&checkpoint, &saver.options) {
            Ok(path) => {
                self.tell(|observer| observer.saved(step, &path))?;
                Ok(Some(path))
            }
            Err(error) if saver.options.on_error == OnError::Continue => {
                self.tell(|observer| observer.not_saved(step, &error))?;
                Ok(None)
            }
            Err(error) => {
                let there = saver.folder.list().unwrap_or_default();
                Err(TrainError::NotSaved {
                    step,
                    source: Box::new(error),
                    kept: there.into_iter().next_back().map(|(_, path)| path),
                })
            }
        }
    }
}

/// What is not finite, in which samples, and the first tensor that it is in.
fn flaw<M: Module>(
    loss: f64,
    grad_norm: f64,
    model: &M,
    grads: &GradientsParams,
    samples: &[(Vec<u32>, bool)],
) -> String {
    let known = samples.iter().any(|(_, finite)| !finite);
    let suspects = samples.iter().filter(|(_, finite)| !known || !finite);
    let named: Vec<u32> = suspects
        .flat_map(|(samples, _)| samples.iter().copied())
        .collect();
    let shown: Vec<String> = named.iter().take(16).map(u32::to_string).collect();
    let more = match named.len().saturating_sub(shown.len()) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let tensor = first_not_finite(model, grads);
    let tensor = tensor.unwrap_or_else(|| match loss.is_finite() {
        true => "none, but the sum of their squares overflows".into(),
        false => "none, only the loss".into(),
    });
    format!(
        "the loss is {loss:.3} and the gradient norm {grad_norm:.3}; samples {}{more} (from 0, in the order \
         of the training data); first tensor that is not finite: {tensor}",
        shown.join(", ")
    )
}

/// A loader's batches, epoch after epoch.
struct Endless<'a> {
    loader: &'a dyn DataLoader<TokenBatch>,
    iterator: Box<dyn burn::data::dataloader::DataLoaderIterator<TokenBatch> + 'a>,
}

impl Endless<'_> {
    fn next(&mut self) -> Result<TokenBatch, String> {
        if let Some(batch) = self.iterator.next() {
            return batch.map_err(|error| format!("training data: {error}"));
        }
        self.iterator = self.loader.iter();
        match self.iterator.next() {
            Some(batch) => batch.map_err(|error| format!("training data: {error}")),
            None => Err("the training data holds no batch".into()),
        }
    }
}

impl<M> SupervisedLearningStrategy<M> for StepStrategy
where
    M: LearnerModel
        + TrainStep<Input = TokenBatch, Output = LossOutput>
        + InferenceStep<Input = TokenBatch, Output = LossOutput>,
{
    fn fit(
        &self,
        components: TrainingComponents<M>,
        mut learner: Learner<M>,
        train: TrainLoader<M>,
        valid: ValidLoader<M>,
        _starting_epoch: usize,
    ) -> (M, SupervisedTrainingEventProcessor<M>) {
        let device = self.device.clone().autodiff();
        let train = train.to_device(&device);
        let valid = valid.to_device(&self.device.clone().inner());
        learner.fork(&device);
        let interrupter = &components.interrupter;
        let ran = guard(|| self.run(&mut learner, train.as_ref(), valid.as_ref(), interrupter));
        let ran = ran.unwrap_or_else(|failure| {
            let step = self.progress(|progress| progress.step);
            let when = match step {
                0 => "before the first step was done".into(),
                step => format!("after step {step}"),
            };
            Err(TrainError::device_failed(when, failure))
        });
        if let Err(error) = ran {
            interrupter.stop(Some(&error.to_string()));
            self.with_shared(|shared| shared.outcome.error = Some(error));
        }
        (learner.model(), components.event_processor)
    }
}
