//! Real git: a bare repository, a clone that people work in, and a mirror with the work of a run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::{KillOrder, WorkspaceOrder};
use hopyard_contract::plan::{Work, WorkspaceMode};
use hopyard_contract::{AttemptId, Name, RunId};
use hopyard_runtime::clock::BootInstant;
use hopyard_worktree::{Mirrors, Settings, Snapshot};

use super::*;
use crate::live::Live;

const BRANCH: &str = "hopyard/fix/1";

struct Bench {
    dir: tempfile::TempDir,
    grant: Grant,
    live: Arc<Attempt>,
    mirror: Mirror,
    base: String,
    head: String,
    freeze_limit: Duration,
}

impl Bench {
    /// A run that has changed `work.txt`.
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (bare, clone) = (dir.path().join("bare.git"), dir.path().join("clone"));
        git(dir.path(), &["init", "--quiet", "--bare", "--initial-branch=main", "bare.git"]);
        git(dir.path(), &["clone", "--quiet", "bare.git", "clone"]);
        git(&clone, &["checkout", "--quiet", "-b", "main"]);
        commit(&clone, "work.txt", "one\n");
        let url = bare.display().to_string();
        let allow = vec![dir.path().display().to_string()];
        let settings = Settings { fetch_interval: Duration::ZERO, allow, ..Settings::default() };
        let mirror = Mirrors::open(dir.path().join("data"), settings).unwrap().mirror(&url).await.unwrap();
        let base = mirror.resolve(Some("main")).await.unwrap();
        let workspace = mirror.open_workspace(&dir.path().join("ws"), "ws", &base, "test").await.unwrap();
        std::fs::write(workspace.path().join("work.txt"), "one\nour line\n").unwrap();
        let snapshot = Snapshot { message: "work", refname: "refs/hopyard/run/a/1", parent: &base, author: AUTHOR };
        let head = workspace.snapshot(snapshot).await.unwrap().commit;
        let grant = grant(url);
        let live = Live::new(1).enter(&grant, BootInstant::now()).unwrap();
        Self { dir, grant, live, mirror, base, head, freeze_limit: Duration::ZERO }
    }

    fn clone(&self) -> PathBuf {
        self.dir.path().join("clone")
    }

    /// Where a branch of the repository is.
    fn at(&self, branch: &str) -> Option<String> {
        let list = git(&self.dir.path().join("bare.git"), &["for-each-ref", "--format=%(objectname)", &format!("refs/heads/{branch}")]);
        (!list.is_empty()).then_some(list)
    }

    async fn deliver(&self, push: bool, merge: Option<&str>) -> Result<Outputs, Outcome> {
        let deliver = Deliver { push, merge: merge.map(str::to_owned) };
        let (mirror, base, head) = (self.mirror.clone(), self.base.clone(), self.head.clone());
        Delivery { grant: &self.grant, live: &self.live, freeze_limit: self.freeze_limit, deliver: &deliver, mirror, base, head }
            .carry_out()
            .await
    }
}

fn grant(url: String) -> Grant {
    Grant {
        attempt: AttemptId { run: RunId::mint(), step: Name::literal("deliver"), n: 1 },
        token: uuid::Uuid::new_v4(),
        lease_ms: 600_000,
        namespace: Name::default_namespace(),
        workflow: Name::literal("fix"),
        work: Work::Deliver(Deliver { push: true, merge: None }),
        env: Default::default(),
        answer: None,
        timeout_ms: None,
        idle_timeout_ms: None,
        grace_ms: None,
        workspace: WorkspaceOrder {
            mode: WorkspaceMode::Temporary,
            generation: 1,
            url: Some(url),
            reference: Some("main".to_owned()),
            commit: None,
            restore: None,
            reset_to: None,
            session: None,
            variant: None,
            branch: BRANCH.to_owned(),
        },
        allowance: None,
        traceparent: None,
    }
}

