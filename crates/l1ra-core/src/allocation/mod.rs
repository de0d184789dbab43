//! Rank allocation: when ranks move, which ones, and how the move is carried out.
//!
//! The decision is pure logic over plain numbers ([`plan`](mod@plan)); carrying it out on parameters and on
//! optimizer state is another piece ([`surgery`]); [`schedule`] says when; [`RankAllocator`] puts
//! the three together for one training run.

mod allocator;
mod conserving;
mod outlook;
pub mod plan;
mod reference;
pub mod schedule;
mod state;
pub mod surgery;

pub use allocator::{Clamp, RankAllocator, StepOutcome};
pub use outlook::{GateOutlook, penalises_gates};
pub use plan::{AdapterGates, PlanRules, RankChange, RankPlan, plan};
pub use schedule::UpdateSchedule;
pub use state::{AllocatorState, KnownAdapter};
