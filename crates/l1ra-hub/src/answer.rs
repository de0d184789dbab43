//! The hub's refusals and the network's failures, each with what to do.

use std::{fmt::Display, io};

use crate::error::HubErrorKind;

/// Why a request failed.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: HubErrorKind,
    pub(super) detail: String,
}

impl Failure {
    pub(super) fn new(kind: HubErrorKind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        Self { kind, detail }
    }

    /// Whether the same request may well succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(self.kind, HubErrorKind::Network | HubErrorKind::Server)
    }

    /// An HTTP status that is no success. `code` is the hub's own (`X-Error-Code`), `what` the
    /// file or nothing, `token` whether one was sent.
    pub(super) fn status(status: u16, code: Option<&str>, what: &str, token: bool) -> Self {
        let what = if what.is_empty() {
            String::new()
        } else {
            format!(" for {what}")
        };
        let sent = if token {
            "the token that was sent may not read it"
        } else {
            "no token was sent"
        };
        match status {
            401 | 403 => Self::new(
                HubErrorKind::Refused,
                format!(
                    "the hub answered {status}{what}: the repository is gated or private, or does \
                     not exist ({sent}); check its name, accept its licence on its page, and set \
                     HF_TOKEN to a token that may read it"
                ),
            ),
            404 => {
                let missing = match code {
                    Some("RevisionNotFound") => "the repository has no such revision",
                    Some("RepoNotFound") => "there is no such repository, and no such path here",
                    _ if what.is_empty() => {
                        "there is no such repository or revision, and no such path here"
                    }
                    _ => "the repository has no such file",
                };
                let detail = format!("the hub answered 404{what}: {missing}; check the name");
                Self::new(HubErrorKind::NotFound, detail)
            }
            429 => Self::new(
                HubErrorKind::Server,
                format!("the hub answered 429{what}: too many requests; wait a few minutes"),
            ),
            500.. => Self::new(
                HubErrorKind::Server,
                format!("the hub answered {status}{what}: it has a trouble of its own; try later"),
            ),
            _ => Self::new(
                HubErrorKind::Content,
                format!("the hub answered {status}{what}; is HF_ENDPOINT the address of a hub?"),
            ),
        }
    }

    /// A request that got no answer, or an answer that is none.
    pub(super) fn request(error: &ureq::Error, what: &str, token: bool) -> Self {
        match error {
            ureq::Error::StatusCode(status) => Self::status(*status, None, what, token),
            ureq::Error::Json(error) => Self::new(
                HubErrorKind::Content,
                format!("the answer is no hub's ({error}); is HF_ENDPOINT right?"),
            ),
            other => Self::network(other),
        }
    }

    /// A connection that could not be made, or broke.
    pub(super) fn network(error: &dyn Display) -> Self {
        let detail = format!(
            "the hub cannot be reached, or the connection broke ({error}); check the network, the \
             proxy and HF_ENDPOINT, and run the command again: it goes on where it stopped"
        );
        Self::new(HubErrorKind::Network, detail)
    }

    /// A cache that cannot be written.
    pub(super) fn disk(error: &io::Error, name: &str) -> Self {
        let detail = format!(
            "{name} cannot be written to the cache ({error}); make room, or set HF_HUB_CACHE to \
             another folder"
        );
        Self::new(HubErrorKind::Disk, detail)
    }

    /// An answer for `what` that no hub gives.
    pub(super) fn malformed(what: &str, detail: &str) -> Self {
        let detail = format!("the answer for {what} is no hub's ({detail}); is HF_ENDPOINT right?");
        Self::new(HubErrorKind::Content, detail)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_full_disk_is_no_passing_trouble() {
        let full = Failure::disk(&io::ErrorKind::StorageFull.into(), "model.safetensors");
        assert!(!full.is_passing());
        insta::assert_snapshot!(full.detail, @"model.safetensors cannot be written to the cache (no storage space); make room, or set HF_HUB_CACHE to another folder");
        let lost = Failure::request(&ureq::Error::HostNotFound, "", false);
        assert!(lost.is_passing());
    }

    #[test]
    fn statuses_say_what_to_do() {
        let detail = |status, what, token| Failure::status(status, None, what, token).detail;
        insta::assert_snapshot!(detail(403, "model.safetensors", true), @"the hub answered 403 for model.safetensors: the repository is gated or private, or does not exist (the token that was sent may not read it); check its name, accept its licence on its page, and set HF_TOKEN to a token that may read it");
        insta::assert_snapshot!(detail(429, "", true), @"the hub answered 429: too many requests; wait a few minutes");
        insta::assert_snapshot!(detail(503, "", true), @"the hub answered 503: it has a trouble of its own; try later");
        insta::assert_snapshot!(detail(418, "", true), @"the hub answered 418; is HF_ENDPOINT the address of a hub?");
    }
}
