//! [`StepStrategy`]: training by optimizer steps, within Burn's `SupervisedTraining`.
//!
//! Burn's built-in strategies count epochs; fine-tuning counts optimizer steps: evaluation by
//! steps, gradients normalised by the target tokens of a whole accumulation window, clipping by the
//! global norm.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use burn::{
    data::dataloader::DataLoader,
    optim::GradientsAccumulator,
    tensor::Device,
    train::{
        InferenceStep, Interrupter, Learner, LearnerModel, SupervisedLearningStrategy,
        SupervisedTrainingEventProcessor, TrainLoader, TrainStep, TrainingComponents, ValidLoader,
    },
};

use crate::{
    callback::RankCallback,
    clip::scale_and_clip,
    data::TokenBatch,
    error::TrainError,
    eval::{EvalResult, evaluate},
    memory::{peak_resident_bytes, resident_bytes},
    model::LossOutput,
    observe::{Observer, StepMetrics},
    options::TrainOptions,
};

/// Trains for a number of optimizer steps on one device.
pub struct StepStrategy {
    device: Device,
    steps: usize,
    accumulation: usize,
    eval_every: usize,
    max_grad_norm: f64,
    ranks: RankCallback,
    shared: Arc<Mutex<Shared>>,
}

struct Shared {
    observers: Vec<Box<dyn Observer>>,
    outcome: Outcome,
}

/// What a strategy leaves behind.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Evaluation before the first step.
    pub before: Option<EvalResult>,
    /// Evaluation after the last step.
    pub after: Option<EvalResult>,
    /// Loss of every step.
    pub losses: Vec<f64>,
    /// Seconds in optimizer steps, evaluations not counted.
    pub train_seconds: f64,
    /// Tokens trained on, padding not counted.
    pub tokens: usize,
    /// Peak resident memory of the process, bytes; where the system keeps no such mark, the largest
    /// after a step.
    pub peak_bytes: u64,
    /// What stopped the run before its end.
    pub error: Option<TrainError>,
}

impl StepStrategy {
    /// A strategy for `options` on `device`; `ranks` is the callback that the model carries.
    pub fn new(options: &TrainOptions, ranks: RankCallback, device: Device) -> Self {
        Self {
            device,
            steps: options.steps,
            accumulation: options.accumulation,
            eval_every: options.eval_every,
            max_grad_norm: options.max_grad_norm,
            ranks,
            shared: Arc::new(Mutex::new(Shared {
                observers: Vec::new(),
                outcome: Outcome::default(),
            })),
        }
    }

    /// Adds someone who wants to know.
    pub fn with_observer(self, observer: Box<dyn Observer>) -> Self {
        self.with_shared(|shared| shared.observers.push(observer));
        self
    }

    /// What the run left behind; empty from then on.
    pub fn take_outcome(&self) -> Outcome {
        self.with_shared(|shared| std::mem::take(&mut shared.outcome))
    }

