//! How a tree is ended: why, SIGTERM, the grace, SIGKILL. Pure: the caller brings the time and sends the signals.

use std::time::Duration;

use crate::process::control::Command;
use crate::process::exit::ExitKind;
use crate::process::spec::Lease;
use hopyard_runtime::clock::BootInstant;

/// First pause between two rounds of SIGKILL; it doubles up to [`LAST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(2);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// Why a tree is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// The executor asked for it.
    Killed { reason: String },
    /// The step ran too long.
    Timeout,
    /// The step was silent too long.
    IdleTimeout,
    /// The lease was not renewed.
    LeaseLost,
    /// The tree became too large.
    Crowd,
    /// The executor is gone, or the shim was told to stop.
    Abandoned,
    /// The command has ended by itself and others of its tree have not.
    LeftOver,
}

impl Cause {
    pub(super) fn kind(&self) -> ExitKind {
        match self {
            Self::Killed { .. } => ExitKind::Killed,
            Self::Timeout => ExitKind::Timeout,
            Self::IdleTimeout => ExitKind::IdleTimeout,
            Self::LeaseLost => ExitKind::LeaseLost,
            Self::Crowd => ExitKind::TooManyProcesses,
            Self::Abandoned => ExitKind::Abandoned,
            Self::LeftOver => ExitKind::Exited,
        }
    }

    pub(super) fn reason(&self) -> Option<String> {
        match self {
            Self::Killed { reason } => Some(reason.clone()),
            _ => None,
        }
    }
}

/// What is to be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rung {
    /// Send SIGTERM to the groups that have not had it.
    Terminate,
    /// Send SIGKILL to everything.
    Kill,
}

/// Where the ending of a tree stands.
#[derive(Debug)]
pub(super) struct Ladder {
    grace: Duration,
    lease: Option<Lease>,
    asked: Option<Asked>,
}

#[derive(Debug)]
struct Asked {
    cause: Cause,
    terminate: bool,
    kill_at: BootInstant,
    pause: Duration,
}

impl Ladder {
    pub(super) fn new(grace: Duration, lease: Option<Lease>) -> Self {
        Self { grace, lease, asked: None }
    }

    /// Why the tree is being ended, if it is.
    pub(super) fn cause(&self) -> Option<&Cause> {
        self.asked.as_ref().map(|asked| &asked.cause)
    }

    /// Takes a word of the executor; true if it asked for the end.
    pub(super) fn on_command(&mut self, command: Command, now: BootInstant) -> bool {
        match command {
            Command::Lease { expires } => {
                // Renewals may overtake each other in the executor; a lease never gets shorter by a late one.
                if let Some(lease) = &mut self.lease {
                    lease.expires = lease.expires.max(expires);
                }
                false
            }
            Command::Kill { reason, force } => self.request(Cause::Killed { reason }, now, force),
            // Only the first line is a spec; a second one changes nothing.
            Command::Spec(_) => false,
        }
    }

    /// Asks for the end of the tree. The first cause stands; a later request can only make it faster.
    /// True if this was the first.
    pub(super) fn request(&mut self, cause: Cause, now: BootInstant, force: bool) -> bool {
        let kill_at = if force { now } else { now.after(self.grace) };
        match &mut self.asked {
            Some(asked) => {
                asked.kill_at = asked.kill_at.min(kill_at);
                asked.terminate &= !force;
                false
            }
            None => {
                self.asked = Some(Asked { cause, terminate: !force, kill_at, pause: FIRST_PAUSE });
                true
            }
        }
    }

    /// The command has ended while others live on: they get their SIGTERM too.
    pub(super) fn command_ended(&mut self, now: BootInstant) {
        if !self.request(Cause::LeftOver, now, false)
            && let Some(asked) = &mut self.asked
        {
            asked.terminate = now < asked.kill_at;
        }
    }

    /// The lease as it was last renewed.
    pub(super) fn lease(&self) -> Option<Lease> {
        self.lease
    }

    /// What is to be done now; asked again until it says `None`.
    pub(super) fn next(&mut self, now: BootInstant) -> Option<Rung> {
        let stop = self.hard_stop();
        let asked = self.asked.as_mut()?;
        // Too late for politeness: a SIGTERM would let the tree run beyond its lease.
        asked.terminate &= stop.is_none_or(|stop| now < stop);
        if std::mem::take(&mut asked.terminate) {
            return Some(Rung::Terminate);
        }
        if now < asked.kill_at.min(stop.unwrap_or(asked.kill_at)) {
            return None;
        }
        if now < asked.kill_at {
            asked.kill_at = now;
        }
        // From here on the lease is in the past and `kill_at` alone paces the rounds.
        self.lease = None;
        asked.kill_at = now.after(asked.pause);
        asked.pause = (asked.pause * 2).min(LAST_PAUSE);
        Some(Rung::Kill)
    }

