//! Sums of products against sums in f64, over shapes, strides, stored types and terms.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, missing_docs)]

use half::{bf16, f16};
use l1ra_kernels::gemm::{Before, Left, Right, Term, Values, bf16_instructions, sum_of_products};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy, Debug)]
enum Stored {
    F32,
    Bf16,
    F16,
}

struct Operand {
    left: Vec<f32>,
    f32s: Vec<f32>,
    bf16s: Vec<bf16>,
    f16s: Vec<f16>,
    k: usize,
    stored: Stored,
    left_transposed: bool,
    right_transposed: bool,
}

impl Operand {
    fn new(
        rng: &mut ChaCha8Rng,
        m: usize,
        n: usize,
        k: usize,
        stored: Stored,
        turned: [bool; 2],
    ) -> Self {
        let mut draw =
            |n: usize| -> Vec<f32> { (0..n).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let left = draw(m * k);
        let mut f32s = draw(k * n);
        let bf16s: Vec<bf16> = f32s.iter().map(|v| bf16::from_f32(*v)).collect();
        let f16s: Vec<f16> = f32s.iter().map(|v| f16::from_f32(*v)).collect();
        match stored {
            Stored::F32 => {}
            Stored::Bf16 => f32s = bf16s.iter().map(|v| v.to_f32()).collect(),
            Stored::F16 => f32s = f16s.iter().map(|v| v.to_f32()).collect(),
        }
        Self {
            left,
            f32s,
            bf16s,
            f16s,
            k,
            stored,
            left_transposed: turned[0],
            right_transposed: turned[1],
        }
    }

    fn term(&self, m: usize, n: usize) -> Term<'_> {
        let left = if self.left_transposed {
            Left::transposed(&self.left, m)
        } else {
            Left::rows(&self.left, self.k)
        };
        let values = match self.stored {
            Stored::F32 => Values::F32(&self.f32s),
            Stored::Bf16 => Values::Bf16(&self.bf16s),
            Stored::F16 => Values::F16(&self.f16s),
        };
        let [row, column] = if self.right_transposed {
            [1, self.k]
        } else {
            [n, 1]
        };
        Term::new(
            left,
            Right {
                values,
                row,
                column,
            },
            self.k,
        )
    }

    fn at(&self, m: usize, n: usize, [i, j, p]: [usize; 3]) -> f64 {
        let left = if self.left_transposed {
            self.left[p * m + i]
        } else {
            self.left[i * self.k + p]
        };
        let rounded = matches!(self.stored, Stored::Bf16) && m > 4 && bf16_instructions().is_some();
        let left = if rounded {
            bf16::from_f32(left).to_f32()
        } else {
            left
        };
        let right = if self.right_transposed {
            self.f32s[j * self.k + p]
        } else {
            self.f32s[p * n + j]
        };
        f64::from(left) * f64::from(right)
    }
}

fn check(
    seed: u64,
    [m, n]: [usize; 2],
    extra: usize,
    add: bool,
    terms: &[(usize, Stored, [bool; 2])],
) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let operands: Vec<Operand> = terms
        .iter()
        .map(|(k, stored, turned)| Operand::new(&mut rng, m, n, *k, *stored, *turned))
        .collect();
    let row = n + extra;
    let before: Vec<f32> = (0..m * row).map(|_| rng.random_range(-1.0..1.0)).collect();
    let mut out = before.clone();
    let terms: Vec<Term<'_>> = operands.iter().map(|o| o.term(m, n)).collect();
    let mode = if add { Before::Add } else { Before::Drop };
    sum_of_products(&mut out, row, [m, n], &terms, mode);
    for i in 0..m {
        for j in 0..row {
            let seen = out[i * row + j];
            if j >= n {
                assert_eq!(seen, before[i * row + j], "outside of the output");
                continue;
            }
            let start = if add {
                f64::from(before[i * row + j])
            } else {
                0.0
            };
            let (mut exact, mut size) = (start, start.abs());
            for o in &operands {
                for p in 0..o.k {
                    let product = o.at(m, n, [i, j, p]);
                    exact += product;
                    size += product.abs();
                }
            }
            assert!(
                (f64::from(seen) - exact).abs() <= 2e-6 * size + 1e-7,
                "({i}, {j}): {seen} {exact}"
            );
        }
    }
}

fn stored() -> impl Strategy<Value = Stored> {
    prop_oneof![Just(Stored::F32), Just(Stored::Bf16), Just(Stored::F16)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn any_shape(
        seed in any::<u64>(), m in 1..40_usize, n in 1..70_usize, extra in 0..5_usize, add in any::<bool>(),
        terms in prop::collection::vec((0..50_usize, stored(), any::<[bool; 2]>()), 0..4),
    ) {
        check(seed, [m, n], extra, add, &terms);
    }
}

#[test]
fn sums_longer_than_a_block_and_outputs_wider_than_a_task() {
    let f32s = (2500, Stored::F32, [false, false]);
    let adapter = (16, Stored::F32, [false, true]);
    check(1, [13, 33], 0, false, &[f32s, adapter]);
    check(
        2,
        [13, 33],
        3,
        true,
        &[(1536, Stored::Bf16, [false, true]), adapter],
    );
    check(
        3,
        [7, 1500],
        0,
        false,
        &[(70, Stored::F16, [true, false]), adapter],
    );
    check(4, [301, 40], 0, false, &[(90, Stored::F32, [false, true])]);
    let nothing = (0, Stored::F32, [false, false]);
    let few = [(64, Stored::F32, [false, true]), nothing];
    check(6, [1, 1500], 0, false, &few);
    let few = [(65, Stored::Bf16, [false, true]), nothing];
    check(7, [3, 1500], 0, true, &few);
    check(8, [2, 1003], 0, true, &[(65, Stored::F16, [false, true])]);
    check(
        5,
        [70, 2000],
        1,
        true,
        &[(700, Stored::Bf16, [false, false])],
    );
}

#[test]
fn threads_do_not_change_the_sum() {
    let (m, k, n) = (100, 700, 333);
    let mut rng = ChaCha8Rng::seed_from_u64(5);
    for stored in [Stored::F32, Stored::Bf16] {
        let o = Operand::new(&mut rng, m, n, k, stored, [false, false]);
        let run = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap();
            let mut out = vec![0.0; m * n];
            pool.install(|| sum_of_products(&mut out, n, [m, n], &[o.term(m, n)], Before::Drop));
            out
        };
        let one = run(1);
        for threads in [2, 3, 8] {
            assert_eq!(run(threads), one, "{threads} threads");
        }
    }
}

#[test]
fn not_a_number_is_passed_on() {
    let left = [f32::NAN, 1.0];
    let mut out = [0.0; 2];
    let term = Term::new(Left::rows(&left, 1), Right::rows(&[0.0], 1), 1);
    sum_of_products(&mut out, 1, [2, 1], &[term], Before::Drop);
    assert!(out[0].is_nan() && out[1] == 0.0);
}

#[test]
#[should_panic(expected = "right side too short")]
fn short_slices_are_refused() {
    let term = Term::new(Left::rows(&[1.0; 6], 3), Right::rows(&[1.0; 5], 2), 3);
    sum_of_products(&mut [0.0; 4], 2, [2, 2], &[term], Before::Drop);
}
