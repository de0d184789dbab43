//! [`TokenLoader`]: batches in an order that is a function of seed and epoch.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use burn::{
    data::dataloader::{DataLoader, DataLoaderIterator, Progress},
    tensor::Device,
};
use burn_dataset::DatasetError;

use crate::data::{Order, Origin, Packing, Sample, TokenBatch};

/// Burn's data loader over samples: every call of `iter` is an epoch, and what comes is a function of
/// the samples, the order and the epoch.
///
/// Batches are made on the calling thread, so that a run is repeated to the bit.
#[derive(Debug)]
pub struct TokenLoader {
    samples: Arc<[Sample]>,
    packing: Option<Arc<Packing>>,
    rows: Range<usize>,
    batch_size: usize,
    pad: u32,
    order: Order,
    device: Device,
    next: Mutex<Position>,
}

/// A place in the course of a training: counted from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Epoch.
    pub epoch: usize,
    /// Batch within the epoch.
    pub batch: usize,
}

impl TokenLoader {
    /// A loader of `batch_size` samples (at least one) at a time. `pad` may be any id of the
    /// vocabulary.
    pub fn new(
        samples: Arc<[Sample]>,
        batch_size: usize,
        pad: u32,
        order: Order,
        device: &Device,
    ) -> Self {
        Self {
            rows: 0..samples.len(),
            samples,
            packing: None,
            batch_size: batch_size.max(1),
            pad,
            order,
            device: device.clone(),
            next: Mutex::default(),
        }
    }

    /// The same with packed rows; `packing` must be of these samples.
    pub fn with_packing(self, packing: Arc<Packing>) -> Self {
        Self {
            rows: 0..packing.rows().len(),
            packing: Some(packing),
            ..self
        }
    }

    /// The same from another place on: the next epoch is `start.epoch`, without its first
    /// `start.batch` batches.
    pub fn starting_at(self, start: Position) -> Self {
        Self {
            next: Mutex::new(start),
            ..self
        }
    }

    /// Batches of an epoch.
    pub fn batches(&self) -> usize {
        self.rows.len().div_ceil(self.batch_size)
    }

    /// The place after `batches` batches of all epochs, for [`starting_at`](Self::starting_at).
    pub fn position_after(&self, batches: usize) -> Position {
        let of_epoch = self.batches().max(1);
        Position {
            epoch: batches / of_epoch,
            batch: batches % of_epoch,
        }
    }

    /// The first batches of the first epoch; asking for them moves nothing.
    pub fn first(&self, count: usize) -> impl Iterator<Item = Result<TokenBatch, DatasetError>> {
        let copy = self
            .like(self.rows.clone(), &self.device)
            .starting_at(Position::default());
        let batches = copy.iter().take(count).collect::<Vec<_>>();
        batches.into_iter()
    }

    fn next(&self) -> Position {
        *self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same samples in the same order, elsewhere.
    fn like(&self, rows: Range<usize>, device: &Device) -> Self {
        Self {
            samples: self.samples.clone(),
            packing: self.packing.clone(),
            rows,
            batch_size: self.batch_size,
            pad: self.pad,
            order: self.order,
            device: device.clone(),
            next: Mutex::new(self.next()),
        }
    }

    /// The samples of a row, by their place in the data.
    fn row(&self, index: u32) -> Vec<u32> {
        let row = self.rows.start + index as usize;
        match &self.packing {
            Some(packing) => packing.rows()[row].clone(),
            None => vec![row as u32],
        }
    }
}

impl DataLoader<TokenBatch> for TokenLoader {
    fn iter<'a>(&'a self) -> Box<dyn DataLoaderIterator<TokenBatch> + 'a> {
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        let Position { epoch, batch } = *next;
        *next = Position {
            epoch: epoch + 1,
            batch: 0,
        };
        let order = self.order.epoch(epoch, self.rows.len());
        Box::new(Epoch {
            loader: self,
            number: (epoch * self.batches() + batch) as u64,
            done: order.len().min(batch * self.batch_size),
            order,
        })
    }

    fn num_items(&self) -> usize {
        self.rows.len()
    }

    fn to_device(&self, device: &Device) -> Arc<dyn DataLoader<TokenBatch>> {
        Arc::new(self.like(self.rows.clone(), device))
    }

    fn slice(&self, start: usize, end: usize) -> Arc<dyn DataLoader<TokenBatch>> {
        let end = (self.rows.start + end).min(self.rows.end);
        let start = (self.rows.start + start).min(end);
        Arc::new(self.like(start..end, &self.device))
    }
}

struct Epoch<'a> {
    loader: &'a TokenLoader,
    /// Of the next batch.
    number: u64,
    order: Vec<u32>,
    done: usize,
}

