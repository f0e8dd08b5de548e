//! Checkouts that are made ahead: who takes them gets exactly the commit, and they stay within their limits.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::Warm;

const TWO: Warm = Warm { trees: 2, bytes: u64::MAX };

/// A host whose source has so many files that checkouts of it are made ahead.
async fn large() -> Host {
    let host = Host::new().await;
    for number in 0..600 {
        host.write(&format!("many/{}/{number}.txt", number % 7), &format!("file {number}\n"));
    }
    host.commit("many").await;
    host
}

/// Directories of the checkouts that wait.
fn waiting(mirror: &Mirror) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(mirror.dir().with_extension("warm")) else { return Vec::new() };
    let mut found: Vec<_> = entries.map(|entry| entry.expect("entry").path()).filter(|path| path.is_dir()).collect();
    found.sort();
    found
}

fn inode(path: &Path) -> u64 {
    fs::metadata(path).expect("there").ino()
}

#[tokio::test]
async fn a_workspace_takes_the_files_that_were_made_ahead() {
    let host = large().await;
    let (first, commit) = host.open("run1-g1").await;
    assert!(!first.was_warm());
    assert!(first.warm_next(&commit, TWO).await.expect("made"));
    assert!(!first.warm_next(&commit, TWO).await.expect("asked"), "as many as are wanted wait already");
    let trees = waiting(first.mirror());
    assert_eq!(trees.len(), 2);
    let waited: Vec<u64> = trees.iter().map(|dir| inode(&dir.join("tree/many/3/500.txt"))).collect();

    let (second, _) = host.open("run2-g1").await;
    assert!(second.was_warm());
    assert!(waited.contains(&inode(&second.path().join("many/3/500.txt"))), "the very files were moved");
    assert_eq!(waiting(first.mirror()).len(), 1);
    assert_eq!(host.git(second.path(), &["status", "--porcelain", "--ignored"]).await, "");
    assert_eq!(host.git(second.path(), &["rev-parse", "HEAD"]).await, commit);
    // What a step does in it is found, and nothing else.
    put(second.path(), "many/3/500.txt", "other\n");
    fs::remove_file(second.path().join("many/0/0.txt")).expect("deleted");
    put(second.path(), "new.txt", "new\n");
    let snapshot = snap(&second, &commit).await;
    let stat = second.mirror().diff(&commit, &snapshot.commit).await.expect("diff");
    assert_eq!(stat.files.iter().map(|f| f.path.as_str()).collect::<Vec<_>>(), ["many/0/0.txt", "many/3/500.txt", "new.txt"]);
    // Nor has anything come into the other one.
    let (third, _) = host.open("run3-g1").await;
    assert!(third.was_warm());
    assert_eq!(host.git(third.path(), &["status", "--porcelain", "--ignored"]).await, "");
    let entries = fs::read_dir(host.mirrors.root().join("staging")).expect("directory").count();
    assert_eq!(entries, 0, "nothing is left half made");
}

