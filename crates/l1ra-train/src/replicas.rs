//! Several devices: copies of the model, each with its share of every window.
//!
//! One device, the first, holds the optimizer and the decision about ranks. The others hold a copy of the
//! frozen base, which is carried to them once, and follow its adapters after every step. A window's
//! micro-batches are dealt out, each device adds up its own gradients, and the sums meet on the first.
//! So a window is the same on any number of devices, up to the order of sums.

use std::{panic::resume_unwind, thread};

use burn::{
    module::Module,
    optim::{GradientsAccumulator, GradientsParams},
    tensor::Device,
    train::TrainStep,
};
use l1ra_core::{
    CoreError,
    replica::{check_replica, follow},
};

use crate::{data::TokenBatch, model::LossOutput};

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
    /// Forward and backward of `batches`, one after the other, on the model's device.
    fn of<M>(model: &M, batches: Vec<TokenBatch>) -> Self
    where
        M: Module + TrainStep<Input = TokenBatch, Output = LossOutput>,
    {
        let mut accumulator = GradientsAccumulator::new();
        let mut window = Self::default();
        for batch in batches {
            let samples = batch.origin.samples.clone();
            let output = TrainStep::step(model, batch);
            let mut finite = true;
            if output.item.targets > 0 {
                let sum = output.item.sum();
                finite = sum.is_finite();
                window.sum += sum;
                window.targets += output.item.targets;
            }
            window.samples.push((samples, finite));
            window.tokens += output.item.tokens;
            accumulator.accumulate(model, output.grads);
        }
        window.grads = accumulator.grads();
        window
    }
}

/// The copies of a model on further devices; none where a run has one.
pub(crate) struct Replicas<M> {
    /// Where the model itself is.
    first: Device,
    copies: Vec<(Device, M)>,
}

impl<M> Replicas<M>
where
    M: Module + TrainStep<Input = TokenBatch, Output = LossOutput>,
{
    /// Copies of `model`, which is on `first`, on `others`.
    pub(crate) fn new(model: &M, first: &Device, others: &[Device]) -> Self {
        let copy = |device: &Device| {
            let device = device.clone().autodiff();
            (device.clone(), model.clone().fork(&device))
        };
        Self {
            first: first.clone().inner(),
            copies: others.iter().map(copy).collect(),
        }
    }

    /// A window of `batches`: each device takes as many, one after the other, and their gradients are
    /// added up on the first.
    pub(crate) fn window(&self, model: &M, batches: Vec<TokenBatch>) -> Window {
        let mut shares = shares(batches, 1 + self.copies.len()).into_iter();
        let own = shares.next().unwrap_or_default();
        let (mut window, others) = thread::scope(|scope| {
            let at_work: Vec<_> = self
                .copies
                .iter()
                .zip(shares)
                .map(|((device, copy), share)| {
                    let (device, copy) = (device.clone(), copy.clone());
                    scope.spawn(move || {
                        let here = share.into_iter().map(|batch| batch.to_device(&device));
                        Window::of(&copy, here.collect())
                    })
                })
                .collect();
            let own = Window::of(model, own);
            let others: Vec<Window> = at_work
                .into_iter()
                .map(|work| work.join().unwrap_or_else(|panic| resume_unwind(panic)))
                .collect();
            (own, others)
        });
        let mut accumulator = GradientsAccumulator::new();
        accumulator.accumulate(model, window.grads);
        for other in others {
            accumulator.accumulate(model, other.grads.to_device(&self.first, model));
            window.sum += other.sum;
            window.targets += other.targets;
            window.tokens += other.tokens;
            window.samples.extend(other.samples);
        }
        window.grads = accumulator.grads();
        window
    }

    /// Brings the copies to where `model` is after a step. Where ranks have moved, the copies' ranks
    /// and gates are read back and compared.
    ///
    /// # Errors
    /// A copy that is not what `model` is.
    pub(crate) fn follow(&mut self, model: &M, ranks_moved: bool) -> Result<(), CoreError> {
        for (device, copy) in &mut self.copies {
            *copy = follow(copy.clone(), model, device);
            if ranks_moved {
                check_replica(copy, model)?;
            }
        }
        Ok(())
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
