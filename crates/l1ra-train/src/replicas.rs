//! Several devices: copies of the model, each with its share of every window.
//!
//! One device, the first, holds the optimizer and the decision about ranks. The others hold a copy of the
//! frozen base, which is carried to them once, and follow its adapters after every step. A window's
//! micro-batches are dealt out, each device adds up its own gradients, and the sums meet on the first.
//! So a window is the same on any number of devices, up to the order of sums. The batches of an evaluation are
//! dealt out as well.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::mpsc::{self, Receiver, Sender},
    thread,
};

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
    train::{InferenceStep, LearnerModel, TrainOutput, TrainStep},
};
use l1ra_core::{
    CoreError,
    replica::{check_replica, follow},
};

use crate::{data::TokenBatch, eval::SumOfLosses, model::LossOutput};

/// What micro-batches gave.
#[derive(Default)]
pub(crate) struct Window {
    /// Sum of their gradients.
    pub(crate) grads: GradientsParams,
    /// Sum of their losses.
    pub(crate) sum: f64,
    pub(crate) targets: usize,
    pub(crate) tokens: usize,
    /// The samples of each micro-batch, and whether its loss is finite.
    pub(crate) samples: Vec<(Vec<u32>, bool)>,
}

impl Window {
    /// Mean loss over the targets.
    pub(crate) fn loss(&self) -> f64 {
        self.sum * (1.0 / self.targets.max(1) as f64)
    }

    /// Forward and backward of `batches`, one after the other, on the model's device.
    fn of<M>(model: &M, batches: Vec<TokenBatch>) -> Self
    where
        M: Module + TrainStep<Input = TokenBatch, Output = LossOutput>,
    {
        let mut accumulator = GradientsAccumulator::new();
        let mut window = Self::default();
        let mut outputs = Vec::with_capacity(batches.len());
        for batch in batches {
            let samples = batch.origin.samples.clone();
            let TrainOutput { item, grads } = TrainStep::step(model, batch);
            accumulator.accumulate(model, grads);
            outputs.push((samples, item));
        }
        window.grads = accumulator.grads();
        // Read when all is under way: a device is waited for once.
        for (samples, item) in outputs {
            let sum = if item.targets > 0 { item.sum() } else { 0.0 };
            window.samples.push((samples, sum.is_finite()));
            window.sum += sum;
            window.targets += item.targets;
            window.tokens += item.tokens;
        }
        window
    }
}

/// The copies of a model on further devices; none where a run has one.
pub(crate) struct Replicas<M> {
    /// Where the model itself is.
    first: Device,
    copies: Vec<Replica<M>>,
}

struct Replica<M> {
    device: Device,
    model: M,
    worker: Worker,
}

