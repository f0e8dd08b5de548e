//! From sources to commits: references of all kinds, odd sources, missing things.

use super::*;
use crate::Error;

#[tokio::test]
async fn every_kind_of_reference_is_resolved() {
    let host = Host::new().await;
    let source = host.source();
    let first = host.git(&source, &["rev-parse", "HEAD"]).await;
    host.git(&source, &["tag", "-a", "v1", "-m", "annotated"]).await;
    host.git(&source, &["branch", "both"]).await;
    host.write("README.md", "second\n");
    let second = host.commit("second").await;
    host.git(&source, &["tag", "both"]).await;
    host.git(&source, &["update-ref", "refs/tags/refs/heads/main", &first]).await;
    host.git(&source, &["update-ref", "refs/pull/7/head", &first]).await;
    let mirror = host.mirror().await;
    for (reference, commit) in [
        (None, &second),
        (Some("HEAD"), &second),
        (Some("main"), &second),
        (Some("refs/heads/main"), &second),
        (Some("v1"), &first),
        (Some("refs/tags/v1"), &first),
        (Some("both"), &first),
        (Some("refs/tags/both"), &second),
        (Some("refs/pull/7/head"), &first),
        (Some(first.as_str()), &first),
    ] {
        assert_eq!(&mirror.resolve(reference).await.expect("found"), commit, "{reference:?}");
    }
    for absent in ["nope", "refs/heads/nope", "refs/pull/8/head", "main^", "v1~1", "a..b", "-x", "@{1}", &"0".repeat(39), &"1".repeat(40)] {
        let error = mirror.resolve(Some(absent)).await.expect_err("absent");
        assert!(matches!(error, Error::RefNotFound { .. }), "{absent}: {error}");
        assert!(!error.is_transient(), "{error}");
    }
}

#[tokio::test]
async fn a_mirror_is_fetched_once_per_interval_unless_something_is_missing() {
    let host = Host::with_interval(Duration::from_secs(3600)).await;
    let mirror = host.mirror().await;
    let first = mirror.resolve(Some("main")).await.expect("found");
    host.write("README.md", "second\n");
    let second = host.commit("second").await;
    assert_eq!(mirror.resolve(Some("main")).await.expect("found"), first, "within the interval");
    host.git(&host.source(), &["branch", "new"]).await;
    assert_eq!(mirror.resolve(Some("new")).await.expect("fetched for it"), second);
    assert_eq!(mirror.resolve(Some("main")).await.expect("found"), second);
    host.write("README.md", "third\n");
    let third = host.commit("third").await;
    assert_eq!(mirror.resolve(Some(&third)).await.expect("fetched for it"), third);
    // Branches that are gone at the source give way to others.
    host.git(&host.source(), &["branch", "-D", "new"]).await;
    host.git(&host.source(), &["branch", "new/deep"]).await;
    assert_eq!(mirror.resolve(Some("new/deep")).await.expect("found"), third);
    assert!(mirror.resolve(Some("new")).await.is_err());
}

#[tokio::test]
async fn a_shallow_source_with_a_detached_head_can_be_used() {
    let host = Host::new().await;
    host.write("README.md", "second\n");
    host.commit("second").await;
    let shallow = host.dir.path().join("shallow");
    let from = format!("file://{}", host.source().display());
    host.git(host.dir.path(), &["clone", "--quiet", "--depth=1", &from, &shallow.display().to_string()]).await;
    host.git(&shallow, &["checkout", "--quiet", "--detach"]).await;
    put(&shallow, "detached.txt", "in no branch\n");
    host.git(&shallow, &["add", "-A"]).await;
    host.git(&shallow, &["commit", "--quiet", "-m", "detached"]).await;
    let head = host.git(&shallow, &["rev-parse", "HEAD"]).await;

    let mirror = host.mirrors.mirror(&shallow.display().to_string()).await.expect("mirror");
    assert_eq!(mirror.resolve(None).await.expect("HEAD"), head);
    let workspace = mirror.open_workspace(&host.path("run-g1"), "run-g1", &head, "x").await.expect("opened");
    assert!(workspace.path().join("detached.txt").exists());
    assert_eq!(host.git(workspace.path(), &["log", "--format=%s"]).await, "detached\nsecond");
    put(workspace.path(), "work.txt", "work\n");
    let snapshot = snap(&workspace, &head).await;
    assert_eq!(mirror.diff(&head, &snapshot.commit).await.expect("diff").insertions, 1);
    let bundle = host.dir.path().join("b.bundle");
    assert!(mirror.bundle(&head, &snapshot.commit, "b", &bundle).await.expect("bundle"));
    host.git(&shallow, &["fetch", "--quiet", &bundle.display().to_string(), "refs/heads/b"]).await;
}

