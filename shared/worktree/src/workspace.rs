//! A workspace: one locked worktree of a mirror, opened side by side with any number of others.

use std::fs;
use std::path::{Path, PathBuf};

use crate::git::Call;
use crate::mirror::Mirror;
use crate::resolve::check_commit;
use crate::{Error, Result, private, trash};

/// From how many files on git checks out with several threads.
const PARALLEL_FILES: &str = "checkout.thresholdForParallelism=2000";

/// The directory of a run generation; clones are cheap.
#[derive(Debug, Clone)]
pub struct Workspace {
    mirror: Mirror,
    id: String,
    path: PathBuf,
    warm: bool,
}

/// An index file of our own, removed with its lock when dropped.
#[derive(Debug)]
pub(crate) struct TemporaryIndex(pub(crate) PathBuf);

impl Drop for TemporaryIndex {
    fn drop(&mut self) {
        let mut lock = self.0.clone().into_os_string();
        lock.push(".lock");
        // Both are usually gone already.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(lock);
    }
}

impl Mirror {
    /// Makes the workspace `id` (`<run>-g<k>`) at `path`, with the files of `commit`, locked for `lock_reason`.
    ///
    /// A whole workspace of the same id, path and commit is taken over with all that is in it; remains of any other
    /// kind go to the trash. Inside, `.git` is a private repository with branch `work` at `commit`.
    ///
    /// # Errors
    /// [`Error::Git`] with git's words if the commit is missing or the disk is full.
    pub async fn open_workspace(&self, path: &Path, id: &str, commit: &str, lock_reason: &str) -> Result<Workspace> {
        check_id(id)?;
        check_commit(commit)?;
        crate::release::check_target(&self.shared().root, path)?;
        let mut workspace = Workspace { mirror: self.clone(), id: id.to_owned(), path: path.to_owned(), warm: false };
        if workspace.is_whole(commit) {
            return Ok(workspace);
        }
        let taken = self.add_worktree(&workspace, commit, lock_reason).await?;
        if let Err(error) = workspace.fill(commit).await {
            // Half a checkout is no work of anybody.
            if let Err(clean) = self.release(path, id).await {
                tracing::warn!(workspace.id = id, error = %clean, "cannot remove a half-made workspace");
            }
            return Err(error);
        }
        self.shared().trash.try_delete(taken).await;
        Ok(workspace)
    }

    /// A workspace that was opened earlier, if its directory and its entry in the mirror are both there.
    pub fn workspace(&self, path: &Path, id: &str) -> Result<Option<Workspace>> {
        check_id(id)?;
        let workspace = Workspace { mirror: self.clone(), id: id.to_owned(), path: path.to_owned(), warm: false };
        let there = workspace.admin().is_dir() && workspace.check_directory().is_ok();
        Ok(there.then_some(workspace))
    }

    /// The metadata part of opening, under the lock; returns what was in the way.
    async fn add_worktree(&self, workspace: &Workspace, commit: &str, reason: &str) -> Result<Option<PathBuf>> {
        let Workspace { id, path, .. } = workspace;
        let _guard = self.metadata_lock().hold().await?;
        let taken = self.shared().trash.take(path, id)?;
        self.forget(id).await?;
        // Git names the entry after the last part of the path, so it is added under a staging directory whose
        // last part is the id, then pointed at the real place.
        let staging = self.shared().staging().join(trash::unique());
        let staged = staging.join(id);
        fs::create_dir(&staging).map_err(|source| Error::io("create", &staging, source))?;
        let added = self
            .git("worktree add")
            .args(["worktree", "add", "--quiet", "--no-checkout", "--detach", "--lock", "--reason", reason, "--"])
            .arg(&staged)
            .arg(commit)
            .ok()
            .await;
        fs::remove_dir_all(&staging).map_err(|source| Error::io("delete", &staging, source))?;
        added?;
        let pointer = workspace.admin().join("gitdir");
        let mut text = path.join(".git").into_os_string();
        text.push("\n");
        fs::write(&pointer, text.as_encoded_bytes()).map_err(|source| Error::io("write", &pointer, source))?;
        fs::create_dir_all(path).map_err(|source| Error::io("create", path, source))?;
        Ok(taken)
    }
}

impl Workspace {
    /// The directory steps work in.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The id given at opening, `<run>-g<k>`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Whether its files were there before it was opened, in a warm checkout.
    pub fn was_warm(&self) -> bool {
        self.warm
    }

