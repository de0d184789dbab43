//! [`Packing`]: which samples share a row.

use std::{cmp::Reverse, collections::BTreeSet, fmt};

use serde::Serialize;

use crate::{
    data::{Order, Sample, order::packing_order},
    plural::counted,
};

/// Rows of several samples each.
///
/// Best fit, longest first: every sample goes into the row in which it leaves the least room, or into
/// a new one. Samples of equal length come in an order drawn from the seed, so the rows are a
/// function of the samples and the seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    rows: Vec<Vec<u32>>,
}

impl Packing {
    /// Packs samples into rows of at most `max_length` tokens. A longer sample has a row of its own.
    pub fn new(samples: &[Sample], max_length: usize, seed: u64) -> Self {
        let mut order = packing_order(seed, samples.len());
        order.sort_by_key(|index| Reverse(samples[*index as usize].len())); // Stable.
        let mut rows: Vec<Vec<u32>> = Vec::new();
        let mut open: BTreeSet<(usize, usize)> = BTreeSet::new(); // Room, row.
        for index in order {
            let length = samples[index as usize].len();
            let (room, row) = match open.range((length, 0)..).next().copied() {
                Some(place) => {
                    open.remove(&place);
                    place
                }
                None => {
                    rows.push(Vec::new());
                    (max_length, rows.len() - 1)
                }
            };
            rows[row].push(index);
            match room.saturating_sub(length) {
                0 => false,
                room => open.insert((room, row)),
            };
        }
        Self { rows }
    }

    /// Indices of every row's samples.
    pub fn rows(&self) -> &[Vec<u32>] {
        &self.rows
    }
}

/// How much of the batches of an epoch is padding.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PaddingReport {
    /// Samples.
    pub samples: usize,
    /// Rows of a batch.
    pub batch_size: usize,
    /// Share of padding in the batches, each sample in a row of its own.
    pub unpacked: f64,
    /// The packed rows and their share of padding, where samples are packed.
    pub packed: Option<PackedPadding>,
}

/// The same for packed rows.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PackedPadding {
    /// Rows.
    pub rows: usize,
    /// Share of padding in the batches.
    pub padding: f64,
}

impl PaddingReport {
    /// Measures the batches of the first epoch in `order`, with and without packing.
    pub fn new(
        samples: &[Sample],
        packing: Option<&Packing>,
        batch_size: usize,
        order: Order,
    ) -> Self {
        let alone: Vec<usize> = samples.iter().map(Sample::len).collect();
        let packed = packing.map(|packing| {
            let length = |row: &Vec<u32>| row.iter().map(|index| alone[*index as usize]).sum();
            let rows: Vec<usize> = packing.rows().iter().map(length).collect();
            PackedPadding {
                rows: rows.len(),
                padding: padding(&rows, batch_size, order),
            }
        });
        Self {
            samples: samples.len(),
            batch_size,
            unpacked: padding(&alone, batch_size, order),
            packed,
        }
    }
}

/// Share of the tokens in the batches of the first epoch that are padding, for rows of `lengths`.
fn padding(lengths: &[usize], batch_size: usize, order: Order) -> f64 {
    let order = order.epoch(0, lengths.len());
    let (mut real, mut all) = (0, 0);
    for batch in order.chunks(batch_size.max(1)) {
        let lengths = batch.iter().map(|index| lengths[*index as usize]);
        all += batch.len() * lengths.clone().max().unwrap_or(0);
        real += lengths.sum::<usize>();
    }
    (all - real) as f64 / all.max(1) as f64
}

impl fmt::Display for PaddingReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |share: f64| format!("{:.1} %", 100.0 * share);
        let (unpacked, batch) = (percent(self.unpacked), self.batch_size);
        match &self.packed {
            Some(packed) => write!(
                f,
                "{} in {}; padding {} of the tokens in batches of {batch}, in place of {unpacked}",
                counted(self.samples, "sample"),
                counted(packed.rows, "packed row"),
                percent(packed.padding)
            ),
            None => write!(f, "padding {unpacked} of the tokens in batches of {batch}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(lengths: &[usize]) -> Vec<Sample> {
        let sample = |length: &usize| Sample {
            ids: vec![1; *length],
            is_target: vec![true; *length],
        };
        lengths.iter().map(sample).collect()
    }

    #[test]
    fn rows_hold_every_sample_once_and_fit() {
        let lengths: Vec<usize> = (0..500).map(|i| 3 + (i * 37) % 90).collect();
        let samples = samples(&lengths);
        let packing = Packing::new(&samples, 100, 1);
        let mut seen: Vec<u32> = packing.rows().concat();
        seen.sort_unstable();
        assert_eq!(seen, (0..500).collect::<Vec<u32>>());
        let length = |row: &Vec<u32>| row.iter().map(|i| lengths[*i as usize]).sum::<usize>();
        assert!(packing.rows().iter().all(|row| length(row) <= 100));
        let least = lengths.iter().sum::<usize>().div_ceil(100);
        assert!(
            packing.rows().len() <= least + 2,
            "{} of {least}",
            packing.rows().len()
        );

        assert_eq!(packing, Packing::new(&samples, 100, 1));
        assert_ne!(packing, Packing::new(&samples, 100, 2));
    }

    #[test]
    fn the_best_fit_is_taken() {
        let packing = Packing::new(&samples(&[6, 9, 3, 1, 12]), 10, 0);
        assert_eq!(packing.rows(), [vec![4], vec![1, 3], vec![0, 2]]);
        assert!(Packing::new(&[], 10, 0).rows().is_empty());
    }

    #[test]
    fn padding_is_what_the_batches_hold_of_it() {
        let samples = samples(&[2, 6, 4, 4]);
        let report = PaddingReport::new(&samples, None, 2, Order::InOrder);
        assert_eq!(report.unpacked, 4.0 / 20.0);
        insta::assert_snapshot!(report, @"padding 20.0 % of the tokens in batches of 2");
        let packing = Packing::new(&samples, 8, 0);
        let report = PaddingReport::new(&samples, Some(&packing), 2, Order::InOrder);
        insta::assert_snapshot!(report, @"4 samples in 2 packed rows; padding 0.0 % of the tokens in batches of 2, in place of 20.0 %");
    }
}
