//! Values to places, and the values that an axis names.

/// A linear scale from a range of values to a range of places.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    pub(crate) domain: [f64; 2],
    pub(crate) range: [f64; 2],
}

impl Scale {
    /// The place of a value.
    pub(crate) fn at(&self, value: f64) -> f64 {
        let [low, high] = self.domain;
        let [from, to] = self.range;
        from + (value - low) / (high - low) * (to - from)
    }

    /// Round values within the domain, about `count` of them and at least two where it holds two;
    /// whole numbers if asked for.
    pub(crate) fn ticks(&self, count: usize, whole: bool) -> Vec<f64> {
        let [low, high] = self.domain;
        let rough = (high - low) / count.max(1) as f64;
        if !rough.is_finite() || rough <= 0.0 {
            return vec![low];
        }
        let step = |share: f64| {
            let step = round_step(rough * share);
            if whole { step.max(1.0).round() } else { step }
        };
        [0.75, 0.4, 0.2]
            .map(|share| multiples(low, high, step(share)))
            .into_iter()
            .find(|ticks| ticks.len() >= 2)
            .unwrap_or_else(|| multiples(low, high, step(0.2)))
    }
}

/// 1, 2 or 5 times a power of ten, at least `least`.
fn round_step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    let step = steps.into_iter().find(|step| *step >= least * 0.999);
    step.unwrap_or(least)
}

/// The multiples of `step` from `low` to `high`; none where they are too many, as with a step that
/// is too small for a number.
fn multiples(low: f64, high: f64, step: f64) -> Vec<f64> {
    const MOST: u64 = 100;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    if first > last || last.abs_diff(first) > MOST {
        return Vec::new();
    }
    (first..=last)
        .map(|multiple| multiple as f64 * step)
        .collect()
}

/// A domain that holds all `values` with some room above and below; `None` without values.
pub(crate) fn with_room(values: impl Iterator<Item = f64>) -> Option<[f64; 2]> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return None;
    }
    let room = if high > low {
        (high - low) * 0.06
    } else {
        (low.abs() * 0.1).max(1e-6)
    };
    Some([low - room, high + room])
}

/// The names of ticks, with one unit and as many digits as tell them apart.
pub(crate) fn tick_names(ticks: &[f64]) -> Vec<String> {
    let largest = ticks
        .iter()
        .fold(0.0_f64, |most, tick| most.max(tick.abs()));
    let step = match ticks {
        [first, second, ..] => (second - first).abs(),
        _ => largest,
    };
    let (unit, suffix) = match largest {
        largest if largest >= 1e6 => (1e6, " M"),
        largest if largest >= 1e4 => (1e3, " k"),
        _ => (1.0, ""),
    };
    if largest > 0.0 && largest < 1e-3 {
        return ticks.iter().map(|tick| scientific(*tick)).collect();
    }
    let step = step / unit;
    let digits = if step > 0.0 {
        (-(step + step * 1e-9).log10().floor()).clamp(0.0, 6.0) as usize
    } else {
        0
    };
    let name = |tick: &f64| match tick / unit {
        0.0 => "0".to_owned(),
        value => format!("{value:.digits$}{suffix}"),
    };
    ticks.iter().map(name).collect()
}

fn scientific(value: f64) -> String {
    if value == 0.0 {
        return "0".into();
    }
    format!("{value:.1e}").replace(".0e", "e")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale(low: f64, high: f64) -> Scale {
        Scale {
            domain: [low, high],
            range: [100.0, 0.0],
        }
    }

    fn names(low: f64, high: f64, whole: bool) -> Vec<String> {
        tick_names(&scale(low, high).ticks(5, whole))
    }

    #[test]
    fn places_follow_the_range() {
        assert!((scale(2.0, 4.0).at(2.5) - 75.0).abs() < 1e-12);
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            names(3.66, 6.51, false),
            ["4.0", "4.5", "5.0", "5.5", "6.0", "6.5"]
        );
        assert_eq!(
            names(0.0, 100.0, true),
            ["0", "20", "40", "60", "80", "100"]
        );
        assert_eq!(
            names(0.0, 0.0021, false),
            ["0", "0.0005", "0.0010", "0.0015", "0.0020"]
        );
        assert_eq!(
            names(0.0, 5e-4, false),
            ["0", "1e-4", "2e-4", "3e-4", "4e-4", "5e-4"]
        );
        assert_eq!(
            names(161_000.0, 189_000.0, true),
            ["165 k", "170 k", "175 k", "180 k", "185 k"]
        );
        assert_eq!(
            names(47.8e6, 50.1e6, true),
            ["48.0 M", "48.5 M", "49.0 M", "49.5 M", "50.0 M"]
        );
        assert_eq!(names(0.0, 2.0, true), ["0", "1", "2"]);
        assert_eq!(names(7.2, 7.2, false), ["7"]);
        assert!(names(-2e-324, 3e-323, false).len() < 10);
    }

    #[test]
    fn a_domain_holds_its_values() {
        let domain = with_room([3.0, f64::NAN, 5.0].into_iter()).expect("there are values");
        assert!(domain[0] < 3.0 && domain[1] > 5.0);
        let flat = with_room([4.0, 4.0].into_iter()).expect("there are values");
        assert!(flat[0] < 4.0 && flat[1] > 4.0);
        assert_eq!(with_room(std::iter::empty()), None);
    }
}
