//! Ranks by the gradient's spectrum before the first step, then plain LoRA.

use super::{RankPolicy, Start};

/// The start of `l1ra`, without its market.
pub(super) struct Gradient;

impl RankPolicy for Gradient {
    fn start(&self) -> Start {
        Start::Gradient
    }
}
