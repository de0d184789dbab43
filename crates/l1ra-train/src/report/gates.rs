//! [`GateBars`]: gates counted by size.

/// Bars over `(0, 1]`.
const BINS: usize = 20;

/// Gates counted: the first bar those at 0 or under it, then 20 bars over `(0, 1]`, the last those
/// above 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct GateBars(pub(super) Vec<usize>);

impl GateBars {
    /// Number of bars.
    pub(super) const BARS: usize = BINS + 2;

    /// `None` where no gate was written. Gates that are not finite are not counted.
    pub(super) fn new(gates: &[Vec<f32>]) -> Option<Self> {
        let mut bars = vec![0; Self::BARS];
        for gate in gates.iter().flatten().filter(|gate| gate.is_finite()) {
            if let Some(bar) = bars.get_mut(Self::bar(*gate)) {
                *bar += 1;
            }
        }
        bars.iter().any(|count| *count > 0).then_some(Self(bars))
    }

    fn bar(gate: f32) -> usize {
        match gate {
            gate if gate <= 0.0 => 0,
            gate if gate > 1.0 => Self::BARS - 1,
            gate => ((gate * BINS as f32).ceil() as usize).clamp(1, BINS),
        }
    }

    /// What a bar counts.
    pub(super) fn range(bar: usize) -> String {
        let edge = |bin: usize| format!("{:.2}", bin as f64 / BINS as f64);
        match bar {
            0 => "0 or less".into(),
            bar if bar == Self::BARS - 1 => "above 1".into(),
            bar => format!("{} to {}", edge(bar - 1), edge(bar)),
        }
    }

    pub(super) fn largest(&self) -> usize {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gates_fall_where_they_belong() {
        let bars = GateBars::new(&[
            vec![-0.2, 0.0, 1e-12, 0.05],
            vec![0.051, 1.0, 1.0, 1.2, f32::NAN],
        ]);
        let GateBars(bars) = bars.expect("gates were counted");
        assert_eq!(bars.len(), 22);
        let filled: Vec<(usize, usize)> = bars
            .iter()
            .enumerate()
            .filter_map(|(bar, count)| (*count > 0).then_some((bar, *count)))
            .collect();
        assert_eq!(filled, [(0, 2), (1, 2), (2, 1), (20, 2), (21, 1)]);
        assert_eq!(GateBars::range(1), "0.00 to 0.05");
        assert_eq!(GateBars::range(20), "0.95 to 1.00");
    }

    #[test]
    fn no_gates_no_bars() {
        assert_eq!(GateBars::new(&[]), None);
        assert_eq!(GateBars::new(&[vec![]]), None);
    }
}
