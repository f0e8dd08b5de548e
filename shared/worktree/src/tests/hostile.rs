//! Code in a workspace must never make the service run or read anything of its choosing.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;
use crate::Error;

/// A script that leaves a mark when anybody runs it.
fn trap(host: &Host) -> (String, PathBuf) {
    let (script, mark) = (host.dir.path().join("trap.sh"), host.dir.path().join("mark"));
    fs::write(&script, format!("#!/bin/sh\necho \"$0 $*\" >> '{}'\ncat\n", mark.display())).expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("executable");
    (script.display().to_string(), mark)
}

/// Sets every configuration that makes git run something.
async fn poison(host: &Host, dir: &Path, script: &str) {
    for key in [
        "core.fsmonitor",
        "core.sshCommand",
        "core.editor",
        "core.pager",
        "diff.external",
        "filter.evil.clean",
        "filter.evil.smudge",
        "gpg.program",
        "diff.evil.textconv",
        "merge.evil.driver",
    ] {
        host.git(dir, &["config", key, script]).await;
    }
    let hooks = dir.join(".git/evil-hooks");
    fs::create_dir_all(&hooks).expect("hooks");
    for hook in ["pre-commit", "post-checkout", "post-index-change", "reference-transaction", "post-commit"] {
        symlink(script, hooks.join(hook)).expect("hook");
    }
    host.git(dir, &["config", "core.hooksPath", &hooks.display().to_string()]).await;
}

#[tokio::test]
async fn nothing_of_a_poisoned_workspace_is_executed() {
    let host = Host::new().await;
    let (script, mark) = trap(&host);
    let (workspace, commit) = host.open("run-g1").await;
    let inside = workspace.path();
    poison(&host, inside, &script).await;
    put(inside, ".gitattributes", "* filter=evil diff=evil merge=evil\n");
    put(inside, "work.txt", "work\n");
    // The same inside a nested repository, with a commit so that git would look at its status.
    let nested = inside.join("vendor/lib");
    put(&nested, "lib.txt", "lib\n");
    host.git(&nested, &["init", "--quiet"]).await;
    host.git(&nested, &["add", "-A"]).await;
    host.git(&nested, &["commit", "--quiet", "-m", "inner"]).await;
    poison(&host, &nested, &script).await;
    let _ = fs::remove_file(&mark);

    let first = snap(&workspace, &commit).await;
    let mirror = workspace.mirror();
    mirror.diff(&commit, &first.commit).await.expect("diff");
    mirror.patch(&commit, &first.commit, &host.dir.path().join("patch")).await.expect("patch");
    mirror.bundle(&commit, &first.commit, "b", &host.dir.path().join("bundle")).await.expect("bundle");
    put(inside, "work.txt", "spoiled\n");
    workspace.reset_to(&first.commit).await.expect("reset");
    // The attributes are in the commit now: a new checkout meets them.
    mirror.open_workspace(&host.path("run-g2"), "run-g2", &first.commit, "x").await.expect("opened");
    mirror.release(inside, "run-g1").await.expect("released");
    assert!(!mark.exists(), "executed: {}", fs::read_to_string(&mark).unwrap_or_default());
    let shown = host.git(mirror.dir(), &["show", &format!("{}:work.txt", first.commit)]).await;
    assert_eq!(shown, "work");

    // The trap does work where its configuration counts.
    let other = host.path("run-g2");
    poison(&host, &other, &script).await;
    put(&other, "more.txt", "more\n");
    host.git(&other, &["add", "more.txt"]).await;
    assert!(mark.exists(), "the trap is no trap");
}

