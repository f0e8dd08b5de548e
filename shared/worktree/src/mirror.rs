//! The bare mirror of one repository: made once, fetched by one caller at a time.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use crate::git::Call;
use crate::location::Location;
use crate::lock::RepoLock;
use crate::mirrors::Shared;
use crate::{Error, Result};

/// File in a mirror that holds the repository's address.
pub(crate) const ADDRESS: &str = "hopyard-address";
/// File in a mirror whose time is the start of the last good fetch.
const FETCHED: &str = "hopyard-fetched";
/// What a fetch takes: branches and tags, never into `refs/heads`, where run branches live.
const REFSPECS: [&str; 2] = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
/// A detached `HEAD` is in no branch, so it gets a reference of its own.
const HEAD_REFSPEC: &str = "+HEAD:refs/hopyard/head/origin";
/// Lock files that a killed git leaves in the mirror and that would block every later fetch.
const STALE_LOCKS: [&str; 4] = ["shallow.lock", "packed-refs.lock", "config.lock", "HEAD.lock"];

/// One repository's mirror; clones are cheap and share its locks.
#[derive(Debug, Clone)]
pub struct Mirror {
    inner: Arc<Parts>,
    shared: Arc<Shared>,
}

/// What all handles of one mirror in this process share.
#[derive(Debug)]
pub(crate) struct Parts {
    dir: PathBuf,
    location: Location,
    /// Guards metadata: worktree add, unlock, prune. Held for milliseconds.
    metadata: RepoLock,
    /// Guards fetches, which may take minutes; apart, so that a slow network never delays a release.
    fetch: RepoLock,
    /// Guards the making of warm checkouts.
    warm: RepoLock,
}

/// Directory name of a repository's mirror.
pub(crate) fn key(address: &str) -> String {
    let mut digest = hex::encode(Sha256::digest(address.as_bytes()));
    digest.truncate(24);
    digest
}

impl Parts {
    pub(crate) fn new(dir: PathBuf, location: Location) -> Self {
        let locks = dir.with_extension("locks");
        let lock = |name| RepoLock::new(locks.join(name));
        Self { metadata: lock("metadata"), fetch: lock("fetch"), warm: lock("warm"), dir, location }
    }
}

