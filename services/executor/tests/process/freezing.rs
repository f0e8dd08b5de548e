//! A lease that is overdue: the whole tree is held still, loses no time by it, and goes on or is ended.

use std::time::Duration;

use hopyard_contract::log::Stream;
use hopyard_executor::process::{ExitKind, Lease, StepProcess, tree};

use crate::bench::{Bench, until, wait_for_output};

/// A lease that becomes overdue soon, and is over long after that.
fn long() -> Lease {
    Lease::new(Duration::from_secs(600), Duration::from_millis(200_500))
}

/// A lease that becomes overdue soon, and is over soon.
fn short() -> Lease {
    Lease::new(Duration::from_secs(3), Duration::from_secs(2))
}

const GOOD: Duration = Duration::from_secs(600);

async fn frozen(process: &StepProcess) {
    until(|| process.is_frozen().then_some(())).await;
}

/// Processes of the step's own tree, with the kernel's letters for what they do.
fn states(process: &StepProcess) -> Vec<(i32, char)> {
    let all = tree::all().unwrap();
    let marked = all.iter().find(|p| {
        let environ = std::fs::read(format!("/proc/{}/environ", p.pid)).unwrap_or_default();
        String::from_utf8_lossy(&environ).contains(&format!("HOPYARD_ATTEMPT={}\0", process.attempt()))
    });
    let shim = marked.map(|p| p.session).and_then(|session| all.iter().find(|p| p.pid == session)).map_or(0, |p| p.pid);
    tree::descendants(&all, shim).iter().filter(|p| !p.zombie).map(|p| (p.pid, p.state)).collect()
}

/// Whether a look found processes and all of them stopped.
fn still(states: &[(i32, char)]) -> bool {
    !states.is_empty() && states.iter().all(|(_, state)| *state == 'T')
}

pub(crate) async fn a_tree_is_held_still_until_its_lease_is_renewed() {
    let bench = Bench::new().with(|limits| limits.lease = Some(short()));
    // The counter is kept by a daemon of a session of its own; the shell waits for another child.
    let count = "n=0; until [ -e stop ]; do n=$((n + 1)); echo $n > counter; done; echo counted > counted";
    let process = bench.shell(&format!("(setsid sh -c '{count}' &); echo up; until [ -e counted ]; do sleep 0.01; done; echo done")).await;
    wait_for_output(&process, "up").await;
    frozen(&process).await;
    until(|| {
        let states = states(&process);
        (states.len() >= 2 && still(&states)).then_some(())
    })
    .await;
    let counter = || std::fs::read_to_string(bench.work().join("counter")).unwrap();
    let before = counter();
    std::fs::write(bench.work().join("stop"), "").unwrap();
    // A look at all of /proc takes longer than the loop would need to see its end.
    for _ in 0..20 {
        assert!(still(&states(&process)));
    }
    assert_eq!(counter(), before, "a tree that is held still writes nothing");
    process.renew(GOOD);
    let facts = bench.end_of(&process).await;
    assert!(facts.succeeded() && facts.frozen_ms > 0, "{facts:?}");
    assert_eq!(bench.log(Stream::Stdout), b"up\ndone\n");
    let told = bench.system_log();
    assert!(told.contains("the step is held still until it is") && told.contains("the lease is renewed: the step goes on after"), "{told}");
}

pub(crate) async fn time_that_is_held_counts_for_no_limit() {
    let bench = Bench::new().with(|limits| {
        limits.lease = Some(long());
        limits.timeout_ms = Some(1_000);
        limits.idle_timeout_ms = Some(800);
    });
    let process = bench.shell("until [ -e go ]; do sleep 0.01; done; echo done").await;
    frozen(&process).await;
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    std::fs::write(bench.work().join("go"), "").unwrap();
    process.renew(GOOD);
    let facts = bench.end_of(&process).await;
    assert!(facts.succeeded() && facts.frozen_ms >= 1_500, "{facts:?}");
}