#[tokio::test]
async fn an_absent_or_empty_repository_says_so_in_gits_words() {
    let host = Host::new().await;
    let absent = host.dir.path().join("absent");
    let mirror = host.mirrors.mirror(&absent.display().to_string()).await.expect("no contact yet");
    let error = mirror.resolve(None).await.expect_err("absent");
    assert!(matches!(&error, Error::RepoUnavailable { .. }), "{error}");
    assert!(error.to_string().contains("does not appear to be a git repository"), "{error}");
    assert!(!error.is_transient());

    host.git(host.dir.path(), &["init", "--quiet", "--bare", "absent"]).await;
    let error = mirror.resolve(None).await.expect_err("empty");
    assert!(matches!(&error, Error::RefNotFound { .. }), "{error}");

    let error = host.mirrors.mirror("/usr/share").await.expect_err("not allowed");
    assert!(matches!(&error, Error::NotAllowed { .. }), "{error}");
}

#[tokio::test]
async fn a_host_that_cannot_be_reached_is_worth_another_try() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    drop(listener);
    let allow = vec!["http://".to_owned()];
    let settings = Settings { allow, timeout: Duration::from_secs(30), ..Settings::default() };
    let mirrors = Mirrors::open(dir.path().join("data"), settings).expect("opened");
    let mirror = mirrors.mirror(&format!("http://127.0.0.1:{port}/a")).await.expect("no contact yet");
    let error = mirror.resolve(None).await.expect_err("nobody listens");
    assert!(matches!(&error, Error::RepoUnavailable { .. }), "{error}");
    assert!(error.is_transient(), "{error}");
}

#[tokio::test]
async fn a_bundle_brings_work_to_another_host() {
    let host = Host::new().await;
    let (workspace, base) = host.open("run-g1").await;
    put(workspace.path(), "work.txt", "work\n");
    let snapshot = snap(&workspace, &base).await;
    let bundle = host.dir.path().join("work.bundle");
    assert!(workspace.mirror().bundle(&base, &snapshot.commit, "save", &bundle).await.expect("bundle"));

    let settings = Settings { allow: vec![host.dir.path().display().to_string()], ..Settings::default() };
    let elsewhere = Mirrors::open(host.dir.path().join("other-host"), settings).expect("opened");
    let mirror = elsewhere.mirror(&host.source().display().to_string()).await.expect("mirror");
    let bytes = fs::read(&bundle).expect("bundle");
    let damaged = host.dir.path().join("damaged.bundle");
    fs::write(&damaged, &bytes[..bytes.len() - 30]).expect("file");
    assert!(mirror.import_bundle(&damaged, &snapshot.commit).await.is_err(), "cut off");
    // The base is fetched because the bundle builds on it.
    mirror.import_bundle(&bundle, &snapshot.commit).await.expect("imported");
    let path = host.path("run-g2");
    mirror.open_workspace(&path, "run-g2", &snapshot.commit, "x").await.expect("opened");
    assert_eq!(fs::read_to_string(path.join("work.txt")).expect("file"), "work\n");
    mirror.import_bundle(&bundle, &snapshot.commit).await.expect("imported twice");
    mirror.maintain().await.expect("maintained");
    assert!(mirror.has_commit(&snapshot.commit).await.expect("read"));

    let wrong = "2".repeat(40);
    assert!(mirror.import_bundle(&bundle, &wrong).await.is_err(), "another commit was promised");
}
