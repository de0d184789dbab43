//! Gates that are trained and penalised; ranks never move.

use super::{Gates, RankPolicy};
use crate::config::Init;

/// What the gates alone do to the loss.
pub(super) struct Fixed;

impl RankPolicy for Fixed {
    fn gates(&self) -> Gates {
        Gates::Trained
    }

    fn init(&self) -> Init {
        Init::Gaussian
    }
}
