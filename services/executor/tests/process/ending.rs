//! How a step is ended: every way there is, and no process left by any.

use std::time::{Duration, Instant};

use hopyard_contract::log::Stream;
use hopyard_executor::process::{ExitKind, Lease, StepProcess, tree};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::bench::{Bench, nursery, spawn_stand_in, until, wait_for_output};

/// Ignores SIGTERM, and so does a daemon of its own session that holds the output open.
const STUBBORN: &str = "trap '' TERM; (setsid sh -c '(sleep 1000; exit) & echo ready; exec sleep 1000' &); exec sleep 1000";

pub(crate) async fn a_timeout_ends_the_whole_tree() {
    let bench = Bench::new().with(|limits| limits.timeout_ms = Some(300));
    let start = Instant::now();
    let facts = bench.run(&["sh", "-c", STUBBORN]).await;
    assert_eq!((facts.kind, facts.signal), (ExitKind::Timeout, Some(9)));
    assert!(start.elapsed() >= Duration::from_millis(600), "timeout, then grace");
    assert!(!facts.pipes_leaked, "{facts:?}");
    assert!(bench.system_log().contains("the step ran into its timeout"));
}

pub(crate) async fn silence_ends_a_step_and_output_keeps_it_alive() {
    let bench = Bench::new().with(|limits| limits.idle_timeout_ms = Some(900));
    let start = Instant::now();
    let facts = bench.run(&["sh", "-c", "for n in 1 2 3 4; do echo $n; sleep 0.4; done; exec sleep 1000"]).await;
    assert_eq!((facts.kind, facts.signal), (ExitKind::IdleTimeout, Some(15)));
    assert!(start.elapsed() >= Duration::from_millis(2100), "three pauses were bridged");
    assert_eq!(bench.log(Stream::Stdout), b"1\n2\n3\n4\n");
}

pub(crate) async fn a_daemon_that_ignores_everything_dies_with_the_step() {
    let bench = Bench::new();
    let process = bench.shell(STUBBORN).await;
    wait_for_output(&process, "ready").await;
    process.kill("operator", false);
    process.kill("somebody else", false);
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.reason.as_deref()), (ExitKind::Killed, Some("operator")));
    assert!(!facts.pipes_leaked);
    assert!(bench.system_log().contains("the step is being killed: operator"));
}

pub(crate) async fn what_a_finished_command_leaves_behind_is_ended() {
    let bench = Bench::new();
    let script = "(setsid sh -c \"trap '' TERM; echo up; exec sleep 1000\" &); sleep 1000 & until [ -e up ]; do sleep 0.01; done; exit 7";
    let process = bench.shell(script).await;
    wait_for_output(&process, "up").await;
    std::fs::write(bench.work().join("up"), "").unwrap();
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.code, facts.reason), (ExitKind::Exited, Some(7), None));
    assert_eq!(facts.leftover_killed, 2);
    assert!(bench.system_log().contains("2 processes outlived the command"));
}

pub(crate) async fn a_polite_command_may_clean_up() {
    let bench = Bench::new().with(|limits| limits.grace_ms = 30_000);
    let process = bench.shell("trap 'echo cleaned; exit 5' TERM; echo ready; while :; do sleep 0.01; done").await;
    wait_for_output(&process, "ready").await;
    process.kill("operator", false);
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.code), (ExitKind::Killed, Some(5)));
    assert_eq!(bench.log(Stream::Stdout), b"ready\ncleaned\n");
}

pub(crate) async fn a_stopped_command_takes_its_sigterm() {
    let bench = Bench::new().with(|limits| limits.grace_ms = 1_000_000);
    let process = bench.shell("trap 'echo cleaned; exit 0' TERM; (sleep 1000 & kill -STOP $!; kill -STOP $$); wait").await;
    let pid = process.started().await.unwrap();
    let state = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    until(|| state().contains(") T ").then_some(())).await;
    process.kill("operator", false);
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.code), (ExitKind::Killed, Some(0)));
    assert_eq!(bench.log(Stream::Stdout), b"cleaned\n");
}

pub(crate) async fn force_does_not_wait_for_the_grace() {
    let bench = Bench::new().with(|limits| limits.grace_ms = 1_000_000);
    let process = bench.shell(STUBBORN).await;
    wait_for_output(&process, "ready").await;
    process.kill("operator", false);
    process.kill("operator", true);
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.signal), (ExitKind::Killed, Some(9)));
}

pub(crate) async fn a_tree_that_forks_all_the_time_is_caught() {
    let bench = Bench::new();
    // Each process starts its successor in a session of its own and ends: there is never a parent to hold on to.
    std::fs::write(bench.work().join("hop"), "trap '' TERM\n[ $1 -gt 50 ] && echo ready\nsetsid sh ./hop $(($1 + 1)) &\n").unwrap();
    let process = bench.shell("sh ./hop 1 & exec sleep 1000").await;
    wait_for_output(&process, "ready").await;
    process.kill("operator", true);
    assert_eq!(bench.end_of(&process).await.kind, ExitKind::Killed);
}

