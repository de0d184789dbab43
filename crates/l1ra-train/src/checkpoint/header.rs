//! The JSON part of a checkpoint.

use std::{borrow::Cow, collections::BTreeMap};

use l1ra_core::{allocation::AllocatorState, state::Scalar};
use serde::{Deserialize, Serialize};

use crate::{
    callback::RankUpdate,
    checkpoint::{Identity, Progress},
};

/// Version of the form.
pub(super) const VERSION: u32 = 1;

/// What it holds is borrowed when it is written, and its own when it was read.
#[derive(Serialize, Deserialize)]
pub(super) struct Header<'a> {
    /// First, so that a later form is recognised whatever follows.
    pub(super) version: u32,
    /// The program that wrote it.
    pub(super) written_by: String,
    pub(super) progress: Cow<'a, Progress>,
    pub(super) identity: Cow<'a, Identity>,
    pub(super) allocator: Cow<'a, AllocatorState>,
    pub(super) adapters: Vec<AdapterHeader>,
    pub(super) updates: Cow<'a, [RankUpdate]>,
}

/// What of an adapter is no tensor.
#[derive(Serialize, Deserialize)]
pub(super) struct AdapterHeader {
    pub(super) path: String,
    pub(super) scale: f32,
    /// Of A, c and B.
    pub(super) optimizer: [ParameterHeader; 3],
}

/// What of an optimizer's state is no tensor.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct ParameterHeader {
    pub(super) path: Option<String>,
    /// Names of its tensors, `PATH.PART/NAME` in the file.
    pub(super) tensors: Vec<String>,
    pub(super) scalars: BTreeMap<String, Scalar>,
}
