//! Passes over a real disk with real mirrors; only the scheduler is a script.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use async_trait::async_trait;
use hopyard_contract::log::Stream;
use hopyard_contract::log::frame::encode;
use hopyard_contract::message::WorkspaceSaved;
use hopyard_worktree::Workspace;
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3600);
const MAX_AGE: Duration = Duration::from_secs(48 * 3600);

/// Answers from lists, and commits what is reported at once.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    keep: BTreeSet<String>,
    reclaimable: BTreeMap<String, Vec<AttemptId>>,
    here: BTreeSet<String>,
    saved: Vec<WorkspaceSaved>,
    removed: Vec<WorkspaceRemoved>,
    away: bool,
}

#[async_trait]
impl Scheduler for Script {
    async fn workspaces(&self, found: Vec<String>, only_found: bool) -> anyhow::Result<WorkspacesReply> {
        let state = self.0.lock().unwrap();
        anyhow::ensure!(!state.away, "no scheduler listens");
        let missing = state.here.iter().filter(|id| !only_found && !found.contains(id)).cloned().collect();
        let mut reply = WorkspacesReply { reclaimable: Vec::new(), keep: Vec::new(), unknown: Vec::new(), missing };
        for id in found {
            match state.reclaimable.get(&id) {
                _ if state.keep.contains(&id) => reply.keep.push(id),
                Some(lost) => reply.reclaimable.push(ReclaimOrder { id, url: None, lost: lost.clone() }),
                None => reply.unknown.push(id),
            }
        }
        Ok(reply)
    }

    async fn report(&self, report: Said) -> anyhow::Result<()> {
        let mut state = self.0.lock().unwrap();
        match report {
            Said::WorkspaceSaved(saved) => {
                if saved.snapshot.is_some() {
                    state.reclaimable.values_mut().for_each(|lost| lost.retain(|a| *a != saved.attempt));
                }
                state.saved.push(saved);
            }
            Said::WorkspaceRemoved(removed) => {
                state.here.remove(&removed.id);
                state.removed.push(removed);
            }
            other => panic!("a janitor does not say {other:?}"),
        }
        Ok(())
    }
}

struct Host {
    dir: TempDir,
    sweeper: Sweeper<Script>,
    script: Script,
    mirror: Mirror,
    base: String,
}

#[expect(clippy::disallowed_methods, reason = "the cases need a repository and git's own word")]
fn git(dir: &Path, args: &[&str]) -> String {
    let who = ["-c", "user.name=Tester", "-c", "user.email=t@example.com", "-c", "safe.directory=*"];
    let done =
        std::process::Command::new("git").current_dir(dir).args(who).args(args).env("GIT_CONFIG_GLOBAL", "/dev/null").output().unwrap();
    assert!(done.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).unwrap().trim().to_owned()
}

impl Host {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let source = root.join("source");
        fs::create_dir(&source).unwrap();
        git(&source, &["init", "--quiet", "--initial-branch=main"]);
        fs::write(source.join("README.md"), "hello\n").unwrap();
        git(&source, &["add", "-A"]);
        git(&source, &["commit", "--quiet", "-m", "first"]);
        let allow = vec![root.display().to_string()];
        let git = hopyard_worktree::Settings { allow, fetch_interval: Duration::ZERO, ..Default::default() };
        let data_dir = root.join("data");
        let settings = Settings { blobs: root.join("blobs").display().to_string(), max_age: MAX_AGE, sweep: DAY, git, data_dir };
        let script = Script::default();
        let sweeper = Sweeper::open(&settings, Name::literal("h1"), script.clone()).await.unwrap();
        let mirror = sweeper.mirrors.mirror(&source.display().to_string()).await.unwrap();
        let base = mirror.resolve(None).await.unwrap();
        Self { dir, sweeper, script, mirror, base }
    }

    fn id(n: u32) -> String {
        format!("01977c60-d400-7000-8000-{n:012}-g1")
    }

    fn path(&self, id: &str) -> PathBuf {
        self.sweeper.data_dir.join("workspaces/e1").join(id)
    }

    /// A git workspace as an executor makes it, with a new file in it.
    async fn workspace(&self, n: u32) -> Workspace {
        let id = Self::id(n);
        let path = self.path(&id);
        let workspace = self.mirror.open_workspace(&path, &id, &self.base, &id).await.unwrap();
        fs::write(path.join("work.txt"), format!("work of {n}\n")).unwrap();
        let record = serde_json::json!({"url": self.mirror.repo(), "base": self.base, "head": self.base, "owner": id});
        fs::write(disk::record_file(&path), record.to_string()).unwrap();
        workspace
    }

    fn scratch(&self, n: u32) -> PathBuf {
        let path = self.path(&Self::id(n));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("file"), "x").unwrap();
        path
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.script.0.lock().unwrap()
    }

    fn reclaimable(&self, n: u32, lost: &[&str]) {
        let attempt = |step: &&str| serde_json::from_value(serde_json::json!({"run": &Self::id(n)[..36], "step": step, "n": 1})).unwrap();
        self.state().reclaimable.insert(Self::id(n), lost.iter().map(attempt).collect());
    }

    async fn pass(&self, scope: Scope) -> Report {
        self.sweeper.pass(&scope, &CancellationToken::new()).await.unwrap()
    }

    /// Workspaces that git itself lists, the mirror not among them.
    fn listed(&self) -> usize {
        git(self.mirror.dir(), &["worktree", "list"]).lines().count() - 1
    }

    fn trash(&self) -> usize {
        fs::read_dir(self.sweeper.data_dir.join("trash")).unwrap().count()
    }
}

