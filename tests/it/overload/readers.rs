//! Readers that are too many, or that never read: they are told so or cut off, and hold up nobody.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::{passing, with};
use crate::harness::Harness;
use crate::harness::api::shell;
use crate::harness::http::{self, Frames};
use crate::harness::wait::{eventually, holds};

/// Bytes that the step of the test writes: more than all buffers of one reader together.
const MANY: usize = 24 << 20;
/// What a door may take for itself and a few readers: far below what the step writes, times readers.
const MEMORY: u64 = 256 << 20;

/// Beyond the cap a stream is refused with 429, and a place that is given back is there for the next one.
#[tokio::test]
async fn one_stream_too_many_is_refused_until_another_ends() {
    let harness = Harness::start(with(&[("HTTP_STREAMS", "2")])).await;
    let run = harness.submit(shell("echo up; while :; do sleep 1; done")).await;
    harness.wait_running(&run, "main").await;
    let first = harness.follow(&run, None).await;
    let _second = harness.follow(&run, None).await;
    let path = format!("/api/v1/runs/{run}/events");
    passing(harness.http("GET", &path, Value::Null).await, 429, "too_many_streams");
    assert_eq!(harness.metric("ingest-1", "hopyard_buffer_depth{buffer=\"streams\"}").await, 2.0);
    assert_eq!(harness.metric("ingest-1", "hopyard_buffer_overflows_total{buffer=\"streams\"}").await, 1.0);
    assert_eq!(harness.run(&run).await["status"], "running", "reads that are no streams are open");
    drop(first);
    let third = loop {
        // The door sees a closed connection when it next looks at it.
        match http::send(harness.api(), "GET", &path, &[("Accept", "application/json")], b"").await.unwrap().status {
            200 if harness.metric("ingest-1", "hopyard_buffer_depth{buffer=\"streams\"}").await < 2.0 => {
                break harness.follow(&run, None).await;
            }
            200 => {}
            other => panic!("{other}"),
        }
    };
    harness.cancel(&run, Value::Null).await.expect(202);
    assert!(third.rest().await.iter().any(|frame| frame.event == "run.killed"));
    harness.close().await;
}

/// Beyond the cap of connections the answer is 503 and the connection is closed; the open ones work.
#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let harness = Harness::start(with(&[("HTTP_CONNECTIONS", "3")])).await;
    let api = harness.api();
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(TcpStream::connect(api).await.unwrap());
    }
    eventually("the door has taken them", || async {
        let depth = harness.metric("ingest-1", "hopyard_buffer_depth{buffer=\"connections\"}").await;
        holds(depth == 3.0, depth.to_string())
    })
    .await;
    passing(http::send(api, "GET", "/api/v1/version", &[], b"").await.unwrap(), 503, "overloaded");
    open.pop();
    eventually("there is room again", || async {
        let answer = http::send(api, "GET", "/api/v1/version", &[], b"").await.map_err(|e| e.to_string())?;
        holds(answer.status == 200, answer.text())
    })
    .await;
    drop(open);
    harness.close().await;
}

/// A reader that never reads is cut off, holds little memory, and does not slow the reader beside it.
#[tokio::test]
async fn a_reader_that_never_reads_is_cut_off_and_holds_up_nobody() {
    let harness = Harness::start(with(&[("STREAM_PATIENCE", "1s")])).await;
    let api = harness.api();
    let gate = harness.dir().join("gate");
    let script = format!("until [ -e {} ]; do sleep 0.05; done; yes 0123456789abcdef | head -c {MANY}", gate.display());
    let run = harness.submit(shell(&script)).await;
    harness.wait_running(&run, "main").await;
    let path = format!("/api/v1/runs/{run}/steps/main/attempts/1/logs/stream");
    let mut stuck = Vec::new();
    for _ in 0..8 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let mut stream = socket.connect(api).await.unwrap();
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {api}\r\nAccept: text/event-stream\r\n\r\n").as_bytes()).await.unwrap();
        stuck.push(stream);
    }
    eventually("all of them are read for", || async {
        let depth = harness.metric("ingest-1", "hopyard_buffer_depth{buffer=\"streams\"}").await;
        holds(depth >= 8.0, depth.to_string())
    })
    .await;
    let mut reader = Frames::open(api, &path, None).await;
    std::fs::write(&gate, "").unwrap();
    let mut bytes = 0;
    let mut next = 0;
    loop {
        let frame = reader.next().await.expect("the log has an end");
        match frame.event.as_str() {
            "end" => break,
            "log" => {
                assert_eq!(frame.data["offset"], next, "no gap and no repeat");
                next = frame.id.as_deref().and_then(|id| id.rsplit(':').next()).unwrap().parse::<u64>().unwrap();
                if frame.data["stream"] == "stdout" {
                    bytes += frame.data["text"].as_str().unwrap().len();
                }
            }
            "gap" => {}
            other => panic!("{other}: {}", frame.data),
        }
    }
    assert_eq!(bytes, MANY);
    harness.wait_completed(&run).await;
    eventually("those that read nothing are cut off", || async {
        let open = harness.metric("ingest-1", "hopyard_buffer_depth{buffer=\"connections\"}").await;
        holds(open <= 1.0, open.to_string())
    })
    .await;
    // By the stream that waits for room, or by the kernel that waits for a word of the peer: whichever was full for longer.
    let mut cut_off = 0.0;
    for who in ["slow-readers", "stuck-connections"] {
        cut_off += harness.metric("ingest-1", &format!("hopyard_buffer_overflows_total{{buffer=\"{who}\"}}")).await;
    }
    assert!(cut_off >= 8.0, "{cut_off}");
    let peak = harness.peak_memory("ingest-1");
    assert!(peak < MEMORY, "the door has had {} MiB", peak >> 20);
    drop(stuck);
    // Not a word is lost for one of them that comes back.
    let again = tokio::time::timeout(Duration::from_secs(60), Frames::open(api, &path, None).await.rest()).await.unwrap();
    assert!(again.iter().all(|frame| frame.event == "log"));
    harness.close().await;
}