impl<M> Replicas<M>
where
    M: LearnerModel
        + TrainStep<Input = TokenBatch, Output = LossOutput>
        + InferenceStep<Input = TokenBatch, Output = LossOutput>,
{
    /// Copies of `model`, which is on `first`, on `others`.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(crate) fn new(model: &M, first: &Device, others: &[Device]) -> io::Result<Self> {
        let copy = |device: &Device| {
            let device = device.clone().autodiff();
            let worker = Worker::start()?;
            let (original, there) = (model.clone(), device.clone());
            let model = worker.run(move || original.fork(&there)).wait();
            Ok(Replica {
                device,
                model,
                worker,
            })
        };
        Ok(Self {
            first: first.clone().inner(),
            copies: others.iter().map(copy).collect::<io::Result<_>>()?,
        })
    }

    /// A window of `batches`: each device takes as many, one after the other, and their gradients are
    /// added up on the first.
    pub(crate) fn window(&self, model: &M, batches: Vec<TokenBatch>) -> Window {
        let (own, at_work) = self.deal(batches, |copy, device, share| {
            Window::of(copy, on(device, share).collect())
        });
        let mut window = Window::of(model, own);
        let mut accumulator = GradientsAccumulator::new();
        accumulator.accumulate(model, window.grads);
        for other in at_work {
            let other = other.wait();
            accumulator.accumulate(model, other.grads.to_device(&self.first, model));
            window.sum += other.sum;
            window.targets += other.targets;
            window.tokens += other.tokens;
            window.samples.extend(other.samples);
        }
        window.grads = accumulator.grads();
        window
    }

    /// The losses of `batches`, in their order, by `model`, out of any graph, and the copies: each device
    /// takes as many.
    pub(crate) fn losses(&self, model: &M, batches: Vec<TokenBatch>) -> Vec<SumOfLosses> {
        let (own, at_work) = self.deal(batches, |copy, device, share| {
            let (copy, device) = (copy.valid(), device.clone().inner());
            SumOfLosses::of_each(&copy, on(&device, share))
        });
        let mut all = SumOfLosses::of_each(model, own.into_iter());
        all.extend(at_work.into_iter().flat_map(Pending::wait));
        all
    }

    /// Begins `work` on every copy with its share of `batches`; the first share is the model's own.
    fn deal<T: Send + 'static>(
        &self,
        batches: Vec<TokenBatch>,
        work: fn(&M, &Device, Vec<TokenBatch>) -> T,
    ) -> (Vec<TokenBatch>, Vec<Pending<T>>) {
        let mut shares = shares(batches, self.devices()).into_iter();
        let own = shares.next().unwrap_or_default();
        let begin = |(replica, share): (&Replica<M>, _)| {
            let (device, copy) = (replica.device.clone(), replica.model.clone());
            let work = move || work(&copy, &device, share);
            replica.worker.run(work)
        };
        (own, self.copies.iter().zip(shares).map(begin).collect())
    }

    /// How many devices there are.
    pub(crate) fn devices(&self) -> usize {
        1 + self.copies.len()
    }

    /// Brings the copies to where `model` is after a step. Where ranks have moved, the copies' ranks
    /// and gates are read back and compared.
    ///
    /// # Errors
    /// A copy that is not what `model` is.
    pub(crate) fn follow(&mut self, model: &M, ranks_moved: bool) -> Result<(), CoreError> {
        for replica in &mut self.copies {
            let (device, copy) = (replica.device.clone(), replica.model.clone());
            let original = model.clone();
            replica.model = replica
                .worker
                .run(move || {
                    let copy = follow(copy, &original, &device);
                    match ranks_moved {
                        true => check_replica(&copy, &original).map(|()| copy),
                        false => Ok(copy),
                    }
                })
                .wait()?;
        }
        Ok(())
    }
}

/// The batches, brought to `device`.
fn on(device: &Device, batches: Vec<TokenBatch>) -> impl Iterator<Item = TokenBatch> {
    let each = batches.into_iter();
    each.map(|batch| batch.to_device(device))
}

/// A thread that lives as long as the run. The runtimes of GPUs keep memory for every thread that has used
/// them: a new thread for each step would take that of a step each time.
struct Worker {
    jobs: Sender<Box<dyn FnOnce() + Send>>,
}

impl Worker {
    fn start() -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::Builder::new()
            .name("device".into())
            .spawn(move || queue.into_iter().for_each(|job| job()))?;
        Ok(Self { jobs })
    }

    /// Begins `work` after what was begun before.
    fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Pending<T> {
        let (answer, done) = mpsc::channel();
        let job = move || {
            let result = catch_unwind(AssertUnwindSafe(work));
            let _ = answer.send(result); // Nobody waits where the run ended meanwhile.
        };
        let _ = self.jobs.send(Box::new(job)); // Waiting tells, should the thread be gone.
        Pending(done)
    }
}

/// What a worker was asked for.
struct Pending<T>(Receiver<thread::Result<T>>);

impl<T> Pending<T> {
    /// The answer; a panic in the worker goes on here.
    fn wait(self) -> T {
        match self.0.recv() {
            Ok(Ok(answer)) => answer,
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => resume_unwind(Box::new("the thread of a device is gone")),
        }
    }
}

/// `batches` in `parts` parts that follow each other, the first ones longer by one where they are not
/// all as long.
fn shares<T>(batches: Vec<T>, parts: usize) -> Vec<Vec<T>> {
    let (each, longer) = (batches.len() / parts, batches.len() % parts);
    let mut batches = batches.into_iter();
    (0..parts)
        .map(|part| {
            let size = each + usize::from(part < longer);
            batches.by_ref().take(size).collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_and_in_order() {
        assert_eq!(shares(vec![1, 2, 3, 4, 5], 2), [vec![1, 2, 3], vec![4, 5]]);
        assert_eq!(shares(vec![1, 2], 3), [vec![1], vec![2], vec![]]);
        assert_eq!(shares(vec![1, 2], 1), [vec![1, 2]]);
    }
}
