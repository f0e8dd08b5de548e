//! Pauses of bus, scheduler and database: a step is held still meanwhile, and is lost only when its executor gives up.

use std::path::Path;
use std::time::Duration;

use hopyard::servers::PostgresServer;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::harness::api::{on_repo, step_of, steps};
use crate::harness::leftovers::{mirrors, running_step_processes, step_processes};
use crate::harness::postgres;
use crate::harness::programs::git;
use crate::harness::wait::{eventually, holds};
use crate::harness::{Harness, Setup, http};

/// Lease of these stacks; a pause is longer than it.
const LEASE: Duration = Duration::from_secs(6);

/// Stacks whose lease leaves room for a machine that is busy with other tests.
fn slow() -> Setup {
    Setup { lease: "6s", renew: "1s", ..Setup::default() }
}

/// A script that counts in a file until a gate opens, and tells of a second process of its step.
fn counting(dir: &Path) -> String {
    format!(
        "exec 9> {0}/lock\nflock -n 9 || echo $HOPYARD_ATTEMPT >> {0}/overlaps\nn=0\n\
         until [ -e {0}/gate ]; do n=$((n + 1)); echo $n > {0}/counter; sleep 0.02; done\necho done=$HOPYARD_ATTEMPT >> $HOPYARD_OUTPUT",
        dir.display()
    )
}