impl Mirror {
    pub(crate) fn new(inner: Arc<Parts>, shared: Arc<Shared>) -> Self {
        Self { inner, shared }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The bare repository's directory.
    pub fn dir(&self) -> &Path {
        &self.inner.dir
    }

    /// The repository's address as it was given.
    pub fn repo(&self) -> &str {
        self.inner.location.text()
    }

    pub(crate) fn location(&self) -> &Location {
        &self.inner.location
    }

    pub(crate) fn metadata_lock(&self) -> &RepoLock {
        &self.inner.metadata
    }

    pub(crate) fn fetch_lock(&self) -> &RepoLock {
        &self.inner.fetch
    }

    pub(crate) fn warm_lock(&self) -> &RepoLock {
        &self.inner.warm
    }

    pub(crate) fn git(&self, what: &'static str) -> Call {
        self.shared().git.at(self.dir(), what)
    }

    /// Makes the bare repository if it is not there; safe to repeat after a crash.
    pub(crate) async fn ensure(&self) -> Result<()> {
        let address = self.dir().join(ADDRESS);
        if address.exists() {
            return Ok(());
        }
        let locks = self.dir().with_extension("locks");
        fs::create_dir_all(&locks).map_err(|source| Error::io("create", &locks, source))?;
        let _guard = self.metadata_lock().hold().await?;
        if address.exists() {
            return Ok(());
        }
        self.shared()
            .git
            .call("init")
            .args(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", "--"])
            .arg(self.dir())
            .ok()
            .await?;
        // The address is written last: it says that the mirror is whole.
        let fresh = self.dir().join("hopyard-address.new");
        fs::write(&fresh, format!("{}\n", self.repo()))
            .and_then(|()| fs::rename(&fresh, &address))
            .map_err(|source| Error::io("write", &address, source))
    }

    /// Fetches unless that was done within the interval; `force` fetches unless one began after this call.
    /// Returns true if a fetch that began after this call has ended well.
    pub(crate) async fn refresh(&self, force: bool) -> Result<bool> {
        let interval = self.shared().settings.fetch_interval;
        if !force && self.is_fresh(interval) {
            return Ok(false);
        }
        let asked = SystemTime::now();
        let _guard = self.fetch_lock().hold().await?;
        if self.last_fetch().is_some_and(|began| began >= asked) {
            return Ok(true);
        }
        if !force && self.is_fresh(interval) {
            return Ok(false);
        }
        let began = SystemTime::now();
        self.sweep_stale_locks(began);
        self.fetch_all().await?;
        let stamp = self.dir().join(FETCHED);
        fs::File::create(&stamp).and_then(|file| file.set_modified(began)).map_err(|source| Error::io("write", &stamp, source))?;
        Ok(true)
    }

    async fn fetch_all(&self) -> Result<()> {
        // Pruning reaches only what these refspecs write, so a branch `a` may give way to a branch `a/b`.
        let mut refspecs = vec![REFSPECS[0], REFSPECS[1], HEAD_REFSPEC];
        match self.fetch(&["--prune"], &refspecs).await {
            // A new repository's HEAD may name a branch without commits.
            Err(Error::RepoUnavailable { detail, .. }) if detail.contains("couldn't find remote ref HEAD") => {
                refspecs.pop();
                self.fetch(&["--prune"], &refspecs).await?;
                self.git("update-ref").args(["update-ref", "-d", "refs/hopyard/head/origin"]).ok().await?;
                Ok(())
            }
            other => other,
        }
    }

    /// Fetches `refspecs` from the source; the caller holds the fetch lock.
    pub(crate) async fn fetch(&self, options: &[&str], refspecs: &[&str]) -> Result<()> {
        let call = self
            .git("fetch")
            .args(["fetch", "--quiet", "--no-tags", "--update-shallow", "--no-write-fetch-head"])
            .args(["--no-auto-maintenance", "--no-recurse-submodules"])
            .args(options)
            .arg("--")
            .arg(self.repo())
            .args(refspecs);
        let call = self.shared().credentials.apply(call, self.location())?;
        call.ok().await.map(drop).map_err(|error| self.unavailable(error))
    }

    /// Turns a failed network call into words about the repository.
    pub(crate) fn unavailable(&self, error: Error) -> Error {
        match error {
            Error::Git { detail, .. } => Error::RepoUnavailable { repo: self.repo().to_owned(), detail },
            other => other,
        }
    }

    /// Brings the commit in a bundle file into the mirror under `refs/hopyard/import/<commit>`.
    /// Every object is checked; a bundle without `expected` (40 hex digits) is an error.
    pub async fn import_bundle(&self, file: &Path, expected: &str) -> Result<()> {
        crate::resolve::check_commit(expected)?;
        let target = format!("refs/hopyard/import/{expected}");
        let _guard = self.fetch_lock().hold().await?;
        let mut answer = self.fetch_bundle(file, &target).await;
        if let Err(Error::Git { detail, .. }) = &answer
            && detail.contains("prerequisite")
        {
            // The bundle builds on a commit that this host has not seen yet.
            self.fetch_all().await?;
            answer = self.fetch_bundle(file, &target).await;
        }
        answer?;
        if !self.has_commit(expected).await? {
            let detail = format!("bundle {} does not contain {expected}", file.display());
            return Err(Error::Git { what: "fetch from bundle".into(), detail });
        }
        self.git("update-ref").args(["update-ref", target.as_str(), expected]).ok().await.map(drop)
    }

    async fn fetch_bundle(&self, file: &Path, target: &str) -> Result<()> {
        self.git("fetch from bundle")
            .env("GIT_ALLOW_PROTOCOL", "file")
            .args(["-c", "transfer.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"])
            .args(["--no-auto-maintenance", "--no-recurse-submodules", "--"])
            .arg(file)
            .arg(format!("+refs/heads/*:{target}-heads/*"))
            .ok()
            .await
            .map(drop)
    }

    /// Packs loose objects and references; deletes nothing that a workspace could still read.
    pub async fn maintain(&self) -> Result<()> {
        self.git("maintenance")
            .args(["maintenance", "run", "--quiet", "--task=loose-objects", "--task=incremental-repack"])
            .arg("--task=pack-refs")
            .ok()
            .await
            .map(drop)
    }

    fn last_fetch(&self) -> Option<SystemTime> {
        fs::metadata(self.dir().join(FETCHED)).and_then(|meta| meta.modified()).ok()
    }

    fn is_fresh(&self, interval: Duration) -> bool {
        // A time in the future (a clock set back) counts as old.
        self.last_fetch().and_then(|began| began.elapsed().ok()).is_some_and(|age| age < interval)
    }

    fn sweep_stale_locks(&self, now: SystemTime) {
        let limit = self.shared().settings.timeout * 2;
        for name in STALE_LOCKS {
            let path = self.dir().join(name);
            let age = fs::metadata(&path).and_then(|meta| meta.modified()).ok().and_then(|changed| now.duration_since(changed).ok());
            if age.is_some_and(|age| age > limit) && fs::remove_file(&path).is_ok() {
                tracing::warn!(path = %path.display(), "removed a lock file left by a git that was killed");
            }
        }
    }
}
