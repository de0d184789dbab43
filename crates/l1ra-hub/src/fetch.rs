//! A hub name made a path: from the cache, or downloaded into it.

use std::path::{Path, PathBuf};

use crate::{
    Accepts, HubError, HubErrorKind, HubOptions, ModelRef, Progress,
    answer::Failure,
    cache::{RepoCache, is_commit},
    remote::Remote,
    select::{INDEX, SINGLE, Selection, Weights, select},
    shards::shard_names,
};

/// [`fetch_accepted_model`](crate::fetch_accepted_model) with a cache, a token and a hub of one's
/// own.
///
/// # Errors
/// As that.
pub fn fetch_model_with(
    reference: &ModelRef,
    options: &HubOptions,
    accepts: &Accepts<'_>,
    progress: &mut Progress<'_>,
) -> Result<PathBuf, HubError> {
    let (repo, revision) = match reference {
        ModelRef::Path(path) => return Ok(path.clone()),
        ModelRef::Hub { repo, revision } => (repo, revision.as_deref().unwrap_or("main")),
    };
    let fetch = Fetch {
        reference,
        repo,
        revision,
        options,
        accepts,
        cache: RepoCache::new(&options.cache, repo)?,
    };
    fetch.run(progress)
}

struct Fetch<'a> {
    reference: &'a ModelRef,
    repo: &'a str,
    revision: &'a str,
    options: &'a HubOptions,
    accepts: &'a Accepts<'a>,
    cache: RepoCache,
}

impl Fetch<'_> {
    fn run(&self, progress: &mut Progress<'_>) -> Result<PathBuf, HubError> {
        let cached = self.cached();
        if self.options.offline {
            return cached.map_err(|missing| self.offline(&missing));
        }
        // A branch may have moved; a commit cannot.
        if let Ok(path) = &cached
            && is_commit(self.revision)
        {
            return Ok(path.clone());
        }
        let failed = |failure| self.failed(failure);
        let remote = Remote::new(self.options, &self.cache, self.repo).map_err(failed)?;
        let (commit, files) = remote.files(self.revision).map_err(failed)?;
        let selection =
            select(&files).map_err(|detail| self.content(format!("the repository {detail}")))?;
        let mut fetch = |name: &str| {
            let fetched = remote.fetch(&commit, name, progress);
            fetched.map_err(|failure| self.failed(failure))
        };
        let path = self.download(&self.cache.snapshot(&commit), selection, &mut fetch)?;
        self.cache.set_commit(self.revision, &commit)?;
        Ok(path)
    }

    /// The complete copy in the cache, or what is missing.
    fn cached(&self) -> Result<PathBuf, String> {
        match self.cache.commit_of(self.revision) {
            Some(commit) => self.cache.complete(&commit),
            None => Err("any of its files".into()),
        }
    }

    /// What is small first, then, if it is accepted, the weights.
    fn download(
        &self,
        snapshot: &Path,
        selection: Selection,
        fetch: &mut dyn FnMut(&str) -> Result<(), HubError>,
    ) -> Result<PathBuf, HubError> {
        for name in selection.small {
            fetch(name)?;
        }
        match selection.weights {
            Weights::Gguf(name) => {
                fetch(&name)?;
                // The file, as a folder may hold another's config.json as well.
                return Ok(snapshot.join(name));
            }
            Weights::Single => {
                self.accept(snapshot)?;
                fetch(SINGLE)?;
            }
            Weights::Sharded => {
                self.accept(snapshot)?;
                fetch(INDEX)?;
                let shards = shard_names(snapshot).map_err(|detail| self.content(detail))?;
                shards.iter().try_for_each(|name| fetch(name))?;
            }
        }
        Ok(snapshot.into())
    }

    fn accept(&self, snapshot: &Path) -> Result<(), HubError> {
        let accepted = (self.accepts)(&snapshot.join("config.json"));
        accepted.map_err(|detail| self.content(detail))
    }

    fn offline(&self, missing: &str) -> HubError {
        let detail = format!(
            "HF_HUB_OFFLINE is set, and {} lacks {missing} for it; unset it once to download, or \
             give a folder or a .gguf file",
            self.options.cache.display()
        );
        HubError::new(self.reference, HubErrorKind::Offline, detail)
    }

    fn content(&self, detail: String) -> HubError {
        HubError::new(self.reference, HubErrorKind::Content, detail)
    }

    fn failed(&self, failure: Failure) -> HubError {
        let mut detail = failure.detail;
        if failure.kind == HubErrorKind::Network && self.cached().is_ok() {
            detail += "; a complete copy is in the cache: set HF_HUB_OFFLINE=1 to use it";
        }
        HubError::new(self.reference, failure.kind, detail)
    }
}
