//! What a snapshot records and a reset restores.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::*;

/// `git ls-tree` of a snapshot: mode and path.
async fn tree(host: &Host, workspace: &Workspace, commit: &str) -> Vec<String> {
    let list = host.git(workspace.mirror().dir(), &["ls-tree", "-r", "--format=%(objectmode) %(path)", commit]).await;
    list.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn every_kind_of_change_is_recorded() {
    let host = Host::new().await;
    host.write("gone.txt", "gone\n");
    host.write("moved.txt", "a line that is long enough to be recognised\n");
    host.write("dir/inner.txt", "inner\n");
    host.write("file", "file\n");
    host.write("linked/inner.txt", "inner\n");
    host.commit("second").await;
    let (workspace, commit) = host.open("run-g1").await;
    let inside = workspace.path();
    fs::remove_file(inside.join("gone.txt")).expect("delete");
    fs::rename(inside.join("moved.txt"), inside.join("to-here.txt")).expect("rename");
    symlink("/etc/passwd", inside.join("link")).expect("link");
    put(inside, "tool.sh", "#!/bin/sh\n");
    fs::set_permissions(inside.join("tool.sh"), fs::Permissions::from_mode(0o755)).expect("executable");
    // A directory becomes a file, a file a directory, a directory a link to one.
    fs::remove_dir_all(inside.join("dir")).expect("delete");
    put(inside, "dir", "now a file\n");
    fs::remove_file(inside.join("file")).expect("delete");
    put(inside, "file/inner.txt", "now inside\n");
    fs::remove_dir_all(inside.join("linked")).expect("delete");
    symlink("src", inside.join("linked")).expect("link");
    put(inside, "target/out.bin", "ignored");
    put(inside, "x.log", "ignored");
    put(inside, "name with \"quotes\" and\nnewline", "odd\n");

    let snapshot = snap(&workspace, &commit).await;
    assert!(snapshot.changed);
    assert_eq!(snapshot.skipped, Vec::<String>::new());
    let mut wanted = vec![
        "100644 .gitignore",
        "100644 README.md",
        "100644 dir",
        "100644 file/inner.txt",
        "120000 link",
        "120000 linked",
        "100644 \"name with \\\"quotes\\\" and\\nnewline\"",
        "100644 src/lib.rs",
        "100644 to-here.txt",
        "100755 tool.sh",
    ];
    let mut found = tree(&host, &workspace, &snapshot.commit).await;
    wanted.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, wanted);
    let mirror = workspace.mirror().dir();
    let shown = host.git(mirror, &["log", "-1", "--format=%P %an <%ae> %cn %s", &snapshot.commit]).await;
    assert_eq!(shown, format!("{commit} {AUTHOR} Hopyard work"));
    assert_eq!(host.git(mirror, &["rev-parse", "refs/hopyard/run/step/1"]).await, snapshot.commit);
    assert_eq!(host.git(mirror, &["fsck", "--connectivity-only"]).await, "");
}

#[tokio::test]
async fn an_unchanged_workspace_gives_its_parent() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    put(workspace.path(), "x.log", "ignored");
    // Touched, not changed.
    put(workspace.path(), "README.md", "hello\n");
    let snapshot = snap(&workspace, &commit).await;
    assert_eq!((snapshot.commit.as_str(), snapshot.changed), (commit.as_str(), false));
    let mirror = workspace.mirror().dir();
    assert_eq!(host.git(mirror, &["rev-parse", "refs/hopyard/run/step/1"]).await, commit);
}

