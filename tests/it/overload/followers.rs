//! A thousand followers: each sees every event once and the end once, while runs go on being started.

use futures::future::join_all;

use super::with;
use crate::harness::Harness;
use crate::harness::api::shell;
use crate::harness::http::{Frame, Frames};

/// Followers in all.
const MANY: usize = 1000;

/// Reads a stream to its close: the numbers of its events, and how often it said `end`.
async fn whole(mut frames: Frames) -> (Vec<u64>, usize) {
    let (mut numbers, mut ends) = (Vec::new(), 0);
    while let Some(Frame { id, event, .. }) = frames.next().await {
        match event.as_str() {
            "end" => ends += 1,
            _ => numbers.push(id.expect("an event has a number").parse().expect("it is one")),
        }
    }
    (numbers, ends)
}

/// Covers K5: follows `runs` runs with a thousand readers, starts others meanwhile, and lets all end.
async fn follow(runs: usize) {
    hopyard_runtime::limits::raise_open_files();
    let harness = Harness::start(with(&[("HTTP_STREAMS", "1200")])).await;
    let gate = harness.dir().join("gate");
    let mut followed = Vec::new();
    for _ in 0..runs {
        // One that waits for its gate holds a slot, so only the first does; the others wait for theirs.
        let script = if followed.is_empty() { format!("until [ -e {} ]; do sleep 0.05; done", gate.display()) } else { "true".to_owned() };
        let mut request = shell(&script);
        if let Some(first) = followed.first() {
            request["after"] = serde_json::json!([first]);
        }
        followed.push(harness.submit(request).await);
    }
    harness.wait_running(&followed[0], "main").await;
    let open = (0..MANY).map(|n| harness.follow(&followed[n % runs], None));
    let readers = join_all(join_all(open).await.into_iter().map(whole));
    let meanwhile = async {
        let others = join_all((0..20).map(|_| harness.finish(shell("echo beside")))).await;
        assert!(others.iter().all(|run| run["status"] == "completed"), "dispatch goes on beside a thousand readers");
        std::fs::write(&gate, "").unwrap();
    };
    let (seen, ()) = tokio::join!(readers, meanwhile);
    let mut last = Vec::new();
    for run in &followed {
        harness.wait_completed(run).await;
        last.push(harness.events(run).await.len() as u64);
    }
    for (n, (numbers, ends)) in seen.into_iter().enumerate() {
        assert_eq!(ends, 1, "the end comes once");
        assert!(numbers.iter().copied().eq(1..=last[n % runs]), "reader {n}: {numbers:?}");
    }
    harness.close().await;
}

/// Covers K5.
#[tokio::test]
async fn a_thousand_followers_of_one_run_see_everything_once() {
    follow(1).await;
}

/// Covers K5.
#[tokio::test]
async fn a_thousand_followers_of_many_runs_see_everything_once() {
    follow(50).await;
}