/// What the script has counted so far.
fn counted(dir: &Path) -> u64 {
    std::fs::read_to_string(dir.join("counter")).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

fn open(dir: &Path) {
    std::fs::write(dir.join("gate"), "").unwrap();
}

/// Waits until the script counts.
async fn counts_on(dir: &Path) {
    let from = counted(dir);
    eventually("the step goes on", || async { holds(counted(dir) > from + 2, format!("{} after {from}", counted(dir))) }).await;
}

/// The metrics of a service, as text.
async fn metrics(harness: &mut Harness, service: &str) -> String {
    let admin = harness.service(service).admin();
    http::send(admin, "GET", "/metrics", &[], b"").await.unwrap().text()
}

/// Waits until the executor says that it holds an attempt still, and nothing of the step runs.
async fn held(harness: &mut Harness, executor: &str, dir: &Path) {
    let admin = harness.service(executor).admin();
    eventually("the step is held still", || async {
        let text = http::send(admin, "GET", "/metrics", &[], b"").await.map_err(|e| e.to_string())?.text();
        holds(text.contains("\nhopyard_executor_frozen_attempts 1\n"), text.lines().filter(|l| l.contains("frozen")).collect::<String>())
    })
    .await;
    eventually("nothing of it runs", || async {
        let running = running_step_processes(dir);
        holds(running.is_empty() && !step_processes(dir).is_empty(), format!("{running:?}"))
    })
    .await;
}

/// A pause that is longer than a lease, in which the step makes no progress.
async fn pause(dir: &Path) {
    let before = counted(dir);
    tokio::time::sleep(LEASE * 2).await;
    assert_eq!(counted(dir), before, "a step that is held still counts nothing");
}

/// The run has completed with the one attempt that was held.
async fn completed_at_once(harness: &mut Harness, run: &str, dir: &Path) {
    counts_on(dir).await;
    open(dir);
    let state = harness.wait_completed(run).await;
    let attempts = step_of(&state, "one")["attempts"].as_array().map(Vec::len);
    assert_eq!(attempts, Some(1), "no attempt was lost: {state:#}");
    let told = metrics(harness, "executor-1").await;
    assert!(told.contains("hopyard_executor_freezes_total{event=\"thawed\"} 1"), "{told}");
    assert!(told.contains("\nhopyard_executor_frozen_attempts 0\n"), "{told}");
    let log = String::from_utf8(harness.log(run, "one", 1, "system").await).unwrap();
    assert!(log.contains("the step is held still") && log.contains("the lease is renewed: the step goes on"), "{log}");
}

async fn counting_run(harness: &Harness, dir: &Path) -> String {
    let run = harness.submit(steps(json!([{ "id": "one", "shell": counting(dir), "idle_timeout": "20s" }]))).await;
    harness.wait_running(&run, "one").await;
    counts_on(dir).await;
    run
}

fn signal(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Covers I9: a bus that stands still keeps its connections open; nobody judges a lease by its silence.
#[tokio::test]
async fn a_stopped_bus_ends_no_step() {
    let mut harness = Harness::start(slow()).await;
    let dir = harness.dir().to_owned();
    let run = counting_run(&harness, &dir).await;
    let bus = harness.nats.pid().unwrap();
    signal(bus, Signal::SIGSTOP);
    held(&mut harness, "executor-1", &dir).await;
    pause(&dir).await;
    let told = harness.get(&format!("/api/v1/runs/{run}/explain")).await;
    let codes: Vec<_> = told["blockers"].as_array().unwrap().iter().map(|b| b["code"].as_str().unwrap_or_default()).collect();
    assert!(codes.contains(&"lease_overdue"), "{told:#}");
    signal(bus, Signal::SIGCONT);
    completed_at_once(&mut harness, &run, &dir).await;
    harness.close().await;
}

/// Covers I9: the same for a bus that is gone and comes back.
#[tokio::test]
async fn a_bus_that_is_away_for_longer_than_a_lease_ends_no_step() {
    let mut harness = Harness::start(slow()).await;
    let dir = harness.dir().to_owned();
    let run = counting_run(&harness, &dir).await;
    harness.nats.kill().await.unwrap();
    held(&mut harness, "executor-1", &dir).await;
    pause(&dir).await;
    harness.nats.restart_same_port().await.unwrap();
    completed_at_once(&mut harness, &run, &dir).await;
    harness.close().await;
}

/// Covers I1: a scheduler that was stopped finds every lease overdue when it goes on, and judges none by its own pause.
#[tokio::test]
async fn a_scheduler_that_pauses_for_longer_than_a_lease_ends_no_step() {
    let mut harness = Harness::start(slow()).await;
    let dir = harness.dir().to_owned();
    let run = counting_run(&harness, &dir).await;
    harness.freeze("scheduler-1");
    held(&mut harness, "executor-1", &dir).await;
    pause(&dir).await;
    harness.thaw("scheduler-1");
    completed_at_once(&mut harness, &run, &dir).await;
    harness.close().await;
}

/// Covers C2, I1: the same for a scheduler that was killed and started again.
#[tokio::test]
async fn a_scheduler_that_is_away_for_longer_than_a_lease_ends_no_step() {
    let mut harness = Harness::start(slow()).await;
    let dir = harness.dir().to_owned();
    let run = counting_run(&harness, &dir).await;
    harness.kill9("scheduler-1").await;
    held(&mut harness, "executor-1", &dir).await;
    pause(&dir).await;
    harness.start_service("scheduler-1").await;
    completed_at_once(&mut harness, &run, &dir).await;
    harness.close().await;
}

async fn on_own_postgres() -> (Harness, PostgresServer) {
    let server = postgres::server().await;
    let url = postgres::new_database(&server).await;
    (Harness::start(Setup { own_store: Some(url), ..slow() }).await, server)
}

/// The database server and its processes.
fn family(server: &PostgresServer) -> Vec<u32> {
    let postmaster = server.pid().unwrap();
    let children = std::fs::read_to_string(format!("/proc/{postmaster}/task/{postmaster}/children")).unwrap();
    children.split_whitespace().map(|pid| pid.parse().unwrap()).chain([postmaster]).collect()
}

/// Covers I9: a database that stands still lets a transaction succeed late; by then leases are overdue and nobody is to blame.
#[tokio::test]
async fn a_stopped_database_ends_no_step() {
    let (mut harness, server) = on_own_postgres().await;
    let dir = harness.dir().to_owned();
    let run = counting_run(&harness, &dir).await;
    let stopped = family(&server);
    stopped.iter().for_each(|pid| signal(*pid, Signal::SIGSTOP));
    held(&mut harness, "executor-1", &dir).await;
    pause(&dir).await;
    stopped.iter().for_each(|pid| signal(*pid, Signal::SIGCONT));
    completed_at_once(&mut harness, &run, &dir).await;
    harness.close().await;
}

/// Covers I9: the same for a database that was killed and started again.
#[tokio::test]
async fn a_database_that_is_away_for_longer_than_a_lease_ends_no_step() {
    let (mut harness, mut server) = on_own_postgres().await;
    let dir = harness.dir().to_owned();
    let run = counting_run(&harness, &dir).await;
    server.kill().await.unwrap();
    held(&mut harness, "executor-1", &dir).await;
    pause(&dir).await;
    server.restart().await.unwrap();
    completed_at_once(&mut harness, &run, &dir).await;
    harness.close().await;
}

/// Covers B10: after the limit the step is ended and its work kept, no branch follows it, and a new attempt begins afresh.
#[tokio::test]
async fn a_step_is_quarantined_when_its_lease_stays_away() {
    let settings = vec![("FREEZE_LIMIT", "3s".to_owned())];
    let mut harness = Harness::start(Setup { settings, ..slow() }).await;
    let dir = harness.dir().to_owned();
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let script = format!("echo $HOPYARD_ATTEMPT > work\n{}", counting(&dir));
    let run = harness.submit(on_repo(&repo, json!([{ "id": "one", "shell": script }]))).await;
    harness.wait_running(&run, "one").await;
    counts_on(&dir).await;
    harness.nats.kill().await.unwrap();
    held(&mut harness, "executor-1", &dir).await;
    eventually("the step is ended", || async { holds(step_processes(&dir).is_empty(), format!("{:?}", step_processes(&dir))) }).await;
    let mirror = mirrors(&harness.hosts()[0].join("mirrors")).pop().unwrap();
    let kept = format!("refs/hopyard/{run}/one/1");
    eventually("its work is kept", || async {
        let listed = git(&mirror, &["for-each-ref", "--format=%(refname)"]);
        holds(listed.lines().any(|name| name == kept), listed)
    })
    .await;
    assert_eq!(git(&mirror, &["show", &format!("{kept}:work")]), format!("{run}.one.1"));
    assert_eq!(git(&mirror, &["for-each-ref", "--format=%(refname)", "refs/heads/hopyard/"]), "", "no branch follows it");
    harness.nats.restart_same_port().await.unwrap();
    open(&dir);
    let state = harness.wait_completed(&run).await;
    let attempts = step_of(&state, "one")["attempts"].as_array().unwrap();
    assert_eq!(attempts.len(), 2, "{state:#}");
    assert_eq!(attempts[1]["status"], "completed");
    let branch = state["result"]["branch"].as_str().unwrap();
    assert_eq!(git(&mirror, &["show", &format!("{branch}:work")]), format!("{run}.one.2"));
    assert_eq!(std::fs::read_to_string(dir.join("overlaps")).unwrap_or_default(), "", "two processes of one step");
    harness.close().await;
}

/// Covers B3, I2: an executor that was stopped past its lease comes back; what it lost is ended before it starts anew.
#[tokio::test]
async fn an_executor_that_comes_back_ends_what_it_lost_before_it_begins_anew() {
    let mut harness = Harness::start(slow()).await;
    let dir = harness.dir().to_owned();
    let repo = harness.repo(&[&[("a", "1\n")]]);
    let run = harness.submit(on_repo(&repo, json!([{ "id": "one", "shell": counting(&dir) }]))).await;
    harness.wait_running(&run, "one").await;
    counts_on(&dir).await;
    harness.freeze("executor-1");
    eventually("nothing of the step runs", || async {
        let running = running_step_processes(&dir);
        holds(running.is_empty(), format!("{running:?}"))
    })
    .await;
    let before = counted(&dir);
    eventually("the attempt is lost", || async {
        let state = harness.run(&run).await;
        holds(step_of(&state, "one")["attempts"][0]["status"] == "lost", step_of(&state, "one").to_string())
    })
    .await;
    assert_eq!(counted(&dir), before, "nothing runs past its lease");
    assert!(!step_processes(&dir).is_empty(), "the shim holds it for the executor to come back");
    harness.thaw("executor-1");
    harness
        .wait_for(&run, |state| {
            let attempts: &Value = &step_of(state, "one")["attempts"];
            attempts[1]["status"] == "running"
        })
        .await;
    open(&dir);
    let state = harness.wait_completed(&run).await;
    assert_eq!(step_of(&state, "one")["attempts"].as_array().map(Vec::len), Some(2), "{state:#}");
    assert_eq!(std::fs::read_to_string(dir.join("overlaps")).unwrap_or_default(), "", "two processes of one step");
    harness.close().await;
}
