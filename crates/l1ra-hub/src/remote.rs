//! The hub's side of one repository.

use std::{fs, io, path::Path, time::Duration};

use hf_hub::{
    Repo, RepoType,
    api::{
        RepoInfo,
        sync::{Api, ApiBuilder, ApiRepo},
    },
};

use crate::{
    HubErrorKind, HubOptions, Progress,
    answer::Failure,
    cache::{RepoCache, link},
    select::is_plain,
    transfer::Transfer,
};

/// Attempts in a row that may bring nothing before a download is given up.
const ATTEMPTS: u32 = 3;
/// Pause before the second attempt; doubled for each that follows.
const PAUSE: Duration = Duration::from_millis(250);

/// A repository of the hub.
pub(super) struct Remote<'a> {
    api: Api,
    transfer: Transfer,
    cache: &'a RepoCache,
    repo: &'a str,
    token: bool,
}

impl<'a> Remote<'a> {
    pub(super) fn new(
        options: &HubOptions,
        cache: &'a RepoCache,
        repo: &'a str,
    ) -> Result<Self, Failure> {
        let mut builder = ApiBuilder::from_cache(cache.cache().clone())
            .with_token(options.token.clone())
            .with_progress(false)
            .with_user_agent("l1ra", env!("CARGO_PKG_VERSION"));
        if let Some(endpoint) = &options.endpoint {
            builder = builder.with_endpoint(endpoint.clone());
        }
        let api = builder.build();
        let api = api.map_err(|error| Failure::new(HubErrorKind::Setting, error.to_string()))?;
        Ok(Self {
            api,
            transfer: Transfer::new(options.token.as_deref()),
            cache,
            repo,
            token: options.token.is_some(),
        })
    }

    fn at(&self, revision: &str) -> ApiRepo {
        let repo = Repo::with_revision(self.repo.into(), RepoType::Model, revision.into());
        self.api.repo(repo)
    }

    /// The commit that `revision` is now, and the names of its files.
    pub(super) fn files(&self, revision: &str) -> Result<(String, Vec<String>), Failure> {
        let failed = |error: &ureq::Error| Failure::request(error, "", self.token);
        let request = self.at(revision).info_request().config();
        // A 404 is told apart by a header, which the crate's own call would not give.
        let request = request.http_status_as_error(false).build();
        let mut answer = request.call().map_err(|error| failed(&error))?;
        let status = answer.status();
        if !status.is_success() {
            let code = answer.headers().get("x-error-code");
            let code = code.and_then(|code| code.to_str().ok());
            return Err(Failure::status(status.as_u16(), code, "", self.token));
        }
        let info: RepoInfo = answer
            .body_mut()
            .read_json()
            .map_err(|error| failed(&error))?;
        if !is_plain(&info.sha) {
            let detail = format!("its commit is `{}`", info.sha);
            return Err(Failure::malformed("the list of files", &detail));
        }
        let names = info.siblings.into_iter().map(|file| file.rfilename);
        Ok((info.sha, names.collect()))
    }

    /// Brings `name` of `commit` into the cache, where it is not there; a broken download goes on
    /// where it stopped.
    pub(super) fn fetch(
        &self,
        commit: &str,
        name: &str,
        progress: &mut Progress<'_>,
    ) -> Result<(), Failure> {
        let pointer = self.cache.snapshot(commit).join(name);
        if pointer.is_file() {
            return Ok(());
        }
        // A link whose blob is gone would be in the way of the new one.
        let _ = fs::remove_file(&pointer);
        let mut failures = 0;
        loop {
            let mut first = None;
            let mut grew = false;
            let mut news = |done: u64, size: u64| {
                grew |= done > *first.get_or_insert(done);
                progress(name, done, size);
            };
            match self.attempt(commit, name, &pointer, &mut news) {
                Err(failure) if failure.is_passing() => {
                    failures = if grew { 0 } else { failures + 1 };
                    if failures == ATTEMPTS {
                        return Err(failure);
                    }
                    std::thread::sleep(PAUSE * 2_u32.pow(failures));
                }
                finished => return finished,
            }
        }
    }

    fn attempt(
        &self,
        commit: &str,
        name: &str,
        pointer: &Path,
        news: &mut dyn FnMut(u64, u64),
    ) -> Result<(), Failure> {
        let url = self.at(commit).url(name);
        let metadata = self.transfer.metadata(&url, name)?;
        let (etag, size) = (metadata.etag.as_str(), metadata.size);
        if !is_plain(etag) || metadata.commit != commit {
            let detail = format!("its ETag is `{etag}` and its commit `{}`", metadata.commit);
            return Err(Failure::malformed(name, &detail));
        }
        let disk = |error: io::Error| Failure::disk(&error, name);
        let blob = self.cache.blob(etag);
        // The same bytes may have come with another commit.
        if fs::metadata(&blob).is_ok_and(|blob| blob.len() == size) {
            return link(&blob, pointer, etag).map_err(disk);
        }
        let part = blob.with_added_extension("part");
        let mut so_far = |done| news(done, size);
        self.transfer.fetch(&url, name, &part, size, &mut so_far)?;
        fs::rename(&part, &blob).map_err(disk)?;
        link(&blob, pointer, etag).map_err(disk)
    }
}
