//! How long things may take, derived from settings and constants of the protocol; never fitted to what was seen.
//!
//! They count from the end of the trouble, or from the event itself if that came later.

use hopyard_contract::duration::Span;

use crate::bus::StreamId;
use crate::clockwork::{MS, Micros, S};
use crate::scheduler::LONGEST;
use crate::weather::Weather;
use crate::world::World;
use crate::{executor, janitor};

/// A request takes two tries of a second at most; messages of a calm bus take two milliseconds.
const REQUEST: Micros = 2 * S + 10 * MS;
/// Longest work of a step process.
const WORK: Micros = 12 * S;
/// Making its workspace, and keeping what it left.
const AROUND: Micros = 300 * MS + 250 * MS;
/// Grace of a kill.
const GRACE: Micros = 400 * MS;
/// Until a silent executor is not counted on any more, and until a bound step is looked at.
const SILENT: Micros = 30 * S;
const LOOK: Micros = 10 * S;
/// Until a message that was taken and not acknowledged comes again; longest delay of one that was put off.
const REDELIVERY: Micros = 30 * S + 30 * S;

/// Bounds of one world.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    lease: Micros,
    renew: Micros,
}

impl Bounds {
    /// Of a world with these settings.
    pub(crate) fn of(weather: &Weather) -> Self {
        let micros = |span: Span| i64::try_from(span.millis()).unwrap_or_default() * 1000;
        Self { lease: micros(weather.settings.lease), renew: micros(weather.settings.renew) }
    }

    /// Until a claimable step is leased, when an executor that may have it has a free slot: its ticket is lost, the probe
    /// is woken a second later, finds it too young, and rings a second after that.
    pub(crate) const fn claim(&self) -> Micros {
        3 * S + REQUEST + 500 * MS
    }

    /// Until a lease that ran out is judged: by a scheduler that has been well for a lease, and knows of the lease.
    pub(crate) const fn judge(&self) -> Micros {
        self.lease + self.lease + LONGEST
    }

    /// Until a killed run has ended. Its executor hears of it with the next renewal, ends the process, keeps the work and
    /// reports; or it is gone, and its lease has to be judged.
    pub(crate) const fn kill(&self) -> Micros {
        let told = self.renew + REQUEST + GRACE + AROUND + executor::REPEAT + REQUEST;
        let judged = self.judge() + S;
        if told > judged { told } else { judged }
    }

    /// Until an attempt is over that is claimable now, the worst way: it is done and its result told.
    const fn attempt(&self) -> Micros {
        self.claim() + REQUEST + WORK + AROUND + executor::REPEAT + REQUEST
    }

    /// Until everything that was accepted has ended, if nothing runs beside anything else.
    pub(crate) fn all_ended(&self, world: &World) -> Micros {
        // Each step may fail twice before it counts, and be lost where it stands.
        let attempts: i64 = world.store.committed(|tables| {
            let open = tables.runs.values().filter(|record| record.run.finished_at.is_none());
            open.map(|record| i64::try_from(record.steps.len()).unwrap_or_default() * 4).sum()
        });
        // Commands that nobody has read hold up to four runs of three steps.
        let unread = i64::try_from(world.bus.waiting(StreamId::Cmd)).unwrap_or_default() * 4 * 3 * 4;
        let recovery = self.judge() + SILENT + LOOK + executor::PATIENCE + executor::EVERY + 2 * REDELIVERY;
        let backoffs = (attempts + unread) * 2 * S;
        // Starts that were asked for lie at most eight seconds ahead.
        recovery + (attempts + unread + 4) * self.attempt() + backoffs + 8 * S
    }

    /// Until nothing is left on any machine or in any queue, once all has ended: two passes of the janitor, with saving
    /// confirmed in between, and what was taken and not acknowledged comes again.
    pub(crate) const fn all_clean(&self) -> Micros {
        2 * (janitor::PASS + REQUEST + 6 * S) + StreamId::Gc(0).ack_wait() + REDELIVERY + self.judge()
    }
}
