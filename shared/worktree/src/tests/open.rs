//! Opening, taking over, releasing and listing workspaces.

use super::*;
use crate::{Entry, Error};

#[tokio::test(flavor = "multi_thread")]
async fn fifty_workspaces_open_at_once() {
    let host = Host::new().await;
    let mirror = host.mirror().await;
    let commit = mirror.resolve(None).await.expect("HEAD");
    let mut opens = tokio::task::JoinSet::new();
    for number in 0..50 {
        let (mirror, commit, id) = (mirror.clone(), commit.clone(), format!("run{number}-g1"));
        let path = host.path(&id);
        opens.spawn(async move { mirror.open_workspace(&path, &id, &commit, "lease").await });
    }
    let mut paths = Vec::new();
    while let Some(opened) = opens.join_next().await {
        let workspace = opened.expect("no panic").expect("opened");
        assert_eq!(fs::read_to_string(workspace.path().join("README.md")).expect("file"), "hello\n");
        paths.push(workspace);
    }
    assert_eq!(host.worktrees(&mirror).await, 50);
    let mut releases = tokio::task::JoinSet::new();
    for workspace in paths {
        let mirror = mirror.clone();
        releases.spawn(async move { mirror.release(workspace.path(), workspace.id()).await });
    }
    while let Some(released) = releases.join_next().await {
        assert!(released.expect("no panic").expect("released") > 0);
    }
    assert_eq!(host.worktrees(&mirror).await, 0);
    assert_eq!(mirror.inventory().await.expect("list"), []);
    for dir in ["trash", "staging"] {
        assert_eq!(fs::read_dir(host.mirrors.root().join(dir)).expect("directory").count(), 0, "{dir}");
    }
    assert!(!mirror.dir().join("worktrees").exists());
}

#[tokio::test]
async fn git_inside_a_workspace_works_as_in_any_clone() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let inside = workspace.path();
    assert_eq!(host.git(inside, &["status", "--porcelain"]).await, "");
    assert_eq!(host.git(inside, &["rev-parse", "HEAD"]).await, commit);
    assert_eq!(host.git(inside, &["branch", "--show-current"]).await, "work");
    assert_eq!(host.git(inside, &["config", "user.email"]).await, "hopyard@localhost");
    put(inside, "new.txt", "new");
    host.git(inside, &["add", "-A"]).await;
    host.git(inside, &["commit", "--quiet", "-m", "by the step"]).await;
    assert_eq!(host.git(inside, &["log", "--format=%s"]).await, "by the step\nfirst");
    assert_eq!(host.git(inside, &["fsck", "--full"]).await, "");

    // Committed inside or not, the content is captured; the mirror's refs were out of reach.
    let snapshot = snap(&workspace, &commit).await;
    let stat = workspace.mirror().diff(&commit, &snapshot.commit).await.expect("diff");
    assert_eq!(stat.files.iter().map(|file| file.path.as_str()).collect::<Vec<_>>(), ["new.txt"]);
    assert_eq!(host.git(workspace.mirror().dir(), &["for-each-ref", "refs/heads"]).await, "");
}

#[tokio::test]
async fn a_whole_workspace_is_taken_over_and_remains_are_cleared() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    put(workspace.path(), "precious.txt", "unsaved work");
    let (again, _) = host.open("run-g1").await;
    assert!(again.path().join("precious.txt").exists(), "a whole workspace keeps its work");

    let mirror = workspace.mirror();
    // A crash before the end of opening: the private directory is not complete.
    fs::remove_file(workspace.path().join(".git/HEAD")).expect("head");
    put(workspace.path(), "half.txt", "half");
    host.open("run-g1").await;
    assert!(!workspace.path().join("half.txt").exists());

    // Only a directory, only an entry.
    put(&host.path("run-g2"), "stray.txt", "stray");
    host.open("run-g2").await;
    assert!(!host.path("run-g2").join("stray.txt").exists());
    fs::remove_dir_all(host.path("run-g2")).expect("deleted by hand");
    host.open("run-g2").await;
    assert_eq!(host.worktrees(mirror).await, 2);
    assert!(mirror.workspace(&host.path("run-g2"), "run-g2").expect("read").is_some());
    assert!(mirror.workspace(&host.path("run-g3"), "run-g3").expect("read").is_none());

    let absent = "1234567890123456789012345678901234567890";
    let error = mirror.open_workspace(&host.path("run-g4"), "run-g4", absent, "x").await.expect_err("no commit");
    assert!(matches!(error, Error::Git { .. }), "{error}");
    assert!(!host.path("run-g4").exists());
    assert_ne!(commit, absent);
}

