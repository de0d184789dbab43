//! Means with their intervals, and rank correlations.

use std::f64::consts::{FRAC_2_PI, FRAC_PI_2};

use serde::Serialize;

/// A mean and half the width of its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Estimate {
    /// The mean.
    pub mean: f64,
    /// Half the width of its 95 % Student-t interval; `None` for one value, which shows no spread.
    pub half: Option<f64>,
}

impl Estimate {
    /// Of `values`: `mean ± t(0.975, n − 1) · s / √n`, with the sample deviation `s`. `None` without
    /// values.
    pub fn of(values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return None;
        }
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        let degrees = values.len() - 1;
        let half = (degrees > 0).then(|| {
            let deviation = (squares / degrees as f64).sqrt();
            student_t(degrees) * deviation / count.sqrt()
        });
        Some(Self { mean, half })
    }

    /// Whether the interval leaves 0 out: the values then show a sign. Never for one value.
    pub fn excludes_zero(&self) -> bool {
        self.half.is_some_and(|half| self.mean.abs() > half)
    }
}

/// The 0.975 quantile of Student's t distribution, `degrees` of freedom being at least 1.
///
/// `P(|T| < t)` of whole degrees is a finite sum (Abramowitz & Stegun, 26.7.3 and 26.7.4); it is
/// inverted by bisection over the angle `atan(t / √degrees)`.
pub fn student_t(degrees: usize) -> f64 {
    let (mut low, mut high) = (0.0, FRAC_PI_2);
    // Each halves the angle's interval: no more can be told apart.
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if within(middle, degrees) < 0.95 {
            low = middle;
        } else {
            high = middle;
        }
    }
    low.tan() * (degrees as f64).sqrt()
}

/// `P(|T| < tan(angle) · √degrees)`.
fn within(angle: f64, degrees: usize) -> f64 {
    let (sine, cosine) = angle.sin_cos();
    let odd = degrees % 2 == 1;
    // Even: 1 + 1/2·cos² + 1·3/(2·4)·cos⁴ + …; odd: cos + 2/3·cos³ + 2·4/(3·5)·cos⁵ + …
    let mut term = if odd { cosine } else { 1.0 };
    let mut sum = 0.0;
    let mut power = if odd { 1 } else { 0 };
    while power + 2 <= degrees {
        sum += term;
        term *= cosine * cosine * (power + 1) as f64 / (power + 2) as f64;
        power += 2;
    }
    if odd {
        FRAC_2_PI * (angle + sine * sum)
    } else {
        sine * sum
    }
}

/// Spearman's rank correlation of two lists of one length; equal values share their mean place.
/// `None` where one list is constant.
pub fn spearman(one: &[f64], other: &[f64]) -> Option<f64> {
    if one.len() != other.len() {
        return None;
    }
    correlation(&places(one), &places(other))
}

/// The mean of [`spearman`] over all pairs of `lists`; `None` where no pair has one.
pub fn mean_spearman(lists: &[Vec<f64>]) -> Option<f64> {
    let pairs = lists.iter().enumerate().flat_map(|(index, one)| {
        let later = lists.iter().skip(index + 1);
        later.filter_map(move |other| spearman(one, other))
    });
    let found: Vec<f64> = pairs.collect();
    Estimate::of(&found).map(|estimate| estimate.mean)
}

/// Place of each value in the order of all, from 1.
fn places(values: &[f64]) -> Vec<f64> {
    let place = |value: &f64| {
        let below = values.iter().filter(|other| *other < value).count();
        let equal = values.iter().filter(|other| *other == value).count();
        below as f64 + (equal as f64 + 1.0) / 2.0
    };
    values.iter().map(place).collect()
}

/// Pearson's correlation.
fn correlation(one: &[f64], other: &[f64]) -> Option<f64> {
    let (mean_one, mean_other) = (Estimate::of(one)?.mean, Estimate::of(other)?.mean);
    let [mut product, mut square_one, mut square_other] = [0.0; 3];
    for (a, b) in one.iter().zip(other) {
        let (a, b) = (a - mean_one, b - mean_other);
        product += a * b;
        square_one += a * a;
        square_other += b * b;
    }
    let scale = (square_one * square_other).sqrt();
    (scale > 0.0).then(|| product / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, known) in [
            (1, 12.7062),
            (2, 4.3027),
            (3, 3.1824),
            (4, 2.7764),
            (9, 2.2622),
            (10, 2.2281),
            (30, 2.0423),
            (1000, 1.9623),
        ] {
            let seen = student_t(degrees);
            assert!((seen - known).abs() < 1e-4, "{degrees}: {seen}");
        }
    }

    #[test]
    fn an_interval_by_hand() {
        // Mean 2, s = 1, t(2) = 4.3027, √3 = 1.7321.
        let estimate = Estimate::of(&[1.0, 2.0, 3.0]).unwrap();
        assert!((estimate.mean - 2.0).abs() < 1e-12);
        assert!((estimate.half.unwrap() - 2.4842).abs() < 1e-3);
        assert!(!estimate.excludes_zero());
        let sure = Estimate::of(&[2.0, 2.1, 1.9, 2.0]).unwrap();
        assert!(sure.excludes_zero());
    }

    #[test]
    fn one_value_shows_no_spread() {
        let estimate = Estimate::of(&[3.0]).unwrap();
        assert_eq!(estimate.half, None);
        assert!(!estimate.excludes_zero());
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn correlations_of_places() {
        let near = |seen: Option<f64>, known: f64| (seen.unwrap() - known).abs() < 1e-12;
        assert!(near(spearman(&[1.0, 2.0, 9.0], &[2.0, 4.0, 5.0]), 1.0));
        assert!(near(spearman(&[1.0, 2.0, 3.0], &[3.0, 2.0, 1.0]), -1.0));
        // 1 − 6 · Σd² / (n · (n² − 1)) with d = 1, −1, 0, 0.
        let seen = spearman(&[1.0, 2.0, 3.0, 4.0], &[2.0, 1.0, 3.0, 4.0]);
        assert!(near(seen, 0.8));
        // Places 1.5, 1.5, 3 and 1, 2, 3.
        let tied = spearman(&[5.0, 5.0, 7.0], &[1.0, 2.0, 3.0]);
        assert!(near(tied, 1.5 / (1.5_f64 * 2.0).sqrt()));
        assert_eq!(spearman(&[4.0, 4.0], &[1.0, 2.0]), None);
    }

    #[test]
    fn constant_ranks_agree_on_nothing() {
        assert_eq!(mean_spearman(&vec![vec![4.0; 3]; 2]), None);
        let lists = [vec![1.0, 2.0], vec![1.0, 2.0], vec![2.0, 1.0]];
        let mean = mean_spearman(&lists).unwrap();
        assert!((mean + 1.0 / 3.0).abs() < 1e-12);
    }
}
