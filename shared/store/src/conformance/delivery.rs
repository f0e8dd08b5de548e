//! What leaves the store again: messages, events for a refill, the state of metrics, the clock.

use chrono::TimeDelta;

use super::{Bench, samples};
use crate::runs::{OutboxMessage, RunWrite, Writes};

pub(super) async fn the_outbox_is_emptied(bench: Bench) {
    let message = |n: u32| OutboxMessage {
        subject: format!("hopyard.event.{}.{n}", bench.namespace),
        id: format!("{n}"),
        kind: (n == 1).then(|| "run.accepted".to_owned()),
        body: OutboxMessage::body(&serde_json::json!({"n": n, "text": "ü", "list": [null, 1.5]})),
    };
    // Ids are minted by schedulers; the run id's clock and random part make one that no other case has.
    let id = i64::from_be_bytes(hopyard_contract::RunId::mint().as_uuid().as_bytes()[..8].try_into().unwrap()) >> 1;
    let messages = vec![message(1), message(2)];
    let before = within_tx!(bench, now());
    bench.write(Writes { outbox: messages.clone(), outbox_id: id, ..Writes::default() }).await.unwrap();
    let ours = async |age| bench.runs.outbox(age, 10_000).await.unwrap().into_iter().find(|row| row.id == id);
    let row = ours(0).await.unwrap();
    assert_eq!(row.messages, messages);
    assert!(row.at >= before);
    assert_eq!(ours(3_600_000).await, None, "it is not that old");
    assert!(bench.runs.outbox_age_ms().await.unwrap() < 3_600_000);
    bench.reader.outbox_age_ms().await.unwrap();
    bench.write(Writes { published: vec![id], ..Writes::default() }).await.unwrap();
    assert_eq!(ours(0).await, None);
    if bench.runs.outbox(0, 1).await.unwrap().is_empty() {
        assert_eq!(bench.runs.outbox_age_ms().await.unwrap(), 0, "an empty outbox has no age");
        assert_eq!(bench.reader.outbox_age_ms().await.unwrap(), 0);
    }
}

pub(super) async fn events_are_replayed(bench: Bench) {
    let now = within_tx!(bench, now());
    let (first, second) = (bench.run(), bench.run());
    for run in [&first, &second] {
        let events = vec![samples::event(run, 1, now), samples::event(run, 2, now)];
        bench.put(RunWrite { events, ..samples::new_run(run, &[]) }).await.unwrap();
    }
    let later = now + TimeDelta::milliseconds(5);
    bench.put(RunWrite { events: vec![samples::event(&first, 3, later)], ..samples::change(&first) }).await.unwrap();
    let ours = |events: Vec<hopyard_contract::event::Event>| {
        events.into_iter().filter(|e| e.namespace == bench.namespace).map(|e| (e.run_id, e.seq)).collect::<Vec<_>>()
    };
    let by_run = [(first.id, 1), (first.id, 2), (first.id, 3), (second.id, 1), (second.id, 2)];
    assert_eq!(ours(bench.runs.events_since(now, 100_000).await.unwrap()), by_run, "by run and number");
    let by_time = [(first.id, 1), (first.id, 2), (second.id, 1), (second.id, 2), (first.id, 3)];
    assert_eq!(ours(bench.reader.events_since(now, 100_000).await.unwrap()), by_time, "by time, run and number");
    assert_eq!(ours(bench.reader.events_since(later, 100_000).await.unwrap()), [(first.id, 3)]);
    assert!(ours(bench.reader.events_since(later + TimeDelta::microseconds(1), 100_000).await.unwrap()).is_empty());
}

pub(super) async fn metrics_state_is_compared(bench: Bench) {
    // The service keeps the version in its own state; an earlier pass over the same store has left one.
    let version = bench.metrics.load().await.unwrap().map_or(0, |state| state["version"].as_i64().unwrap());
    let value = |version: i64, text: &str| serde_json::json!({"version": version, "text": text, "counts": {"a": [1, 2.5]}});
    let state = |version: i64, text: &str| serde_json::value::to_raw_value(&value(version, text)).unwrap();
    assert!(bench.metrics.save(version, state(version + 1, "one")).await.unwrap());
    assert!(!bench.metrics.save(version, state(version + 1, "lost")).await.unwrap(), "somebody else has saved");
    assert!(!bench.metrics.save(version + 7, state(version + 8, "lost")).await.unwrap());
    assert!(bench.metrics.save(version + 1, state(version + 2, "two")).await.unwrap());
    assert!(!bench.metrics.save(0, state(1, "lost")).await.unwrap(), "there is one already");
    assert_eq!(bench.metrics.load().await.unwrap(), Some(value(version + 2, "two")));
}

pub(super) async fn time_does_not_go_back(bench: Bench) {
    let mut last = within_tx!(bench, now());
    for _ in 0..5 {
        let mut tx = bench.runs.begin().await.unwrap();
        let now = tx.now().await.unwrap();
        assert!(now >= last);
        assert_eq!(now.timestamp_subsec_nanos() % 1000, 0, "whole microseconds, as they are stored");
        tx.write(&Writes::default()).await.unwrap();
        tx.commit().await.unwrap();
        last = now;
    }
}

pub(super) async fn the_schema_is_described(bench: Bench) {
    let tables = bench.reader.schema().await.unwrap();
    for table in ["runs", "steps", "attempts", "events", "outbox", "workspaces"] {
        let found = tables.iter().find(|(name, _)| name.rsplit('.').next() == Some(table));
        assert!(found.is_some_and(|(_, version)| *version >= 1), "{table} is in {tables:?}");
    }
}
