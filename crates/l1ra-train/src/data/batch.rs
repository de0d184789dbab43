//! [`TokenBatch`]: rows on a device.

use burn::{
    data::dataloader::batcher::Batcher,
    tensor::{Device, Int, Tensor, TensorData},
};
use l1ra_models::Segments;

use crate::data::Sample;

/// A batch of rows, padded on the right to the longest.
///
/// Padding needs no mask: with causal attention no real token sees what is to its right, and the
/// loss is taken on [`rows`](Self::rows) only.
#[derive(Clone, Debug)]
pub struct TokenBatch {
    /// Token ids, `[batch, length]`.
    pub ids: Tensor<2, Int>,
    /// Positions in the flattened batch whose *next* token is a target, `[targets]`; `None` where
    /// there is none.
    pub rows: Option<Tensor<1, Int>>,
    /// Those next tokens, `[targets]`.
    pub targets: Option<Tensor<1, Int>>,
    /// Number of targets.
    pub target_count: usize,
    /// Number of tokens, padding not counted.
    pub token_count: usize,
    /// Where samples begin and end, if a row holds more than one.
    pub segments: Option<Segments>,
    /// Where the batch came from.
    pub origin: Origin,
}

/// Where a batch came from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// The batch's number in the course of the training, over all epochs, from 0. With the seed, it
    /// determines the batch's dropout.
    pub number: u64,
    /// Its samples, by their place in the training data, from 0.
    pub samples: Vec<u32>,
}

impl TokenBatch {
    /// A batch of rows of one or more samples each; short rows are filled up with `pad`, which may
    /// be any id of the vocabulary.
    pub fn new(rows: &[Vec<&Sample>], pad: u32, device: &Device) -> Self {
        let lengths = |row: &Vec<&Sample>| row.iter().map(|s| s.len()).collect::<Vec<usize>>();
        let sum = |row: &Vec<&Sample>| row.iter().map(|sample| sample.len()).sum::<usize>();
        let length = rows.iter().map(sum).max().unwrap_or(0).max(1);
        let mut ids = Vec::with_capacity(rows.len() * length);
        let (mut places, mut targets) = (Vec::new(), Vec::new());
        for (index, row) in rows.iter().enumerate() {
            for sample in row {
                for (position, id) in sample.ids.iter().enumerate() {
                    // Nothing of the sample comes before its first token.
                    if sample.is_target[position] && position > 0 {
                        places.push(ids.len() as i64 - 1);
                        targets.push(i64::from(*id));
                    }
                    ids.push(i64::from(*id));
                }
            }
            ids.resize((index + 1) * length, i64::from(pad));
        }
        let target_count = targets.len();
        let vector = |values: Vec<i64>| {
            (target_count > 0)
                .then(|| Tensor::from_data(TensorData::new(values, [target_count]), device))
        };
        let is_packed = rows.iter().any(|row| row.len() > 1);
        Self {
            ids: Tensor::from_data(TensorData::new(ids, [rows.len(), length]), device),
            rows: vector(places),
            targets: vector(targets),
            target_count,
            token_count: rows.iter().map(sum).sum(),
            segments: is_packed.then(|| Segments::new(rows.iter().map(lengths))),
            origin: Origin::default(),
        }
    }

    /// The same, elsewhere.
    pub fn to_device(self, device: &Device) -> Self {
        let carry = |tensor: Tensor<1, Int>| tensor.to_device(device);
        Self {
            ids: self.ids.to_device(device),
            rows: self.rows.map(carry),
            targets: self.targets.map(carry),
            ..self
        }
    }

    /// The same, from there.
    pub fn with_origin(self, origin: Origin) -> Self {
        Self { origin, ..self }
    }
}

/// Pads and stacks samples, each in a row of its own.
#[derive(Clone, Debug)]
pub struct TokenBatcher {
    /// Id put on the right of short rows; any id of the vocabulary will do.
    pub pad: u32,
}

impl Batcher<Sample, TokenBatch> for TokenBatcher {
    fn batch(&self, items: Vec<Sample>, device: &Device) -> TokenBatch {
        let rows: Vec<Vec<&Sample>> = items.iter().map(|sample| vec![sample]).collect();
        TokenBatch::new(&rows, self.pad, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(ids: &[u32], is_target: &[bool]) -> Sample {
        Sample {
            ids: ids.to_vec(),
            is_target: is_target.to_vec(),
        }
    }

    fn values<const D: usize>(tensor: Tensor<D, Int>) -> Vec<i64> {
        let data = tensor.into_data().convert::<i64>();
        data.try_into_vec::<i64>().unwrap()
    }

    #[test]
    fn targets_are_the_next_tokens_and_padding_is_none() {
        let samples = vec![
            sample(&[5, 6, 7], &[false, false, true]),
            sample(&[8, 9], &[false, true]),
        ];
        let batch = TokenBatcher { pad: 0 }.batch(samples, &Device::flex());
        assert_eq!(batch.ids.dims(), [2, 3]);
        assert_eq!(values(batch.ids), [5, 6, 7, 8, 9, 0]);
        assert_eq!(values(batch.rows.unwrap()), [1, 3]);
        assert_eq!(values(batch.targets.unwrap()), [7, 9]);
        assert_eq!((batch.target_count, batch.token_count), (2, 5));
        assert!(batch.segments.is_none());
    }

    #[test]
    fn a_packed_sample_s_first_token_is_no_target_of_its_neighbour() {
        let (one, two) = (
            sample(&[5, 6, 7], &[false, false, true]),
            sample(&[8, 9], &[true, true]),
        );
        let batch = TokenBatch::new(&[vec![&one, &two], vec![&two]], 0, &Device::flex());
        assert_eq!(values(batch.ids), [5, 6, 7, 8, 9, 8, 9, 0, 0, 0]);
        assert_eq!(values(batch.rows.unwrap()), [1, 3, 5]);
        assert_eq!(values(batch.targets.unwrap()), [7, 9, 9]);
        assert_eq!((batch.target_count, batch.token_count), (3, 7));
        let expected = Segments::new([vec![3, 2], vec![2, 3]]);
        assert_eq!(batch.segments, Some(expected));
    }

    #[test]
    fn a_batch_without_targets_has_no_rows() {
        let batch =
            TokenBatcher { pad: 0 }.batch(vec![sample(&[1, 2], &[false, false])], &Device::flex());
        assert!(batch.rows.is_none() && batch.targets.is_none());
    }
}
