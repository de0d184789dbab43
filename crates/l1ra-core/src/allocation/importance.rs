//! What a rank is worth to the loss, read off the adapter and the optimizer's moments.

use std::collections::HashMap;

use burn::{module::ParamId, optim::ModuleOptimizer};

use crate::{
    error::CoreError,
    optim::record::{Entry, OptimizerEntries},
    walk::{AdapterData, AdapterView},
};

/// What every rank of every adapter is worth:
///
/// ```text
/// I_i = Σ_j A_ji² · v̂(A_ji) + Σ_j B_ij² · v̂(B_ij)
/// ```
///
/// the loss that removing the rank would cost to second order, with the optimizer's second moments `v̂`
/// (means of squared gradients) for the curvature, as optimal brain damage and the empirical Fisher
/// information have it. It does not change when A is multiplied by a number and B divided by it. Zero
/// for a rank whose parameters have no moments yet.
///
/// # Errors
/// When the device or the optimizer cannot be read.
pub(crate) fn importance(
    views: &[AdapterView],
    optimizer: &ModuleOptimizer,
) -> Result<Vec<Vec<f32>>, CoreError> {
    let entries = OptimizerEntries::of(optimizer)?;
    let moments: HashMap<&str, &Entry> = entries
        .tensors
        .iter()
        .map(|entry| (entry.name.as_str(), entry))
        .collect();
    let second = |id: ParamId| -> Vec<f32> {
        let entry = moments.get(format!("{}.moment_2", id.val()).as_str());
        let (words, _) = entry.map_or(&[][..], |entry| &entry.bytes).as_chunks::<4>();
        words.iter().map(|word| f32::from_ne_bytes(*word)).collect()
    };
    views
        .iter()
        .map(|view| {
            let [of_a, _, of_b] = view.ids.map(second);
            Ok(of_adapter(&view.data()?, &of_a, &of_b))
        })
        .collect()
}

/// The importance of one adapter's ranks; `of_a` and `of_b` are second moments, row-major.
fn of_adapter(data: &AdapterData, of_a: &[f32], of_b: &[f32]) -> Vec<f32> {
    let rank = data.rank();
    let mut sums = vec![0.0_f32; rank];
    for (index, (value, moment)) in data.a.iter().zip(of_a).enumerate() {
        sums[index % rank] += value * value * moment;
    }
    for (index, (value, moment)) in data.b.iter().zip(of_b).enumerate() {
        sums[index / data.d_out] += value * value * moment;
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_of_a_and_rows_of_b_are_summed() {
        let data = AdapterData {
            path: "x".into(),
            d_in: 3,
            d_out: 2,
            a: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
            c: vec![1.0; 2],
            b: vec![1.0, 2.0, 3.0, 4.0],
            scale: 1.0,
        };
        let sums = of_adapter(&data, &[1.0; 6], &[10.0, 0.0, 0.0, 1.0]);
        assert_eq!(sums, [1.0 + 9.0 + 25.0 + 10.0, 4.0 + 16.0 + 36.0 + 16.0]);
        assert_eq!(of_adapter(&data, &[], &[]), [0.0, 0.0]);
    }
}
