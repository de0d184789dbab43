//! One file a command.

mod bench;
mod compare;
mod devices;
mod eval;
mod export;
mod generate;
mod inspect;
mod merge;
mod plan;
mod report;
mod train;

pub(crate) use bench::bench;
pub(crate) use compare::compare;
pub(crate) use devices::devices;
pub(crate) use eval::eval;
pub(crate) use export::export;
pub(crate) use generate::generate;
pub(crate) use inspect::inspect;
pub(crate) use merge::merge;
pub(crate) use plan::plan;
pub(crate) use report::report;
pub(crate) use train::train;
