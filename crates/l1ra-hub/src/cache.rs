//! One repository's folder in the cache: `blobs/`, `snapshots/<commit>/`, `refs/<revision>`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use hf_hub::{Cache, Repo, RepoType};

use crate::{
    error::{HubError, HubErrorKind},
    select::{NEEDED, SINGLE, is_plain},
    shards::shard_names,
};

/// The folder of a model in the cache.
pub(super) struct RepoCache {
    cache: Cache,
    repo: String,
    folder: PathBuf,
}

impl RepoCache {
    /// The folder of `repo` under `cache`. The path is made absolute, as links are relative to it.
    pub(super) fn new(cache: &Path, repo: &str) -> Result<Self, HubError> {
        let cache = std::path::absolute(cache).map_err(|error| disk(cache, &error))?;
        let name = Repo::new(repo.into(), RepoType::Model).folder_name();
        Ok(Self {
            folder: cache.join(name),
            cache: Cache::new(cache),
            repo: repo.into(),
        })
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// The file that holds the bytes of `etag`, a plain name.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// The commit that `revision` had when it was last fetched; a commit is its own.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.into());
        }
        let text = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        Some(text.trim().to_string()).filter(|commit| is_plain(commit))
    }

    /// Notes that `revision` is `commit`, once all of its files are there.
    pub(super) fn set_commit(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if is_commit(revision) {
            return Ok(());
        }
        let repo = Repo::with_revision(self.repo.clone(), RepoType::Model, revision.into());
        let written = self.cache.repo(repo).create_ref(commit);
        written.map_err(|error| disk(&self.folder.join("refs").join(revision), &error))
    }

    /// What the loader can open in the snapshot of `commit`, or the name of a file that is not
    /// there.
    pub(super) fn complete(&self, commit: &str) -> Result<PathBuf, String> {
        let snapshot = self.snapshot(commit);
        if !snapshot.join("config.json").is_file() {
            return only_gguf(&snapshot).ok_or_else(|| "config.json".into());
        }
        let there = |name: &str| snapshot.join(name).is_file();
        if let Some(missing) = NEEDED.iter().find(|name| !there(name)) {
            return Err((*missing).to_string());
        }
        let Ok(weights) = shard_names(&snapshot) else {
            return only_gguf(&snapshot).ok_or_else(|| SINGLE.into());
        };
        match weights.into_iter().find(|name| !there(name)) {
            None => Ok(snapshot),
            Some(missing) => Err(missing),
        }
    }
}

fn only_gguf(dir: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(dir).ok()?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut ggufs = paths.filter(|path| path.extension().is_some_and(|end| end == "gguf"));
    let first = ggufs.next()?;
    (ggufs.next().is_none() && first.is_file()).then_some(first)
}

fn disk(path: &Path, error: &io::Error) -> HubError {
    let detail = format!("{error}; set HF_HUB_CACHE to a folder that can be written");
    HubError::new(path.display(), HubErrorKind::Disk, detail)
}

/// Whether a revision is a whole commit id, which can only ever mean one snapshot.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Points `snapshots/<commit>/<name>` at a blob that is there.
pub(super) fn link(blob: &Path, pointer: &Path, etag: &str) -> io::Result<()> {
    if let Some(parent) = pointer.parent() {
        fs::create_dir_all(parent)?;
    }
    match point(blob, pointer, etag) {
        // Another program fetched the same file.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

#[cfg(unix)]
fn point(_blob: &Path, pointer: &Path, etag: &str) -> io::Result<()> {
    std::os::unix::fs::symlink(Path::new("../../blobs").join(etag), pointer)
}

/// Symbolic links need a privilege there.
#[cfg(not(unix))]
fn point(blob: &Path, pointer: &Path, _etag: &str) -> io::Result<()> {
    fs::hard_link(blob, pointer).or_else(|_| fs::copy(blob, pointer).map(|_| ()))
}