/// A step may write a file in the second in which it was checked out, and git compares seconds: all the index knows still fits.
#[tokio::test]
async fn a_change_that_only_the_content_shows_is_recorded() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    put(workspace.path(), "README.md", "HELLO\n");
    let tick = SystemTime::now() - Duration::from_secs(9);
    let stamp = |path: &Path| fs::File::options().write(true).open(path).and_then(|file| file.set_modified(tick)).expect("a time");
    stamp(&workspace.path().join("README.md"));
    let changed = fs::metadata(workspace.path().join("README.md")).expect("a file");
    let path = workspace.admin().join("index");
    let mut index = git2::Index::open(&path).expect("an index");
    let mut entry = index.get_path(Path::new("README.md"), 0).expect("its entry");
    entry.mtime = git2::IndexTime::new(changed.mtime() as i32, changed.mtime_nsec() as u32);
    entry.ctime = git2::IndexTime::new(changed.ctime() as i32, changed.ctime_nsec() as u32);
    index.add(&entry).expect("added");
    index.write().expect("written");
    stamp(&path);
    assert!(snap(&workspace, &commit).await.changed, "the snapshot has it");
    workspace.reset_to(&commit).await.expect("reset");
    assert_eq!(fs::read_to_string(workspace.path().join("README.md")).expect("a file"), "hello\n");
}

#[tokio::test]
async fn repositories_inside_are_recorded_as_files() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let inside = workspace.path();
    // With a commit, without one, one inside another, and one around tracked files.
    for (dir, commits) in [("vendor/one", true), ("vendor/two", false), ("vendor/one/deep", true), ("src", false)] {
        let dir = inside.join(dir);
        put(&dir, "own.txt", "own\n");
        put(&dir, ".gitignore", "*.tmp\n");
        put(&dir, "skip.tmp", "ignored there\n");
        host.git(&dir, &["init", "--quiet"]).await;
        if commits {
            host.git(&dir, &["add", "own.txt"]).await;
            host.git(&dir, &["commit", "--quiet", "-m", "inner"]).await;
        }
    }
    let first = snap(&workspace, &commit).await;
    assert_eq!(first.skipped, Vec::<String>::new());
    let found = tree(&host, &workspace, &first.commit).await;
    assert!(!found.iter().any(|line| line.starts_with("160000") || line.contains(".tmp")), "{found:?}");
    for path in ["vendor/one/own.txt", "vendor/one/deep/own.txt", "vendor/two/own.txt", "src/own.txt", "src/lib.rs"] {
        assert!(found.contains(&format!("100644 {path}")), "{path} is missing in {found:?}");
    }
    put(inside, "vendor/one/own.txt", "changed\n");
    let second = snap(&workspace, &first.commit).await;
    let stat = workspace.mirror().diff(&first.commit, &second.commit).await.expect("diff");
    assert_eq!(stat.files.len(), 1, "{stat:?}");
    workspace.reset_to(&first.commit).await.expect("reset");
    assert_eq!(fs::read_to_string(inside.join("vendor/one/own.txt")).expect("file"), "own\n");
}

#[tokio::test]
async fn submodules_keep_their_commit() {
    let host = Host::new().await;
    let other = "1111111111111111111111111111111111111111";
    let link = format!("160000,{other},vendor/lib");
    host.git(&host.source(), &["update-index", "--add", "--cacheinfo", &link]).await;
    host.git(&host.source(), &["commit", "--quiet", "-m", "with a submodule"]).await;
    let (workspace, commit) = host.open("run-g1").await;
    put(workspace.path(), "new.txt", "new");
    let snapshot = snap(&workspace, &commit).await;
    let found = tree(&host, &workspace, &snapshot.commit).await;
    assert!(found.contains(&"160000 vendor/lib".to_owned()), "{found:?}");
    fs::remove_dir(workspace.path().join("vendor/lib")).expect("empty");
    let snapshot = snap(&workspace, &commit).await;
    assert!(!tree(&host, &workspace, &snapshot.commit).await.contains(&"160000 vendor/lib".to_owned()));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_left_out_and_named() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    // Declared as UTF-16 but not valid as such: git refuses to store it.
    put(workspace.path(), ".gitattributes", "bad-*.txt working-tree-encoding=UTF-16\n");
    for number in 0..20 {
        put(workspace.path(), &format!("good-{number}.txt"), "good");
    }
    put(workspace.path(), "bad-7.txt", "odd");
    let snapshot = snap(&workspace, &commit).await;
    assert_eq!(snapshot.skipped, ["bad-7.txt"]);
    assert_eq!(tree(&host, &workspace, &snapshot.commit).await.len(), 3 + 1 + 20);
}

