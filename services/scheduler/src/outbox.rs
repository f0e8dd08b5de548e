//! The outbox: what a transaction has to publish, published after the commit and deleted by a later one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use hopyard_runtime::{Bus, Context, bounds};
use hopyard_store::runs::{OutboxMessage, RunStore};
use tokio::sync::{Notify, mpsc};

/// Rows of others are taken when they are older than this.
const ABANDONED_MS: u64 = 5_000;
/// Name of the queue on `/metrics`.
const QUEUE: &str = "outbox";
/// Most rows that wait to be published.
const WINDOW: usize = 1024;

/// The publishing side and the list of rows that are done; cheap to clone.
#[derive(Clone)]
pub(crate) struct Outbox {
    rows: mpsc::Sender<(i64, Vec<OutboxMessage>)>,
    done: Arc<Mutex<Vec<i64>>>,
    under_way: Arc<AtomicU64>,
    swept: Arc<Notify>,
    oldest_ms: Arc<AtomicU64>,
}

impl Outbox {
    /// Starts the publisher and the sweep for rows that nobody published.
    pub(crate) fn start(ctx: &Context, store: Arc<dyn RunStore>) -> Self {
        let (rows, mut queue) = bounds::channel::<(i64, Vec<OutboxMessage>)>(QUEUE, WINDOW);
        let outbox = Self { rows, done: Arc::default(), under_way: Arc::default(), swept: Arc::default(), oldest_ms: Arc::default() };
        let (bus, own, stop, tasks) = (ctx.bus.clone(), outbox.clone(), ctx.tasks.stopping().clone(), ctx.tasks.clone());
        ctx.tasks.spawn("outbox", async move {
            while let Some(Some((id, messages))) = stop.run_until_cancelled(queue.recv()).await {
                hopyard_runtime::failpoint!("outbox.taken");
                let sent = send(&bus, &messages).await;
                // Acknowledgements are awaited beside the next row, so that many are under way.
                let own = own.clone();
                tasks.spawn_part("outbox-row", async move {
                    let mut outcome = Ok(());
                    for publishing in sent {
                        outcome = outcome.and(publishing.stored().await.map(drop));
                    }
                    if outcome.is_ok() {
                        hopyard_runtime::failpoint!("outbox.published");
                        own.done.lock().unwrap_or_else(PoisonError::into_inner).push(id);
                    }
                    own.under_way.fetch_sub(1, Ordering::Relaxed);
                    Ok(outcome?)
                });
            }
            Ok(())
        });
        let (bus, own, stop) = (ctx.bus.clone(), outbox.clone(), ctx.tasks.stopping().clone());
        ctx.tasks.spawn("outbox-sweep", async move {
            while stop.run_until_cancelled(tokio::time::sleep(Duration::from_secs(2))).await.is_some() {
                if let Err(error) = own.sweep(&bus, store.as_ref()).await {
                    tracing::warn!(error = format!("{error:#}"), "the outbox could not be swept");
                }
            }
            Ok(())
        });
        outbox
    }

    async fn sweep(&self, bus: &Bus, store: &dyn RunStore) -> anyhow::Result<()> {
        let mut rows = store.outbox(ABANDONED_MS, 200).await?;
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner).clone();
        rows.retain(|row| !done.contains(&row.id));
        let oldest = rows.iter().map(|row| (Utc::now() - row.at).num_milliseconds()).max().unwrap_or(0);
        self.oldest_ms.store(u64::try_from(oldest).unwrap_or(0), Ordering::Relaxed);
        for row in rows {
            for publishing in send(bus, &row.messages).await {
                publishing.stored().await?;
            }
            hopyard_runtime::failpoint!("outbox.swept");
            self.done.lock().unwrap_or_else(PoisonError::into_inner).push(row.id);
            self.swept.notify_one();
        }
        Ok(())
    }

    /// Publishes the messages of a committed row; a full queue leaves them to the sweep.
    pub(crate) fn publish(&self, id: i64, messages: Vec<OutboxMessage>) {
        self.under_way.fetch_add(1, Ordering::Relaxed);
        if self.rows.try_send((id, messages)).is_err() {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            bounds::overflow(QUEUE);
            tracing::warn!("the outbox queue is full; the sweep will publish");
        }
    }

    /// Rows that are published, for deletion with the next transaction. Rows come back when that fails.
    pub(crate) fn take_done(&self) -> Vec<i64> {
        std::mem::take(&mut *self.done.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts rows back that could not be deleted.
    pub(crate) fn put_back(&self, rows: Vec<i64>) {
        self.done.lock().unwrap_or_else(PoisonError::into_inner).extend(rows);
    }

    /// Waits until the sweep has published rows that nobody else did: no transaction may be near to delete them.
    pub(crate) async fn swept(&self) {
        self.swept.notified().await;
    }

    /// Whether published rows wait for deletion, or will in a moment.
    pub(crate) fn has_done(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0 || !self.done.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Age of the oldest row that nobody has published; 0 as long as nothing is late.
    pub(crate) fn age_ms(&self) -> u64 {
        self.oldest_ms.load(Ordering::Relaxed)
    }
}

async fn send(bus: &Bus, messages: &[OutboxMessage]) -> Vec<hopyard_runtime::bus::Publishing> {
    let mut sent = Vec::with_capacity(messages.len());
    for message in messages {
        let body = hopyard_runtime::bus::encode(&message.body);
        sent.push(bus.publish(&message.subject, Some(&message.id), message.kind.as_deref(), body).await);
    }
    sent
}
