//! Sessions that go on at another host: real git, two data directories, one blob store.

use std::time::Duration;

use hopyard_contract::RunId;
use hopyard_contract::message::Grant;
use hopyard_contract::plan::Work;

use super::*;

struct Bench {
    dir: tempfile::TempDir,
    url: String,
    blobs: Blobs,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let url = dir.path().join("source").display().to_string();
        std::fs::create_dir(&url).unwrap();
        git(&url, &["init", "--quiet", "--initial-branch=main"]);
        std::fs::write(Path::new(&url).join("a"), "source\n").unwrap();
        git(&url, &["add", "-A"]);
        git(&url, &["commit", "--quiet", "-m", "first"]);
        let blobs = Blobs::open(&dir.path().join("blobs").display().to_string()).unwrap();
        Self { dir, url, blobs }
    }

    /// The mirror of a host.
    async fn mirror(&self, host: &str) -> Mirror {
        let allow = vec![self.dir.path().display().to_string()];
        let settings = hopyard_worktree::Settings { fetch_interval: Duration::ZERO, allow, ..Default::default() };
        let mirrors = Mirrors::open(self.dir.path().join(host), settings).unwrap();
        mirrors.mirror(&self.url).await.unwrap()
    }

    /// The session's directory at a host, made at a commit.
    async fn make(&self, host: &str, head: &str, origin: &str) -> Git {
        let mirror = self.mirror(host).await;
        mirror.resolve(Some(head)).await.unwrap();
        let workspace = mirror.open_workspace(&self.path(host), "s1", head, "test").await.unwrap();
        let record = Record {
            url: self.url.clone(),
            base: head.to_owned(),
            origin: Some(origin.to_owned()),
            head: head.to_owned(),
            owner: "first-g1".to_owned(),
        };
        Git { workspace, record }
    }

    fn path(&self, host: &str) -> PathBuf {
        self.dir.path().join(format!("sessions-{host}"))
    }

    /// A run of the session that writes a file, from its start to its kept result.
    async fn carry_out(&self, git: &mut Git, file: &str) -> GitResult {
        let attempt = AttemptId { run: RunId::mint(), step: Name::literal("a"), n: 1 };
        std::fs::write(git.workspace.path().join(file), file).unwrap();
        git.record.base = git.record.head.clone();
        let (workflow, branch) = (Name::literal("w"), format!("hopyard/w/{}", attempt.run));
        let author = Author { attempt: &attempt, workflow: &workflow, session: None, branch: &branch, quarantined: false };
        let head = snapshot(git, &author).await.unwrap();
        let mirror = git.workspace.mirror().clone();
        hand_over(&mirror, &git.record, &head, &branch, &self.blobs, self.dir.path()).await.unwrap()
    }
}

/// A person's git in a directory.
#[expect(clippy::disallowed_methods, reason = "the source belongs to people with their own git")]
fn git(dir: &str, args: &[&str]) {
    let mut call = std::process::Command::new("git");
    call.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        call.env(format!("GIT_{who}_NAME"), "Person").env(format!("GIT_{who}_EMAIL"), "person@example.org");
    }
    let output = call.output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn grant(url: &str, restore: Restore) -> Grant {
    Grant {
        attempt: AttemptId { run: RunId::mint(), step: Name::literal("a"), n: 1 },
        token: uuid::Uuid::new_v4(),
        lease_ms: 20_000,
        namespace: Name::default_namespace(),
        workflow: Name::literal("w"),
        work: Work::Shell("true".to_owned()),
        env: Default::default(),
        answer: None,
        timeout_ms: None,
        idle_timeout_ms: None,
        grace_ms: None,
        workspace: WorkspaceOrder {
            mode: WorkspaceMode::Persistent,
            generation: 1,
            url: Some(url.to_owned()),
            reference: None,
            commit: None,
            restore: Some(restore),
            reset_to: None,
            session: Some(Name::literal("s1")),
            variant: None,
            branch: "hopyard/w/next".to_owned(),
        },
        allowance: None,
        traceparent: None,
    }
}

#[tokio::test]
async fn a_session_of_several_runs_is_restored_from_the_last_bundle_alone() {
    let bench = Bench::new();
    let base = bench.mirror("one").await.resolve(None).await.unwrap();
    let mut git = bench.make("one", &base, &base).await;
    let first = bench.carry_out(&mut git, "first").await;
    let second = bench.carry_out(&mut git, "second").await;
    assert_eq!((second.base.as_str(), second.files.len()), (first.head.as_str(), 1), "a run shows its own changes");

    let restore = Restore { commit: second.head.clone(), bundle: second.bundle, origin: Some(base.clone()) };
    let mirror = bench.mirror("two").await;
    assert!(!mirror.has_commit(&second.head).await.unwrap());
    assert_eq!(restore_commit(&mirror, &restore, &bench.path("two"), &bench.blobs).await.unwrap(), second.head);
    assert!(mirror.is_ancestor(&base, &second.head).await.unwrap(), "the history of the whole session came along");

    let unchanged = Restore { commit: base.clone(), bundle: None, origin: None };
    let mirror = bench.mirror("three").await;
    assert_eq!(restore_commit(&mirror, &unchanged, &bench.path("three"), &bench.blobs).await.unwrap(), base);
    let lost = Restore { commit: "0".repeat(40), bundle: None, origin: None };
    let error = restore_commit(&mirror, &lost, &bench.path("three"), &bench.blobs).await.unwrap_err();
    assert!(format!("{error:#}").contains("was not stored"), "{error:#}");
}

#[tokio::test]
async fn a_directory_that_was_left_behind_catches_up() {
    let bench = Bench::new();
    let base = bench.mirror("one").await.resolve(None).await.unwrap();
    // Both hosts had the session at one time; it went on at the second.
    let mut old = bench.make("one", &base, &base).await;
    let mut current = bench.make("two", &base, &base).await;
    let newest = bench.carry_out(&mut current, "newest").await;
    std::fs::write(old.workspace.path().join("left"), "left").unwrap();
    let restore = Restore { commit: newest.head.clone(), bundle: newest.bundle, origin: Some(base.clone()) };
    let order = grant(&bench.url, restore);
    catch_up(&mut old, &order, &bench.path("one"), &bench.blobs).await.unwrap();
    assert_eq!(old.record.head, newest.head);
    assert!(old.workspace.path().join("newest").exists() && !old.workspace.path().join("left").exists());

    // A directory that is where the session is, or further, stays as it is.
    std::fs::write(current.workspace.path().join("ahead"), "ahead").unwrap();
    catch_up(&mut current, &order, &bench.path("two"), &bench.blobs).await.unwrap();
    let ahead = bench.carry_out(&mut current, "more").await;
    catch_up(&mut current, &order, &bench.path("two"), &bench.blobs).await.unwrap();
    assert_eq!(current.record.head, ahead.head);
    assert!(current.workspace.path().join("ahead").exists());
}
