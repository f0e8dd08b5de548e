//! Whether the silence of executors may be held against them: only by a scheduler that has itself heard the bus and
//! committed, without a gap, for one whole lease.
//!
//! A pause may be anybody's: a stopped bus keeps its connections open, a stopped database may let a transaction succeed a
//! minute late, and a stopped scheduler finds every lease overdue when it goes on. None of them may cost a running step,
//! so what counts is not only whether something failed but whether it answered in time.

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
    /// Since when no commit failed and no round was late.
    since: BootInstant,
    reconnects: u64,
    felt: watch::Receiver<Felt>,
    /// When the loop last began a round.
    awake: BootInstant,
}

/// How the bus has answered.
#[derive(Clone, Copy, Debug)]
struct Felt {
    /// When the last answered question was sent.
    asked: BootInstant,
    /// Since when no answer was late.
    since: BootInstant,
}

impl Felt {
    /// A question that was sent at `asked` has been answered now.
    fn answered(self, asked: BootInstant, gap: Duration) -> Self {
        let late = self.asked.until(BootInstant::now()) > gap;
        Self { asked, since: if late { BootInstant::now() } else { self.since } }
    }
}

impl Pulse {
    /// Starts to feel the bus.
    pub(crate) fn start(ctx: &Context, lease: Duration) -> Self {
        let now = BootInstant::now();
        let (tell, felt) = watch::channel(Felt { asked: now, since: now });
        let (bus, stop, every, gap) = (ctx.bus.clone(), ctx.tasks.stopping().clone(), (lease / 8).min(EVERY), gap(lease));
        ctx.tasks.spawn("pulse", async move {
            let feel = async {
                loop {
                    let asked = BootInstant::now();
                    if bus.answers().await {
                        tell.send_modify(|felt| *felt = felt.answered(asked, gap));
                    }
                    tokio::time::sleep(every).await;
                }
            };
            stop.run_until_cancelled(feel).await;
            Ok(())
        });
        Self { bus: ctx.bus.clone(), lease, since: now, reconnects: ctx.bus.reconnects(), felt, awake: now }
    }

    /// The loop begins a round; a connection that is or was away starts the wait anew.
    pub(crate) fn round_begins(&mut self) {
        self.awake = BootInstant::now();
        let reconnects = self.bus.reconnects();
        if !self.bus.connected() || reconnects != self.reconnects {
            self.reconnects = reconnects;
            self.broken("the bus was away");
        }
    }

    /// The loop has ended a round; one that took too long was a gap.
    pub(crate) fn round_ends(&mut self) {
        if self.awake.elapsed() > gap(self.lease) {
            self.broken("a round of the loop took too long");
        }
    }

    /// Something failed: the time without a gap begins anew.
    pub(crate) fn broken(&mut self, why: &str) {
        if self.may_judge() {
            tracing::info!(why, "leases are not judged for a while: executors get a whole lease to renew them");
        }
        self.since = BootInstant::now();
    }

    /// Whether leases may be judged now: nothing was late for a whole lease, and nothing is.
    pub(crate) fn may_judge(&self) -> bool {
        let late = self.felt.borrow().asked.elapsed().max(self.awake.elapsed()) > gap(self.lease);
        !late && self.steady() >= self.lease
    }

    /// For how long nothing was late.
    pub(crate) fn steady(&self) -> Duration {
        self.since.max(self.felt.borrow().since).elapsed()
    }
}

/// Executors renew at least three times in a lease: a gap of a third leaves each time for one more try.
fn gap(lease: Duration) -> Duration {
    lease / 3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_answer_begins_the_time_without_a_gap_anew() {
        let now = BootInstant::now();
        let gap = Duration::from_secs(5);
        let ago = |seconds| now.before(Duration::from_secs(seconds));
        let steady = Felt { asked: ago(2), since: ago(60) };
        assert_eq!(steady.answered(ago(1), gap).since, ago(60));
        let late = Felt { asked: ago(6), since: ago(60) }.answered(ago(1), gap);
        assert!(late.since >= now && late.asked == ago(1));
        // A question that waited in a stopped server's socket is answered late, however soon after the next one is.
        assert!(Felt { asked: ago(7), since: ago(60) }.answered(ago(6), gap).since >= now);
    }
}
