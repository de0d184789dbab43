//! Curves: smoothed, and thinned so that a long run fits a page.

/// A point: optimizer step and value.
pub(super) type Point = (f64, f64);

/// The points whose value is finite.
pub(super) fn finite(points: impl Iterator<Item = Point>) -> Vec<Point> {
    points.filter(|(_, value)| value.is_finite()).collect()
}

/// Steps that are averaged in a curve of `count` points: an odd number, 1 for a short run, at most
/// 301.
pub(super) fn smoothing_window(count: usize) -> usize {
    (count / 12).min(301).saturating_sub(1) | 1
}

/// The mean of `window` points around each one; at both ends of as many as there are on either
/// side.
pub(super) fn smooth(points: &[Point], window: usize) -> Vec<Point> {
    let mut sums = vec![0.0];
    let mut sum = 0.0;
    for (_, value) in points {
        sum += value;
        sums.push(sum);
    }
    let around = |index: usize| {
        let half = (window / 2).min(index).min(points.len() - 1 - index);
        let total = sums.get(index + half + 1).zip(sums.get(index - half));
        total.map_or(f64::NAN, |(to, from)| (to - from) / (2 * half + 1) as f64)
    };
    let indexed = points.iter().enumerate();
    indexed
        .map(|(index, (step, _))| (*step, around(index)))
        .collect()
}

/// At most `most` points: the smallest and the largest of each of `most / 2` stretches of equal
/// length, in their order, so that no peak is lost.
pub(super) fn thin(points: &[Point], most: usize) -> Vec<Point> {
    if points.len() <= most {
        return points.to_vec();
    }
    let stretches = (most / 2).max(1);
    let mut thinned = Vec::with_capacity(most);
    for stretch in 0..stretches {
        let from = stretch * points.len() / stretches;
        let to = (stretch + 1) * points.len() / stretches;
        let stretch = points.get(from..to).unwrap_or(&[]);
        let by_value = |a: &&Point, b: &&Point| a.1.total_cmp(&b.1);
        let least = stretch.iter().min_by(by_value);
        let greatest = stretch.iter().max_by(by_value);
        let (Some(least), Some(greatest)) = (least, greatest) else {
            continue;
        };
        let (first, second) = if least.0 <= greatest.0 {
            (least, greatest)
        } else {
            (greatest, least)
        };
        thinned.push(*first);
        if second.0 > first.0 {
            thinned.push(*second);
        }
    }
    thinned
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn smoothing_is_a_centred_mean() {
        let points: Vec<Point> = [1.0, 2.0, 6.0, 3.0, 5.0]
            .iter()
            .enumerate()
            .map(|(step, value)| (step as f64, *value))
            .collect();
        let values: Vec<f64> = smooth(&points, 3).iter().map(|(_, value)| *value).collect();
        let expected = [1.0, 3.0, 11.0 / 3.0, 14.0 / 3.0, 5.0];
        for (value, expected) in values.iter().zip(expected) {
            assert!((value - expected).abs() < 1e-12, "{values:?}");
        }
        assert!(smooth(&[], 3).is_empty());
    }

    #[test]
    fn windows_are_odd() {
        let windows = [0, 5, 24, 100, 1000, 1_000_000].map(smoothing_window);
        assert_eq!(windows, [1, 1, 1, 7, 83, 301]);
    }

    #[test]
    fn thinning_keeps_peaks_and_order() {
        let mut points: Vec<Point> = (0..100_000)
            .map(|step| (f64::from(step), f64::from(step % 7)))
            .collect();
        points[54_321].1 = 99.0;
        points[77_777].1 = -99.0;
        let thinned = thin(&points, 2_000);
        assert!(thinned.len() <= 2_000, "{}", thinned.len());
        assert!(thinned.contains(&(54_321.0, 99.0)));
        assert!(thinned.contains(&(77_777.0, -99.0)));
        assert!(thinned.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert_eq!(thin(&points[..50], 2_000), &points[..50]);
    }
}
