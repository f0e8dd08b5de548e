//! All mirrors of one host under one directory, with the settings they share.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::credentials::{Credential, Credentials};
use crate::git::{Git, Version};
use crate::location::Location;
use crate::mirror::{Mirror, Parts};
use crate::trash::Trash;
use crate::{Error, Result};

/// What all mirrors of a process share.
#[derive(Debug, Clone)]
pub struct Settings {
    /// A mirror is fetched at most once in this time, unless a reference or commit is missing.
    pub fetch_interval: Duration,
    /// Repositories that may be used: an address, or a prefix of one that ends at a `/`; local paths by
    /// directory. Empty: every https and ssh repository, nothing local.
    pub allow: Vec<String>,
    /// Accounts by host.
    pub credentials: Vec<Credential>,
    /// Longest time of a single git call, network included.
    pub timeout: Duration,
    /// `PATH` of git and of what it starts (ssh, sh).
    pub search_path: OsString,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fetch_interval: Duration::from_secs(10),
            allow: Vec::new(),
            credentials: Vec::new(),
            timeout: Duration::from_secs(600),
            search_path: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        }
    }
}

/// The mirrors below one root directory; clones are cheap and share locks.
#[derive(Debug, Clone)]
pub struct Mirrors {
    shared: Arc<Shared>,
}

/// What every mirror needs of its root.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: PathBuf,
    pub(crate) git: Git,
    pub(crate) settings: Settings,
    pub(crate) credentials: Credentials,
    pub(crate) trash: Trash,
    open: Mutex<HashMap<PathBuf, Arc<Parts>>>,
}

impl Shared {
    /// Where workspaces and bundles are in the making.
    pub(crate) fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}

impl Mirrors {
    /// Opens (and creates) the root directory; no repository is touched yet.
    pub fn open(root: PathBuf, settings: Settings) -> Result<Self> {
        for dir in ["mirrors", "staging", "trash"] {
            let dir = root.join(dir);
            fs::create_dir_all(&dir).map_err(|source| Error::io("create", &dir, source))?;
        }
        let root = root.canonicalize().map_err(|source| Error::io("resolve", &root, source))?;
        // The servers git starts for local repositories read this file but not our arguments: a source may
        // belong to another user than this process.
        let config = root.join("gitconfig");
        let fresh = root.join(format!("gitconfig.{}", std::process::id()));
        fs::write(&fresh, "[safe]\n\tdirectory = *\n")
            .and_then(|()| fs::rename(&fresh, &config))
            .map_err(|source| Error::io("write", &config, source))?;
        let credentials = Credentials::install(&root, settings.credentials.clone())?;
        let git = Git::new(settings.search_path.clone(), config, settings.timeout);
        let trash = Trash::new(root.join("trash"));
        let shared = Shared { root, git, settings, credentials, trash, open: Mutex::default() };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// The root directory, links resolved.
    pub fn root(&self) -> &Path {
        &self.shared.root
    }

    /// Finds the git command; [`Error::OldGit`] below 2.38.
    pub async fn check_git(&self) -> Result<Version> {
        self.shared.git.version().await
    }

    /// The mirror of `repo` (a URL or an absolute path); made on first use, not fetched yet.
    pub async fn mirror(&self, repo: &str) -> Result<Mirror> {
        let location = Location::parse(repo)?;
        location.check_allowed(&self.shared.settings.allow)?;
        let mirror = self.handle(location);
        mirror.ensure().await?;
        Ok(mirror)
    }

    /// The mirrors that exist on this host, whatever the allow list says now. Read by the janitor.
    pub fn existing(&self) -> Result<Vec<Mirror>> {
        let dir = self.shared.root.join("mirrors");
        let entries = fs::read_dir(&dir).map_err(|source| Error::io("list", &dir, source))?;
        let mut mirrors = Vec::new();
        for entry in entries {
            let path = entry.map_err(|source| Error::io("list", &dir, source))?.path();
            // A mirror without its address was never finished; `mirror` completes it on its next use.
            let Ok(address) = fs::read_to_string(path.join(crate::mirror::ADDRESS)) else {
                continue;
            };
            let Ok(location) = Location::parse(address.trim()) else {
                continue;
            };
            mirrors.push(self.handle(location));
        }
        Ok(mirrors)
    }

    /// Makes the empty directory of a run without a repository; a left-over one is cleared.
    pub async fn scratch(&self, path: &Path) -> Result<()> {
        self.guard(path)?;
        self.shared.trash.discard(path, "scratch").await?;
        fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))
    }

    /// Deletes the directory of a run without a repository; returns the bytes freed.
    pub async fn release_scratch(&self, path: &Path) -> Result<u64> {
        self.guard(path)?;
        self.shared.trash.discard(path, "scratch").await
    }

    /// Deletes what earlier releases left in the trash, and what processes that ended left half made; returns the bytes freed.
    pub async fn empty_trash(&self) -> Result<u64> {
        self.discard_half_made()?;
        self.shared.trash.empty().await
    }

    /// Moves to the trash what nobody is still at work on: git would have been given up long ago.
    fn discard_half_made(&self) -> Result<()> {
        let dir = self.shared.staging();
        for entry in fs::read_dir(&dir).map_err(|source| Error::io("list", &dir, source))? {
            let path = entry.map_err(|source| Error::io("list", &dir, source))?.path();
            let changed = path.symlink_metadata().and_then(|meta| meta.modified()).ok();
            if changed.and_then(|at| at.elapsed().ok()).is_some_and(|age| age > self.shared.settings.timeout * 2) {
                self.shared.trash.take(&path, "half-made")?;
            }
        }
        Ok(())
    }

    fn guard(&self, path: &Path) -> Result<()> {
        crate::release::check_target(&self.shared.root, path)
    }

    fn handle(&self, location: Location) -> Mirror {
        let dir = self.shared.root.join("mirrors").join(format!("{}.git", crate::mirror::key(location.text())));
        let mut open = self.shared.open.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = open.entry(dir).or_insert_with_key(|dir| Arc::new(Parts::new(dir.clone(), location)));
        Mirror::new(Arc::clone(parts), Arc::clone(&self.shared))
    }
}
