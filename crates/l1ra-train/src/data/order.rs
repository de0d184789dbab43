//! [`Order`]: the order of rows, a pure function of seed and epoch.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Streams of the one generator, so that no two draws of a run are the same.
const MIXING: u64 = 1 << 63;
const PACKING: u64 = 1 << 62;

/// In which order rows come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are, in every epoch.
    InOrder,
    /// Shuffled anew in every epoch, a function of seed and epoch.
    Shuffled {
        /// The seed.
        seed: u64,
    },
}

impl Order {
    /// The order of `count` rows in an epoch, which counts from 0.
    ///
    /// Fisher–Yates over `⌊x · n / 2⁶⁴⌋`, with `x` from ChaCha8 with the seed as key and the epoch as
    /// stream: the same on every machine, and whatever came before.
    pub fn epoch(&self, epoch: usize, count: usize) -> Vec<u32> {
        match self {
            Self::InOrder => (0..count as u32).collect(),
            Self::Shuffled { seed } => permutation(*seed, epoch as u64, count),
        }
    }
}

/// Which samples of a source with a fractional weight come once more, in the order drawn.
pub(crate) fn mixing_order(seed: u64, source: usize, count: usize) -> Vec<u32> {
    permutation(seed, MIXING | source as u64, count)
}

/// The order of samples of equal length, before they are packed.
pub(crate) fn packing_order(seed: u64, count: usize) -> Vec<u32> {
    permutation(seed, PACKING, count)
}

fn permutation(seed: u64, stream: u64, count: usize) -> Vec<u32> {
    let mut draw = ChaCha8Rng::seed_from_u64(seed);
    draw.set_stream(stream);
    let mut order: Vec<u32> = (0..count as u32).collect();
    for last in (1..count).rev() {
        let scaled = u128::from(draw.next_u64()) * (last as u128 + 1);
        order.swap(last, (scaled >> 64) as usize);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_a_function_of_seed_and_epoch() {
        let order = Order::Shuffled { seed: 7 };
        let first = order.epoch(0, 100);
        assert_eq!(first, order.epoch(0, 100));
        assert_ne!(first, order.epoch(1, 100));
        assert_ne!(first, Order::Shuffled { seed: 8 }.epoch(0, 100));
        let mut sorted = first.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, Order::InOrder.epoch(3, 100));
        assert!(order.epoch(0, 0).is_empty());
        assert_eq!(order.epoch(5, 1), [0]);
    }

    #[test]
    fn the_draws_stay_as_they_are() {
        // A run that is resumed, perhaps with a later version, must go on with the same rows.
        assert_eq!(
            Order::Shuffled { seed: 0 }.epoch(0, 8),
            [7, 2, 1, 6, 0, 4, 3, 5]
        );
        assert_eq!(
            Order::Shuffled { seed: 0 }.epoch(1, 8),
            [7, 0, 2, 1, 4, 3, 5, 6]
        );
    }
}