#[tokio::test]
async fn files_of_an_older_commit_become_those_of_the_one_that_is_wanted() {
    let host = large().await;
    let (first, old) = host.open("run1-g1").await;
    assert!(first.warm_next(&old, TWO).await.expect("made"));
    host.write("many/1/1.txt", "changed\n");
    fs::remove_file(host.source().join("many/2/2.txt")).expect("deleted");
    fs::remove_dir_all(host.source().join("many/5")).expect("deleted");
    host.write("many/5", "a file now\n");
    fs::set_permissions(host.source().join("many/3/3.txt"), fs::Permissions::from_mode(0o755)).expect("mode");
    host.write("fresh/deep/file", "fresh\n");
    let new = host.commit("moved on").await;

    let (second, commit) = host.open("run2-g1").await;
    assert_eq!(commit, new);
    assert!(second.was_warm());
    assert_eq!(host.git(second.path(), &["status", "--porcelain", "--ignored"]).await, "");
    assert_eq!(host.git(second.path(), &["diff", "--stat", &new]).await, "");
    assert_eq!(fs::read_to_string(second.path().join("many/5")).expect("file"), "a file now\n");
    assert!(!second.path().join("many/2/2.txt").exists());
    assert_eq!(snap(&second, &new).await.commit, new, "nothing differs from the commit");
    // Those of the new commit take the place of what is left of the old one.
    assert!(second.warm_next(&new, TWO).await.expect("made"));
    let trees = waiting(second.mirror());
    assert_eq!(trees.len(), 2);
    assert!(trees.iter().all(|dir| dir.file_name().expect("name").to_string_lossy().starts_with(&new)), "{trees:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_at_once_share_what_there_is_and_none_gets_half_of_it() {
    let host = large().await;
    let (first, commit) = host.open("run0-g1").await;
    assert!(first.warm_next(&commit, Warm { trees: 3, ..TWO }).await.expect("made"));
    let mut opens = tokio::task::JoinSet::new();
    for number in 1..=8 {
        let (mirror, commit, id) = (first.mirror().clone(), commit.clone(), format!("run{number}-g1"));
        let path = host.path(&id);
        opens.spawn(async move { mirror.open_workspace(&path, &id, &commit, "lease").await });
    }
    let mut warm = 0;
    while let Some(opened) = opens.join_next().await {
        let workspace = opened.expect("no panic").expect("opened");
        warm += usize::from(workspace.was_warm());
        assert_eq!(host.git(workspace.path(), &["status", "--porcelain", "--ignored"]).await, "");
        assert_eq!(fs::read_to_string(workspace.path().join("many/3/500.txt")).expect("file"), "file 500\n");
    }
    assert_eq!((warm, waiting(first.mirror()).len()), (3, 0));
}

#[tokio::test]
async fn nothing_is_made_of_a_small_repository_or_beyond_the_limits() {
    let small = Host::new().await;
    let (workspace, commit) = small.open("run-g1").await;
    assert!(!workspace.warm_next(&commit, TWO).await.expect("asked"));

    let host = large().await;
    let (workspace, commit) = host.open("run-g1").await;
    assert!(!workspace.warm_next(&commit, Warm { trees: 0, ..TWO }).await.expect("asked"), "none are wanted");
    // How large one is, is known once one was made; then it is not tried again.
    let tight = Warm { bytes: 1000, ..TWO };
    assert!(workspace.warm_next(&commit, tight).await.expect("made"));
    assert_eq!(waiting(workspace.mirror()).len(), 0);
    assert!(!workspace.warm_next(&commit, tight).await.expect("asked"));
    // Room for one and a half.
    let size = fs::read_to_string(workspace.mirror().dir().with_extension("warm").join("size")).expect("size");
    let bytes = size.parse::<u64>().expect("a number");
    assert!(bytes > 600, "{bytes}");
    assert!(workspace.warm_next(&commit, Warm { bytes: bytes * 3 / 2, ..TWO }).await.expect("made"));
    assert_eq!(waiting(workspace.mirror()).len(), 1);
}

#[tokio::test]
async fn the_oldest_of_another_repository_gives_way_and_what_nobody_takes_goes() {
    let host = large().await;
    let (workspace, commit) = host.open("run1-g1").await;
    assert!(workspace.warm_next(&commit, TWO).await.expect("made"));
    // A second repository on the same host, with the same files.
    let copy = host.dir.path().join("copy");
    host.git(host.dir.path(), &["clone", "--quiet", "source", "copy"]).await;
    let mirror = host.mirrors.mirror(&copy.display().to_string()).await.expect("mirror");
    assert_eq!(mirror.resolve(None).await.expect("HEAD"), commit);
    let other = mirror.open_workspace(&host.path("run2-g1"), "run2-g1", &commit, "test").await.expect("opened");
    assert!(!other.was_warm(), "each repository has its own");
    let sizes: Vec<u64> = waiting(workspace.mirror())
        .iter()
        .map(|dir| dir.file_name().expect("name").to_string_lossy().split('-').nth(1).expect("bytes").parse().expect("a number"))
        .collect();
    let room = sizes.iter().sum::<u64>();
    assert!(other.warm_next(&commit, Warm { trees: 1, bytes: room }).await.expect("made"));
    assert_eq!((waiting(workspace.mirror()).len(), waiting(other.mirror()).len()), (1, 1));

    assert_eq!(host.mirrors.drop_warm(Duration::from_secs(3600)).await.expect("looked"), 0, "they are young");
    assert!(host.mirrors.drop_warm(Duration::ZERO).await.expect("dropped") > 0);
    assert_eq!((waiting(workspace.mirror()).len(), waiting(other.mirror()).len()), (0, 0));
}
