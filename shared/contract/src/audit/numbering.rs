//! Events are numbered without gaps and belong to their run.

use super::{Check, Findings};
use crate::event::Event;
use crate::run::RunState;

pub(super) fn check(state: &RunState, events: &[Event], found: &mut Findings) {
    let run = &state.run;
    let mut expected = 1;
    for event in events {
        if event.seq != expected {
            found.run(Check::EventsDense, format!("event {} stands where event {expected} should", event.seq));
        }
        let id = format!("{}:{}", run.id, event.seq);
        if event.run_id != run.id || event.namespace != run.namespace || event.id != id {
            found.run(Check::EventsDense, format!("event {} says it is {} of {}/{}", event.seq, event.id, event.namespace, event.run_id));
        }
        expected = event.seq + 1;
    }
    let last = events.last().map_or(0, |e| e.seq);
    if run.event_seq != last {
        found.run(Check::EventsDense, format!("the run's last event is {last}, it says {}", run.event_seq));
    }
    if events.is_empty() {
        found.run(Check::EventsDense, "a run has at least the event of its acceptance");
    }
}