/// Git as a person uses it.
#[expect(clippy::disallowed_methods, reason = "the other side of a delivery is people with their own git")]
fn git(dir: &Path, args: &[&str]) -> String {
    let mut call = std::process::Command::new("git");
    call.current_dir(dir).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    for who in ["AUTHOR", "COMMITTER"] {
        call.env(format!("GIT_{who}_NAME"), "Person").env(format!("GIT_{who}_EMAIL"), "person@example.org");
    }
    let output = call.output().unwrap();
    assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// A person's commit on `main`, pushed.
fn commit(clone: &Path, file: &str, text: &str) -> String {
    std::fs::write(clone.join(file), text).unwrap();
    git(clone, &["add", "-A"]);
    git(clone, &["commit", "--quiet", "-m", "change"]);
    git(clone, &["push", "--quiet", "origin", "HEAD:main"]);
    git(clone, &["rev-parse", "HEAD"])
}

fn outputs<const N: usize>(pairs: [(&str, &str); N]) -> Result<Outputs, Outcome> {
    Ok(pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect())
}

fn message(outcome: Result<Outputs, Outcome>) -> (FailureCode, String) {
    match outcome {
        Err(Outcome::Failed { code, message }) => (code, message),
        other => panic!("{other:?} is no failure"),
    }
}

#[tokio::test]
async fn a_branch_is_pushed_and_merged_and_both_may_be_repeated() {
    let bench = Bench::new().await;
    let theirs = commit(&bench.clone(), "other.txt", "theirs\n");
    let first = bench.deliver(true, Some("base")).await;
    let merged = bench.at("main").unwrap();
    assert_eq!(first, outputs([("changed", "true"), ("pushed", "created"), ("merged", &merged)]));
    assert_eq!(bench.at(BRANCH), Some(bench.head.clone()));
    git(&bench.clone(), &["fetch", "--quiet"]);
    let parents = git(&bench.clone(), &["log", "-1", "--format=%P", "origin/main"]);
    assert_eq!(parents, format!("{theirs} {}", bench.head));
    let trailers = git(&bench.clone(), &["log", "-1", "--format=%(trailers:only)", "origin/main"]);
    assert_eq!(trailers, format!("Hopyard-Run: {}\nHopyard-Workflow: fix", bench.grant.attempt.run));
    let again = bench.deliver(true, Some("refs/heads/main")).await;
    assert_eq!(again, outputs([("changed", "true"), ("pushed", "up_to_date"), ("merged", &merged)]));
    assert_eq!(bench.at("main"), Some(merged));
}

#[tokio::test]
async fn a_conflict_names_its_paths_and_merges_nothing() {
    let bench = Bench::new().await;
    let theirs = commit(&bench.clone(), "work.txt", "one\ntheir line\n");
    let (code, text) = message(bench.deliver(true, Some("main")).await);
    assert_eq!(code, FailureCode::WorkspaceError);
    assert_eq!(text, format!("the work conflicts with `main` at {theirs} in work.txt; nothing was merged"));
    assert_eq!((bench.at("main"), bench.at(BRANCH)), (Some(theirs), Some(bench.head.clone())));
}

#[tokio::test]
async fn work_of_others_on_the_branch_is_spared() {
    let bench = Bench::new().await;
    git(&bench.clone(), &["checkout", "--quiet", "-b", "theirs"]);
    std::fs::write(bench.clone().join("x"), "x").unwrap();
    git(&bench.clone(), &["add", "-A"]);
    git(&bench.clone(), &["commit", "--quiet", "-m", "theirs"]);
    git(&bench.clone(), &["push", "--quiet", "origin", &format!("HEAD:{BRANCH}")]);
    let theirs = bench.at(BRANCH);
    let (code, text) = message(bench.deliver(true, None).await);
    assert_eq!((code, bench.at(BRANCH)), (FailureCode::WorkspaceError, theirs));
    assert!(text.contains(BRANCH), "{text}");
}

#[tokio::test]
async fn only_a_branch_can_be_merged_into() {
    let mut bench = Bench::new().await;
    let (_, text) = message(bench.deliver(true, Some("absent")).await);
    assert!(text.contains("refs/heads/absent"), "{text}");
    git(&bench.dir.path().join("bare.git"), &["update-ref", "-d", &format!("refs/heads/{BRANCH}")]);
    for reference in [None, Some("HEAD"), Some("refs/tags/v1"), Some(bench.base.clone().as_str())] {
        bench.grant.workspace.reference = reference.map(str::to_owned);
        let (code, text) = message(bench.deliver(true, Some("base")).await);
        assert_eq!(code, FailureCode::WorkspaceError);
        assert!(text.contains("result.merge"), "{text}");
    }
    assert_eq!(bench.at(BRANCH), None, "nothing is pushed by a step that cannot succeed");
}

#[tokio::test]
async fn a_run_that_changed_nothing_delivers_nothing() {
    let mut bench = Bench::new().await;
    bench.head = bench.base.clone();
    assert_eq!(bench.deliver(true, Some("base")).await, outputs([("changed", "false")]));
    assert_eq!((bench.at("main"), bench.at(BRANCH)), (Some(bench.base.clone()), None));
}

#[tokio::test]
async fn nothing_is_done_without_a_good_lease() {
    let bench = Bench::new().await;
    let refuse = async |live: Arc<Attempt>| {
        let fenced = Bench { live, ..Bench::new().await };
        let outcome = fenced.deliver(true, Some("base")).await;
        assert_eq!((fenced.at(BRANCH), fenced.at("main")), (None, Some(fenced.base.clone())));
        outcome
    };
    let enter = || Live::new(1).enter(&bench.grant, BootInstant::now()).unwrap();
    let stale = enter();
    stale.stale();
    assert_eq!(refuse(stale).await, Err(Outcome::HandedBack));
    let drained = enter();
    drained.hand_back();
    assert_eq!(refuse(drained).await, Err(Outcome::HandedBack));
    let killed = enter();
    killed.kill(&KillOrder { reason: None, force: false });
    assert_eq!(refuse(killed).await, Err(Outcome::Killed));
    // As if the claim had been sent long ago: a third of nothing is left.
    let short = Live::new(1).enter(&Grant { lease_ms: 1, ..bench.grant.clone() }, BootInstant::now()).unwrap();
    while !short.lease().is_overdue() {
        tokio::task::yield_now().await;
    }
    assert_eq!(refuse(short).await, Err(Outcome::HandedBack));
    assert!(bench.deliver(true, None).await.is_ok());
}

#[tokio::test]
async fn a_delivery_waits_for_an_overdue_lease_and_goes_on_when_it_is_renewed() {
    let mut bench = Bench::new().await;
    bench.freeze_limit = Duration::from_secs(600);
    bench.live = Live::new(1).enter(&Grant { lease_ms: 1, ..bench.grant.clone() }, BootInstant::now()).unwrap();
    while !bench.live.lease().is_overdue() {
        tokio::task::yield_now().await;
    }
    let renew = async {
        while !bench.live.is_frozen() {
            tokio::task::yield_now().await;
        }
        assert_eq!((bench.at(BRANCH), bench.at("main")), (None, Some(bench.base.clone())), "nothing is pushed meanwhile");
        bench.live.renewed(BootInstant::now(), Duration::from_secs(600), None);
    };
    let (delivered, ()) = tokio::join!(bench.deliver(true, None), renew);
    assert_eq!(delivered, outputs([("changed", "true"), ("pushed", "created")]));
}