    /// When [`Self::next`] has something to say.
    pub(super) fn due_at(&self) -> Option<BootInstant> {
        match &self.asked {
            Some(asked) if asked.terminate => Some(BootInstant::now()),
            Some(asked) => Some(self.hard_stop().map_or(asked.kill_at, |stop| stop.min(asked.kill_at))),
            None => None,
        }
    }

    fn hard_stop(&self) -> Option<BootInstant> {
        self.lease.map(|lease| lease.hard_stop())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(10);

    fn killed() -> Cause {
        Cause::Killed { reason: "operator".to_owned() }
    }

    #[test]
    fn a_tree_gets_term_then_grace_then_kill_again_and_again() {
        let now = BootInstant::now();
        let mut ladder = Ladder::new(GRACE, None);
        assert_eq!(ladder.next(now), None);
        assert!(ladder.request(killed(), now, false));
        assert_eq!(ladder.next(now), Some(Rung::Terminate));
        assert_eq!(ladder.next(now), None);
        assert_eq!(ladder.due_at(), Some(now.after(GRACE)));
        let later = now.after(GRACE);
        assert_eq!(ladder.next(later), Some(Rung::Kill));
        assert_eq!(ladder.next(later), None);
        assert_eq!(ladder.next(later.after(FIRST_PAUSE)), Some(Rung::Kill));
    }

    #[test]
    fn force_skips_the_grace_also_afterwards() {
        let now = BootInstant::now();
        let mut ladder = Ladder::new(GRACE, None);
        ladder.request(Cause::Timeout, now, false);
        assert_eq!(ladder.next(now), Some(Rung::Terminate));
        assert!(!ladder.request(killed(), now, true));
        assert_eq!(ladder.next(now), Some(Rung::Kill));
        assert_eq!(ladder.cause(), Some(&Cause::Timeout));
    }

    #[test]
    fn a_tree_is_gone_before_its_lease_is_whatever_the_grace() {
        let now = BootInstant::now();
        let lease = Lease { length_ms: 6_000, expires: now.after(Duration::from_secs(6)) };
        let mut ladder = Ladder::new(GRACE, Some(lease));
        let overdue = now.after(Duration::from_secs(4));
        ladder.request(Cause::LeaseLost, overdue, false);
        assert_eq!(ladder.next(overdue), Some(Rung::Terminate));
        assert_eq!(ladder.next(overdue), None);
        assert_eq!(ladder.next(now.after(Duration::from_secs(5))), Some(Rung::Kill));
    }

    #[test]
    fn a_tree_whose_lease_is_nearly_over_is_not_asked_politely() {
        let now = BootInstant::now();
        let lease = Lease { length_ms: 6_000, expires: now.after(Duration::from_secs(1)) };
        let mut ladder = Ladder::new(GRACE, Some(lease));
        ladder.request(killed(), now, false);
        assert_eq!(ladder.next(now), Some(Rung::Kill));
    }

    #[test]
    fn a_renewal_moves_the_lease_forward_only() {
        let now = BootInstant::now();
        let lease = Lease { length_ms: 3_000, expires: now.after(Duration::from_secs(3)) };
        let mut ladder = Ladder::new(GRACE, Some(lease));
        let at = |seconds| now.after(Duration::from_secs(seconds));
        ladder.on_command(Command::Lease { expires: at(10) }, now);
        ladder.on_command(Command::Lease { expires: at(5) }, now);
        assert_eq!(ladder.lease().map(|lease| lease.overdue_at()), Some(at(9)));
    }

    #[test]
    fn what_the_command_leaves_behind_gets_term_within_the_same_grace() {
        let now = BootInstant::now();
        let mut ladder = Ladder::new(GRACE, None);
        ladder.request(killed(), now, false);
        assert_eq!(ladder.next(now), Some(Rung::Terminate));
        ladder.command_ended(now.after(Duration::from_secs(3)));
        assert_eq!(ladder.next(now.after(Duration::from_secs(3))), Some(Rung::Terminate));
        assert_eq!(ladder.next(now.after(GRACE)), Some(Rung::Kill));
        assert_eq!(ladder.cause(), Some(&killed()));
    }
}
