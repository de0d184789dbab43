//! The bytes of one file: asked what they are, then fetched from where an earlier run stopped.
//!
//! `hf-hub` has a download of its own. It sends the token to the storage that the hub points at,
//! and appends whatever a server without ranges sends; hence this one, on the same client.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    path::Path,
    time::Duration,
};

use ureq::{
    Agent, Body, RequestBuilder,
    config::RedirectAuthHeaders,
    http::{HeaderMap, Response},
    typestate::WithoutBody,
};

use crate::{HubErrorKind, answer::Failure};

/// Redirects within the hub that are followed: renamed repositories.
const REDIRECTS: usize = 5;
const CONNECT: Duration = Duration::from_secs(30);
const RESPOND: Duration = Duration::from_secs(60);
const CHUNK: usize = 1 << 16;

/// What the hub says of a file.
pub(super) struct Metadata {
    pub(super) etag: String,
    pub(super) commit: String,
    pub(super) size: u64,
}

/// A client for files.
pub(super) struct Transfer {
    /// Follows no redirect.
    asking: Agent,
    /// Follows redirects, the token left behind.
    fetching: Agent,
    authorization: Option<String>,
}

impl Transfer {
    pub(super) fn new(token: Option<&str>) -> Self {
        let config = || {
            Agent::config_builder()
                .http_status_as_error(false)
                .timeout_connect(Some(CONNECT))
                .timeout_recv_response(Some(RESPOND))
                .redirect_auth_headers(RedirectAuthHeaders::SameHost)
                .user_agent(concat!("l1ra/", env!("CARGO_PKG_VERSION")))
        };
        Self {
            asking: config().max_redirects(0).build().into(),
            fetching: config().build().into(),
            authorization: token.map(|token| format!("Bearer {token}")),
        }
    }

    fn prepared(&self, request: RequestBuilder<WithoutBody>) -> RequestBuilder<WithoutBody> {
        // Compressed answers have no length.
        let request = request.header("Accept-Encoding", "identity");
        match &self.authorization {
            Some(authorization) => request.header("Authorization", authorization),
            None => request,
        }
    }

    fn refused(&self, answer: &Response<Body>, name: &str) -> Failure {
        let code = text(answer.headers(), "x-error-code");
        let token = self.authorization.is_some();
        Failure::status(answer.status().as_u16(), code, name, token)
    }

    fn failed(&self, error: &ureq::Error, name: &str) -> Failure {
        Failure::request(error, name, self.authorization.is_some())
    }

    /// ETag, commit and size of the file at `url`, without its bytes.
    pub(super) fn metadata(&self, url: &str, name: &str) -> Result<Metadata, Failure> {
        let mut url = url.to_string();
        for _ in 0..REDIRECTS {
            let request = self.prepared(self.asking.head(&url));
            let answer = request.call().map_err(|error| self.failed(&error, name))?;
            if answer.status().as_u16() >= 400 {
                return Err(self.refused(&answer, name));
            }
            let place = text(answer.headers(), "location");
            let within = place.filter(|place| place.starts_with('/') && !place.starts_with("//"));
            match within.filter(|_| answer.status().is_redirection()) {
                Some(place) => url = format!("{}{place}", origin(&url)),
                None => return described(answer.headers(), name),
            }
        }
        let detail =
            format!("the hub sends {name} from one place to the next; is HF_ENDPOINT right?");
        Err(Failure::new(HubErrorKind::Content, detail))
    }

    /// Completes `part`, which may hold the beginning of the file, to `size` bytes. `news` is
    /// called with the bytes so far.
    pub(super) fn fetch(
        &self,
        url: &str,
        name: &str,
        part: &Path,
        size: u64,
        news: &mut dyn FnMut(u64),
    ) -> Result<(), Failure> {
        let disk = |error| Failure::disk(&error, name);
        let mut file = open(part, name)?;
        let mut start = file.metadata().map_err(disk)?.len();
        if start > size {
            file.set_len(0).map_err(disk)?;
            start = 0;
        }
        news(start);
        if start < size {
            let request = self.prepared(self.fetching.get(url));
            let request = request.header("Range", format!("bytes={start}-"));
            let mut answer = request.call().map_err(|error| self.failed(&error, name))?;
            match answer.status().as_u16() {
                206 if begins_at(answer.headers(), start) => {}
                // A server without ranges begins at the beginning.
                200 => {
                    file.set_len(0).map_err(disk)?;
                    start = 0;
                }
                206 => return Err(Failure::malformed(name, "it sends another range")),
                _ => return Err(self.refused(&answer, name)),
            }
            // One byte more tells an answer that is too long; it may have no end.
            let most = (size - start).saturating_add(1);
            let body = answer.body_mut().as_reader().take(most);
            start = copy(body, &mut file, name, start, news)?;
        }
        file.sync_all().map_err(disk)?;
        if start == size {
            return Ok(());
        }
        let _ = fs::remove_file(part);
        let more = if start > size { " or more" } else { "" };
        Err(Failure::malformed(
            name,
            &format!("it sent {start} bytes{more} and announced {size}"),
        ))
    }
}

/// Opens the file to append to, for this process alone.
fn open(part: &Path, name: &str) -> Result<File, Failure> {
    let disk = |error| Failure::disk(&error, name);
    if let Some(parent) = part.parent() {
        fs::create_dir_all(parent).map_err(disk)?;
    }
    let file = OpenOptions::new()
        .append(true)
        .create(true)
        .open(part)
        .map_err(disk)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            let detail = format!("another program is downloading {name}; wait for it");
            Err(Failure::new(HubErrorKind::Disk, detail))
        }
        // Some network file systems have no locks.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        Err(TryLockError::Error(error)) => Err(disk(error)),
    }
}

/// Appends what `reader` gives; the bytes that the file then has.
fn copy(
    mut reader: impl Read,
    file: &mut File,
    name: &str,
    mut done: u64,
    news: &mut dyn FnMut(u64),
) -> Result<u64, Failure> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => return Ok(done),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Failure::network(&error)),
        };
        let written = file.write_all(&buffer[..count]);
        written.map_err(|error| Failure::disk(&error, name))?;
        done += count as u64;
        news(done);
    }
}

fn text<'a>(fields: &'a HeaderMap, name: &str) -> Option<&'a str> {
    fields.get(name)?.to_str().ok()
}

/// Scheme and host of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find('/').map_or(url.len(), |at| host + at);
    &url[..end]
}

/// The hub speaks of the bytes in storage with fields of their own.
fn described(fields: &HeaderMap, name: &str) -> Result<Metadata, Failure> {
    let field = |linked: &str, own: &str| {
        let value = text(fields, linked).or_else(|| text(fields, own));
        value.ok_or_else(|| Failure::malformed(name, &format!("it lacks the field {own}")))
    };
    let etag = field("x-linked-etag", "etag")?;
    let size = field("x-linked-size", "content-length")?;
    let number = || Failure::malformed(name, &format!("its length is `{size}`"));
    Ok(Metadata {
        etag: etag.trim_start_matches("W/").trim_matches('"').into(),
        commit: field("x-repo-commit", "x-repo-commit")?.into(),
        size: size.parse().map_err(|_| number())?,
    })
}

fn begins_at(fields: &HeaderMap, start: u64) -> bool {
    let range = text(fields, "content-range").and_then(|range| range.strip_prefix("bytes "));
    range.and_then(|range| range.split('-').next()) == Some(start.to_string().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_within_the_same_host() {
        assert_eq!(origin("http://127.0.0.1:80/a/b"), "http://127.0.0.1:80");
        assert_eq!(origin("https://host"), "https://host");
    }
}
