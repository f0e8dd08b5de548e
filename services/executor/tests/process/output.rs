//! What a step writes: nothing lost, nothing blocked, nothing changed.

use std::time::Instant;

use hopyard_contract::log::Stream;
use hopyard_executor::process::ExitKind;
use hopyard_executor::process::spool::TAIL_BYTES;

use crate::bench::{Bench, PATIENCE, wait_for_output};

pub(crate) async fn ten_megabytes_on_both_streams_lose_nothing() {
    let bench = Bench::new();
    let script = "head -c 10000000 /dev/zero & head -c 10000000 /dev/zero | tr '\\0' e >&2; wait";
    let facts = bench.run(&["sh", "-c", script]).await;
    assert!(facts.succeeded(), "{facts:?}");
    let (out, err) = (bench.log(Stream::Stdout), bench.log(Stream::Stderr));
    assert_eq!((out.len(), err.len()), (10_000_000, 10_000_000));
    assert!(out.iter().all(|byte| *byte == 0) && err.iter().all(|byte| *byte == b'e'));
    assert_eq!((facts.log_bytes, facts.log_dropped_bytes, facts.log_truncated), (20_000_000, 0, false));
}

pub(crate) async fn any_byte_is_kept() {
    let bench = Bench::new();
    let facts = bench.run(&["sh", "-c", "printf 'a\\000b\\377\\376\\r\\n'; printf '\\303' >&2"]).await;
    assert!(facts.succeeded(), "{facts:?}");
    assert_eq!(bench.log(Stream::Stdout), b"a\0b\xff\xfe\r\n");
    assert_eq!(bench.log(Stream::Stderr), b"\xc3");
}

pub(crate) async fn output_is_seen_while_the_step_runs() {
    let bench = Bench::new();
    // The step goes on only when the reader has answered, by a file.
    let script = "echo first; until [ -e go ]; do sleep 0.01; done; echo second >&2";
    let process = bench.shell(script).await;
    let mut tail = process.output(0).unwrap();
    let first = tail.next().await.unwrap().unwrap();
    assert_eq!((first.offset, first.stream, first.bytes.as_slice()), (0, Stream::Stdout, &b"first\n"[..]));
    assert!(process.started().await.is_some());
    std::fs::write(bench.work().join("go"), "").unwrap();
    let second = tail.next().await.unwrap().unwrap();
    assert_eq!((second.offset, second.stream, second.bytes.as_slice()), (6, Stream::Stderr, &b"second\n"[..]));
    assert_eq!(tail.next().await.unwrap(), None);
    assert_eq!((tail.offset(), bench.end_of(&process).await.log_bytes), (13, 13));
    let mut middle = process.output(3).unwrap();
    assert_eq!(middle.next().await.unwrap().unwrap().bytes, b"st\n");
}

pub(crate) async fn a_flood_is_cut_and_does_not_stop_the_step() {
    let bench = Bench::new().with(|limits| limits.log_cap_bytes = 1_000_000);
    let total = 200_000_000_u64;
    let start = Instant::now();
    let facts = bench.run(&["sh", "-c", &format!("head -c {total} /dev/zero; head -c {total} /dev/zero >&2; echo end")]).await;
    assert!(facts.succeeded(), "{facts:?}");
    assert!(facts.log_truncated);
    assert_eq!(facts.log_dropped_bytes, 2 * total + 4 - 1_000_000 - TAIL_BYTES as u64);
    let kept = bench.log(Stream::Stdout).len() + bench.log(Stream::Stderr).len();
    assert_eq!(kept, 1_000_000 + TAIL_BYTES);
    assert!(bench.log(Stream::Stdout).ends_with(b"\0end\n") || bench.log(Stream::Stdout).ends_with(b"end\n"));
    assert!(bench.system_log().contains("bytes of output were dropped here"));
    assert!(start.elapsed() < PATIENCE, "drained too slowly");
}

pub(crate) async fn a_pipe_kept_open_from_outside_is_let_go() {
    let bench = Bench::new();
    let process = bench.shell("echo ready; until [ -e go ]; do sleep 0.01; done").await;
    wait_for_output(&process, "ready").await;
    let pid = process.started().await.unwrap();
    let held = std::fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/fd/1")).unwrap();
    std::fs::write(bench.work().join("go"), "").unwrap();
    let facts = bench.end_of(&process).await;
    assert_eq!((facts.kind, facts.code, facts.pipes_leaked), (ExitKind::Exited, Some(0), true));
    assert_eq!(facts.leftover_killed, 0);
    drop(held);
}
