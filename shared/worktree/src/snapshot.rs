//! The files of a workspace as a commit, whatever the code in it did to its own `.git`.
//!
//! Plumbing only: which files changed is asked without looking into nested repositories, because git would run
//! their status with *their* configuration; files of nested repositories are recorded as plain files.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::resolve::check_commit;
use crate::workspace::{TemporaryIndex, Workspace};
use crate::{Error, Result, trash};

/// Mode of an entry that names a commit of another repository.
const GITLINK: u32 = 0o160_000;
/// Most repositories inside a workspace that are looked into.
const NESTED_LIMIT: usize = 1000;

/// What a snapshot is called.
#[derive(Debug, Clone, Copy)]
pub struct Snapshot<'a> {
    /// Commit message.
    pub message: &'a str,
    /// `refs/hopyard/<run>/<step>/<attempt>`; set in the mirror.
    pub refname: &'a str,
    /// Commit it follows, 40 hex digits.
    pub parent: &'a str,
    /// `Name <mail>`; a bare name gets Hopyard's address.
    pub author: &'a str,
}

/// A snapshot that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotCommit {
    /// The commit; the parent itself if nothing changed.
    pub commit: String,
    /// Its tree.
    pub tree: String,
    /// False if the tree equals the parent's.
    pub changed: bool,
    /// Paths that could not be read or recorded (no permission, impossible names); all others are in.
    pub skipped: Vec<String>,
}

/// What differs from the index.
#[derive(Debug, Default)]
struct Changes {
    remove: BTreeSet<OsString>,
    add: BTreeSet<OsString>,
}

impl Workspace {
    /// Records all files that are not ignored as a commit on `parent` and sets `refname` to it.
    ///
    /// # Errors
    /// [`Error::WorkspaceMissing`] if the directory is gone; [`Error::Git`] if git cannot write (disk full).
    pub async fn snapshot(&self, snapshot: Snapshot<'_>) -> Result<SnapshotCommit> {
        check_commit(snapshot.parent)?;
        check_snapshot_ref(snapshot.refname)?;
        self.check_directory()?;
        let index = self.temporary_index()?;
        let changes = self.changes(&index).await?;
        if !changes.remove.is_empty() {
            let paths = joined(changes.remove.iter().map(OsString::as_os_str));
            let remove = ["update-index", "-z", "--force-remove", "--stdin"];
            self.git("update-index", &index).args(remove).stdin(paths).ok().await?;
        }
        let skipped = self.add(&index, changes.add.into_iter().collect()).await?;
        let tree = self.git("write-tree", &index).arg("write-tree").line().await?;
        let parent_tree = format!("{}^{{tree}}", snapshot.parent);
        let parent_tree = self.git("rev-parse", &index).args(["rev-parse", "--verify", &parent_tree]).line().await?;
        let changed = tree != parent_tree;
        let commit = if changed {
            self.mirror().commit(&tree, &[snapshot.parent], snapshot.message, snapshot.author).await?
        } else {
            snapshot.parent.to_owned()
        };
        self.mirror().git("update-ref").args(["update-ref", snapshot.refname, &commit]).ok().await?;
        Ok(SnapshotCommit { commit, tree, changed, skipped })
    }

    async fn changes(&self, index: &TemporaryIndex) -> Result<Changes> {
        let diff = ["diff-files", "--name-only", "-z", "--ignore-submodules=all", "--no-renames"];
        let tracked = self.git("diff-files", index).args(diff).ok();
        let untracked = self.untracked(index);
        let links = self.gitlinks(index);
        let (tracked, untracked, links) = tokio::try_join!(tracked, untracked, links)?;
        let mut changes = Changes { add: untracked, ..Changes::default() };
        for name in names(&tracked) {
            // A directory in a file's place: the file goes, what is in the directory is untracked.
            if self.is_file(&name) {
                changes.add.insert(name)
            } else {
                changes.remove.insert(name)
            };
        }
        for name in links {
            // A submodule moves to the commit that is checked out in it; an empty directory leaves it as it is.
            if self.path().join(&name).symlink_metadata().is_ok() {
                changes.add.insert(name);
            } else {
                changes.remove.insert(name);
            }
        }
        Ok(changes)
    }

    /// True if `name` is a file or link that is reached without passing a link.
    fn is_file(&self, name: &OsStr) -> bool {
        let name = Path::new(name);
        let passes_link = name
            .ancestors()
            .skip(1)
            .filter(|part| !part.as_os_str().is_empty())
            .any(|part| self.path().join(part).symlink_metadata().is_ok_and(|meta| meta.is_symlink()));
        !passes_link && self.path().join(name).symlink_metadata().is_ok_and(|meta| !meta.is_dir())
    }

