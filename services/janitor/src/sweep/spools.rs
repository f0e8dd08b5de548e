//! Spools that nobody waits for any more.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::{Removed, Report, Sweeper, note};
use crate::disk::Disk;
use crate::policy::{Reason, run_of};
use crate::scheduler::Scheduler;
use crate::{instruments, leftovers};

/// Generations of a run that are asked about before its spool is removed.
const GENERATIONS: u32 = 8;

impl<S: Scheduler> Sweeper<S> {
    /// Spools that have not changed for long, have no process, and belong to no workspace that has to stay.
    pub(super) async fn free_spools(&self, disk: &Disk, report: &mut Report) -> anyhow::Result<()> {
        let old: Vec<_> = disk.spools.iter().filter(|spool| spool.age >= self.max_age).collect();
        if old.is_empty() {
            return Ok(());
        }
        let run = |id: &str| id.split_once('.').map(|(run, _)| run.to_owned());
        let names: BTreeSet<String> =
            old.iter().filter_map(|s| run(&s.id)).flat_map(|run| (1..=GENERATIONS).map(move |k| format!("{run}-g{k}"))).collect();
        let reply = self.scheduler.workspaces(names.into_iter().filter(|name| run_of(name).is_some()).collect(), true).await?;
        for spool in old {
            let Some(run) = run(&spool.id).filter(|run| run_of(&format!("{run}-g1")).is_some()) else { continue };
            let kept = reply.keep.iter().any(|id| id.starts_with(&format!("{run}-g")));
            let answered =
                reply.unknown.iter().chain(reply.reclaimable.iter().map(|o| &o.id)).any(|id| id.starts_with(&format!("{run}-g")));
            let lost = reply.reclaimable.iter().any(|order| order.lost.iter().any(|attempt| attempt.to_string() == spool.id));
            let name = spool.id.clone();
            let alive =
                tokio::task::spawn_blocking(move || leftovers::alive(&name)).await.context("the search for processes ended early")??;
            if kept || !answered || lost || alive {
                continue;
            }
            let gone = self.mirrors.release_scratch(&spool.path).await;
            let gone =
                gone.map(|bytes| Some(Removed { id: spool.id.clone(), path: Some(spool.path.clone()), bytes, reason: Reason::Orphan }));
            match gone {
                Ok(Some(removed)) => {
                    tracing::info!(attempt = removed.id, path = %spool.path.display(), bytes = removed.bytes, reason = removed.reason.as_str(), "a spool was removed");
                    instruments::bytes_freed().with_label_values::<&str>(&[]).inc_by(removed.bytes);
                    report.bytes_freed += removed.bytes;
                    report.removed.push(removed);
                }
                other => note(report, &spool.id, other.map_err(Into::into)),
            }
        }
        Ok(())
    }
}
