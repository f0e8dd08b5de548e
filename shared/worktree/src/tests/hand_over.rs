//! Diffs, patches, bundles, branches, pushes and merges.

use super::*;
use crate::{Error, FileStatus, Merge, MergeOutcome, PushOutcome};

/// A snapshot on the source's HEAD that writes one file.
async fn work(host: &Host, id: &str, name: &str, text: &str) -> (Workspace, String, String) {
    let (workspace, base) = host.open(id).await;
    put(workspace.path(), name, text);
    let head = snap(&workspace, &base).await.commit;
    (workspace, base, head)
}

#[tokio::test]
async fn a_diff_counts_files_and_lines_and_its_patch_applies() {
    let host = Host::new().await;
    host.write("bin.dat", "\0\u{1}old");
    host.write("old-name.txt", "a line that is long enough\nand another one\n");
    host.commit("second").await;
    let (workspace, base) = host.open("run-g1").await;
    let inside = workspace.path();
    put(inside, "bin.dat", b"\0\x01\x02new");
    put(inside, "added.txt", "1\n2\n3\n");
    put(inside, "src/lib.rs", "one\n2\nthree\nfour\nfive\n");
    fs::remove_file(inside.join("README.md")).expect("delete");
    fs::rename(inside.join("old-name.txt"), inside.join("new-name.txt")).expect("rename");
    fs::remove_file(inside.join(".gitignore")).expect("delete");
    std::os::unix::fs::symlink("src", inside.join(".gitignore")).expect("link");
    let head = snap(&workspace, &base).await.commit;
    let mirror = workspace.mirror();
    let stat = mirror.diff(&base, &head).await.expect("diff");
    let rows: Vec<_> = stat.files.iter().map(|f| (f.path.as_str(), f.status, f.insertions, f.deletions)).collect();
    assert_eq!(
        rows,
        [
            (".gitignore", FileStatus::Typechange, 1, 2),
            ("README.md", FileStatus::Deleted, 0, 1),
            ("added.txt", FileStatus::Added, 3, 0),
            ("bin.dat", FileStatus::Modified, 0, 0),
            ("new-name.txt", FileStatus::Renamed, 0, 0),
            ("src/lib.rs", FileStatus::Modified, 1, 1),
        ]
    );
    assert_eq!(stat.files[4].old_path.as_deref(), Some("old-name.txt"));
    assert_eq!((stat.insertions, stat.deletions), (5, 4));
    assert_eq!(FileStatus::Renamed.as_str(), "renamed");

    let patch = host.dir.path().join("work.patch");
    mirror.patch(&base, &head, &patch).await.expect("patch");
    host.git(&host.source(), &["apply", "--index", &patch.display().to_string()]).await;
    let tree = host.git(&host.source(), &["write-tree"]).await;
    assert_eq!(tree, host.git(mirror.dir(), &["rev-parse", &format!("{head}^{{tree}}")]).await);
    mirror.patch(&base, &base, &patch).await.expect("empty");
    assert_eq!(fs::metadata(&patch).expect("file").len(), 0);
    assert_eq!(mirror.diff(&base, &base).await.expect("diff").files, []);
}

#[tokio::test]
async fn a_plain_clone_can_fetch_a_bundle() {
    let host = Host::new().await;
    let (workspace, base, head) = work(&host, "run-g1", "work.txt", "work\n").await;
    let mirror = workspace.mirror();
    let bundle = host.dir.path().join("work.bundle");
    assert!(mirror.bundle(&base, &head, "hopyard/fix/run", &bundle).await.expect("bundle"));
    let clone = host.dir.path().join("clone");
    let (from, to) = (host.source().display().to_string(), clone.display().to_string());
    host.git(host.dir.path(), &["clone", "--quiet", &from, &to]).await;
    let file = bundle.display().to_string();
    host.git(&clone, &["fetch", "--quiet", &file, "hopyard/fix/run:fixed"]).await;
    assert_eq!(host.git(&clone, &["rev-parse", "fixed"]).await, head);
    assert_eq!(host.git(&clone, &["show", "fixed:work.txt"]).await, "work");
    assert!(!mirror.bundle(&base, &base, "b", &host.dir.path().join("none")).await.expect("nothing to hand over"));
    assert!(!mirror.bundle(&head, &base, "b", &host.dir.path().join("none")).await.expect("nothing to hand over"));
    assert!(!host.dir.path().join("none").exists());
    assert_eq!(fs::read_dir(host.mirrors.root().join("staging")).expect("directory").count(), 0);
}

