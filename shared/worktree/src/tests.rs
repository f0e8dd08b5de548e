//! Real git on real directories: a source repository, its mirror, and what workspaces do to both.

mod fetch;
mod hand_over;
mod hostile;
mod open;
mod snapshot;
mod warm;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use crate::git::Git;
use crate::{Mirror, Mirrors, Settings, Snapshot, SnapshotCommit, Workspace};

const AUTHOR: &str = "Tester <tester@example.com>";

/// A source repository with one commit, and the mirrors of a host.
struct Host {
    dir: TempDir,
    mirrors: Mirrors,
}

impl Host {
    async fn new() -> Self {
        Self::with_interval(Duration::ZERO).await
    }

    async fn with_interval(fetch_interval: Duration) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let allow = vec![dir.path().display().to_string()];
        let timeout = Duration::from_secs(60);
        let settings = Settings { fetch_interval, allow, timeout, ..Settings::default() };
        let mirrors = Mirrors::open(dir.path().join("data"), settings).expect("opened");
        let host = Self { dir, mirrors };
        fs::create_dir(host.source()).expect("source");
        host.git(&host.source(), &["init", "--quiet", "--initial-branch=main"]).await;
        host.write("README.md", "hello\n");
        host.write("src/lib.rs", "one\ntwo\nthree\nfour\nfive\n");
        host.write(".gitignore", "/target\n*.log\n");
        host.commit("first").await;
        host
    }

    fn source(&self) -> PathBuf {
        self.dir.path().join("source")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("workspaces").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        put(&self.source(), name, text);
    }

    /// Git as a person in `dir` would use it; returns its output.
    async fn git(&self, dir: &Path, args: &[&str]) -> String {
        let (code, text) = self.try_git(dir, args).await;
        assert_eq!(code, 0, "git {args:?}: {text}");
        text
    }

    async fn try_git(&self, dir: &Path, args: &[&str]) -> (i32, String) {
        let git = Git::new("/usr/local/bin:/usr/bin:/bin".into(), "/dev/null".into(), Duration::from_secs(60));
        let mut call = git.call("test").dir(dir).args(args).env("GIT_ALLOW_PROTOCOL", "file");
        for who in ["AUTHOR", "COMMITTER"] {
            call = call.env(format!("GIT_{who}_NAME"), "Tester").env(format!("GIT_{who}_EMAIL"), "t@example.com");
        }
        let output = call.run().await.expect("git runs");
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.code, if output.code == 0 { text } else { output.stderr })
    }

    /// Commits all files of the source; returns the commit.
    async fn commit(&self, message: &str) -> String {
        self.git(&self.source(), &["add", "-A"]).await;
        self.git(&self.source(), &["commit", "--quiet", "--allow-empty", "-m", message]).await;
        self.git(&self.source(), &["rev-parse", "HEAD"]).await
    }

    async fn mirror(&self) -> Mirror {
        self.mirrors.mirror(&self.source().display().to_string()).await.expect("mirror")
    }

    /// A workspace `id` at the source's HEAD, and that commit.
    async fn open(&self, id: &str) -> (Workspace, String) {
        let mirror = self.mirror().await;
        let commit = mirror.resolve(None).await.expect("HEAD");
        let workspace = mirror.open_workspace(&self.path(id), id, &commit, "test").await.expect("opened");
        (workspace, commit)
    }

    /// The mirror's own list, as git sees it: the bare repository is its first line.
    async fn worktrees(&self, mirror: &Mirror) -> usize {
        self.git(mirror.dir(), &["worktree", "list"]).await.lines().count() - 1
    }
}

fn put(dir: &Path, name: &str, text: impl AsRef<[u8]>) {
    let path = dir.join(name);
    fs::create_dir_all(path.parent().expect("has a parent")).expect("directory");
    fs::write(path, text).expect("file");
}

async fn snap(workspace: &Workspace, parent: &str) -> SnapshotCommit {
    let snapshot = Snapshot { message: "work", refname: "refs/hopyard/run/step/1", parent, author: AUTHOR };
    workspace.snapshot(snapshot).await.expect("snapshot")
}