    /// Files git does not know and does not ignore, those of nested repositories included.
    async fn untracked(&self, index: &TemporaryIndex) -> Result<BTreeSet<OsString>> {
        let list = ["ls-files", "-z", "--others", "--exclude-standard"];
        let mut files = BTreeSet::new();
        let mut nested = Vec::new();
        let sort = |prefix: &Path, found: Vec<u8>, nested: &mut Vec<PathBuf>, files: &mut BTreeSet<OsString>| {
            for name in names(&found) {
                let whole = prefix.join(&name);
                if name.as_bytes().ends_with(b"/") {
                    nested.push(whole);
                } else {
                    files.insert(whole.into_os_string());
                }
            }
        };
        let found = self.git("ls-files", index).args(list).ok().await?;
        sort(Path::new(""), found, &mut nested, &mut files);
        let nothing = TemporaryIndex(self.admin().join(format!("hopyard-index-{}", trash::unique())));
        let mut looked_into = 0;
        while let Some(inside) = nested.pop() {
            looked_into += 1;
            let dir = self.path().join(&inside);
            if looked_into > NESTED_LIMIT || !dir.symlink_metadata().is_ok_and(|meta| meta.is_dir()) {
                continue;
            }
            let call = self.git("ls-files", &nothing).env("GIT_WORK_TREE", &dir).dir(&dir);
            let found = call.args(list).ok().await?;
            sort(&inside, found, &mut nested, &mut files);
        }
        Ok(files)
    }

    /// Submodules that the index knows.
    async fn gitlinks(&self, index: &TemporaryIndex) -> Result<Vec<OsString>> {
        let path = index.0.clone();
        if !path.exists() {
            return Ok(Vec::new());
        }
        tokio::task::spawn_blocking(move || {
            let index = git2::Index::open(&path)?;
            let links = index.iter().filter(|entry| entry.mode == GITLINK);
            Ok(links.map(|entry| OsString::from_vec(entry.path)).collect())
        })
        .await
        .map_err(|_| Error::Aborted { what: "reading an index" })?
        .map_err(|source| Error::read(format!("index of workspace {}", self.id()), source))
    }

    /// Adds paths to the index; a path git cannot take is found by halving and returned, the rest goes in.
    async fn add(&self, index: &TemporaryIndex, paths: Vec<OsString>) -> Result<Vec<String>> {
        let mut skipped = Vec::new();
        let mut waiting = vec![paths];
        while let Some(mut batch) = waiting.pop() {
            if batch.is_empty() {
                continue;
            }
            let paths = joined(batch.iter().map(OsString::as_os_str));
            let add = ["update-index", "-z", "--add", "--replace", "--remove", "--stdin"];
            let output = self.git("update-index", index).args(add).stdin(paths).run().await?;
            if output.code == 0 {
                continue;
            }
            // A signal says nothing about a path.
            if output.code < 0 {
                return Err(output.failed("update-index"));
            }
            if batch.len() == 1 {
                let path = batch.remove(0).to_string_lossy().into_owned();
                tracing::warn!(workspace.id = self.id(), path, detail = output.stderr, "left out of the snapshot");
                skipped.push(path);
            } else {
                let rest = batch.split_off(batch.len() / 2);
                waiting.push(rest);
                waiting.push(batch);
            }
        }
        if !skipped.is_empty() {
            // A full disk or a mirror that cannot be written fails every path; that is no property of the paths.
            let probe = trash::unique().into_bytes();
            let store = ["hash-object", "-w", "--stdin"];
            self.git("hash-object", index).args(store).stdin(probe).ok().await?;
        }
        skipped.sort();
        Ok(skipped)
    }
}

/// Splits a zero-terminated list.
fn names(list: &[u8]) -> impl Iterator<Item = OsString> {
    list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(|name| OsStr::from_bytes(name).to_owned())
}

/// Joins a zero-terminated list.
fn joined<'a>(names: impl Iterator<Item = &'a OsStr>) -> Vec<u8> {
    let mut list = Vec::new();
    for name in names {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    list
}

fn check_snapshot_ref(name: &str) -> Result<()> {
    if name.starts_with("refs/hopyard/") && git2::Reference::is_valid_name(name) {
        Ok(())
    } else {
        Err(Error::Invalid { what: "snapshot reference", value: name.to_owned() })
    }
}
