//! Ranks before the first step, by what a measurement says of every layer.

/// A layer that may hold ranks.
#[derive(Clone, Debug, PartialEq)]
pub struct StartLayer {
    /// Path of the layer.
    pub path: String,
    /// What one rank takes from the budget.
    pub price: usize,
    /// Most ranks it may hold.
    pub most: usize,
    /// What the first rank is worth, the second, and so on, descending, in a unit that all layers share.
    pub values: Vec<f64>,
}

/// The ranks that are worth most under `budget`: one after the other goes to the layer whose next rank
/// is worth most for its price, as long as the budget has it.
///
/// With the squared singular values of the layers' gradients as values this spends the budget where the
/// loss falls fastest: along a rank-r update `ΔW` of given size the loss falls by at most
/// `‖ΔW‖·(σ₁² + … + σ_r²)^½`, the singular values being those of `G = ∂L/∂W`.
///
/// Ties are broken by path, so the order of the input does not matter. A value that is not finite is
/// worth nothing.
pub fn start_ranks(layers: &[StartLayer], budget: usize) -> Vec<usize> {
    let mut ranks = vec![0; layers.len()];
    let mut left = budget;
    let worth = |layer: &StartLayer, rank: usize| {
        let value = layer.values.get(rank).copied().unwrap_or(0.0);
        let value = if value.is_finite() { value } else { 0.0 };
        value / layer.price.max(1) as f64
    };
    loop {
        let takes = |index: &usize| {
            let layer = &layers[*index];
            ranks[*index] < layer.most.min(layer.values.len()) && layer.price.max(1) <= left
        };
        let best = (0..layers.len()).filter(takes).max_by(|a, b| {
            worth(&layers[*a], ranks[*a])
                .total_cmp(&worth(&layers[*b], ranks[*b]))
                .then_with(|| layers[*b].path.cmp(&layers[*a].path))
        });
        let Some(best) = best else {
            return ranks;
        };
        ranks[best] += 1;
        left -= layers[best].price.max(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn layer(path: &str, price: usize, values: &[f64]) -> StartLayer {
        StartLayer {
            path: path.into(),
            price,
            most: values.len(),
            values: values.to_vec(),
        }
    }

    #[test]
    fn ranks_go_where_they_are_worth_most_for_their_price() {
        let layers = [
            layer("wide", 10, &[30.0, 5.0, 1.0]),
            layer("narrow", 2, &[4.0, 3.0, 0.1]),
            layer("dull", 1, &[0.1]),
        ];
        // 30/10, 4/2, 3/2; then 5/10 costs more than is left.
        assert_eq!(start_ranks(&layers, 14), [1, 2, 0]);
        assert_eq!(start_ranks(&layers, 15), [1, 2, 1]);
        assert_eq!(start_ranks(&layers, 1000), [3, 3, 1]);
    }

    #[test]
    fn what_is_not_finite_comes_last() {
        let layers = [layer("a", 1, &[f64::NAN, 2.0]), layer("b", 1, &[1.0, 0.5])];
        assert_eq!(start_ranks(&layers, 2), [0, 2]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(10_000))]

        #[test]
        fn the_budget_is_spent_and_the_order_does_not_matter(
            drawn in proptest::collection::vec(
                (1_usize..40, 0_usize..9, proptest::collection::vec(0.0_f64..9.0, 0..9)), 1..9),
            budget in 0_usize..400,
        ) {
            let mut layers: Vec<StartLayer> = drawn
                .into_iter()
                .enumerate()
                .map(|(index, (price, most, mut values))| {
                    values.sort_by(|a, b| b.total_cmp(a));
                    StartLayer { path: format!("l{index}"), price, most, values }
                })
                .collect();
            let ranks = start_ranks(&layers, budget);
            let held: usize = layers.iter().zip(&ranks).map(|(l, r)| l.price * r).sum();
            prop_assert!(held <= budget);
            for (layer, rank) in layers.iter().zip(&ranks) {
                prop_assert!(*rank <= layer.most.min(layer.values.len()));
                let open = *rank < layer.most.min(layer.values.len());
                prop_assert!(!open || layer.price > budget - held, "what fits is taken");
            }
            layers.reverse();
            let mut reversed = start_ranks(&layers, budget);
            reversed.reverse();
            prop_assert_eq!(ranks, reversed);
        }
    }
}