fn make_old(path: &Path) {
    fs::File::open(path).unwrap().set_modified(SystemTime::now() - 3 * DAY).unwrap();
}

#[tokio::test]
async fn what_may_go_goes_and_what_has_to_stay_stays() {
    let host = Host::new().await;
    for n in 1..=3 {
        host.workspace(n).await;
    }
    let scratch = host.scratch(4);
    let session = host.sweeper.data_dir.join("sessions/e1/night-0011");
    fs::create_dir_all(&session).unwrap();
    fs::write(session.with_extension("json"), serde_json::json!({"url": "", "base": "", "head": "", "owner": Host::id(9)}).to_string())
        .unwrap();
    make_old(&session);
    host.reclaimable(1, &[]);
    host.reclaimable(4, &[]);
    // The store says that the session's workspace of another host may go: here it is never touched.
    host.reclaimable(9, &[]);
    host.state().here.insert(Host::id(9));
    host.state().keep.insert(Host::id(2));
    for n in [2, 3] {
        make_old(&host.path(&Host::id(n)));
    }

    let dry = host.pass(Scope::DryRun).await;
    let fates: Vec<_> = dry.planned.iter().map(|p| (p.reason, p.bytes.is_some())).collect();
    assert_eq!(fates, [(Reason::Finished, true), (Reason::Active, false), (Reason::Orphan, true), (Reason::Finished, true)]);
    assert!(dry.removed.is_empty() && host.state().removed.is_empty());
    assert!(scratch.exists() && host.path(&Host::id(3)).exists());

    // What nobody knows goes in thorough passes only.
    let ticket = host.pass(Scope::Tickets(BTreeSet::from([Host::id(2), Host::id(3)]))).await;
    assert!(ticket.removed.is_empty() && ticket.failed.is_empty(), "{ticket:?}");

    let report = host.pass(Scope::Full).await;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    let gone: Vec<_> = report.removed.iter().map(|r| (r.id.clone(), r.reason)).collect();
    assert_eq!(gone, [(Host::id(1), Reason::Finished), (Host::id(3), Reason::Orphan), (Host::id(4), Reason::Finished)]);
    assert!(report.removed.iter().all(|r| r.bytes > 0) && report.bytes_freed > 0);
    assert!(host.path(&Host::id(2)).join("work.txt").exists());
    assert!(session.exists());
    assert_eq!((host.listed(), host.trash()), (1, 0));
    assert!(!disk::record_file(&host.path(&Host::id(1))).exists());
    assert_eq!(host.state().removed.len(), 3);
}

#[tokio::test]
async fn nothing_goes_without_a_scheduler() {
    let host = Host::new().await;
    host.workspace(1).await;
    make_old(&host.path(&Host::id(1)));
    host.state().away = true;
    assert!(host.sweeper.pass(&Scope::Full, &CancellationToken::new()).await.is_err());
    assert!(host.path(&Host::id(1)).join("work.txt").exists());
}

