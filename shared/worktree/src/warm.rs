//! Warm checkouts: the files of a commit, written ahead, so that a workspace opens by a rename.
//!
//! Each is a directory `<commit>-<bytes>-<unique>` below `<mirror>.warm` with `tree`, the files, and `index`, what git knows of
//! them. No step has ever worked in one: it is made from the mirror and taken once, and what a run leaves behind is never
//! used again.

use std::fs;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nix::sys::statvfs::statvfs;

use crate::mirror::Mirror;
use crate::mirrors::Mirrors;
use crate::resolve::check_commit;
use crate::workspace::{TemporaryIndex, Workspace, check_out};
use crate::{Error, Result, trash};

/// From how many files on a checkout is made ahead; fewer are written in the time that git takes to start.
const WORTH_IT: u32 = 500;
/// None are made while less than this part of the volume is free.
const LEAVE_FREE: u64 = 10;
/// File below `<mirror>.warm` with the bytes of the last one that was made.
const SIZE: &str = "size";

/// How much is kept ready on a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Warm {
    /// Checkouts of one repository; none are made at 0.
    pub trees: usize,
    /// Bytes of all checkouts of the host.
    pub bytes: u64,
}

/// One that waits.
#[derive(Debug)]
struct Tree {
    dir: PathBuf,
    commit: String,
    bytes: u64,
    made: SystemTime,
}

impl Tree {
    fn read(dir: PathBuf) -> Option<Self> {
        let name = dir.file_name()?.to_str()?;
        let mut parts = name.splitn(3, '-');
        let (commit, bytes, _) = (parts.next()?, parts.next()?, parts.next()?);
        let made = dir.symlink_metadata().and_then(|meta| meta.modified()).ok()?;
        Some(Self { commit: commit.to_owned(), bytes: bytes.parse().ok()?, made, dir })
    }
}

impl Workspace {
    /// Makes checkouts of `commit` for workspaces to come, as many as are wanted; says whether there was one to make.
    ///
    /// Nothing is made of a small repository, beyond the limits, on a volume that gets full or is not that of this workspace, or
    /// while somebody else makes some.
    ///
    /// # Errors
    /// With git's words; then none is left half made.
    pub async fn warm_next(&self, commit: &str, limits: Warm) -> Result<bool> {
        check_commit(commit)?;
        if limits.trees == 0 || files(&self.admin().join("index"))? < WORTH_IT {
            return Ok(false);
        }
        let volume = |path: &Path| fs::metadata(path).map(|meta| meta.dev()).map_err(|source| Error::io("inspect", path, source));
        if volume(self.path().parent().unwrap_or(self.path()))? != volume(&self.mirror().shared().root)? {
            return Ok(false);
        }
        let Some(_guard) = self.mirror().warm_lock().try_hold()? else { return Ok(false) };
        let mut made = false;
        while self.mirror().wants_warm(commit, limits)? {
            self.mirror().make_warm(commit, limits).await?;
            made = true;
        }
        Ok(made)
    }

    /// Puts the files of a warm checkout into this directory, which is empty, and its index into the entry; tells of which
    /// commit they are. It is one of `commit`, or else the youngest: much of it will be the same.
    pub(crate) fn move_in(&self, commit: &str) -> Result<Option<String>> {
        let mut trees = self.mirror().warm_trees()?;
        trees.sort_by_key(|tree| (tree.commit == commit, tree.made));
        while let Some(tree) = trees.pop() {
            // Whoever renames it first has it.
            let taken = self.mirror().shared().staging().join(trash::unique());
            match fs::rename(&tree.dir, &taken) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::io("take", &tree.dir, source)),
            }
            if let Err(error) = fs::rename(taken.join("tree"), self.path()) {
                // Nothing of it is here, so that the files can be written as without it.
                tracing::warn!(%error, path = %self.path().display(), "a warm checkout cannot be used");
                self.mirror().shared().trash.take(&taken, "warm")?;
                return Ok(None);
            }
            let index = self.admin().join("index");
            fs::rename(taken.join("index"), &index).map_err(|source| Error::io("move", &index, source))?;
            fs::remove_dir(&taken).map_err(|source| Error::io("delete", &taken, source))?;
            return Ok(Some(tree.commit));
        }
        Ok(None)
    }
}

impl Mirror {
    fn warm_dir(&self) -> PathBuf {
        self.dir().with_extension("warm")
    }

    fn warm_trees(&self) -> Result<Vec<Tree>> {
        trees_in(&self.warm_dir())
    }

    /// Whether one more of a commit is wanted, and there is room for it.
    fn wants_warm(&self, commit: &str, limits: Warm) -> Result<bool> {
        let there = self.warm_trees()?.iter().filter(|tree| tree.commit == commit).count();
        if there >= limits.trees {
            return Ok(false);
        }
        let last = fs::read_to_string(self.warm_dir().join(SIZE)).ok().and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        let root = &self.shared().root;
        let volume = statvfs(root).map_err(|errno| Error::io("inspect", root, errno.into()))?;
        let (free, all) =
            (volume.blocks_available().saturating_mul(volume.fragment_size()), volume.blocks().saturating_mul(volume.fragment_size()));
        let fits = last.saturating_mul(there as u64 + 1) <= limits.bytes;
        Ok(fits && free.saturating_sub(last) > all / LEAVE_FREE)
    }

