//! Whether the silence of executors may be held against them: only by a scheduler that has itself heard the bus and
//! committed, without a gap, for one whole lease.
//!
//! A pause may be anybody's: a stopped bus keeps its connections open, a stopped database lets a transaction succeed a
//! minute late, and a stopped scheduler finds every lease overdue when it goes on. None of them may cost a running step,
//! so what counts is not whether something failed but whether it answered in time.

use std::time::Duration;

use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::{Bus, Context};
use tokio::sync::watch;

/// Longest time between two questions to the bus.
const EVERY: Duration = Duration::from_secs(1);

/// The health of this scheduler, as far as leases are concerned.
pub(crate) struct Pulse {
    bus: Bus,
    lease: Duration,
    /// Since when nothing was late.
    since: BootInstant,
    reconnects: u64,
    /// When the last answered question to the bus was sent.
    heard: watch::Receiver<BootInstant>,
    /// When the loop last began a round.
    awake: BootInstant,
}

impl Pulse {
    /// Starts to feel the bus.
    pub(crate) fn start(ctx: &Context, lease: Duration) -> Self {
        let (felt, heard) = watch::channel(BootInstant::now());
        let (bus, stop, every) = (ctx.bus.clone(), ctx.tasks.stopping().clone(), (lease / 8).min(EVERY));
        ctx.tasks.spawn("pulse", async move {
            let feel = async {
                loop {
                    let asked = BootInstant::now();
                    if bus.answers().await {
                        felt.send_replace(asked);
                    }
                    tokio::time::sleep(every).await;
                }
            };
            stop.run_until_cancelled(feel).await;
            Ok(())
        });
        let now = BootInstant::now();
        Self { bus: ctx.bus.clone(), lease, since: now, reconnects: ctx.bus.reconnects(), heard, awake: now }
    }

    /// Executors renew at least three times in a lease: a gap of a third leaves each time for one more try.
    fn gap(&self) -> Duration {
        self.lease / 3
    }

    /// The loop begins a round.
    pub(crate) fn round_begins(&mut self) {
        self.awake = BootInstant::now();
        self.feel();
    }

    /// The loop has ended a round; one that took too long was a gap.
    pub(crate) fn round_ends(&mut self) {
        self.feel();
    }

    /// Something failed: the time without a gap begins anew.
    pub(crate) fn broken(&mut self) {
        self.since = BootInstant::now();
    }

    /// Whether leases may be judged now, in the middle of a round.
    pub(crate) fn may_judge(&self) -> bool {
        self.gap_now().is_none() && self.steady() >= self.lease
    }

    /// What is late at this moment.
    fn gap_now(&self) -> Option<&'static str> {
        if !self.bus.connected() || self.bus.reconnects() != self.reconnects {
            Some("the bus was away")
        } else if self.heard.borrow().elapsed() > self.gap() {
            Some("the bus did not answer in time")
        } else if self.awake.elapsed() > self.gap() {
            Some("a round of the loop took too long")
        } else {
            None
        }
    }

    /// Takes note of a gap.
    fn feel(&mut self) {
        let Some(why) = self.gap_now() else { return };
        self.reconnects = self.bus.reconnects();
        if self.steady() >= self.lease {
            tracing::info!(why, "leases are not judged for a while: executors get a whole lease to renew them");
        }
        self.broken();
    }

    /// For how long nothing was late.
    pub(crate) fn steady(&self) -> Duration {
        self.since.elapsed()
    }
}