    /// The mirror it belongs to.
    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// Puts tracked files back to `commit` and removes untracked ones; ignored files stay.
    ///
    /// The private `.git` is made anew at `commit`: whatever a failed attempt left there (locks, a half-done
    /// rebase, poisoned configuration) goes with it.
    pub async fn reset_to(&self, commit: &str) -> Result<()> {
        check_commit(commit)?;
        self.check_directory()?;
        let index = self.temporary_index()?;
        check_out(self.git("checkout", &index), commit).await?;
        self.git("clean", &index).args(["clean", "-ffd", "--quiet"]).ok().await?;
        self.keep_index(&index)?;
        let inner = self.path.join(".git");
        let old = self.mirror.shared().trash.take(&inner, &self.id)?;
        self.write_private(commit)?;
        self.mirror.shared().trash.try_delete(old).await;
        Ok(())
    }

    /// The entry of this workspace in the mirror; nothing inside the workspace points to it.
    pub(crate) fn admin(&self) -> PathBuf {
        self.mirror.admin(&self.id)
    }

    /// A call on this workspace with an explicit git directory, work tree and index.
    pub(crate) fn git(&self, what: &'static str, index: &TemporaryIndex) -> Call {
        self.mirror.shared().git.at(&self.admin(), what).env("GIT_WORK_TREE", &self.path).env("GIT_INDEX_FILE", &index.0).dir(&self.path)
    }

    /// A copy of the index of the last checkout: it knows the times of the files, so little is read again.
    pub(crate) fn temporary_index(&self) -> Result<TemporaryIndex> {
        let admin = self.admin();
        let index = TemporaryIndex(admin.join(format!("hopyard-index-{}", trash::unique())));
        let from = admin.join("index");
        if from.exists() {
            private::copy_index(&from, &index.0)?;
        }
        Ok(index)
    }

    /// The directory must be there and be a directory: code in a workspace may have put a link in its place.
    pub(crate) fn check_directory(&self) -> Result<()> {
        match self.path.symlink_metadata() {
            Ok(meta) if meta.is_dir() => Ok(()),
            _ => Err(Error::WorkspaceMissing { id: self.id.clone(), path: self.path.clone() }),
        }
    }

    async fn fill(&mut self, commit: &str) -> Result<()> {
        let there = self.move_in(commit)?;
        self.warm = there.is_some();
        if there.as_deref() != Some(commit) {
            let index = self.temporary_index()?;
            check_out(self.git("checkout", &index), commit).await?;
            self.keep_index(&index)?;
        }
        self.write_private(commit)
    }

    fn keep_index(&self, index: &TemporaryIndex) -> Result<()> {
        let target = self.admin().join("index");
        fs::rename(&index.0, &target).map_err(|source| Error::io("write", &target, source))
    }

    fn write_private(&self, commit: &str) -> Result<()> {
        let index = self.admin().join("index");
        private::write(&self.path.join(".git"), self.mirror.dir(), private::BRANCH, commit, Some(&index))
    }

    /// True if opening ran to its end before, here and for this commit.
    fn is_whole(&self, commit: &str) -> bool {
        let admin = self.admin();
        let is = |name: &str, wanted: &str| fs::read_to_string(admin.join(name)).is_ok_and(|text| text.trim_end() == wanted);
        let pointer = self.path.join(".git");
        self.check_directory().is_ok()
            && is("HEAD", commit)
            && pointer.to_str().is_some_and(|pointer| is("gitdir", pointer))
            && admin.join("locked").exists()
            && private::is_complete(&pointer)
    }
}

/// Makes files and index of a call those of `commit`.
pub(crate) async fn check_out(call: Call, commit: &str) -> Result<()> {
    call.args(["-c", "checkout.workers=0", "-c", PARALLEL_FILES])
        .args(["read-tree", "--reset", "-u", "--no-recurse-submodules", commit])
        .ok()
        .await
        .map(drop)
}

/// An id becomes a file name in the mirror and in the trash.
pub(crate) fn check_id(id: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let good = !id.is_empty()
        && id.len() <= 200
        && id.bytes().all(plain)
        && !id.starts_with(['-', '.'])
        && !id.ends_with('.')
        && !id.ends_with(".lock")
        && !id.contains("..");
    if good { Ok(()) } else { Err(Error::Invalid { what: "workspace id", value: id.to_owned() }) }
}