#[tokio::test]
async fn a_directory_deleted_by_hand_is_listed_and_released() {
    let host = Host::new().await;
    let (workspace, _) = host.open("run-g1").await;
    let mirror = workspace.mirror();
    let path = workspace.path().to_owned();
    let entry = |missing| Entry { id: "run-g1".into(), path: path.clone(), locked: Some("test".into()), missing };
    assert_eq!(mirror.inventory().await.expect("list"), [entry(false)]);
    fs::remove_dir_all(&path).expect("deleted by hand");
    assert_eq!(mirror.inventory().await.expect("list"), [entry(true)]);
    let error = workspace.reset_to(&mirror.resolve(None).await.expect("HEAD")).await.expect_err("gone");
    assert!(matches!(error, Error::WorkspaceMissing { .. }), "{error}");

    assert_eq!(mirror.release(&path, "run-g1").await.expect("released"), 0);
    assert_eq!(mirror.inventory().await.expect("list"), []);
    assert_eq!(host.worktrees(mirror).await, 0);
    assert_eq!(mirror.release(&path, "run-g1").await.expect("released twice"), 0);
}

#[tokio::test]
async fn a_release_frees_the_files_and_keeps_the_snapshot() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let mirror = workspace.mirror();
    put(workspace.path(), "big.bin", vec![1; 500_000]);
    let snapshot = snap(&workspace, &commit).await;
    let error = mirror.release(&host.path("other"), "run-g1").await.expect_err("another path");
    assert!(matches!(error, Error::Invalid { .. }), "{error}");
    assert!(workspace.path().exists());
    assert!(mirror.release(workspace.path(), "run-g1").await.expect("released") >= 500_000);
    assert!(!workspace.path().exists());
    assert!(mirror.has_commit(&snapshot.commit).await.expect("read"));
    let refs = host.git(mirror.dir(), &["for-each-ref", "--format=%(objectname)", "refs/hopyard/run"]).await;
    assert_eq!(refs, snapshot.commit);
}

#[tokio::test]
async fn only_workspaces_can_be_released() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let mirror = workspace.mirror();
    let data = host.mirrors.root();
    for path in [Path::new("/"), data, host.dir.path(), mirror.dir(), &data.join("trash/x"), Path::new("relative"), &host.path("a/../b")] {
        assert!(mirror.release(path, "other").await.is_err(), "{}", path.display());
        assert!(mirror.open_workspace(path, "other", &commit, "x").await.is_err(), "{}", path.display());
    }
    for id in ["", "..", "a/b", "-x", ".hidden", "a.lock", "a b"] {
        assert!(mirror.open_workspace(&host.path("x"), id, &commit, "x").await.is_err(), "{id:?}");
    }
    assert!(mirror.dir().exists());
}

#[tokio::test]
async fn scratch_directories_start_empty_and_are_freed() {
    let host = Host::new().await;
    let path = host.path("run-g1");
    put(&path, "old.txt", "left over");
    host.mirrors.scratch(&path).await.expect("made");
    assert_eq!(fs::read_dir(&path).expect("directory").count(), 0);
    put(&path, "new.txt", vec![0; 10_000]);
    assert!(host.mirrors.release_scratch(&path).await.expect("freed") >= 10_000);
    assert!(!path.exists());
    put(&host.mirrors.root().join("trash"), "left/by/a/crash", vec![0; 10_000]);
    assert!(host.mirrors.empty_trash().await.expect("emptied") >= 10_000);
}

#[tokio::test]
async fn existing_mirrors_are_found_again() {
    let host = Host::new().await;
    let (workspace, _) = host.open("run-g1").await;
    let other = Mirrors::open(host.mirrors.root().to_owned(), Settings::default()).expect("opened");
    let found = other.existing().expect("list");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].repo(), host.source().display().to_string());
    found[0].release(workspace.path(), "run-g1").await.expect("a janitor needs no allow list");
    assert!(other.check_git().await.expect("git") >= crate::git::OLDEST);
}
