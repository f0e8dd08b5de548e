//! Where events come from: the bus as they are published, the database in the order of time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::topology;
use hopyard_runtime::Context;
use hopyard_runtime::consume::{Consumer, Delivery};
use hopyard_store::read::Reader;
use tokio::sync::mpsc;
use tokio_util::sync::DropGuard;

use crate::instruments;
use crate::ledger::Ledger;

/// Most messages at once.
const BATCH: usize = 256;

/// Where committed events are read.
#[async_trait]
pub(crate) trait Events: Send + Sync {
    /// Events committed since an instant in the order of time: whole instants, at least `limit` pages if there are so many.
    async fn since(&self, since: DateTime<Utc>, limit: u32) -> anyhow::Result<Vec<Event>>;
}

#[async_trait]
impl Events for Arc<dyn Reader> {
    async fn since(&self, since: DateTime<Utc>, limit: u32) -> anyhow::Result<Vec<Event>> {
        Ok(self.events_since(since, limit).await?)
    }
}

/// Reads the bus in a task of its own, which a tick of the loop never interrupts; it ends when the guard is dropped.
pub(super) fn read_bus(ctx: &Context) -> (mpsc::Receiver<Vec<Delivery>>, DropGuard) {
    let stop = ctx.tasks.stopping().child_token();
    let guard = stop.clone().drop_guard();
    let (batches, receiver) = mpsc::channel(1);
    let mut consumer = Consumer::new(ctx.bus.clone(), ctx.topology, topology::metrics(), BATCH);
    ctx.tasks.spawn_part("events", async move {
        while let Some(batch) = Box::pin(consumer.next_until(&stop)).await {
            if let Err(unread) = batches.send(batch).await {
                for delivery in unread.0 {
                    delivery.later(Duration::from_millis(500)).await;
                }
                break;
            }
        }
        Ok(())
    });
    (receiver, guard)
}

/// Counts a reading of the database; the instant from which the next one begins, `None` at the end.
pub(super) fn take(ledger: &mut Ledger, events: &[Event]) -> Option<DateTime<Utc>> {
    let last = events.iter().map(|event| event.at).max()?;
    note(ledger, events, "database");
    ledger.read_up_to(last);
    // A reading holds whole instants, and the store counts microseconds.
    Some(last + TimeDelta::microseconds(1))
}

pub(super) fn note(ledger: &mut Ledger, events: &[Event], source: &'static str) {
    let new = events.iter().filter(|event| ledger.count(event)).count();
    let counter = |outcome| instruments::events().with_label_values(&[source, outcome]);
    counter("counted").inc_by(new as u64);
    counter("repeated").inc_by((events.len() - new) as u64);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::RUNS_ACCEPTED;
    use crate::ledger::Saved;
    use hopyard_contract::event::EventType;
    use hopyard_contract::{Name, RunId};

    /// Committed events, in the order of time, one page each.
    struct Committed(Vec<Event>);

    #[async_trait]
    impl Events for Committed {
        async fn since(&self, since: DateTime<Utc>, limit: u32) -> anyhow::Result<Vec<Event>> {
            let mut found: Vec<Event> = self.0.iter().filter(|e| e.at >= since).cloned().collect();
            if let Some(last) = found.get(limit as usize - 1).map(|e| e.at) {
                found.retain(|e| e.at <= last);
            }
            Ok(found)
        }
    }

    #[tokio::test]
    async fn a_long_history_is_read_in_pages_and_counted_once() {
        let begin = DateTime::from_timestamp(1_750_000_000, 0).unwrap();
        let accepted = |n: i64| {
            // Three runs at each instant.
            let at = begin + TimeDelta::milliseconds(n / 3 * 700);
            let run = RunId::floor_of(begin + TimeDelta::seconds(n));
            let data = [("workflow".to_owned(), "fix".into())].into_iter().collect();
            Event {
                v: 1,
                id: format!("{run}:1"),
                run_id: run,
                namespace: Name::default_namespace(),
                seq: 1,
                kind: EventType::RunAccepted,
                at,
                step: None,
                attempt: None,
                data,
            }
        };
        let committed = Committed((0..3000).map(accepted).collect());
        let mut ledger = Ledger::restore(Arc::default(), Saved::default());
        for _ in 0..2 {
            let (mut since, mut readings) = (ledger.floor(), 0);
            while let Some(next) = take(&mut ledger, &committed.since(since, 100).await.unwrap()) {
                assert!(next > since);
                since = next;
                readings += 1;
            }
            assert!((1..=30).contains(&readings), "{readings}");
            assert_eq!(ledger.shown().series().value(&RUNS_ACCEPTED, &["fix"]), 3000);
        }
        // 120 s of events are remembered, and no more.
        assert!(ledger.remembered() <= 3 * 173, "{}", ledger.remembered());
        assert_eq!(take(&mut ledger, &[]), None);
    }
}
