//! Reports to the schedulers: batched, durable on the bus, and repeated until they are settled.

use std::sync::Arc;
use std::time::Duration;

use hopyard_contract::message::{MESSAGE_VERSION, Report, Reports};
use hopyard_contract::{Name, subject};
use hopyard_runtime::bus::encode;
use hopyard_runtime::{Bus, Context, bounds};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, timeout_at};

/// Most reports of one message.
const BATCH: usize = 64;
/// For how long a message of starts alone waits for others: the step of many ends in that time, and both are one message and one
/// commit then.
const COMPANY: Duration = Duration::from_millis(5);

/// The sending side; cheap to clone.
#[derive(Clone)]
pub(crate) struct Reporter {
    reports: mpsc::Sender<Report>,
    ring: Arc<Notify>,
}

impl Reporter {
    /// Starts to publish.
    pub(crate) fn start(ctx: &Context) -> Self {
        let (reports, mut queue) = bounds::channel::<Report>("reports", 1024);
        let (bus, id, stop) = (ctx.bus.clone(), ctx.id.clone(), ctx.tasks.stopping().clone());
        ctx.tasks.spawn("reports", async move {
            while let Some(Some(first)) = stop.run_until_cancelled(queue.recv()).await {
                let batch = batch(first, &mut queue).await;
                publish(&bus, &id, batch).await;
            }
            Ok(())
        });
        Self { reports, ring: Arc::default() }
    }

    /// Hands a report over; its order among the others is kept.
    pub(crate) async fn report(&self, report: Report) {
        // Closed only while the process ends; what is not published then is published at the next start.
        if self.reports.send(report).await.is_err() {
            tracing::debug!("a report came after the end");
        }
    }

    /// Something may be claimable.
    pub(crate) fn ring(&self) {
        self.ring.notify_one();
    }

    /// Waits for a ring.
    pub(crate) async fn rung(&self) {
        self.ring.notified().await;
    }
}

/// What waits beside the first report, and, as long as there are starts alone, what comes soon.
async fn batch(first: Report, queue: &mut mpsc::Receiver<Report>) -> Vec<Report> {
    let (now, mut batch) = (Instant::now(), vec![first]);
    while batch.len() < BATCH {
        let starts_alone = batch.iter().all(|report| matches!(report, Report::Started(_)));
        let until = if starts_alone { now + COMPANY } else { now };
        // What waits already is taken also when the time is over.
        let Ok(Some(report)) = timeout_at(until, queue.recv()).await else { break };
        batch.push(report);
    }
    batch
}

/// Publishes until the stream has it; a full or absent stream is waited for, since leases are renewed meanwhile.
async fn publish(bus: &Bus, id: &Name, reports: Vec<Report>) {
    let body = encode(&Reports { v: MESSAGE_VERSION, from: id.clone(), reports });
    let mut pause = Duration::from_millis(50);
    loop {
        match bus.publish_stored(&subject::result(id), None, body.clone()).await {
            Ok(_) => {
                hopyard_runtime::failpoint!("executor.reports.stored");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "a report could not be published");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(Duration::from_secs(5));
            }
        }
    }
}