impl Iterator for Epoch<'_> {
    type Item = Result<TokenBatch, DatasetError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &self.order[self.done..];
        let batch = &rest[..rest.len().min(self.loader.batch_size)];
        if batch.is_empty() {
            return None;
        }
        self.done += batch.len();
        let rows: Vec<_> = batch.iter().map(|index| self.loader.row(*index)).collect();
        let TokenLoader {
            samples,
            pad,
            device,
            ..
        } = self.loader;
        let of_row = |row: &Vec<u32>| row.iter().map(|index| &samples[*index as usize]).collect();
        let origin = Origin {
            number: self.number,
            samples: rows.concat(),
        };
        self.number += 1;
        let rows: Vec<Vec<&Sample>> = rows.iter().map(of_row).collect();
        Some(Ok(TokenBatch::new(&rows, *pad, device).with_origin(origin)))
    }
}

impl DataLoaderIterator<TokenBatch> for Epoch<'_> {
    fn progress(&self) -> Progress {
        Progress::new(self.done, self.order.len(), Some("rows".into()))
    }
}

/// A loader as a trait object: shuffled anew in every epoch from `seed`, or in order.
pub fn loader(
    samples: Vec<Sample>,
    batch_size: usize,
    pad: u32,
    seed: Option<u64>,
    device: &Device,
) -> Arc<dyn DataLoader<TokenBatch>> {
    let order = seed.map_or(Order::InOrder, |seed| Order::Shuffled { seed });
    Arc::new(TokenLoader::new(
        samples.into(),
        batch_size,
        pad,
        order,
        device,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(count: u32) -> Arc<[Sample]> {
        let sample = |id| Sample {
            ids: vec![id, id],
            is_target: vec![false, true],
        };
        (0..count).map(sample).collect()
    }

    /// The samples of every batch of an epoch.
    fn epoch(loader: &dyn DataLoader<TokenBatch>) -> Vec<Vec<i64>> {
        let values = |batch: Result<TokenBatch, DatasetError>| {
            let ids = batch.unwrap().ids;
            let [rows, length] = ids.dims();
            let ids = ids.into_data().convert::<i64>().try_into_vec::<i64>();
            let ids = ids.unwrap();
            (0..rows)
                .flat_map(|row| {
                    ids[row * length..][..length]
                        .iter()
                        .step_by(2)
                        .copied()
                        .collect::<Vec<_>>()
                })
                .collect()
        };
        loader.iter().map(values).collect()
    }

    fn shuffled(count: u32) -> TokenLoader {
        let order = Order::Shuffled { seed: 3 };
        TokenLoader::new(samples(count), 4, 0, order, &Device::flex())
    }

    #[test]
    fn epochs_are_whole_and_differ_and_repeat() {
        let loader = shuffled(10);
        let epochs: Vec<_> = (0..3).map(|_| epoch(&loader)).collect();
        for epoch in &epochs {
            assert_eq!(epoch.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4, 2]);
            let mut all = epoch.concat();
            all.sort_unstable();
            assert_eq!(all, (0..10).collect::<Vec<i64>>());
        }
        assert_ne!(epochs[0], epochs[1]);
        let again = shuffled(10);
        assert_eq!((0..3).map(|_| epoch(&again)).collect::<Vec<_>>(), epochs);

        // From any place on, without what came before.
        let start = again.position_after(5);
        assert_eq!(start, Position { epoch: 1, batch: 2 });
        let late = shuffled(10).starting_at(start);
        assert_eq!(epoch(&late), epochs[1][2..]);
        assert_eq!(epoch(&late), epochs[2]);

        // Another device is no other order, and begins where this one is.
        let moved = shuffled(10).starting_at(Position { epoch: 2, batch: 0 });
        let moved = moved.to_device(&Device::flex());
        assert_eq!(epoch(moved.as_ref()), epochs[2]);
    }

    #[test]
    fn in_order_every_epoch_is_the_same() {
        let loader = loader(samples(5).to_vec(), 2, 0, None, &Device::flex());
        assert_eq!(epoch(loader.as_ref()), [vec![0, 1], vec![2, 3], vec![4]]);
        assert_eq!(epoch(loader.as_ref()), [vec![0, 1], vec![2, 3], vec![4]]);
        let part = loader.slice(1, 4);
        assert_eq!(
            (part.num_items(), epoch(part.as_ref())),
            (3, vec![vec![1, 2], vec![3]])
        );
        assert_eq!(loader.slice(7, 9).num_items(), 0);
        let mut iterator = loader.iter();
        iterator.next();
        let progress = iterator.progress();
        assert_eq!((progress.items_processed, progress.items_total), (2, 5));
    }

    #[test]
    fn packed_rows_are_shuffled_as_rows() {
        let packing = Arc::new(Packing::new(&samples(10), 6, 0));
        assert_eq!(packing.rows().len(), 4);
        let loader = shuffled(10).with_packing(packing);
        assert_eq!((loader.batches(), loader.num_items()), (1, 4));
        let (one, other) = (epoch(&loader).concat(), epoch(&loader).concat());
        assert_ne!(one, other);
        let sorted = |mut ids: Vec<i64>| {
            ids.sort_unstable();
            ids
        };
        // The last row has one sample and two of padding, whose id is that of a sample.
        assert_eq!(sorted(one.clone()), sorted(other));
        assert_eq!(one.len(), 12);
    }
}
