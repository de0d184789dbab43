//! Sums of products against sums in f64, over shapes, strides, stored types and terms.
#![allow(clippy::unwrap_used, clippy::single_range_in_vec_init, missing_docs)]

use half::{bf16, f16};
use l1ra_kernels::gemm::{
    Before, Left, Right, Term, Values, bf16_instructions, sum_of_products, sum_of_products_in_bf16,
};
use proptest::prelude::*;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[derive(Clone, Copy, Debug)]
enum Stored {
    F32,
    /// bf16 in f32.
    Rounded,
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
            Stored::Bf16 | Stored::Rounded => f32s = bf16s.iter().map(|v| v.to_f32()).collect(),
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
            Stored::F32 | Stored::Rounded => Values::F32(&self.f32s),
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

    fn at(&self, m: usize, n: usize, place: [usize; 3]) -> f64 {
        self.product(m, n, place, m > 4)
    }

    /// A term of the sum, whose left side may be rounded by instructions for bf16.
    fn product(&self, m: usize, n: usize, [i, j, p]: [usize; 3], rounds: bool) -> f64 {
        let left = if self.left_transposed {
            self.left[p * m + i]
        } else {
            self.left[i * self.k + p]
        };
        let rounded =
            rounds && matches!(self.stored, Stored::Bf16) && bf16_instructions().is_some();
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
    let rounded = |k, turned| (k, Stored::Rounded, [false, turned]);
    let terms = [rounded(1600, true), adapter, rounded(300, false)];
    check(9, [100, 300], 2, true, &terms);
    check(10, [64, 128], 0, false, &[rounded(64, false)]);
    let terms = [(300, Stored::F32, [false, false]), rounded(100, false)];
    check(11, [70, 200], 0, false, &terms);
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
    for stored in [Stored::F32, Stored::Rounded, Stored::Bf16] {
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

/// Sizes at and off the edges of tiles, strips, panels and tasks, with terms of every stored type.
const SHAPES: [[usize; 2]; 8] = [
    [1, 5],
    [3, 64],
    [12, 32],
    [33, 47],
    [96, 96],
    [100, 600],
    [193, 1100],
    [200, 31],
];

fn mixed(rng: &mut ChaCha8Rng, [m, n]: [usize; 2], depth: usize) -> Vec<Operand> {
    let stored = [Stored::Bf16, Stored::F32, Stored::F16, Stored::Bf16];
    let turned = [[false, true], [false, false], [false, true], [true, false]];
    let deep = [depth, 16, 40, 7];
    let each = stored.into_iter().zip(turned).zip(deep);
    each.map(|((stored, turned), k)| Operand::new(rng, m, n, k, stored, turned))
        .collect()
}

/// A left side in bf16 gives what its values in f32 give, to the bit.
#[test]
fn left_sides_in_bf16_are_read_as_they_are() {
    let mut rng = ChaCha8Rng::seed_from_u64(11);
    for (shape, depth) in SHAPES.into_iter().zip([1, 33, 576, 700, 65, 64, 1300, 2]) {
        let [m, n] = shape;
        let mut operands = mixed(&mut rng, shape, depth);
        let rounded = |left: &f32| bf16::from_f32(*left);
        let short: Vec<Vec<bf16>> = operands
            .iter()
            .map(|operand| operand.left.iter().map(rounded).collect())
            .collect();
        for (operand, short) in operands.iter_mut().zip(&short) {
            operand.left = short.iter().map(|left| left.to_f32()).collect();
        }
        let wide: Vec<Term<'_>> = operands.iter().map(|o| o.term(m, n)).collect();
        let narrow: Vec<Term<'_>> = wide
            .iter()
            .zip(&short)
            .map(|(term, short)| Term {
                left: Left {
                    values: Values::Bf16(short),
                    ..term.left
                },
                ..*term
            })
            .collect();
        let run = |terms: &[Term<'_>]| {
            let mut out = vec![f32::NAN; m * n];
            sum_of_products(&mut out, n, shape, terms, Before::Drop);
            out
        };
        assert_eq!(run(&narrow), run(&wide), "{m} × {n}");
        let run = |terms: &[Term<'_>]| {
            let mut out = vec![bf16::NAN; m * n];
            sum_of_products_in_bf16(&mut out, n, shape, terms);
            out
        };
        assert_eq!(run(&narrow), run(&wide), "{m} × {n}, in bf16");
    }
}

/// Output in bf16 is output in f32, rounded.
#[test]
fn output_in_bf16_is_rounded_once() {
    let mut rng = ChaCha8Rng::seed_from_u64(12);
    for (shape, depth) in SHAPES.into_iter().zip([1, 33, 576, 300, 65, 20, 90, 2]) {
        let [m, n] = shape;
        let operands = mixed(&mut rng, shape, depth);
        let terms: Vec<Term<'_>> = operands.iter().map(|o| o.term(m, n)).collect();
        for terms in [&terms[..], &terms[..1], &terms[1..2], &terms[2..]] {
            let row = n + 3;
            let mut out = vec![bf16::from_f32(9.0); m * row];
            sum_of_products_in_bf16(&mut out, row, shape, terms);
            let of = operands.iter().zip(operands.iter().map(|o| o.term(m, n)));
            let chosen: Vec<&Operand> = of
                .filter(|(_, term)| terms.iter().any(|one| one.k == term.k))
                .map(|(operand, _)| operand)
                .collect();
            for (index, seen) in out.iter().enumerate() {
                let (i, j) = (index / row, index % row);
                if j >= n {
                    assert_eq!(seen.to_f32(), 9.0, "outside of the output");
                    continue;
                }
                let values = || {
                    chosen
                        .iter()
                        .flat_map(|o| (0..o.k).map(move |p| o.product(m, n, [i, j, p], true)))
                };
                let (exact, size) = (values().sum::<f64>(), values().map(f64::abs).sum::<f64>());
                let error = (f64::from(seen.to_f32()) - exact).abs();
                assert!(
                    error <= exact.abs() / 256.0 + 3e-6 * size,
                    "({i}, {j}) of {m} × {n}: {seen}, not {exact}"
                );
            }
        }
    }
}

#[test]
fn output_in_bf16_without_terms_is_zero() {
    let mut out = [bf16::ONE; 6];
    sum_of_products_in_bf16(&mut out, 3, [2, 2], &[]);
    assert_eq!(out.map(bf16::to_f32), [0.0, 0.0, 1.0, 0.0, 0.0, 1.0]);
}
