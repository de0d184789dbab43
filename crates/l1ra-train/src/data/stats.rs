//! [`DataStats`]: what the samples of a run are like.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{data::Sample, error::TrainError, plural::counted};

/// Figures of a set of samples.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct DataStats {
    /// Samples, those that come several times counted as often.
    pub samples: usize,
    /// Tokens of all samples.
    pub tokens: usize,
    /// Tokens that the loss is taken on.
    pub targets: usize,
    /// Tokens of a sample.
    pub lengths: Lengths,
    /// Samples whose end was cut off.
    pub cut: usize,
    /// The share of the samples that these are.
    pub cut_share: f64,
    /// Tokens that were cut off.
    pub cut_tokens: usize,
    /// Samples left out because they are too long.
    pub too_long: usize,
    /// Samples left out because no target is in them, or none is left of a cut.
    pub without_target: usize,
}

/// How the lengths of samples are spread, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lengths {
    /// The shortest.
    pub min: usize,
    /// Half of all samples are no longer than this.
    pub p50: usize,
    /// Nine in ten are no longer.
    pub p90: usize,
    /// 95 in a hundred.
    pub p95: usize,
    /// 99 in a hundred.
    pub p99: usize,
    /// The longest.
    pub max: usize,
}

/// What became of records on their way to samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) too_long: usize,
    pub(crate) without_target: usize,
}

impl DataStats {
    /// Figures of samples as they are.
    pub fn of<'a>(samples: impl IntoIterator<Item = &'a Sample>) -> Self {
        let samples = samples.into_iter().map(|sample| (sample, 0));
        Self::new(samples, Dropped::default())
    }

    /// Figures of samples, each with the tokens that it lost.
    pub(crate) fn new<'a>(
        samples: impl IntoIterator<Item = (&'a Sample, usize)>,
        dropped: Dropped,
    ) -> Self {
        let mut stats = Self {
            too_long: dropped.too_long,
            without_target: dropped.without_target,
            ..Default::default()
        };
        let mut lengths = Vec::new();
        for (sample, lost) in samples {
            lengths.push(sample.len());
            stats.targets += sample.targets();
            stats.cut += usize::from(lost > 0);
            stats.cut_tokens += lost;
        }
        stats.samples = lengths.len();
        stats.tokens = lengths.iter().sum();
        stats.lengths = Lengths::of(lengths);
        stats.cut_share = stats.cut as f64 / stats.samples.max(1) as f64;
        stats
    }
}

impl DataStats {
    /// Whether a model that reads `context` tokens can read every sample; `max_length` is what the
    /// user chose, for the message.
    ///
    /// # Errors
    /// A sample that is longer.
    pub fn check_context(&self, context: usize, max_length: usize) -> Result<(), TrainError> {
        let longest = self.lengths.max;
        if longest <= context {
            return Ok(());
        }
        Err(TrainError::Option {
            field: "data.max_length",
            seen: max_length.to_string(),
            expected: format!(
                "at most {context}, the tokens that this model reads (max_position_embeddings); \
                 the longest sample has {longest}"
            ),
        })
    }
}

impl Lengths {
    /// Of these lengths: a percentile is the smallest length that so many do not pass.
    fn of(mut lengths: Vec<usize>) -> Self {
        lengths.sort_unstable();
        let at = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100);
            lengths.get(rank.saturating_sub(1)).copied().unwrap_or(0)
        };
        Self {
            min: at(0),
            p50: at(50),
            p90: at(90),
            p95: at(95),
            p99: at(99),
            max: at(100),
        }
    }
}

impl fmt::Display for DataStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            samples,
            tokens,
            targets,
            lengths,
            ..
        } = self;
        write!(
            f,
            "{}, {}, {}; {} to {} tokens a sample, half of them up to {}, 95 % up to {}",
            counted(*samples, "sample"),
            counted(*tokens, "token"),
            counted(*targets, "target"),
            lengths.min,
            lengths.max,
            lengths.p50,
            lengths.p95
        )?;
        if self.cut > 0 {
            let share = 100.0 * self.cut_share;
            write!(
                f,
                "; {} cut ({share:.1} %), {} lost",
                self.cut,
                counted(self.cut_tokens, "token")
            )?;
        }
        if self.too_long > 0 {
            write!(f, "; {} left out as too long", self.too_long)?;
        }
        if self.without_target > 0 {
            write!(
                f,
                "; {} left out, as no target is in them",
                self.without_target
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_lengths_that_occur() {
        let lengths = Lengths::of((1..=200).rev().collect());
        let Lengths {
            min,
            p50,
            p90,
            p95,
            p99,
            max,
        } = lengths;
        assert_eq!([min, p50, p90, p95, p99, max], [1, 100, 180, 190, 198, 200]);
        let one = Lengths::of(vec![7]);
        assert_eq!([one.min, one.p50, one.p99, one.max], [7; 4]);
        assert_eq!(Lengths::of(Vec::new()), Lengths::default());
    }

    #[test]
    fn one_calm_line() {
        let mut sample = Sample::default();
        sample.push(&[1, 2, 3], false);
        sample.push(&[4], true);
        let stats = DataStats::of([&sample, &sample]);
        insta::assert_snapshot!(stats, @"2 samples, 8 tokens, 2 targets; 4 to 4 tokens a sample, half of them up to 4, 95 % up to 4");
        let dropped = Dropped {
            too_long: 3,
            without_target: 1,
        };
        let stats = DataStats::new([(&sample, 5), (&sample, 0)], dropped);
        insta::assert_snapshot!(stats, @"2 samples, 8 tokens, 2 targets; 4 to 4 tokens a sample, half of them up to 4, 95 % up to 4; 1 cut (50.0 %), 5 tokens lost; 3 left out as too long; 1 left out, as no target is in them");
        assert_eq!(serde_json::to_value(&stats).unwrap()["lengths"]["p95"], 4);
    }
}