#[tokio::test]
async fn a_branch_moves_only_from_where_it_is_expected() {
    let host = Host::new().await;
    let (workspace, base, head) = work(&host, "run-g1", "work.txt", "work\n").await;
    let mirror = workspace.mirror();
    mirror.set_branch("hopyard/fix/run", &base, None).await.expect("made");
    mirror.set_branch("hopyard/fix/run", &base, None).await.expect("made twice");
    let error = mirror.set_branch("hopyard/fix/run", &head, None).await.expect_err("it exists");
    assert!(matches!(&error, Error::BranchMoved { found, .. } if *found == base), "{error}");
    mirror.set_branch("hopyard/fix/run", &head, Some(&base)).await.expect("moved");
    let error = mirror.set_branch("hopyard/fix/run", &base, Some(&base)).await.expect_err("idempotent by target only");
    assert!(matches!(error, Error::BranchMoved { .. }), "{error}");
    assert!(mirror.set_branch("absent", &head, Some(&base)).await.is_err());
    // Fetching never touches run branches.
    host.git(&host.source(), &["branch", "hopyard/fix/run"]).await;
    mirror.resolve(Some("hopyard/fix/run")).await.expect("found");
    assert_eq!(host.git(mirror.dir(), &["rev-parse", "refs/heads/hopyard/fix/run"]).await, head);
}

#[tokio::test]
async fn a_push_is_repeatable_and_spares_the_work_of_others() {
    let host = Host::new().await;
    let (workspace, base, head) = work(&host, "run-g1", "work.txt", "work\n").await;
    let mirror = workspace.mirror();
    let repo = host.source().display().to_string();
    assert_eq!(mirror.push("run/1", &repo, &head).await.expect("pushed"), PushOutcome::Created);
    assert_eq!(mirror.push("run/1", &repo, &head).await.expect("again"), PushOutcome::UpToDate);
    assert_eq!(host.git(&host.source(), &["rev-parse", "run/1"]).await, head);
    // Another attempt's work that does not follow the first: it was our own push, so it may be replaced.
    put(workspace.path(), "work.txt", "better\n");
    let better = snap(&workspace, &base).await.commit;
    assert_eq!(mirror.push("run/1", &repo, &better).await.expect("replaced"), PushOutcome::Updated);
    // Somebody else's commit on the branch stays.
    host.git(&host.source(), &["branch", "-f", "run/1", "main"]).await;
    host.write("theirs.txt", "theirs\n");
    let theirs = host.commit("theirs").await;
    host.git(&host.source(), &["branch", "-f", "run/1", &theirs]).await;
    let error = mirror.push("run/1", &repo, &head).await.expect_err("not ours");
    assert!(matches!(&error, Error::BranchMoved { found, .. } if *found == theirs), "{error}");
    assert_eq!(host.git(&host.source(), &["rev-parse", "run/1"]).await, theirs);
    // A branch of the source that our work follows may be moved forward.
    host.git(&host.source(), &["branch", "follow", &base]).await;
    assert_eq!(mirror.push("follow", &repo, &head).await.expect("forward"), PushOutcome::Updated);
    let absent = host.dir.path().join("absent").display().to_string();
    let error = mirror.push("x", &absent, &head).await.expect_err("no repository");
    assert!(matches!(error, Error::RepoUnavailable { .. }), "{error}");
}