    /// Checks a commit out, makes room for it and lets it be taken.
    async fn make_warm(&self, commit: &str, limits: Warm) -> Result<()> {
        let making = self.shared().staging().join(trash::unique());
        let made = self.write_warm(&making, commit).await;
        let kept = match made {
            Ok(bytes) => self.keep_warm(&making, commit, bytes, limits).await,
            Err(error) => Err(error),
        };
        self.shared().trash.try_delete(self.shared().trash.take(&making, "warm")?).await;
        kept
    }

    /// Writes the files and their index; returns the bytes on disk.
    async fn write_warm(&self, making: &Path, commit: &str) -> Result<u64> {
        let tree = making.join("tree");
        fs::create_dir_all(&tree).map_err(|source| Error::io("create", &tree, source))?;
        let index = TemporaryIndex(making.join("index.new"));
        let call = self.git("checkout").env("GIT_WORK_TREE", &tree).env("GIT_INDEX_FILE", &index.0).dir(&tree);
        check_out(call, commit).await?;
        let target = making.join("index");
        fs::rename(&index.0, &target).map_err(|source| Error::io("write", &target, source))?;
        tokio::task::spawn_blocking(move || trash::bytes_below(&tree)).await.map_err(|_| Error::Aborted { what: "measuring a checkout" })?
    }

    /// Moves a finished one to where it is taken from, and the oldest out of the way; one that is too large stays where it is.
    async fn keep_warm(&self, making: &Path, commit: &str, bytes: u64, limits: Warm) -> Result<()> {
        let dir = self.warm_dir();
        fs::create_dir_all(&dir).map_err(|source| Error::io("create", &dir, source))?;
        let size = dir.join(SIZE);
        fs::write(&size, bytes.to_string()).map_err(|source| Error::io("write", &size, source))?;
        if bytes > limits.bytes {
            return Ok(());
        }
        let mut own = self.warm_trees()?;
        own.sort_by_key(|tree| (tree.commit == commit, tree.made));
        let beyond = (own.len() + 1).saturating_sub(limits.trees);
        for tree in own.drain(..beyond) {
            self.shared().drop_warm(tree).await?;
        }
        let mut all = self.shared().warm_trees()?;
        all.sort_by_key(|tree| (tree.commit == commit, tree.made));
        let mut sum = bytes + all.iter().map(|tree| tree.bytes).sum::<u64>();
        for tree in all {
            if sum <= limits.bytes {
                break;
            }
            sum -= tree.bytes;
            self.shared().drop_warm(tree).await?;
        }
        let target = dir.join(format!("{commit}-{bytes}-{}", trash::unique()));
        fs::rename(making, &target).map_err(|source| Error::io("keep", &target, source))
    }
}

impl crate::mirrors::Shared {
    /// Those of all mirrors.
    fn warm_trees(&self) -> Result<Vec<Tree>> {
        let dir = self.root.join("mirrors");
        let mut trees = Vec::new();
        for entry in fs::read_dir(&dir).map_err(|source| Error::io("list", &dir, source))? {
            let path = entry.map_err(|source| Error::io("list", &dir, source))?.path();
            if path.extension().is_some_and(|end| end == "warm") {
                trees.extend(trees_in(&path)?);
            }
        }
        Ok(trees)
    }

    /// Deletes one, unless it has been taken meanwhile; returns the bytes freed.
    async fn drop_warm(&self, tree: Tree) -> Result<u64> {
        self.trash.discard(&tree.dir, "warm").await
    }
}

impl Mirrors {
    /// Deletes the checkouts that nobody has taken for this long; returns the bytes freed.
    ///
    /// # Errors
    /// When a directory cannot be read or deleted.
    pub async fn drop_warm(&self, unused_for: Duration) -> Result<u64> {
        let mut freed = 0;
        for tree in self.shared().warm_trees()? {
            if tree.made.elapsed().is_ok_and(|age| age >= unused_for) {
                freed += self.shared().drop_warm(tree).await?;
            }
        }
        Ok(freed)
    }
}

/// Those below a directory, which need not be there; whatever has no name of ours is left alone.
fn trees_in(dir: &Path) -> Result<Vec<Tree>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::io("list", dir, source)),
    };
    Ok(entries.filter_map(|entry| Tree::read(entry.ok()?.path())).collect())
}

/// Files that an index knows: its third word; none without an index.
fn files(index: &Path) -> Result<u32> {
    let mut head = [0; 12];
    match fs::File::open(index).and_then(|mut file| file.read_exact(&mut head)) {
        Ok(()) => Ok(u32::from_be_bytes([head[8], head[9], head[10], head[11]])),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::UnexpectedEof) => Ok(0),
        Err(source) => Err(Error::io("read", index, source)),
    }
}
