//! Gated low-rank adapters whose ranks move while they train (L1RA, arXiv 2509.04884), for any
//! [Burn](burn) module.
//!
//! An adapter adds a side path to a frozen linear layer:
//!
//! ```text
//! y = x·W  +  s · ((dropout(x)·A) ∘ c)·B
//!
//! A [d_in, r]   c [r]   B [r, d_out]   s = alpha / r0, fixed at the initial rank r0
//! ```
//!
//! The gates `c` are pulled to zero by an L1 penalty inside the optimizer ([`AdamE`]). Every few
//! steps the ranks whose gates are gone are pruned and given to other adapters ([`allocation`]), so
//! that the total stays at the budget.
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | [`L1raConfig`]: every option, with its default and its range |
//! | [`target`] | which linear layers get an adapter, with which rank and alpha |
//! | [`adapter`] | [`AdaptedLinear`], [`GatedLora`] and the operation with its hand-written backward |
//! | [`allocation`] | the rank decision as pure logic, its schedule, and its application |
//! | [`optim`] | [`AdamE`]: Adam with decoupled weight decay (A, B) and decoupled lasso (c) |
//! | [`state`] | [`TrainingState`]: adapters in training, captured and restored to the bit |
//! | [`replica`] | copies of a module on other devices, which follow its adapters |
//! | [`walk`] | every adapter of any Burn module, by path |
//! | [`peft`] | adapter files that PEFT, llama.cpp and vLLM read |
//! | [`files`] | files that are whole or not there |
//! | [`aside`] | work in a thread of its own, with an end in time |
//! | [`device`] | devices by name, as `--device` takes them |
//!
//! This crate knows no model and no training loop. Backends are chosen with the features `flex`,
//! `ndarray`, `wgpu`, `vulkan`, `metal`, `cuda` and `rocm`; none is on by default.

pub mod adapter;
pub mod allocation;
pub mod aside;
pub mod config;
pub mod device;
mod error;
pub mod files;
pub mod init;
pub mod optim;
pub mod peft;
pub mod replica;
pub mod state;
pub mod target;
mod tensor_file;
pub mod walk;

pub use adapter::{
    AdaptedLinear, AdaptedModule, GatedLora, Output, Products, Prologue, attach_adapters,
    forward_together, merge_adapters, unmerge_adapters,
};
pub use allocation::{RankAllocator, RankPlan, UpdateSchedule};
pub use config::{BudgetUnit, Init, L1raConfig, Policy};
pub use device::{DeviceError, open_device, open_devices, parse_device, parse_devices};
pub use error::{ConfigError, CoreError, fit_to_print, is_users_path};
pub use optim::AdamE;
pub use state::TrainingState;
pub use target::Targets;
pub use tensor_file::{StoredEntry, TensorFile};

// `#[derive(RecordState)]` expands to paths in the crate root.
#[allow(unused_imports)]
use burn::optim::{RecordState, StateSink, StateSource, join_index, join_path};
