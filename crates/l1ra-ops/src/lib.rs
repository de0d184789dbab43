//! The operations of a training step on Burn tensors.
//!
//! Each module has a function that is right on every device (`attention` gives its input back where
//! there are no kernels: models have a composition of their own). Where the tensor's backend
//! implements the module's trait, the function is one operation with a backward written by hand;
//! elsewhere it is a composition of Burn's own operations with Burn's backward. Values and gradients
//! are the same to rounding.
//!
//! | module | operation | trait of a backend with kernels |
//! |---|---|---|
//! | [`linear`] | frozen linear layers that share an input, with their adapters | [`LinearKernels`](linear::LinearKernels) |
//! | [`attention`] | rotary positions and causal attention | [`AttentionKernels`](attention::AttentionKernels) |
//! | [`norm`] | RMS norm | [`NormKernels`](norm::NormKernels) |
//! | [`swiglu`] | the MLP's gate | [`SwigluKernels`](swiglu::SwigluKernels) |
//! | [`loss`] | last matrix product and cross-entropy, without logits | [`LossKernels`](loss::LossKernels) |
//!
//! `Flex`, Burn's CPU backend, implements all of them with `l1ra-kernels` (feature `flex`). On GPUs the
//! operations are put together from Burn's matrix products and [`rows`], which has CubeCL kernels of ours.

// Built for no device, as where only files are read, operations have nothing to run on.
#![cfg_attr(
    not(any(feature = "flex", feature = "ndarray", feature = "cube")),
    allow(dead_code, unused_imports)
)]

pub mod attention;
mod by_hand;
#[cfg(feature = "cube")]
mod cube;
#[cfg(feature = "flex")]
mod flex;
pub mod linear;
pub mod loss;
pub mod norm;
mod route;
pub mod rows;
pub mod swiglu;

pub use l1ra_kernels::{
    attention::{Cache as AttentionCache, Shape as AttentionShape},
    gemm::bf16_instructions,
    loss::{COLUMNS as LOSS_PART_COLUMNS, ROWS as LOSS_PART_ROWS},
    rope::Rotary,
};
pub use loss::CHUNK as LOSS_ROWS;
pub use route::has_kernels;
