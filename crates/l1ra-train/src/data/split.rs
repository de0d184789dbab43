//! Holding out and mixing: which samples are for training, and how often.

use std::{collections::HashSet, path::Path};

use rayon::prelude::*;
use sha2::{Digest, Sha256};

use crate::{
    data::{DataOptions, Sample, order::mixing_order, rows::Row},
    error::TrainError,
};

/// Training rows file by file, and evaluation rows.
pub(super) struct Split {
    pub(super) train: Vec<Vec<Row>>,
    pub(super) eval: Vec<Row>,
}

type Hash = [u8; 32];

/// Equal samples have equal hashes; the seed makes other samples come first.
fn hash(sample: &Sample, seed: u64) -> Hash {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    for id in &sample.ids {
        hash.update(id.to_le_bytes());
    }
    hash.finalize().into()
}

impl Split {
    /// Moves `eval_fraction` of the training rows, at most `eval_rows`, over to the evaluation rows:
    /// those whose hash comes first. Equal rows go together, so none is on both sides; there may
    /// then be a few more or fewer.
    pub(super) fn hold_out(
        &mut self,
        options: &DataOptions,
        path: &Path,
    ) -> Result<(), TrainError> {
        let seed = options.seed;
        let rows = self.train.par_iter();
        let hashes: Vec<Vec<Hash>> = rows
            .map(|rows| rows.par_iter().map(|row| hash(&row.sample, seed)).collect())
            .collect();
        let mut sorted: Vec<Hash> = hashes.concat();
        let count = sorted.len();
        sorted.sort_unstable();
        let most = if options.eval_rows > 0 {
            options.eval_rows
        } else {
            count
        };
        let wanted = (options.eval_fraction * count as f64).round() as usize;
        let wanted = wanted.min(most).max(1);
        // Up to the next boundary between unlike rows; back to the last one if none is left.
        let is_boundary = |place: &usize| sorted[*place] != sorted[place - 1];
        let place = (wanted..count).find(is_boundary);
        let place = place.or_else(|| (1..wanted.min(count)).rev().find(is_boundary));
        let Some(place) = place else {
            return Err(too_few(path, count));
        };
        let limit = sorted[place];
        for (rows, hashes) in self.train.iter_mut().zip(hashes) {
            let (held, kept) = std::mem::take(rows)
                .into_iter()
                .zip(hashes)
                .partition::<Vec<_>, _>(|(_, hash)| *hash < limit);
            *rows = kept.into_iter().map(|(row, _)| row).collect();
            self.eval.extend(held.into_iter().map(|(row, _)| row));
        }
        Ok(())
    }

    /// What is to be said of evaluation samples that are trained on.
    pub(super) fn shared(&self) -> Option<String> {
        let hashes = |row: &Row| hash(&row.sample, 0);
        let train: HashSet<Hash> = self.train.par_iter().flatten().map(hashes).collect();
        let shared = self
            .eval
            .par_iter()
            .map(hashes)
            .filter(|hash| train.contains(hash))
            .count();
        (shared > 0).then(|| {
            format!(
                "{shared} of the {} evaluation samples are in the training data as well",
                self.eval.len()
            )
        })
    }
}

fn too_few(path: &Path, count: usize) -> TrainError {
    let seen = match count {
        1 => "holds 1 sample".into(),
        count => format!("holds {count} samples, all of them the same"),
    };
    TrainError::Data {
        path: path.into(),
        detail: format!("{seen}; training and evaluation need one each (or give evaluation data)"),
    }
}

