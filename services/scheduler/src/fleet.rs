//! What a scheduler knows beside the store: who was heard of when, and whether it is well itself.

use std::collections::HashMap;
use std::time::Duration;

use hopyard_contract::Name;
use hopyard_runtime::clock::BootInstant;
use hopyard_runtime::presence::Presence;

use crate::pulse::Pulse;
use crate::request::Request;
use crate::round::Outlook;

/// An executor that has been silent for this long is not counted on any more.
pub const SILENT: Duration = Duration::from_secs(30);

/// Executors as this process knows them.
pub(crate) struct Fleet {
    presence: Presence,
    executors: HashMap<Name, Known>,
    /// Whether this process may judge others by their silence.
    pub(crate) pulse: Pulse,
}

struct Known {
    /// Last hello, claim or renewal.
    seen: BootInstant,
    draining: bool,
}

impl Fleet {
    pub(crate) fn new(presence: Presence, pulse: Pulse) -> Self {
        Self { presence, executors: HashMap::new(), pulse }
    }

    /// Notes who is heard of by a request.
    pub(crate) fn hear(&mut self, request: &Request) {
        let (executor, draining) = match request {
            Request::Claim(claim) => (&claim.executor, None),
            Request::Renew(renew) => (&renew.executor, None),
            Request::Hello(hello) => (&hello.executor, Some(hello.draining)),
            _ => return,
        };
        let known = self.executors.entry(executor.clone()).or_insert(Known { seen: BootInstant::now(), draining: false });
        known.seen = BootInstant::now();
        known.draining = draining.unwrap_or(known.draining);
    }
}

impl Outlook for Fleet {
    fn may_judge(&self) -> bool {
        self.pulse.may_judge()
    }

    fn why_unbind(&self, executor: &Name) -> Option<&'static str> {
        let known = self.executors.get(executor);
        if known.is_some_and(|k| k.draining) {
            return Some("the executor drains");
        }
        let heard = known.map(|k| k.seen.elapsed()).into_iter().chain(self.presence.age("executor", executor)).min();
        let silence = heard.unwrap_or_else(|| self.pulse.steady());
        (silence >= SILENT).then_some("the executor is silent")
    }

    fn pool_of(&self, executor: &Name) -> Option<Name> {
        let beats = self.presence.alive("executor", SILENT);
        beats.into_iter().find(|(beat, _)| beat.id == *executor).and_then(|(beat, _)| beat.pool)
    }
}
