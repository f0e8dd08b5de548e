//! Counting: events from the bus as they come, from the database whenever some may be missing, saved before acknowledged.

use std::time::Duration;

use hopyard_contract::event::EventPage;
use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::Context;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::consume::Delivery;

use crate::checkpoint::Checkpoint;
use crate::instruments;
use crate::ledger::{Ledger, Place};
use sources::{Events, note, read_bus, take};

mod sources;

/// Most messages that wait for a save; below the consumer's limit of unacknowledged ones.
const MOST_PENDING: usize = 2048;
/// Pages of events of one reading.
const PAGES: u32 = 500;
/// Between saves while there is something new; a large ledger is saved less often.
const SAVE: Duration = Duration::from_secs(2);
const SAVE_LARGE: Duration = Duration::from_secs(8);
/// Remembered runs that make a ledger large.
const LARGE: usize = 5_000;
/// Between saves while there is nothing new: others see by it that this instance lives.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// Between readings of the database while there is something new: makes good what the bus lost, and bounds the memory.
const RECONCILE: Duration = Duration::from_secs(120);
/// Shortest time between readings, however many gaps there are.
const SHORTEST: Duration = Duration::from_secs(1);
/// Between looks at what is due.
const TICK: Duration = Duration::from_millis(250);

/// Why counting ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process shall stop; everything is saved as far as the store took it.
    Drained,
    /// Another instance counts.
    Superseded,
}

struct Lead<'a, E> {
    ctx: &'a Context,
    checkpoint: &'a mut Checkpoint,
    events: &'a E,
    ledger: Ledger,
    /// Counted, and not saved yet.
    pending: Vec<Delivery>,
    dirty: bool,
    saved: BootInstant,
    /// Why the database has to be read, if it has to.
    behind: Option<&'static str>,
    read: BootInstant,
    /// Something came since the last reading.
    news: bool,
    reconnects: u64,
}

/// Counts until the process shall stop or another instance has taken over.
pub(crate) async fn run<E: Events>(ctx: &Context, checkpoint: &mut Checkpoint, events: &E, ledger: Ledger) -> Ended {
    let now = BootInstant::now();
    let reconnects = ctx.bus.reconnects();
    let mut lead = Lead {
        ctx,
        checkpoint,
        events,
        ledger,
        pending: Vec::new(),
        dirty: true,
        saved: now,
        behind: Some("start"),
        read: now,
        news: false,
        reconnects,
    };
    let ended = lead.count().await;
    instruments::active().with_label_values::<&str>(&[]).set(0);
    for delivery in &lead.pending {
        // Counted, but not in a checkpoint: whoever counts next gets it.
        delivery.later(Duration::from_millis(500)).await;
    }
    ended
}

