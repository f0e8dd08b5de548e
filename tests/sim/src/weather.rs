//! What a world is like: how many live in it, how long leases are, and how much trouble there is.

use hopyard_contract::duration::Span;
use hopyard_scheduler::settings::Settings;

use crate::bus;
use crate::clockwork::{Micros, S};
use crate::fate::Fate;
use crate::store;

/// A world's nature, drawn from its seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    /// Schedulers.
    pub(crate) schedulers: usize,
    /// Doors.
    pub(crate) doors: usize,
    /// Executors, each on a machine of its own.
    pub(crate) executors: usize,
    /// Slots of each.
    pub(crate) slots: u32,
    /// Submissions.
    pub(crate) submissions: usize,
    /// How long clients submit and trouble goes on.
    pub(crate) storm: Micros,
    /// Trouble with messages.
    pub(crate) bus: bus::Trouble,
    /// Trouble with the store.
    pub(crate) store: store::Trouble,
    /// Time between two faults of processes, bus or store; none if 0.
    pub(crate) between_faults: Micros,
    /// Leases.
    pub(crate) settings: Settings,
}

impl Weather {
    /// Draws a world's nature. One world of six is calm from the start: what takes too long shows best there.
    pub(crate) fn draw(seed: u64) -> Self {
        let fate = Fate::new(seed ^ 0x9e37_79b9_7f4a_7c15, false);
        let (lease, renew) = *fate.pick(&[(4_000, 1_000), (6_000, 1_500), (10_000, 2_500)]);
        let settings = Settings { lease: Span::from_millis(lease), renew: Span::from_millis(renew) };
        let calm = fate.chance(160);
        let level = |most: i64| u32::try_from(fate.between(0, most)).unwrap_or_default();
        let bus = bus::Trouble { loss: level(90), twice: level(120), slow: level(80), ack_loss: level(120), reorder: level(400) };
        let store =
            store::Trouble { pause: level(300), retry: level(20), lost: level(8), lost_before_commit: level(15), answer_lost: level(25) };
        Self {
            schedulers: if fate.chance(700) { 2 } else { 1 },
            doors: if fate.chance(500) { 2 } else { 1 },
            executors: usize::try_from(fate.between(1, 4)).unwrap_or(1),
            slots: u32::try_from(fate.between(1, 4)).unwrap_or(1),
            submissions: usize::try_from(fate.between(4, 9)).unwrap_or(4),
            storm: fate.between(8 * S, 26 * S),
            bus: if calm { bus::Trouble::default() } else { bus },
            store: if calm { store::Trouble::default() } else { store },
            between_faults: if calm { 0 } else { fate.between(S, 4 * S) },
            settings,
        }
    }

    /// Whether nothing ever goes wrong.
    pub(crate) const fn calm(&self) -> bool {
        self.between_faults == 0
    }
}
