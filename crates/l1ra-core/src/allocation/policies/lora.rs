//! Plain LoRA (Hu et al., arXiv 2106.09685): the baseline.

use super::RankPolicy;

/// Constant gates, ranks as configured, A as PEFT draws it.
pub(super) struct Lora;

impl RankPolicy for Lora {}
