//! Rank allocation: when ranks move, which ones, and how the move is carried out.
//!
//! | part | does |
//! |---|---|
//! | [`policies`] | what each policy begins with, when it moves ranks, and its decision |
//! | [`start`] | ranks before the first step, from a measurement of every layer |
//! | [`plan`](mod@plan) | the decision during the run: plain numbers in, [`RankPlan`] out |
//! | `importance` | what a rank is worth, from the adapter and the optimizer's moments |
//! | [`schedule`] | when ranks move |
//! | [`surgery`] | the plan carried out on A, c, B and on the optimizer's moments |
//! | [`RankAllocator`] | all of it together, for one training run |

mod allocator;
mod importance;
mod outlook;
pub mod plan;
pub mod policies;
pub mod schedule;
pub mod start;
mod state;
pub mod surgery;

pub use allocator::{Clamp, RankAllocator, StepOutcome};
pub use outlook::{GateOutlook, penalises_gates};
pub use plan::{AdapterGates, PlanRules, RankChange, RankPlan, plan};
pub use schedule::UpdateSchedule;
pub use state::{AllocatorState, KnownAdapter};
