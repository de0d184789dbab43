//! [`HubError`]: a name that gave no path.

/// A name that gave no path: whose, why, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject}: {detail}")]
pub struct HubError {
    /// The name as it was given, or the variable that cannot be used.
    pub subject: String,
    /// Why, for a program.
    pub kind: HubErrorKind,
    /// What was seen and what to do.
    pub detail: String,
}

/// Why a name gave no path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HubErrorKind {
    /// The name can be neither a path nor a hub name.
    Name,
    /// This program was built without the feature `hub`.
    NotBuilt,
    /// A variable of the environment that cannot be used.
    Setting,
    /// No request is allowed, and the cache has no complete copy.
    Offline,
    /// The hub wants a token, or the licence to be accepted (401, 403).
    Refused,
    /// No such repository, revision or file (404).
    NotFound,
    /// The repository holds nothing that can be loaded, or the server is no hub.
    Content,
    /// The hub cannot be reached, or the connection broke.
    Network,
    /// The hub is overloaded or broken (429, 5xx).
    Server,
    /// The cache cannot be written or read.
    Disk,
}

impl HubError {
    pub(crate) fn new(
        subject: impl ToString,
        kind: HubErrorKind,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.to_string(),
            kind,
            detail: detail.into(),
        }
    }

    /// Whether the user's input or settings are at fault: programs exit with 2.
    pub fn is_users_mistake(&self) -> bool {
        use HubErrorKind::{
            Content, Disk, Name, Network, NotBuilt, NotFound, Offline, Refused, Server, Setting,
        };
        match self.kind {
            Name | NotBuilt | Setting | Offline | Refused | NotFound | Content => true,
            Network | Server | Disk => false,
        }
    }
}
