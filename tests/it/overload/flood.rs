//! Steps that write or fork without end: nobody's memory grows with them, and nothing of them stays.

use serde_json::json;

use super::with;
use crate::harness::Harness;
use crate::harness::api::{shell, step_of};
use crate::harness::leftovers::step_processes;

/// Bytes that the step writes.
const FLOOD: u64 = 200_000_000;
/// Bytes that are kept from the start of a log here.
const CAP: u64 = 8 << 20;
/// What is kept of the end of a log that was too long.
const TAIL: u64 = 1 << 20;
/// Executor: its own, and the buffers of one attempt (spool batch, pieces of 64 KiB, commands to the bus).
const EXECUTOR: u64 = 192 << 20;
/// Door: its own, and one window of a log, of at most 8 MiB.
const DOOR: u64 = 192 << 20;

/// A log beyond its limit keeps its start and its end, counts what is between, and costs no service memory.
#[tokio::test]
async fn a_flood_of_output_is_cut_and_counted_and_takes_no_memory() {
    let harness = Harness::start(with(&[("LOG_CAP", "8388608")])).await;
    let run = harness.submit(shell(&format!("yes 0123456789abcdef | head -c {FLOOD}; echo last words"))).await;
    let state = harness.wait_completed(&run).await;
    let log = String::from_utf8(harness.log(&run, "main", 1, "").await).unwrap();
    assert!(log.ends_with("last words\n"), "the end is kept");
    let mark = log.lines().find(|line| line.contains("bytes of output were dropped here")).expect("the cut is marked");
    let dropped: u64 = mark.split_whitespace().find_map(|word| word.parse().ok()).expect("with a count");
    let said = "last words\n".len() as u64;
    assert_eq!(FLOOD + said - dropped, CAP + TAIL, "{mark}");
    let kept = state["steps"][0]["attempts"][0]["log_bytes"].as_u64().unwrap();
    assert!((CAP + TAIL..CAP + TAIL + 1024).contains(&kept) && kept == log.len() as u64, "{kept}");
    for (service, most) in [("executor-1", EXECUTOR), ("ingest-1", DOOR), ("scheduler-1", DOOR)] {
        let peak = harness.peak_memory(service);
        assert!(peak < most, "{service} has had {} MiB", peak >> 20);
    }
    harness.close().await;
}

/// A step that forks without end is ended with everything it started, and the executor goes on.
#[tokio::test]
async fn a_fork_bomb_is_ended_with_its_tree() {
    let harness = Harness::start(with(&[("STEP_PROCESSES", "100")])).await;
    // It would stop by itself, so that a machine on which nothing holds is not filled.
    let script = "i=0; while [ $i -lt 2000 ]; do (trap : TERM; sleep 600 & wait) & i=$((i+1)); done; wait";
    let bomb = harness.submit(shell(script)).await;
    let beside = harness.finish(shell("echo beside")).await;
    assert_eq!(beside["status"], "completed");
    let state = harness.wait_final(&bomb).await;
    assert_eq!((&state["status"], &state["failure_code"]), (&json!("failed"), &json!("policy_denied")), "{state:#}");
    assert!(state["error"]["message"].as_str().unwrap().contains("HOPYARD_STEP_PROCESSES"), "{state:#}");
    assert_eq!(step_of(&state, "main")["attempts"].as_array().unwrap().len(), 1);
    assert_eq!(step_processes(harness.dir()), Vec::<String>::new(), "its tree is gone before it ends");
    let log = String::from_utf8(harness.log(&bomb, "main", 1, "").await).unwrap();
    assert!(log.contains("more than 100 processes"), "{log}");
    assert_eq!(harness.finish(shell("echo after")).await["status"], "completed");
    harness.close().await;
}
