//! Followers of runs: one subscription and one look at the store per run and process, however many follow it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use hopyard_contract::event::{Event, EventPage};
use hopyard_contract::{Name, RunId, subject};
use hopyard_runtime::Bus;
use hopyard_runtime::bus::Subscription;
use hopyard_store::read::Reader;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::door::Door;

/// Pages that a slow follower may be behind before it has to read the store.
const BEHIND: usize = 64;
/// Without a word for this long, the store is asked.
const SILENCE: Duration = Duration::from_secs(5);
/// How often it is checked whether the connection to the bus was lost and came back.
const TICK: Duration = Duration::from_millis(500);
/// How long a follower waits for the subscription before it goes on without.
const SUBSCRIBED: Duration = Duration::from_secs(1);
/// Events read from the store at once.
pub(crate) const READ: u32 = 200;

type Page = Arc<Vec<Event>>;
type Key = (Name, RunId);

/// The followers of a process; clones are the same.
#[derive(Clone, Default)]
pub(crate) struct Followers {
    runs: Arc<Mutex<HashMap<Key, Followed>>>,
}

struct Followed {
    pages: broadcast::Sender<Page>,
    subscribed: watch::Receiver<bool>,
}

/// What a follower hears.
#[derive(Debug)]
pub(crate) enum Heard {
    /// New events, or ones it has had before.
    Events(Page),
    /// Something was missed: the store knows.
    Missed,
}

/// One follower of one run.
pub(crate) struct Follow(broadcast::Receiver<Page>);

impl Follow {
    /// The next word about the run; may be dropped and called again without loss.
    pub(crate) async fn next(&mut self) -> Heard {
        match self.0.recv().await {
            Ok(page) => Heard::Events(page),
            Err(RecvError::Lagged(_)) => Heard::Missed,
            // The connection is closed for good: the process ends, and so will the stream.
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

impl Followers {
    /// Follows a run. When this returns, the subscription stands (or the bus does not answer); what is read from the store
    /// from now on and what is heard overlap.
    pub(crate) async fn follow(&self, door: &Door, namespace: &Name, run: RunId) -> Follow {
        let (follow, mut subscribed) = self.join(door, (namespace.clone(), run));
        let _ = tokio::time::timeout(SUBSCRIBED, subscribed.wait_for(|yes| *yes)).await;
        follow
    }

    fn join(&self, door: &Door, key: Key) -> (Follow, watch::Receiver<bool>) {
        let mut runs = self.lock();
        if let Some(followed) = runs.get(&key) {
            return (Follow(followed.pages.subscribe()), followed.subscribed.clone());
        }
        let (pages, receiver) = broadcast::channel(BEHIND);
        let (ready, subscribed) = watch::channel(false);
        runs.insert(key.clone(), Followed { pages: pages.clone(), subscribed: subscribed.clone() });
        drop(runs);
        let pump = Pump { bus: door.bus.clone(), reader: door.reader.clone(), key, pages, last: None };
        let (own, stop) = (self.clone(), door.tasks.stopping().clone());
        door.tasks.spawn_part("followers", async move {
            let outcome = stop.run_until_cancelled(pump.run(&own, ready)).await;
            outcome.unwrap_or(Ok(()))
        });
        (Follow(receiver), subscribed)
    }

    /// Forgets a run that nobody follows any more; false if somebody has just begun to.
    fn leave(&self, key: &Key, pages: &broadcast::Sender<Page>) -> bool {
        let mut runs = self.lock();
        let gone = pages.receiver_count() == 0;
        if gone {
            runs.remove(key);
        }
        gone
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Followed>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Brings what the bus says, and what it has not said, to all followers of a run.
struct Pump {
    bus: Bus,
    reader: Arc<dyn Reader>,
    key: Key,
    pages: broadcast::Sender<Page>,
    /// Number of the last event that was passed on without a gap; unknown until the first.
    last: Option<u64>,
}

impl Pump {
    async fn run(mut self, followers: &Followers, ready: watch::Sender<bool>) -> anyhow::Result<()> {
        let outcome = self.listen(followers, ready).await;
        if outcome.is_err() {
            // Whoever follows next makes a new one.
            followers.lock().remove(&self.key);
        }
        outcome
    }

    async fn listen(&mut self, followers: &Followers, ready: watch::Sender<bool>) -> anyhow::Result<()> {
        let mut messages: Subscription = self.bus.subscribe(&subject::event(&self.key.0, self.key.1)).await?;
        // Without the bus the store is looked at after each silence, so a failure to flush costs only time.
        let _ = tokio::time::timeout(SUBSCRIBED, self.bus.flush()).await;
        ready.send_replace(true);
        let mut reconnects = self.bus.reconnects();
        let mut heard = Instant::now();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                message = messages.next() => {
                    let message = message.context("the subscription to the events of a run was closed")?;
                    heard = Instant::now();
                    if let Ok(page) = serde_json::from_slice::<EventPage>(&message.body) {
                        self.on_page(page).await;
                    }
                }
                () = self.pages.closed() => {
                    if followers.leave(&self.key, &self.pages) {
                        return Ok(());
                    }
                }
                _ = tick.tick() => {
                    let now = self.bus.reconnects();
                    if now != reconnects || heard.elapsed() >= SILENCE {
                        (reconnects, heard) = (now, Instant::now());
                        self.look().await;
                    }
                }
            }
        }
    }

    async fn on_page(&mut self, page: EventPage) {
        let (Some(first), Some(last)) = (page.events.first(), page.events.last()) else { return };
        match self.last {
            Some(known) if first.seq > known + 1 => self.look().await,
            _ => {
                self.last = self.last.max(Some(last.seq));
                let _ = self.pages.send(Arc::new(page.events));
            }
        }
    }

    /// Passes on what the store has after the last known event.
    async fn look(&mut self) {
        loop {
            let events = match self.reader.events(&self.key.0, self.key.1, self.last.unwrap_or(0), READ).await {
                Ok(events) => events,
                Err(error) => {
                    tracing::debug!(run = %self.key.1, %error, "the events of a followed run cannot be read at the moment");
                    return;
                }
            };
            let full = events.len() == READ as usize;
            if let Some(last) = events.last() {
                self.last = Some(last.seq);
                let _ = self.pages.send(Arc::new(events));
            }
            if !full {
                return;
            }
        }
    }
}
