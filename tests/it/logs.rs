//! Logs: every byte of both streams, live and afterwards, without gap or repeat.

use serde_json::{Value, json};

use crate::harness::api::{on_repo, shell};
use crate::harness::http::{Frame, Frames};
use crate::harness::{Harness, Setup};

/// Bytes of one stream: more than any pipe, chunk or page holds.
const MANY: usize = 10 * 1024 * 1024;

/// Covers D4: two streams of 10 MB at once neither block each other nor lose a byte.
#[tokio::test]
async fn ten_megabytes_on_each_stream_arrive_exactly() {
    let harness = Harness::start(Setup::default()).await;
    // Lines of different lengths, so that a shifted or missing piece cannot look right.
    let script = format!(
        "awk 'BEGIN {{ for (i = 0; n < {MANY}; i++) {{ l = i \" out \" sprintf(\"%*s\", i % 97, \"\"); n += length(l) + 1; print l }} }}' &\n\
         awk 'BEGIN {{ for (i = 0; n < {MANY}; i++) {{ l = i \" err \" sprintf(\"%*s\", i % 89, \"\"); n += length(l) + 1; print l }} }}' >&2\nwait"
    );
    let wanted = |word: &str, modulo: usize| {
        let mut text = String::with_capacity(MANY + 200);
        for i in 0.. {
            if text.len() >= MANY {
                break;
            }
            text.push_str(&format!("{i} {word} {}\n", " ".repeat(i % modulo)));
        }
        text.into_bytes()
    };
    let run = harness.submit(shell(&script)).await;
    let state = harness.wait_completed(&run).await;
    let (out, err) = (wanted("out", 97), wanted("err", 89));
    for (stream, wanted) in [("stdout", &out), ("stderr", &err)] {
        let log = harness.log(&run, "main", 1, stream).await;
        assert_eq!(log.len(), wanted.len(), "{stream}");
        assert!(log == *wanted, "{stream} differs at byte {:?}", log.iter().zip(wanted).position(|(a, b)| a != b));
    }
    let attempt = &state["steps"][0]["attempts"][0];
    assert!(attempt["log_bytes"].as_u64().is_some_and(|n| n >= (out.len() + err.len()) as u64), "{attempt}");
    harness.close().await;
}

/// Covers D10, K2 and K3: a reader that comes late, leaves and comes back has every byte and every event once.
#[tokio::test]
async fn a_reader_that_comes_back_misses_and_repeats_nothing() {
    let harness = Harness::start(Setup::default()).await;
    let gate = harness.dir().join("gate");
    let script = format!(
        "for i in $(seq 200); do echo line $i; done; until [ -e {} ]; do sleep 0.05; done; for i in $(seq 201 400); do echo line $i; done",
        gate.display()
    );
    let run = harness.submit(shell(&script)).await;
    harness.wait_running(&run, "main").await;
    let path = format!("/api/v1/runs/{run}/steps/main/attempts/1/logs/stream");
    let mut text = String::new();
    let mut last: Option<String> = None;
    // Each connection takes a few frames and goes; the gate opens in between.
    for round in 0.. {
        let mut frames = Frames::open(harness.api(), &path, last.as_deref()).await;
        let mut ended = false;
        for _ in 0..2 {
            match frames.next().await {
                Some(frame) if frame.event == "end" => ended = true,
                Some(frame) => take(&frame, &mut text, &mut last),
                None => break,
            }
            if ended || text.ends_with("line 200\n") {
                break;
            }
        }
        if ended {
            break;
        }
        if text.ends_with("line 200\n") {
            std::fs::write(&gate, "").unwrap();
        }
        assert!(round < 1000, "the stream does not end: {text}");
    }
    let wanted: String = (1..=400).map(|i| format!("line {i}\n")).collect();
    assert!(text == wanted, "{text}");

    let state = harness.wait_completed(&run).await;
    let all = harness.follow(&run, None).await.rest().await;
    let ids: Vec<u64> = all.iter().map(|f| f.id.as_deref().unwrap_or_default().parse().unwrap()).collect();
    assert_eq!(ids, (1..=all.len() as u64).collect::<Vec<_>>());
    for skip in [1, all.len() / 2, all.len() - 1] {
        let rest = harness.follow(&run, Some(&skip.to_string())).await.rest().await;
        assert_eq!(rest, all[skip..], "after {skip}");
    }
    assert_eq!(state["status"], "completed");
    harness.close().await;
}

/// Takes the bytes of a frame; its offset has to be where the last one ended.
fn take(frame: &Frame, text: &mut String, last: &mut Option<String>) {
    assert_eq!(frame.event, "log");
    if frame.data["stream"] == "stdout" {
        text.push_str(frame.data["text"].as_str().expect("the step wrote UTF-8"));
    }
    let start = frame.data["offset"].as_u64().expect("a chunk has an offset");
    let before: u64 = last.as_deref().and_then(|id| id.rsplit(':').next()).map_or(0, |n| n.parse().unwrap());
    assert_eq!(start, before, "a chunk begins where the one before ended");
    last.clone_from(&frame.id);
}

/// Bytes that are no text come back as they were.
#[tokio::test]
async fn bytes_that_are_no_text_are_kept() {
    let harness = Harness::start(Setup::default()).await;
    let run = harness.submit(shell(r"printf '\377\000\033[31mred\r\n\342\202'; printf '</script>'")).await;
    harness.wait_completed(&run).await;
    let wanted = b"\xff\x00\x1b[31mred\r\n\xe2\x82</script>";
    assert_eq!(harness.log(&run, "main", 1, "stdout").await, wanted);
    let answer = harness
        .http("GET", &format!("/api/v1/runs/{run}/steps/main/attempts/1/logs?from=2&limit=4&stream=stdout"), Value::Null)
        .await
        .expect(200);
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.body, wanted[2..6]);
    harness.close().await;
}

/// Covers J11: logs, diff and bundle of a run are there by its id alone, from another door, after the executor is gone.
#[tokio::test]
async fn what_a_run_left_is_readable_after_its_executor_is_gone() {
    let mut harness = Harness::start(Setup { doors: 2, ..Setup::default() }).await;
    let repo = harness.repo(&[&[("a.txt", "one\n")]]);
    let run = harness.submit(on_repo(&repo, json!([{ "id": "main", "shell": "echo kept; echo two >> a.txt" }]))).await;
    harness.wait_completed(&run).await;
    harness.stop_service("executor-1").await;
    harness.kill9("ingest-1").await;
    assert_eq!(harness.stdout(&run, "main").await, "kept\n");
    let diff = harness.http("GET", &format!("/api/v1/runs/{run}/diff"), Value::Null).await.expect(200);
    assert_eq!(diff.header("content-type"), Some("text/x-diff; charset=utf-8"));
    assert!(diff.text().contains("+two"), "{}", diff.text());
    let bundle = harness.http("GET", &format!("/api/v1/runs/{run}/bundle"), Value::Null).await.expect(200);
    assert!(bundle.body.starts_with(b"# v2 git bundle\n") || bundle.body.starts_with(b"# v3 git bundle\n"));
    harness.start_service("ingest-1").await;
    harness.close().await;
}