#[tokio::test]
async fn a_merge_joins_both_sides_or_names_the_conflict() {
    let host = Host::new().await;
    host.git(&host.source(), &["branch", "target"]).await;
    let merge = |head| Merge { target: "target", head, message: "merge run", author: AUTHOR };
    let (workspace, base, head) = work(&host, "run-g1", "work.txt", "work\n").await;
    let mirror = workspace.mirror();
    let rev = async |name: &str| host.git(&host.source(), &["rev-parse", name]).await;

    // The target has not moved: it follows.
    let outcome = mirror.merge(merge(&head)).await.expect("merged");
    assert_eq!(outcome, MergeOutcome::Merged { commit: head.clone() });
    assert_eq!(rev("target").await, head);
    assert_eq!(mirror.merge(merge(&head)).await.expect("again"), MergeOutcome::AlreadyMerged { commit: head.clone() });

    // Both sides moved in different places.
    put(workspace.path(), "work.txt", "work\n");
    put(workspace.path(), "second.txt", "second\n");
    fs::remove_file(workspace.path().join("work.txt")).expect("delete");
    let second = snap(&workspace, &base).await.commit;
    let MergeOutcome::Merged { commit } = mirror.merge(merge(&second)).await.expect("merged") else {
        panic!("no conflict was expected");
    };
    assert_eq!(rev("target").await, commit);
    assert_eq!(rev("target^1").await, head);
    assert_eq!(rev("target^2").await, second);
    assert_eq!(host.git(&host.source(), &["ls-tree", "--name-only", "target"]).await.lines().count(), 5);

    // Both sides changed one line.
    host.git(&host.source(), &["checkout", "--quiet", "target"]).await;
    host.write("src/lib.rs", "one\ntheirs\nthree\nfour\nfive\n");
    let theirs = host.commit("theirs").await;
    host.git(&host.source(), &["checkout", "--quiet", "main"]).await;
    put(workspace.path(), "src/lib.rs", "one\nours\nthree\nfour\nfive\n");
    let ours = snap(&workspace, &base).await.commit;
    let outcome = mirror.merge(merge(&ours)).await.expect("an answer");
    assert_eq!(outcome, MergeOutcome::Conflict { target: theirs.clone(), paths: vec!["src/lib.rs".into()] });
    assert_eq!(rev("target").await, theirs, "a conflict writes nothing");

    let absent = Merge { target: "absent", ..merge(&ours) };
    assert!(matches!(mirror.merge(absent).await, Err(Error::RefNotFound { .. })));
}

#[tokio::test]
async fn a_change_is_made_again_where_it_fits_and_not_in_part_where_it_does_not() {
    let host = Host::new().await;
    host.write("bin.dat", "\0\u{1}old");
    host.commit("second").await;
    let (first, base) = host.open("run-g1").await;
    put(first.path(), "bin.dat", b"\0\x01\x02new");
    put(first.path(), "added.txt", "1\r\n2 \n");
    fs::remove_file(first.path().join("README.md")).expect("delete");
    let change = snap(&first, &base).await.commit;

    let (again, base) = host.open("run-g2").await;
    put(again.path(), "src/lib.rs", "one\n2\nthree\nfour\nfive\n");
    again.reapply(&change).await.expect("it fits");
    let taken = snap(&again, &base).await;
    let stat = again.mirror().diff(&change, &taken.commit).await.expect("diff");
    assert_eq!(stat.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["src/lib.rs"], "what else there was stays");

    let (other, base) = host.open("run-g3").await;
    put(other.path(), "added.txt", "there already\n");
    let error = other.reapply(&change).await.expect_err("it does not fit");
    assert!(matches!(&error, Error::Git { .. }) && error.to_string().contains("added.txt"), "{error}");
    put(other.path(), "added.txt", "");
    fs::remove_file(other.path().join("added.txt")).expect("delete");
    assert!(!snap(&other, &base).await.changed, "nothing of it was made");
}