#[tokio::test]
async fn a_submodule_with_poisoned_configuration_is_not_asked_for_its_status() {
    let host = Host::new().await;
    let (script, mark) = trap(&host);
    let nested = host.source().join("vendor/lib");
    put(&nested, "lib.txt", "lib\n");
    host.git(&nested, &["init", "--quiet"]).await;
    host.git(&nested, &["add", "-A"]).await;
    host.git(&nested, &["commit", "--quiet", "-m", "inner"]).await;
    host.commit("with a submodule").await;
    let (workspace, commit) = host.open("run-g1").await;
    // The step fills the submodule, commits there, poisons it and leaves it dirty.
    let filled = workspace.path().join("vendor/lib");
    put(&filled, "lib.txt", "other\n");
    host.git(&filled, &["init", "--quiet"]).await;
    host.git(&filled, &["add", "-A"]).await;
    host.git(&filled, &["commit", "--quiet", "-m", "moved on"]).await;
    let moved = host.git(&filled, &["rev-parse", "HEAD"]).await;
    poison(&host, &filled, &script).await;
    put(&filled, ".gitattributes", "* filter=evil\n");
    put(&filled, "lib.txt", "dirty\n");
    let _ = fs::remove_file(&mark);

    let snapshot = snap(&workspace, &commit).await;
    assert!(!mark.exists(), "executed: {}", fs::read_to_string(&mark).unwrap_or_default());
    let entry = host.git(workspace.mirror().dir(), &["ls-tree", &snapshot.commit, "vendor/lib"]).await;
    assert_eq!(entry, format!("160000 commit {moved}\tvendor/lib"), "the submodule's new commit is recorded");
    workspace.reset_to(&commit).await.expect("reset");
    assert!(!mark.exists(), "executed: {}", fs::read_to_string(&mark).unwrap_or_default());
}

#[tokio::test]
async fn a_replaced_git_directory_changes_nothing() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let inside = workspace.path();
    // A `.git` that points somewhere else, here at the source itself.
    fs::remove_dir_all(inside.join(".git")).expect("private directory");
    put(inside, ".git", format!("gitdir: {}\n", host.source().join(".git").display()));
    put(inside, "work.txt", "work\n");
    let before = host.git(&host.source(), &["for-each-ref"]).await;
    let snapshot = snap(&workspace, &commit).await;
    assert!(snapshot.changed);
    workspace.reset_to(&commit).await.expect("reset");
    assert_eq!(host.git(&host.source(), &["for-each-ref"]).await, before);
    assert_eq!(host.git(inside, &["status", "--porcelain"]).await, "");
    // A link in its place is removed, its target stays.
    fs::remove_dir_all(inside.join(".git")).expect("private directory");
    symlink(host.source().join(".git"), inside.join(".git")).expect("link");
    workspace.reset_to(&commit).await.expect("reset");
    assert!(host.source().join(".git/HEAD").exists());
    assert!(inside.join(".git").symlink_metadata().expect("there").is_dir());
}

#[tokio::test]
async fn a_link_in_place_of_the_workspace_is_refused_and_removed() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let outside = host.dir.path().join("outside");
    put(&outside, "secret.txt", "secret");
    fs::remove_dir_all(workspace.path()).expect("gone");
    symlink(&outside, workspace.path()).expect("link");
    let snapshot = Snapshot { message: "x", refname: "refs/hopyard/run/step/1", parent: &commit, author: AUTHOR };
    assert!(matches!(workspace.snapshot(snapshot).await, Err(Error::WorkspaceMissing { .. })));
    assert!(matches!(workspace.reset_to(&commit).await, Err(Error::WorkspaceMissing { .. })));
    workspace.mirror().release(workspace.path(), "run-g1").await.expect("released");
    assert!(outside.join("secret.txt").exists());
    assert!(workspace.path().symlink_metadata().is_err());
}

#[tokio::test]
async fn names_that_read_as_options_are_refused() {
    let host = Host::new().await;
    let (workspace, commit) = host.open("run-g1").await;
    let mirror = workspace.mirror();
    for branch in ["", "-x", "--upload-pack=x", "a..b", "a b", "a.lock", "HEAD", "x^", "a:b"] {
        assert!(mirror.set_branch(branch, &commit, None).await.is_err(), "{branch:?}");
    }
    for refname in ["refs/heads/main", "refs/hopyard/../heads/x", "--x", "refs/hopyard/a b"] {
        let snapshot = Snapshot { message: "x", refname, parent: &commit, author: AUTHOR };
        assert!(workspace.snapshot(snapshot).await.is_err(), "{refname:?}");
    }
    for commit in ["HEAD", "--output=/tmp/x", "main", &commit[..39], &commit.to_uppercase()] {
        assert!(mirror.diff(commit, commit).await.is_err(), "{commit:?}");
        assert!(workspace.reset_to(commit).await.is_err(), "{commit:?}");
    }
    for repo in ["ext::sh -c id", "--upload-pack=x", "ssh://-oProxyCommand=id/x", "../x", "git://h/x", "/etc"] {
        assert!(host.mirrors.mirror(repo).await.is_err(), "{repo:?}");
    }
}
