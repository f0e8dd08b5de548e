//! Presence: who beats on the bus, as every scheduler and door keeps it in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hopyard_contract::message::Beat;
use hopyard_contract::{Name, subject};

use crate::Bus;
use crate::bounds;
use crate::clock::BootInstant;
use crate::tasks::Tasks;

/// Time between beats.
pub const BEAT: Duration = Duration::from_secs(5);

/// Processes that are known at once; beyond it the one that has been silent longest is forgotten.
const MOST: usize = 4096;
/// Name of the set on `/metrics`.
const QUEUE: &str = "presence";

/// The last beat of everyone.
#[derive(Clone, Debug, Default)]
pub struct Presence {
    seen: Arc<Mutex<Beats>>,
}

/// Last beat and when it was heard, by kind and name.
type Beats = HashMap<(String, Name), (Beat, BootInstant)>;

impl Presence {
    /// Starts to listen for beats, and asks for those that were before.
    pub fn watch(bus: &Bus, tasks: &Tasks) -> Self {
        let presence = Self::default();
        let shown = presence.clone();
        bounds::show(QUEUE, MOST, move || shown.seen.lock().unwrap_or_else(PoisonError::into_inner).len());
        let (bus, stop, own) = (bus.clone(), tasks.stopping().clone(), presence.clone());
        tasks.spawn("presence", async move {
            let mut beats = bus.subscribe(subject::BEATS).await?;
            // Without this, everyone would count as absent until their next beat.
            bus.tell(subject::ROLL_CALL, &()).await;
            while let Some(Some(message)) = stop.run_until_cancelled(beats.next()).await {
                if let Ok(beat) = serde_json::from_slice::<Beat>(&message.body) {
                    own.note(beat);
                }
            }
            Ok(())
        });
        presence
    }

    /// Keeps a beat.
    pub fn note(&self, beat: Beat) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let name = (beat.kind.clone(), beat.id.clone());
        if seen.len() >= MOST && !seen.contains_key(&name) {
            // Whoever has been silent for an hour is forgotten first, so that short-lived names do not pile up.
            seen.retain(|_, (_, at)| at.elapsed() < Duration::from_secs(3600));
            if seen.len() >= MOST
                && let Some(oldest) = seen.iter().min_by_key(|(_, (_, at))| *at).map(|(name, _)| name.clone())
            {
                bounds::overflow(QUEUE);
                seen.remove(&oldest);
            }
        }
        seen.insert(name, (beat, BootInstant::now()));
    }

    /// Beats of a kind that are younger than `within`, with their ages.
    pub fn alive(&self, kind: &str, within: Duration) -> Vec<(Beat, Duration)> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.iter()
            .filter(|((k, _), _)| k == kind)
            .map(|(_, (beat, at))| (beat.clone(), at.elapsed()))
            .filter(|(_, age)| *age < within)
            .collect()
    }

    /// Age of the last beat of one process.
    pub fn age(&self, kind: &str, id: &Name) -> Option<Duration> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.get(&(kind.to_owned(), id.clone())).map(|(_, at)| at.elapsed())
    }
}

/// Beats for ever, and at once when somebody has begun to listen; `beat` is asked each time.
pub fn beat(bus: &Bus, tasks: &Tasks, beat: impl Fn() -> Beat + Send + 'static) {
    let (bus, stop) = (bus.clone(), tasks.stopping().clone());
    tasks.spawn("beat", async move {
        let mut calls = bus.subscribe(subject::ROLL_CALL).await?;
        loop {
            let now = beat();
            bus.tell(&subject::beat(&now.kind, &now.id), &now).await;
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(BEAT) => {}
                // A closed connection ends the process soon; until then the clock alone counts.
                call = calls.next() => if call.is_none() && stop.run_until_cancelled(tokio::time::sleep(BEAT)).await.is_none() {
                    return Ok(());
                }
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beat(n: usize) -> Beat {
        Beat {
            kind: "executor".to_owned(),
            id: format!("e-{n}").parse().unwrap(),
            host: Name::literal("h"),
            pool: None,
            slots: 1,
            free: 1,
            frozen: 0,
            claimed_ms_ago: None,
            draining: false,
            version: String::new(),
            disk_free: 0,
            outbox_ms: 0,
        }
    }

    #[test]
    fn any_number_of_names_takes_bounded_memory_and_the_newest_are_known() {
        let presence = Presence::default();
        for n in 0..MOST + 100 {
            presence.note(beat(n));
        }
        assert_eq!(presence.alive("executor", Duration::from_secs(3600)).len(), MOST);
        assert!(presence.age("executor", &beat(MOST + 99).id).is_some());
        presence.note(beat(MOST + 99));
        assert_eq!(presence.alive("executor", Duration::from_secs(3600)).len(), MOST);
    }
}