/// Rows `weight` times: all of them as often as it is whole, and the fraction of them once more, drawn
/// from the seed.
pub(super) fn mix(rows: Vec<Row>, weight: f64, seed: u64, source: usize) -> Vec<Row> {
    if weight == 1.0 {
        return rows;
    }
    let whole = weight.floor() as usize;
    let more = (weight.fract() * rows.len() as f64).round() as usize;
    let mut drawn = mixing_order(seed, source, rows.len());
    drawn.truncate(more);
    drawn.sort_unstable();
    let mut mixed = Vec::with_capacity(whole * rows.len() + more);
    for _ in 0..whole {
        mixed.extend_from_slice(&rows);
    }
    mixed.extend(drawn.into_iter().map(|index| rows[index as usize].clone()));
    mixed
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: u32) -> Row {
        Row {
            sample: Sample {
                ids: vec![id, 1],
                is_target: vec![false, true],
            },
            lost: 0,
        }
    }

    fn ids(rows: &[Row]) -> Vec<u32> {
        rows.iter().map(|row| row.sample.ids[0]).collect()
    }

    fn split(options: &DataOptions, files: &[&[u32]]) -> Result<(Vec<u32>, Vec<u32>), String> {
        let rows = |ids: &&[u32]| ids.iter().map(|id| row(*id)).collect();
        let mut split = Split {
            train: files.iter().map(rows).collect(),
            eval: Vec::new(),
        };
        split
            .hold_out(options, Path::new("a.jsonl"))
            .map_err(|error| error.to_string())?;
        Ok((ids(&split.train.concat()), ids(&split.eval)))
    }

    #[test]
    fn no_sample_is_on_both_sides() {
        let options = DataOptions::default();
        // Every id four times, in two files.
        let file: Vec<u32> = (0..200).map(|i| i % 100).collect();
        let (train, eval) = split(&options, &[&file, &file]).unwrap();
        assert_eq!(train.len() + eval.len(), 400);
        assert_eq!(eval.len(), 40);
        assert!(eval.iter().all(|id| !train.contains(id)));
        assert_eq!(split(&options, &[&file, &file]).unwrap().1, eval);
        let other = DataOptions {
            seed: 1,
            ..options.clone()
        };
        assert_ne!(split(&other, &[&file, &file]).unwrap().1, eval);

        // A sample's side does not depend on where it stands.
        let turned: Vec<u32> = file.iter().rev().copied().collect();
        let mut again = split(&options, &[&turned, &file]).unwrap().1;
        let mut eval = eval;
        again.sort_unstable();
        eval.sort_unstable();
        assert_eq!(again, eval);
    }

    #[test]
    fn a_few_samples_are_enough() {
        let options = DataOptions {
            eval_fraction: 0.5,
            eval_rows: 3,
            ..Default::default()
        };
        let count = |ids: &[u32]| split(&options, &[ids]).map(|(t, e)| (t.len(), e.len()));
        assert_eq!(count(&[1, 2]), Ok((1, 1)));
        assert_eq!(count(&(0..100).collect::<Vec<u32>>()), Ok((97, 3)));
        let (train, eval) = count(&[1, 1, 1, 1, 2]).unwrap();
        assert!((train, eval) == (1, 4) || (train, eval) == (4, 1));
        insta::assert_snapshot!(count(&[1]).unwrap_err(), @"a.jsonl: holds 1 sample; training and evaluation need one each (or give evaluation data)");
        insta::assert_snapshot!(count(&[1, 1, 1]).unwrap_err(), @"a.jsonl: holds 3 samples, all of them the same; training and evaluation need one each (or give evaluation data)");
    }

    #[test]
    fn shared_samples_are_said() {
        let mut split = Split {
            train: vec![vec![row(1), row(2)], vec![row(3)]],
            eval: vec![row(4), row(3), row(3)],
        };
        insta::assert_snapshot!(split.shared().unwrap(), @"2 of the 3 evaluation samples are in the training data as well");
        split.eval.truncate(1);
        assert_eq!(split.shared(), None);
    }

    #[test]
    fn a_weight_is_how_often_a_sample_is_seen() {
        let rows: Vec<Row> = (0..10).map(row).collect();
        assert_eq!(mix(rows.clone(), 1.0, 0, 0), rows);
        let mixed = ids(&mix(rows.clone(), 2.5, 0, 0));
        assert_eq!(mixed.len(), 25);
        assert_eq!(
            mixed[..20],
            [(0..10).collect::<Vec<u32>>(), (0..10).collect()].concat()
        );
        let mut half = mixed[20..].to_vec();
        half.dedup();
        assert_eq!(half.len(), 5);
        assert_eq!(ids(&mix(rows.clone(), 2.5, 0, 0)), mixed);
        let of = |seed, source| ids(&mix(rows.clone(), 0.5, seed, source));
        assert_eq!(of(0, 0).len(), 5);
        assert!(of(0, 0) != of(1, 0) || of(0, 1) != of(0, 0));
        assert!(mix(rows, 0.01, 0, 0).is_empty());
    }
}
