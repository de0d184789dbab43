//! What the machine can do, and what the products of a training step reach of it.
//!
//! `cargo run --release -p l1ra-kernels --example peak`
#![allow(clippy::print_stdout, missing_docs, unsafe_code)]

use std::{hint::black_box, time::Instant};

use half::bf16;
use l1ra_kernels::gemm::{Before, Left, Products, Right, Term, bf16_instructions, sum_of_products};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

struct Registers(u64);

impl WithSimd for Registers {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let mut sums = [simd.splat_f32s(0.0); 12];
        let factor = simd.splat_f32s(black_box(0.999));
        for _ in 0..self.0 {
            for sum in &mut sums {
                *sum = simd.mul_add_e_f32s(*sum, factor, factor);
            }
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        2 * 12 * S::F32_LANES
    }
}

/// The best of some runs: neighbours of a virtual machine only make it slower.
fn time(runs: usize, mut act: impl FnMut()) -> f64 {
    act();
    (0..runs)
        .map(|_| {
            let began = Instant::now();
            act();
            began.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}

fn main() {
    let threads = rayon::current_num_threads();
    let rounds = 20_000_000;
    let peak = (0..5)
        .map(|_| {
            let began = Instant::now();
            let flops: usize = (0..threads)
                .into_par_iter()
                .map(|_| Arch::new().dispatch(Registers(rounds)))
                .sum();
            flops as f64 * rounds as f64 / began.elapsed().as_secs_f64() / 1e9
        })
        .fold(0.0, f64::max);
    println!("{threads} threads, registers only: {peak:.0} GFLOP/s");
    let unit = bf16_instructions().unwrap_or("none");
    println!("instructions for bf16: {unit}; shares are of the f32 peak");
    let big = vec![1.0_f32; 64 << 20];
    let seconds = time(5, || {
        black_box(
            big.par_chunks(1 << 20)
                .map(|c| {
                    c.iter().fold([0.0_f32; 8], |mut s, v| {
                        s[0] += v;
                        s
                    })[0]
                })
                .sum::<f32>(),
        );
    });
    println!(
        "read {:.1} GB/s (scalar sum)",
        big.len() as f64 * 4.0 / seconds / 1e9
    );
    for (m, k, n) in [
        (1024, 576, 576),
        (1024, 576, 192),
        (1024, 576, 1536),
        (1024, 1536, 576),
        (1024, 576, 49152),
        (1024, 576, 16),
        (16, 1024, 1536),
    ] {
        let a = vec![0.3_f32; m * k];
        let b = vec![0.7_f32; k * n];
        let stored = vec![bf16::from_f32(0.25); k * n];
        let mut out = vec![0.0_f32; m * n];
        let flops = 2.0 * (m * k * n) as f64;
        let runs = if n > 10_000 { 5 } else { 30 };
        let ours = |right: Right<'_>, out: &mut [f32]| {
            let term = Term::new(Left::rows(&a, k), right, k);
            sum_of_products(out, n, [m, n], &[term], Before::Drop);
        };
        let plain = time(runs, || ours(Right::rows(&b, n), &mut out));
        let transposed = time(runs, || ours(Right::rows(&b, k).transpose(), &mut out));
        let left_transposed = time(runs, || {
            let term = Term::new(Left::transposed(&a, m), Right::rows(&b, n), k);
            sum_of_products(&mut out, n, [m, n], &[term], Before::Drop);
        });
        // Once with the left side rounded, where the CPU multiplies bf16, and once with f32's products.
        let [bf16, whole] = [Products::Stored, Products::F32].map(|products| {
            [Right::rows(&stored, n), Right::rows(&stored, k).transpose()].map(|right| {
                let term = Term::new(Left::rows(&a, k), right, k).taken_in(products);
                time(runs, || {
                    sum_of_products(&mut out, n, [m, n], &[term], Before::Drop);
                })
            })
        });
        let gemm = |rhs: [isize; 2], out: &mut [f32]| unsafe {
            gemm::gemm(
                m,
                n,
                k,
                out.as_mut_ptr(),
                1,
                n as isize,
                false,
                a.as_ptr(),
                1,
                k as isize,
                b.as_ptr(),
                rhs[0],
                rhs[1],
                0.0,
                1.0,
                false,
                false,
                false,
                gemm::Parallelism::Rayon(threads),
            );
        };
        if n == 49152 {
            // The products with one row are packing and little else.
            for (name, right) in [
                ("B", Right::rows(&b, n)),
                ("Bᵀ", Right::rows(&b, k).transpose()),
            ] {
                let seconds = time(5, || {
                    let term = Term::new(Left::rows(&a, k), right, k);
                    sum_of_products(&mut out, n, [6, n], &[term], Before::Drop);
                });
                println!(
                    "packing {name}: {:.2} ns a value and thread",
                    seconds * threads as f64 / (k * n) as f64 * 1e9
                );
            }
        }
        let theirs = time(runs, || gemm([1, n as isize], &mut out));
        let theirs_t = time(runs, || gemm([k as isize, 1], &mut out));
        let rate = |seconds: f64| flops / seconds / 1e9 / peak * 100.0;
        println!(
            "{m:5} {k:5} {n:6}  ours {:5.1} %  Bᵀ {:5.1} %  Aᵀ {:5.1} %   B of bf16 in f32 {:5.1} %  Bᵀ {:5.1} %   in bf16 {:6.1} %  Bᵀ {:6.1} %   gemm {:5.1} %  Bᵀ {:5.1} %",
            rate(plain),
            rate(transposed),
            rate(left_transposed),
            rate(whole[0]),
            rate(whole[1]),
            rate(bf16[0]),
            rate(bf16[1]),
            rate(theirs),
            rate(theirs_t)
        );
    }
}
