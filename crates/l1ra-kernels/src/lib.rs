//! CPU kernels on plain slices, without a tensor in sight: what the operations of `l1ra-ops` run on
//! Burn's CPU backend.
//!
//! | module | computes |
//! |---|---|
//! | [`gemm`] | sums of matrix products whose right sides may be stored in bf16 or f16 |
//! | [`attention`] | causal attention and its backward, nothing of size length² kept |
//! | [`loss`] | the last matrix product and cross-entropy at once, logits never whole |
//! | [`norm`] | RMS norm |
//! | [`swiglu`] | `silu(gate) ∘ up` |
//! | [`rope`] | rotary positions, within attention |
//!
//! Vector instructions are chosen at run time (AVX-512, AVX2, NEON, else scalar code; AMX and AVX512-BF16 where
//! weights are bf16), so one build runs on any machine of its architecture. Work is shared among the threads of
//! the current `rayon` pool; how it is cut never changes the order of a sum, so results do not depend on the
//! number of threads.

#![allow(unsafe_code)] // The inner loops read through pointers; each use says why it is sound.

pub mod attention;
pub mod element;
pub mod gemm;
pub mod loss;
mod math;
pub mod norm;
mod pack;
pub mod rope;
pub mod rows;
mod share;
pub mod swiglu;
mod vector;