pub(crate) async fn a_lost_lease_ends_the_step_before_it_expires() {
    let length = Duration::from_secs(4);
    let bench = Bench::new().with(|limits| {
        limits.grace_ms = 1_000_000;
        limits.freeze_limit_ms = 0;
        limits.lease = Some(Lease::new(length, length));
    });
    let start = Instant::now();
    let facts = bench.run(&["sh", "-c", STUBBORN]).await;
    assert_eq!((facts.kind, facts.signal), (ExitKind::LeaseLost, Some(9)));
    assert!(start.elapsed() >= length * 2 / 3, "a good lease is not cut short");
    assert!(start.elapsed() < length, "nothing runs beyond the lease");
}

pub(crate) async fn renewals_keep_a_step_alive() {
    let length = Duration::from_millis(1500);
    let bench = Bench::new().with(|limits| limits.lease = Some(Lease::new(length, length)));
    let process = bench.shell("sleep 3; echo done").await;
    let mut beat = tokio::time::interval(Duration::from_millis(200));
    let facts = loop {
        tokio::select! {
            _ = beat.tick() => process.renew(length),
            facts = process.wait() => break facts.unwrap(),
        }
    };
    assert!(facts.succeeded(), "{facts:?}");
    bench.assert_nothing_left();
}

pub(crate) async fn dropping_the_supervision_ends_the_tree() {
    let bench = Bench::new();
    let (process, supervision) = StepProcess::spawn(nursery(), bench.spec(&["sh", "-c", STUBBORN])).await.unwrap();
    let task = tokio::runtime::Handle::current().spawn(supervision);
    wait_for_output(&process, "ready").await;
    task.abort();
    assert_eq!(bench.end_by_file().await.kind, ExitKind::Abandoned);
    assert!(process.wait().await.is_err());
}

pub(crate) async fn dropping_the_last_handle_ends_the_tree() {
    let bench = Bench::new();
    let process = bench.shell(STUBBORN).await;
    wait_for_output(&process, "ready").await;
    drop(process);
    assert_eq!(bench.end_by_file().await.kind, ExitKind::Abandoned);
}

pub(crate) async fn a_killed_executor_leaves_no_process() {
    let bench = Bench::new();
    let mut executor = spawn_stand_in(&bench, &format!("touch {}/up; {STUBBORN}", bench.work().display()));
    until(|| bench.work().join("up").exists().then_some(())).await;
    executor.kill().unwrap();
    executor.wait().unwrap();
    assert_eq!(bench.end_by_file().await.kind, ExitKind::Abandoned);
}

pub(crate) async fn a_killed_shim_leaves_no_process() {
    let bench = Bench::new();
    let process = bench.shell(&format!("env -i sleep 1000 & {STUBBORN}")).await;
    wait_for_output(&process, "ready").await;
    let pid = process.started().await.unwrap();
    let shim = tree::all().unwrap().into_iter().find(|found| found.pid == pid).unwrap().parent;
    let session = tree::all().unwrap().into_iter().filter(move |found| found.session == shim && !found.zombie);
    kill(Pid::from_raw(shim), Signal::SIGKILL).unwrap();
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.code), (ExitKind::ShimLost, None));
    assert!(facts.error.as_deref().unwrap().starts_with("the shim ended without exit facts (signal: 9"), "{facts:?}");
    assert!(facts.started_at.is_some() && facts.log_bytes > 0);
    // The one without any environment of ours was found by its session.
    let members: Vec<_> = session.map(|member| member.pid).collect();
    assert!(members.len() >= 3);
    let alive = tree::all().unwrap().into_iter().filter(|found| members.contains(&found.pid) && !found.zombie);
    assert_eq!(alive.count(), 0);
}

/// Steps that run go on without it: each shim has a way of its own to the executor.
pub(crate) async fn a_killed_nursery_costs_no_step_and_is_replaced() {
    let bench = Bench::new();
    let process = bench.shell("echo ready; until [ -e go ]; do sleep 0.01; done; exit 7").await;
    wait_for_output(&process, "ready").await;
    let parent = |pid: i32| tree::all().unwrap().into_iter().find(|found| found.pid == pid).unwrap().parent;
    let first = parent(parent(process.started().await.unwrap()));
    kill(Pid::from_raw(first), Signal::SIGKILL).unwrap();
    until(|| tree::all().unwrap().iter().all(|found| found.pid != first).then_some(())).await;

    let other = Bench::new();
    let next = other.shell("until [ -e go ]; do sleep 0.01; done").await;
    assert_ne!(parent(parent(next.started().await.unwrap())), first);
    for (bench, process, code) in [(&bench, process, 7), (&other, next, 0)] {
        std::fs::write(bench.work().join("go"), "").unwrap();
        assert_eq!(bench.end_of(&process).await.code, Some(code));
    }
}