    fn with_shared<T>(&self, act: impl FnOnce(&mut Shared) -> T) -> T {
        act(&mut self.shared.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tells every observer something, in their order, until one fails.
    ///
    /// # Errors
    /// The first observer's error.
    pub fn tell(
        &self,
        mut what: impl FnMut(&mut dyn Observer) -> Result<(), TrainError>,
    ) -> Result<(), TrainError> {
        self.with_shared(|shared| {
            shared
                .observers
                .iter_mut()
                .try_for_each(|observer| what(observer.as_mut()))
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
        let before = self.evaluate(learner, valid, 0)?;
        self.with_shared(|shared| shared.outcome.before = Some(before));
        let started = Instant::now();
        let mut evaluating = 0.0;
        let mut told = 0;
        let mut batches = Endless {
            loader: train,
            iterator: train.iter(),
        };
        for step in 1..=self.steps {
            let mut metrics = self.optimizer_step(learner, &mut batches, step)?;
            metrics.seconds = started.elapsed().as_secs_f64() - evaluating;
            metrics.resident_bytes = resident_bytes().unwrap_or(0);
            self.with_shared(|shared| {
                shared.outcome.losses.push(metrics.loss);
                shared.outcome.train_seconds = metrics.seconds;
                shared.outcome.tokens += metrics.tokens;
                let peak = peak_resident_bytes().unwrap_or(metrics.resident_bytes);
                shared.outcome.peak_bytes = shared.outcome.peak_bytes.max(peak);
            });
            self.tell(|observer| observer.step(&metrics))?;
            for update in self.ranks.updates_since(told) {
                self.tell(|observer| observer.ranks_moved(&update))?;
                told += 1;
            }
            if let Some(detail) = self.ranks.error() {
                return Err(TrainError::Stopped { step, detail });
            }
            if self.eval_every > 0 && step % self.eval_every == 0 && step < self.steps {
                let began = Instant::now();
                self.evaluate(learner, valid, step)?;
                evaluating += began.elapsed().as_secs_f64();
            }
            if interrupter.should_stop() {
                let detail = interrupter
                    .get_message()
                    .unwrap_or_else(|| "interrupted".into());
                return Err(TrainError::Stopped { step, detail });
            }
        }
        let after = self.evaluate(learner, valid, self.steps)?;
        self.with_shared(|shared| shared.outcome.after = Some(after));
        Ok(())
    }

    /// One window: micro-batches, their gradients summed and divided by all targets, one step.
    fn optimizer_step<M>(
        &self,
        learner: &mut Learner<M>,
        batches: &mut Endless<'_>,
        step: usize,
    ) -> Result<StepMetrics, TrainError>
    where
        M: LearnerModel + TrainStep<Input = TokenBatch, Output = LossOutput>,
    {
        let stopped = |detail: String| TrainError::Stopped { step, detail };
        let mut accumulator = GradientsAccumulator::new();
        let (mut sum, mut targets, mut tokens) = (0.0, 0, 0);
        let model = learner.model();
        for _ in 0..self.accumulation {
            let batch = batches.next().map_err(stopped)?;
            let output = learner.train_step(batch);
            if output.item.targets > 0 {
                sum += output.item.sum();
                targets += output.item.targets;
            }
            tokens += output.item.tokens;
            accumulator.accumulate(&model, output.grads);
        }
        let mean = 1.0 / targets.max(1) as f64;
        let loss = sum * mean;
        let (grads, grad_norm) =
            scale_and_clip(&model, accumulator.grads(), mean, self.max_grad_norm);
        drop(model); // The optimizer replaces its tensors: no second handle on them.
        if !loss.is_finite() || !grad_norm.is_finite() {
            let detail = format!(
                "the loss is {loss} and the gradient norm {grad_norm}; \
                 try a lower learning rate or a longer warm-up"
            );
            return Err(stopped(detail));
        }
        learner.lr_step();
        learner.optimizer_step(grads);
        let lr = learner.lr_current().base();
        Ok(StepMetrics {
            step,
            loss,
            grad_norm,
            lr,
            targets,
            tokens,
            seconds: 0.0,
            resident_bytes: 0,
        })
    }

    fn evaluate<M>(
        &self,
        learner: &Learner<M>,
        valid: &dyn DataLoader<TokenBatch>,
        step: usize,
    ) -> Result<EvalResult, TrainError>
    where
        M: LearnerModel + InferenceStep<Input = TokenBatch, Output = LossOutput>,
    {
        let mut told = Ok(());
        let result = evaluate(&learner.model().valid(), valid, |done, total| {
            if told.is_ok() {
                told = self.tell(|observer| observer.evaluating(step, done, total));
            }
        });
        told?;
        let result = result.map_err(|error| match error {
            TrainError::Stopped { detail, .. } => TrainError::Stopped { step, detail },
            other => other,
        })?;
        self.tell(|observer| observer.evaluated(step, &result))?;
        Ok(result)
    }
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
        if let Err(error) = self.run(&mut learner, train.as_ref(), valid.as_ref(), interrupter) {
            interrupter.stop(Some(&error.to_string()));
            self.with_shared(|shared| shared.outcome.error = Some(error));
        }
        (learner.model(), components.event_processor)
    }
}