pub(crate) async fn a_lease_that_stays_away_ends_the_step_at_the_limit() {
    let bench = Bench::new().with(|limits| {
        limits.lease = Some(short());
        limits.freeze_limit_ms = 2_000;
        limits.grace_ms = 1_000_000;
    });
    // By then the lease is long over, so that not even a SIGTERM may let the tree run.
    let process = bench.shell("trap 'echo polite' TERM; echo up; while :; do sleep 0.01; done").await;
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.signal), (ExitKind::LeaseLost, Some(9)));
    assert!(facts.frozen_ms >= 2_000, "{facts:?}");
    assert_eq!(bench.log(Stream::Stdout), b"up\n");
    let told = bench.system_log();
    assert!(told.contains("was not renewed within 2000 ms of being held still"), "{told}");
}

pub(crate) async fn a_forking_tree_does_not_slip_through() {
    let bench = Bench::new().with(|limits| limits.lease = Some(short()));
    // Each process starts its successor in a session of its own and ends: there is never a parent to hold on to.
    std::fs::write(bench.work().join("hop"), "echo $1 > counter\n[ $1 -eq 50 ] && echo up\nsetsid sh ./hop $(($1 + 1)) &\n").unwrap();
    let process = bench.shell("sh ./hop 1 & exec sleep 1000").await;
    wait_for_output(&process, "up").await;
    frozen(&process).await;
    // One look may fall between two of the tree; nothing of it is in two looks unless it is stopped.
    until(|| {
        let look = states(&process);
        (still(&look) && states(&process) == look).then_some(())
    })
    .await;
    let counter = || std::fs::read_to_string(bench.work().join("counter")).unwrap();
    let before = counter();
    for _ in 0..20 {
        assert!(still(&states(&process)));
    }
    assert_eq!(counter(), before);
    process.renew(GOOD);
    until(|| (counter() != before && !counter().is_empty()).then_some(())).await;
    process.kill("operator", true);
    assert_eq!(bench.end_of(&process).await.kind, ExitKind::Killed);
}

pub(crate) async fn a_held_step_may_clean_up_while_its_lease_lasts() {
    let bench = Bench::new().with(|limits| {
        limits.lease = Some(long());
        limits.grace_ms = 30_000;
    });
    let process = bench.shell("trap 'echo cleaned; exit 5' TERM; while :; do sleep 0.01; done").await;
    frozen(&process).await;
    process.kill("operator", false);
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.signal.or(facts.code)), (ExitKind::Killed, Some(5)), "{facts:?}");
    assert_eq!(bench.log(Stream::Stdout), b"cleaned\n");
}

pub(crate) async fn a_held_step_does_not_outlive_its_executor() {
    let bench = Bench::new().with(|limits| limits.lease = Some(long()));
    let process = bench.shell("trap '' TERM; (setsid sleep 1000 &); exec sleep 1000").await;
    frozen(&process).await;
    drop(process);
    assert_eq!(bench.end_by_file().await.kind, ExitKind::Abandoned);
}

pub(crate) async fn what_had_stopped_itself_stays_stopped() {
    let bench = Bench::new().with(|limits| limits.lease = Some(short()));
    let script = "sh -c 'kill -STOP $$; echo never' & until grep -q ') T ' /proc/$!/stat; do sleep 0.01; done; echo up; \
                  until [ -e go ]; do sleep 0.01; done; grep -q ') T ' /proc/$!/stat && echo still";
    let process = bench.shell(script).await;
    wait_for_output(&process, "up").await;
    frozen(&process).await;
    std::fs::write(bench.work().join("go"), "").unwrap();
    process.renew(GOOD);
    let facts = bench.end_of(&process).await;
    assert!(facts.succeeded(), "{facts:?}");
    assert_eq!(bench.log(Stream::Stdout), b"up\nstill\n");
}

pub(crate) async fn a_shell_with_job_control_notices_nothing() {
    let bench = Bench::new().with(|limits| limits.lease = Some(short()));
    let script = "set -m; sh -c 'echo up; until [ -e go ]; do sleep 0.01; done; exit 3'; echo ended $?";
    let process = bench.spawn(&["bash", "-c", script]).await;
    wait_for_output(&process, "up").await;
    frozen(&process).await;
    std::fs::write(bench.work().join("go"), "").unwrap();
    process.renew(GOOD);
    let facts = bench.end_of(&process).await;
    assert!(facts.succeeded(), "{facts:?}");
    assert_eq!(bench.log(Stream::Stdout), b"up\nended 3\n");
    assert_eq!(bench.log(Stream::Stderr), b"");
}
