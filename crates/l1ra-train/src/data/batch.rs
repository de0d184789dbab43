//! Rows as batches on a device.

use std::sync::Arc;

use burn::{
    data::dataloader::{DataLoader, DataLoaderBuilder, batcher::Batcher},
    tensor::{Device, Int, Tensor, TensorData},
};
use burn_dataset::InMemDataset;

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
}

/// Pads and stacks rows.
#[derive(Clone, Debug)]
pub struct TokenBatcher {
    /// Id put on the right of short rows; any id of the vocabulary will do.
    pub pad: u32,
}

impl Batcher<Sample, TokenBatch> for TokenBatcher {
    fn batch(&self, items: Vec<Sample>, device: &Device) -> TokenBatch {
        let length = items
            .iter()
            .map(|sample| sample.ids.len())
            .max()
            .unwrap_or(1);
        let mut ids = Vec::with_capacity(items.len() * length);
        let (mut rows, mut targets) = (Vec::new(), Vec::new());
        for (index, sample) in items.iter().enumerate() {
            for (position, id) in sample.ids.iter().enumerate() {
                if sample.is_target[position] && position > 0 {
                    rows.push((index * length + position - 1) as i64);
                    targets.push(i64::from(*id));
                }
                ids.push(i64::from(*id));
            }
            ids.resize((index + 1) * length, i64::from(self.pad));
        }
        let target_count = targets.len();
        let vector = |values: Vec<i64>| {
            (target_count > 0)
                .then(|| Tensor::from_data(TensorData::new(values, [target_count]), device))
        };
        TokenBatch {
            ids: Tensor::from_data(TensorData::new(ids, [items.len(), length]), device),
            rows: vector(rows),
            targets: vector(targets),
            target_count,
            token_count: items.iter().map(|sample| sample.ids.len()).sum(),
        }
    }
}

/// Burn's data loader over rows: shuffled anew in every epoch from `seed`, or in order.
///
/// Batches are made on the calling thread, so that a run is repeated to the bit.
pub fn loader(
    samples: Vec<Sample>,
    batch_size: usize,
    pad: u32,
    seed: Option<u64>,
    device: &Device,
) -> Arc<dyn DataLoader<TokenBatch>> {
    let builder = DataLoaderBuilder::new(TokenBatcher { pad })
        .batch_size(batch_size)
        .set_device(device.clone());
    let builder = match seed {
        Some(seed) => builder.shuffle(seed),
        None => builder,
    };
    builder.build(InMemDataset::new(samples))
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

    #[test]
    fn targets_are_the_next_tokens_and_padding_is_none() {
        let samples = vec![
            sample(&[5, 6, 7], &[false, false, true]),
            sample(&[8, 9], &[false, true]),
        ];
        let batch = TokenBatcher { pad: 0 }.batch(samples, &Device::flex());
        assert_eq!(
            batch.ids.to_data(),
            TensorData::from([[5_i64, 6, 7], [8, 9, 0]])
                .convert::<i32>()
                .convert_dtype(batch.ids.dtype())
        );
        let values = |t: Option<Tensor<1, Int>>| {
            t.unwrap()
                .into_data()
                .convert::<i64>()
                .try_into_vec::<i64>()
                .unwrap()
        };
        assert_eq!(values(batch.rows), [1, 3]);
        assert_eq!(values(batch.targets), [7, 9]);
        assert_eq!((batch.target_count, batch.token_count), (2, 5));
    }

    #[test]
    fn a_batch_without_targets_has_no_rows() {
        let batch =
            TokenBatcher { pad: 0 }.batch(vec![sample(&[1, 2], &[false, false])], &Device::flex());
        assert!(batch.rows.is_none() && batch.targets.is_none());
    }
}
