//! Messages of committed transactions: published at once, or by the sweep of whoever finds their row.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hopyard_contract::RunId;
use hopyard_store::runs::{OutboxMessage, RunStore as _};

use super::Scheduler;
use crate::bugs::Bug;
use crate::bus::{Body, StreamId};
use crate::clockwork::{Mailbox, S};

/// Rows of others are taken when they are older than this.
pub(super) const ABANDONED_MS: u64 = 5_000;

/// Rows that are published and not deleted yet.
#[derive(Clone, Default)]
pub(super) struct Outbox {
    done: Rc<RefCell<Vec<i64>>>,
    under_way: Rc<Cell<u32>>,
    /// The sweep has published something.
    pub(super) swept: Mailbox<()>,
}

impl Outbox {
    pub(super) fn take_done(&self) -> Vec<i64> {
        std::mem::take(&mut *self.done.borrow_mut())
    }

    pub(super) fn put_back(&self, rows: Vec<i64>) {
        self.done.borrow_mut().extend(rows);
    }

    pub(super) fn has_done(&self) -> bool {
        self.under_way.get() > 0 || !self.done.borrow().is_empty()
    }
}

impl Scheduler {
    /// Publishes the messages of a committed row.
    pub(super) fn publish(&self, id: i64, messages: Vec<OutboxMessage>) {
        let (outbox, world, process) = (self.outbox.clone(), self.world.clone(), self.process);
        outbox.under_way.set(outbox.under_way.get() + 1);
        self.world.clock.spawn(process, async move {
            let mut all = true;
            for message in &messages {
                all &= world.bus.publish(process, StreamId::Event, body(message)).await.is_ok();
            }
            if all {
                outbox.done.borrow_mut().push(id);
            }
            outbox.under_way.set(outbox.under_way.get() - 1);
        });
    }

    /// Publishes rows that nobody else has.
    pub(super) async fn sweep_for_ever(&self) {
        loop {
            self.world.clock.sleep(2 * S).await;
            if self.world.has(Bug::OutboxNotSwept) {
                continue;
            }
            let Ok(rows) = self.world.store.outbox(ABANDONED_MS, 200).await else { continue };
            'rows: for row in rows {
                if self.outbox.done.borrow().contains(&row.id) {
                    continue;
                }
                for message in &row.messages {
                    if self.world.bus.publish(self.process, StreamId::Event, body(message)).await.is_err() {
                        break 'rows;
                    }
                }
                self.outbox.done.borrow_mut().push(row.id);
                self.outbox.swept.send(());
            }
        }
    }
}

fn body(message: &OutboxMessage) -> Body {
    /// As much of a page as is asked for.
    #[derive(serde::Deserialize)]
    struct Page {
        events: Vec<serde::de::IgnoredAny>,
    }
    let ids = message.id.rsplit_once(':').and_then(|(run, first)| Some((run.parse::<RunId>().ok()?, first.parse::<u64>().ok()?)));
    match (ids, serde_json::from_str::<Page>(message.body.get())) {
        (Some((run, first)), Ok(page)) => Body::Page(run, first, first + page.events.len() as u64 - 1),
        _ => Body::Receipt,
    }
}
