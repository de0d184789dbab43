//! [`Delta`]: what an adapter adds to a weight.

use l1ra_core::walk::AdapterData;
use rayon::prelude::*;

/// `s·((A ∘ c)·B)ᵀ`, `[d_out, d_in]`, given out in rows.
pub(super) struct Delta<'a> {
    data: &'a AdapterData,
    /// `s·cᵢ·Aᵀ` for the ranks whose gates are not zero, `[rank, d_in]` row-major.
    scaled: Vec<f32>,
    /// Those ranks.
    ranks: Vec<usize>,
}

impl<'a> Delta<'a> {
    /// `data` must have passed the check of its sizes.
    pub(super) fn new(data: &'a AdapterData) -> Self {
        let (rank, d_in) = (data.rank(), data.d_in);
        let ranks: Vec<usize> = (0..rank).filter(|k| data.c[*k] != 0.0).collect();
        let scaled = ranks
            .iter()
            .flat_map(|k| {
                let factor = data.scale * data.c[*k];
                (0..d_in).map(move |i| factor * data.a[i * rank + k])
            })
            .collect();
        Self {
            data,
            scaled,
            ranks,
        }
    }

    /// Adds rows `first..` of the product to `rows`, `[.., d_in]` row-major. The product is summed
    /// on its own before it meets the weight, so that its small terms are not rounded away.
    pub(super) fn add_to_rows(&self, first: usize, rows: &mut [f32]) {
        let AdapterData { d_in, d_out, b, .. } = self.data;
        let row = |sum: &mut Vec<f32>, (i, row): (usize, &mut [f32])| {
            sum.fill(0.0);
            for (k, a) in self.ranks.iter().zip(self.scaled.chunks_exact(*d_in)) {
                let factor = b[k * d_out + first + i];
                for (sum, a) in sum.iter_mut().zip(a) {
                    *sum += factor * a;
                }
            }
            for (value, sum) in row.iter_mut().zip(sum) {
                *value += *sum;
            }
        };
        rows.par_chunks_mut(*d_in)
            .enumerate()
            .for_each_init(|| vec![0.0; *d_in], row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_get_the_formula_s_product() {
        // A [2, 2], c, B [2, 3]: Δ[o, i] = s · Σ_k A[i, k]·c[k]·B[k, o].
        let data = AdapterData {
            path: "layer".into(),
            d_in: 2,
            d_out: 3,
            a: vec![1.0, 2.0, 3.0, 4.0],
            c: vec![0.5, 0.0],
            b: vec![1.0, 2.0, 3.0, 7.0, 7.0, 7.0],
            scale: 2.0,
        };
        let mut all = vec![10.0; 6];
        Delta::new(&data).add_to_rows(0, &mut all);
        assert_eq!(all, [11.0, 13.0, 12.0, 16.0, 13.0, 19.0]);
        let mut last = vec![10.0; 2];
        Delta::new(&data).add_to_rows(2, &mut last);
        assert_eq!(last, [13.0, 19.0]);
    }
}
