//! Waiting for the right to count: one instance counts, others watch its checkpoint and take over when it stands still.

use std::time::Duration;

use hopyard_contract::view::ComponentHealth;
use hopyard_runtime::Context;
use hopyard_runtime::clock::BootInstant;

use crate::checkpoint::{Checkpoint, Found, Holder};
use crate::instruments;
use crate::ledger::Saved;

/// Between looks at the checkpoint.
const LOOK: Duration = Duration::from_secs(3);
/// A checkpoint that has not changed for this long belongs to nobody; who counts saves three times as often.
const SILENT: Duration = Duration::from_secs(30);

/// What was seen of the instance that counts.
#[derive(Debug, Default)]
struct Watch {
    /// This process has counted before: whoever holds the checkpoint since then is alive, whatever its name.
    counted: bool,
    version: Option<i64>,
    since: Option<BootInstant>,
}

impl Watch {
    /// Whether this instance may take over what was found, at its first look or later.
    fn may_take(&mut self, found: &Found, own: &Holder, now: BootInstant, silent: Duration) -> bool {
        let first = self.version.is_none();
        if self.version != Some(found.version) {
            self.version = Some(found.version);
            self.since = Some(now);
        }
        match &found.holder {
            None => true,
            // The process of this name before us: it is gone.
            Some(holder) if first && !self.counted && holder.id == own.id => true,
            Some(_) => self.since.is_some_and(|since| since.elapsed() >= silent),
        }
    }
}

/// Waits until this instance may count; `None` when it is told to stop before. `counted` tells that it has counted before.
pub(crate) async fn wait(ctx: &Context, checkpoint: &mut Checkpoint, counted: bool) -> Option<Saved> {
    instruments::active().with_label_values::<&str>(&[]).set(0);
    let mut watch = Watch { counted, ..Watch::default() };
    let mut told = false;
    loop {
        ctx.readiness.tick("counters-loop", LOOK);
        match checkpoint.load().await {
            Ok(found) if watch.may_take(&found, checkpoint.own(), BootInstant::now(), SILENT) => return Some(found.ledger),
            Ok(found) => {
                if let Some(holder) = found.holder.filter(|_| !told) {
                    tracing::info!(holder = holder.id.as_str(), "another instance counts; this one shows the gauges and waits");
                    told = true;
                }
                ctx.readiness.set("counters", ComponentHealth::ok());
            }
            Err(error) => {
                let text = format!("{error:#}");
                tracing::warn!(error = text, "the counters are not loaded yet");
                ctx.readiness.set("counters", ComponentHealth::degraded("loading", text));
            }
        }
        ctx.tasks.draining().run_until_cancelled(tokio::time::sleep(LOOK)).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hopyard_contract::Name;
    use uuid::Uuid;

    fn holder(id: &'static str) -> Holder {
        Holder { id: Name::literal(id), incarnation: Uuid::new_v4() }
    }

    fn found(version: i64, holder: Option<Holder>) -> Found {
        Found { version, holder, ledger: Saved::default() }
    }

    #[test]
    fn only_what_nobody_holds_is_taken() {
        let (own, other, now) = (holder("a"), holder("b"), BootInstant::now());
        let long = Duration::from_secs(3600);
        assert!(Watch::default().may_take(&found(0, None), &own, now, long), "a new store");
        assert!(Watch::default().may_take(&found(7, Some(holder("a"))), &own, now, long), "the process before");
        let mut watch = Watch::default();
        assert!(!watch.may_take(&found(7, Some(other.clone())), &own, now, long));
        assert!(!watch.may_take(&found(8, Some(other.clone())), &own, now, long));
        // A process of the same name that appears later is alive.
        assert!(!watch.may_take(&found(9, Some(holder("a"))), &own, now, long));
        assert!(watch.may_take(&found(10, None), &own, now, long), "drained");
        let mut superseded = Watch { counted: true, ..Watch::default() };
        assert!(!superseded.may_take(&found(7, Some(holder("a"))), &own, now, long), "a second process of the same name");
        // Standing still for long enough.
        let mut watch = Watch::default();
        assert!(!watch.may_take(&found(7, Some(other.clone())), &own, now, long));
        assert!(watch.may_take(&found(7, Some(other)), &own, now, Duration::ZERO));
    }
}
