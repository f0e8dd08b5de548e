//! Presence: who beats on the bus, as every scheduler and door keeps it in memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hopyard_contract::message::Beat;
use hopyard_contract::{Name, subject};

use crate::Bus;
use crate::clock::BootInstant;
use crate::tasks::Tasks;

/// Time between beats.
pub const BEAT: Duration = Duration::from_secs(5);

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
        seen.insert((beat.kind.clone(), beat.id.clone()), (beat, BootInstant::now()));
        // Whoever has been silent for an hour is forgotten, so that short-lived names do not pile up.
        if seen.len() > 4096 {
            seen.retain(|_, (_, at)| at.elapsed() < Duration::from_secs(3600));
        }
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
