//! [`Reader`]: the programs that read PEFT adapter files, and how they scale them.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A program that reads PEFT adapter files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reader {
    /// Hugging Face PEFT: `alpha_i / r_i`, patterns honoured.
    Peft,
    /// llama.cpp: global `alpha` / the tensor's own rank.
    #[serde(rename = "llama.cpp")]
    LlamaCpp,
    /// vLLM: one global `alpha / r`, patterns ignored.
    Vllm,
}

impl Reader {
    /// Every reader.
    pub const ALL: [Self; 3] = [Self::Peft, Self::LlamaCpp, Self::Vllm];

    /// Its scale of a module, in words.
    pub fn rule(self) -> &'static str {
        match self {
            Self::Peft => "each module has its own alpha and rank",
            Self::LlamaCpp => "one alpha, divided by each module's own rank",
            Self::Vllm => "one alpha and one rank for all modules",
        }
    }

    /// How that is known.
    pub fn checked(self) -> &'static str {
        match self {
            Self::Peft => "checked by running PEFT 0.21",
            Self::LlamaCpp => "by its formula, read in its source and not run",
            Self::Vllm => "by its formula, read in its source (2025) and not run",
        }
    }
}

impl fmt::Display for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peft => "PEFT",
            Self::LlamaCpp => "llama.cpp",
            Self::Vllm => "vLLM",
        })
    }
}