impl<E: Events> Lead<'_, E> {
    async fn count(&mut self) -> Ended {
        let drain = self.ctx.tasks.draining().clone();
        if let Err(ended) = self.begin().await {
            return ended;
        }
        instruments::active().with_label_values::<&str>(&[]).set(1);
        self.ledger.shown().open(true);
        self.ctx.readiness.set("counters", ComponentHealth::ok());
        tracing::info!(runs = self.ledger.remembered(), "the counters are loaded");
        let (mut batches, _reading) = read_bus(self.ctx);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = drain.cancelled() => return self.end().await,
                Some(batch) = batches.recv(), if self.pending.len() < MOST_PENDING => self.on_batch(batch),
                _ = tick.tick() => {}
            }
            if let Err(ended) = self.on_tick().await {
                return ended;
            }
        }
    }

    /// Takes the checkpoint and reads what the database has beyond it, before anything is shown.
    async fn begin(&mut self) -> Result<(), Ended> {
        let drain = self.ctx.tasks.draining().clone();
        self.save().await?;
        while self.behind.is_some() {
            if drain.is_cancelled() {
                return Err(self.end().await);
            }
            self.ctx.readiness.tick("counters-loop", Duration::from_secs(10));
            self.read_database().await?;
            if self.behind.is_some() {
                self.ctx.readiness.set("counters", ComponentHealth::degraded("loading", "the events cannot be read from the database yet"));
                drain.run_until_cancelled(tokio::time::sleep(SHORTEST)).await;
            }
        }
        Ok(())
    }

    fn on_batch(&mut self, batch: Vec<Delivery>) {
        hopyard_runtime::failpoint!("metrics.events.taken");
        for delivery in batch {
            match self.ledger.place(delivery.sequence, delivery.deliveries == 1) {
                Place::Expected => {}
                Place::Gap => self.behind = Some("gap"),
                Place::Restarted => self.behind = Some("restarted"),
            }
            // Receipts travel on the same stream; they are no events.
            if delivery.subject.starts_with("hopyard.event.") {
                match serde_json::from_slice::<EventPage>(&delivery.body) {
                    Ok(page) => note(&mut self.ledger, &page.events, "bus"),
                    Err(error) => {
                        // The database has it in a form that this build can read, or none has.
                        tracing::warn!(%error, subject = delivery.subject, sequence = delivery.sequence, "a page of events cannot be read");
                        instruments::undecodable().with_label_values::<&str>(&[]).inc();
                        self.behind = Some("undecodable");
                    }
                }
                self.news = true;
                hopyard_runtime::failpoint!("metrics.folded");
            }
            self.dirty = true;
            self.pending.push(delivery);
        }
    }

    async fn on_tick(&mut self) -> Result<(), Ended> {
        self.ctx.readiness.tick("counters-loop", Duration::from_secs(10));
        let reconnects = self.ctx.bus.reconnects();
        if reconnects != self.reconnects {
            self.reconnects = reconnects;
            self.behind = Some("reconnect");
        }
        if self.news && self.read.elapsed() > RECONCILE {
            self.behind = Some("reconcile");
        }
        if self.behind.is_some() && self.read.elapsed() > SHORTEST {
            self.read_database().await?;
        }
        let pause = if self.ledger.remembered() > LARGE { SAVE_LARGE } else { SAVE };
        let due = if self.dirty { pause } else { SIGN_OF_LIFE };
        if self.saved.elapsed() >= due || self.pending.len() >= MOST_PENDING {
            self.save().await?;
        }
        Ok(())
    }

    /// Reads everything since the floor; what cannot be read now is read later.
    async fn read_database(&mut self) -> Result<(), Ended> {
        let Some(reason) = self.behind else { return Ok(()) };
        instruments::folds().with_label_values(&[reason]).inc();
        self.news = false;
        let mut since = self.ledger.floor();
        loop {
            let events = match self.events.since(since, PAGES).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), reason, "events cannot be read from the database; they are read later");
                    self.read = BootInstant::now();
                    return Ok(());
                }
            };
            let Some(next) = take(&mut self.ledger, &events) else { break };
            since = next;
            self.dirty = true;
            // A long history takes a while; others have to see that this instance lives.
            if self.saved.elapsed() > SAVE_LARGE {
                self.save().await?;
            }
            self.ctx.readiness.tick("counters-loop", Duration::from_secs(10));
            if self.ctx.tasks.draining().is_cancelled() {
                return Ok(());
            }
        }
        hopyard_runtime::failpoint!("metrics.database.read");
        self.behind = None;
        self.read = BootInstant::now();
        Ok(())
    }

    /// Saves, and acknowledges what is in the checkpoint.
    async fn save(&mut self) -> Result<(), Ended> {
        self.saved = BootInstant::now();
        match self.checkpoint.save(&self.ledger, true).await {
            Ok(true) => {
                hopyard_runtime::failpoint!("metrics.checkpointed");
                self.dirty = false;
                for delivery in self.pending.drain(..) {
                    delivery.ack().await;
                    hopyard_runtime::failpoint!("metrics.acked");
                }
                Ok(())
            }
            Ok(false) => Err(Ended::Superseded),
            Err(error) => {
                // Nothing is lost: the messages come again unless a later save is faster.
                tracing::warn!(error = format!("{error:#}"), pending = self.pending.len(), "the counters cannot be saved yet");
                Ok(())
            }
        }
    }

    /// Saves for the last time and leaves the counters to whoever waits.
    async fn end(&mut self) -> Ended {
        match self.checkpoint.save(&self.ledger, false).await {
            Ok(true) => {
                for delivery in self.pending.drain(..) {
                    delivery.ack().await;
                }
            }
            Ok(false) => tracing::warn!("another instance counts already"),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the counters cannot be saved; the next process counts on from the last checkpoint"
            ),
        }
        Ended::Drained
    }
}