#[tokio::test]
async fn the_work_and_log_of_a_lost_attempt_are_kept_before_the_workspace_goes() {
    let host = Host::new().await;
    host.workspace(1).await;
    host.reclaimable(1, &["fix"]);
    let attempt = format!("{}.fix.1", &Host::id(1)[..36]);
    let spool = host.sweeper.data_dir.join("spool/e1").join(&attempt);
    fs::create_dir_all(&spool).unwrap();
    let mut log = Vec::new();
    encode(Stream::Stdout, chrono::Utc::now(), b"before the crash\n", &mut log);
    fs::write(spool.join("log.spool"), &log).unwrap();

    let report = host.pass(Scope::Tickets(BTreeSet::from([Host::id(1)]))).await;
    assert_eq!(report.removed.iter().map(|r| r.reason).collect::<Vec<_>>(), [Reason::Lost], "{:?}", report.failed);
    let saved = host.state().saved.clone();
    assert_eq!((saved.len(), saved[0].log_bytes), (1, 17));
    let commit = saved[0].snapshot.clone().unwrap();
    assert_eq!(git(host.mirror.dir(), &["show", &format!("{commit}:work.txt")]), "work of 1");
    assert_eq!(git(host.mirror.dir(), &["rev-parse", &format!("refs/hopyard/{}/fix/1", &Host::id(1)[..36])]), commit);
    // The bundle alone gives the work back elsewhere.
    let file = host.dir.path().join("bundle");
    let bundle = saved[0].bundle.clone().unwrap();
    host.sweeper.saver.blobs.read_to_file(&bundle.digest.parse().unwrap(), &file).await.unwrap();
    git(&host.dir.path().join("source"), &["fetch", "--quiet", &file.display().to_string(), "+refs/heads/*:refs/lost/*"]);
    assert_eq!(git(&host.dir.path().join("source"), &["show", &format!("{commit}:work.txt")]), "work of 1");
    let stored = saved[0].log.clone().unwrap();
    let stored = host.sweeper.saver.blobs.get(&stored.digest.parse().unwrap()).await.unwrap();
    assert_eq!(zstd::decode_all(stored.as_ref()).unwrap(), log);
    assert!(!host.path(&Host::id(1)).exists());
    assert_eq!(fs::read_dir(host.sweeper.data_dir.join("janitor")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_workspace_that_cannot_be_saved_stays_and_says_so() {
    let host = Host::new().await;
    host.workspace(1).await;
    host.reclaimable(1, &["fix"]);
    // The blob store is gone: a file stands in its place.
    fs::remove_dir_all(host.dir.path().join("blobs")).unwrap();
    fs::write(host.dir.path().join("blobs"), "").unwrap();
    let report = host.pass(Scope::Full).await;
    assert_eq!(report.failed.len(), 1, "{report:?}");
    assert!(report.removed.is_empty() && host.state().removed.is_empty());
    assert!(host.path(&Host::id(1)).join("work.txt").exists());
    // As soon as it is back, the next pass does the rest.
    fs::remove_file(host.dir.path().join("blobs")).unwrap();
    fs::create_dir(host.dir.path().join("blobs")).unwrap();
    assert_eq!(host.pass(Scope::Full).await.removed.len(), 1);
    assert!(!host.path(&Host::id(1)).exists());
}

#[tokio::test]
async fn directories_deleted_by_hand_leave_no_trace_after_one_pass() {
    let host = Host::new().await;
    for n in 1..=4 {
        host.workspace(n).await;
        fs::remove_dir_all(host.path(&Host::id(n))).unwrap();
    }
    host.reclaimable(1, &[]);
    host.reclaimable(2, &[]);
    host.state().here.extend([Host::id(1), Host::id(2)]);
    host.state().keep.insert(Host::id(4));
    assert_eq!(host.listed(), 4);
    let report = host.pass(Scope::Short).await;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    // What a run still needs is made again by its executor; the rest is forgotten.
    assert_eq!(host.listed(), 1);
    assert_eq!(host.state().removed.iter().map(|r| r.reason.as_str()).collect::<Vec<_>>(), ["absent", "absent"]);
    assert!(!disk::record_file(&host.path(&Host::id(3))).exists());
    assert!(disk::record_file(&host.path(&Host::id(4))).exists());
}

/// An executor was killed while git made the entry of a workspace, and git went on.
#[tokio::test]
async fn entries_of_workspaces_that_were_never_made_go_and_those_in_the_making_stay() {
    let host = Host::new().await;
    let staging = host.sweeper.data_dir.join("staging");
    let half_made = |n: u32| {
        let place = staging.join(format!("maker-{n}"));
        fs::create_dir(&place).unwrap();
        let path = place.join(Host::id(n)).display().to_string();
        git(host.mirror.dir(), &["worktree", "add", "--quiet", "--no-checkout", "--detach", "--lock", &path, &host.base]);
        place
    };
    let [_, deleted, _, making] = [1, 2, 3, 4].map(half_made);
    fs::remove_dir_all(&deleted).unwrap();
    host.reclaimable(1, &[]);
    host.reclaimable(2, &[]);
    host.state().keep.insert(Host::id(4));
    assert_eq!(host.listed(), 4);
    let report = host.pass(Scope::Short).await;
    assert!(report.failed.is_empty(), "{report:?}");
    assert_eq!(host.listed(), 1, "{}", git(host.mirror.dir(), &["worktree", "list"]));
    let left: Vec<PathBuf> = fs::read_dir(&staging).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(left, std::slice::from_ref(&making));

    // What no entry names any more goes once nobody can be at work there.
    host.pass(Scope::Full).await;
    assert!(making.exists());
    make_old(&making);
    host.pass(Scope::Full).await;
    assert_eq!(fs::read_dir(&staging).unwrap().count(), 0);
    assert_eq!(host.trash(), 0);
}

#[tokio::test]
async fn a_crash_between_rename_and_delete_or_report_is_made_good() {
    let host = Host::new().await;
    host.workspace(1).await;
    host.reclaimable(1, &[]);
    host.state().here.insert(Host::id(1));
    // As a process leaves it that was ended right after the rename.
    fs::rename(host.path(&Host::id(1)), host.sweeper.data_dir.join("trash").join(format!("{}-left", Host::id(1)))).unwrap();
    let report = host.pass(Scope::Full).await;
    assert!(report.failed.is_empty() && report.bytes_freed > 0, "{report:?}");
    assert_eq!((host.listed(), host.trash()), (0, 0));
    assert_eq!(host.state().removed.len(), 1);
    assert!(!disk::record_file(&host.path(&Host::id(1))).exists());
    // A repeated ticket finds nothing to do and harms nothing.
    let again = host.pass(Scope::Tickets(BTreeSet::from([Host::id(1)]))).await;
    assert!(again.failed.is_empty());
}

#[tokio::test]
async fn old_spools_of_settled_attempts_go_and_others_stay() {
    let host = Host::new().await;
    let spool = |n: u32, old: bool| {
        let dir = host.sweeper.data_dir.join("spool/e1").join(format!("{}.fix.1", &Host::id(n)[..36]));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("exit.json"), "{}").unwrap();
        if old {
            make_old(&dir.join("exit.json"));
            make_old(&dir);
        }
        dir
    };
    let (settled, young, running, lost) = (spool(1, true), spool(2, false), spool(3, true), spool(4, true));
    host.reclaimable(1, &[]);
    host.state().keep.insert(Host::id(3));
    let report = host.pass(Scope::Full).await;
    assert!(report.failed.is_empty(), "{:?}", report.failed);
    assert!(!settled.exists() && young.exists() && running.exists());
    // Nothing knows this run any more, so nothing waits for its spool.
    assert!(!lost.exists());
}

#[tokio::test]
async fn an_old_unknown_workspace_with_a_process_in_it_stays() {
    let host = Host::new().await;
    let path = host.scratch(1);
    make_old(&path);
    #[expect(clippy::disallowed_methods, reason = "the case needs a process of its own")]
    let mut child = std::process::Command::new("sleep").arg("600").current_dir(&path).spawn().unwrap();
    let report = host.pass(Scope::Full).await;
    assert_eq!(report.planned[0].reason, Reason::InUse);
    assert!(path.exists());
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(host.pass(Scope::Full).await.removed.len(), 1);
    assert!(!path.exists());
}