#[tokio::test]
async fn a_reset_restores_tracked_files_and_keeps_ignored_ones() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let inside = workspace.path();
    put(inside, "made-by-first.txt", "first\n");
    fs::remove_file(inside.join("README.md")).expect("delete");
    let first = snap(&workspace, &commit).await;

    put(inside, "made-by-first.txt", "spoiled\n");
    put(inside, "README.md", "back\n");
    put(inside, "untracked/deep.txt", "x");
    put(inside, "target/cache.bin", "cache");
    host.git(inside, &["config", "core.pager", "evil"]).await;
    put(inside, ".git/index.lock", "");
    workspace.reset_to(&first.commit).await.expect("reset");
    assert_eq!(fs::read_to_string(inside.join("made-by-first.txt")).expect("file"), "first\n");
    assert!(!inside.join("README.md").exists());
    assert!(!inside.join("untracked").exists());
    assert!(inside.join("target/cache.bin").exists(), "ignored files stay");
    assert_eq!(host.git(inside, &["status", "--porcelain"]).await, "");
    assert_eq!(host.git(inside, &["rev-parse", "HEAD"]).await, first.commit);
    assert_ne!(host.try_git(inside, &["config", "core.pager"]).await.0, 0, "the private config is new");
    let again = snap(&workspace, &first.commit).await;
    assert!(!again.changed);

    workspace.reset_to(&commit).await.expect("reset");
    assert!(inside.join("README.md").exists() && !inside.join("made-by-first.txt").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_steps_snapshot_one_workspace_at_once() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    put(workspace.path(), "new.txt", "new");
    let mut snapshots = tokio::task::JoinSet::new();
    for number in 0..8 {
        let (workspace, parent) = (workspace.clone(), commit.clone());
        snapshots.spawn(async move {
            let refname = format!("refs/hopyard/run/step-{number}/1");
            let snapshot = Snapshot { message: "work", refname: &refname, parent: &parent, author: AUTHOR };
            workspace.snapshot(snapshot).await.expect("snapshot").tree
        });
    }
    let trees: std::collections::BTreeSet<String> = snapshots.join_all().await.into_iter().collect();
    assert_eq!(trees.len(), 1);
    let left = fs::read_dir(workspace.mirror().dir().join("worktrees/run-g1")).expect("entry");
    let left = left.filter(|entry| entry.as_ref().expect("entry").file_name().to_string_lossy().contains("index-"));
    assert_eq!(left.count(), 0, "temporary indexes are removed");
}

#[tokio::test]
async fn a_mirror_that_cannot_be_written_fails_the_snapshot() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    for number in 0..5 {
        put(workspace.path(), &format!("new-{number}.txt"), format!("new {number}"));
    }
    // Everything is packed, and a file is where each directory of loose objects would be.
    let mirror = workspace.mirror().dir();
    host.git(mirror, &["repack", "-a", "-d", "-q"]).await;
    let fans: Vec<PathBuf> = (0..=255).map(|fan| mirror.join(format!("objects/{fan:02x}"))).collect();
    for fan in &fans {
        fs::write(fan, "in the way").expect("no directory is left");
    }
    let snapshot = Snapshot { message: "x", refname: "refs/hopyard/run/step/1", parent: &commit, author: AUTHOR };
    assert!(workspace.snapshot(snapshot).await.is_err(), "the work would be lost without a word");
    for fan in &fans {
        fs::remove_file(fan).expect("file");
    }
    assert!(snap(&workspace, &commit).await.changed);
}
