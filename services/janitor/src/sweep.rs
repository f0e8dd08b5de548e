//! One pass over the disk: look, ask, decide, keep the work, remove, report. A crash at any point is harmless, because
//! the next pass sees what is left.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use hopyard_blobs::Blobs;
use hopyard_contract::message::{ReclaimOrder, Report as Said, WorkspaceRemoved, WorkspacesReply};
use hopyard_contract::{AttemptId, Name};
use hopyard_worktree::{Entry, Mirror, Mirrors};
use tokio_util::sync::CancellationToken;

use crate::disk::{self, Disk};
use crate::policy::{self, Action, Planned, Reason, run_of};
use crate::save::{Saver, Work};
use crate::scheduler::Scheduler;
use crate::settings::Settings;
use crate::{instruments, leftovers};

mod report;
mod spools;
#[cfg(test)]
mod tests;

pub use report::{Failure, Removed, Report};
use report::{measured, note, show};

/// How often and how far apart the commit of saved work is asked for.
const CONFIRM: (u32, Duration) = (20, Duration::from_millis(250));

/// What a pass covers.
#[derive(Clone, Debug)]
pub(crate) enum Scope {
    /// Only these workspaces, as far as a scheduler says that they may go.
    Tickets(BTreeSet<String>),
    /// Everything that a scheduler says may go, and what was deleted by hand.
    Short,
    /// Orphans, spools and trash as well.
    Full,
    /// Everything, without changing anything.
    DryRun,
}

/// The disk of a host and everything needed to free it.
pub(crate) struct Sweeper<S> {
    data_dir: PathBuf,
    host: Name,
    max_age: Duration,
    mirrors: Mirrors,
    saver: Saver,
    scheduler: S,
}

/// What the mirrors know.
#[derive(Default)]
struct Entries {
    /// Mirror by workspace.
    owner: HashMap<String, Mirror>,
    /// Workspaces whose directory is gone, or was never made.
    missing: BTreeMap<String, Entry>,
    /// A mirror could not be read: who has no owner here may have one there.
    partial: bool,
}

impl<S: Scheduler> Sweeper<S> {
    /// Opens mirrors and blobs.
    ///
    /// # Errors
    /// When git is missing or too old, or a directory cannot be written.
    pub(crate) async fn open(settings: &Settings, host: Name, scheduler: S) -> anyhow::Result<Self> {
        let mirrors = Mirrors::open(settings.data_dir.clone(), settings.git.clone())?;
        mirrors.check_git().await?;
        let scratch = settings.data_dir.join("janitor");
        tokio::fs::create_dir_all(&scratch).await.with_context(|| format!("{} cannot be made", scratch.display()))?;
        let saver = Saver { scratch, blobs: Blobs::open(&settings.blobs)? };
        Ok(Self { data_dir: settings.data_dir.clone(), host, max_age: settings.max_age, mirrors, saver, scheduler })
    }

    /// Packs every mirror.
    pub(crate) async fn maintain(&self) {
        let mirrors = self.mirrors.existing().unwrap_or_else(|error| {
            tracing::warn!(%error, "the mirrors cannot be listed");
            Vec::new()
        });
        for mirror in mirrors {
            if let Err(error) = mirror.maintain().await {
                tracing::warn!(%error, repo = mirror.repo(), "a mirror could not be maintained");
            }
        }
    }

    /// Looks at the disk, asks, and does what may be done. Ends between two removals when `stop` is cancelled.
    ///
    /// # Errors
    /// When the disk cannot be read or no scheduler answers: then nothing is removed.
    pub(crate) async fn pass(&self, scope: &Scope, stop: &CancellationToken) -> anyhow::Result<Report> {
        let data_dir = self.data_dir.clone();
        let mut disk = tokio::task::spawn_blocking(move || Disk::read(&data_dir)).await.context("looking at the disk ended early")??;
        let entries = self.entries().await?;
        if let Scope::Tickets(ids) = scope {
            disk.workspaces.retain(|found| ids.contains(&found.id));
            disk.records.retain(|(id, _)| ids.contains(id));
        }
        let reply = self.scheduler.workspaces(self.names(&disk, &entries, scope), matches!(scope, Scope::Tickets(_))).await?;
        let reply = self.with_missing(reply, &disk).await?;
        hopyard_runtime::failpoint!("janitor.asked");
        let thorough = matches!(scope, Scope::Full | Scope::DryRun);
        let in_use = if thorough { self.in_use(&disk, &reply).await? } else { BTreeSet::new() };
        let mut report = Report { planned: policy::plan(&disk.workspaces, &reply, &in_use, self.max_age), ..Report::default() };
        if matches!(scope, Scope::DryRun) {
            return Ok(measured(report).await);
        }
        if matches!(scope, Scope::Full) {
            show(&report.planned);
        }
        let going = |planned: &Planned| planned.action == Action::Remove && (thorough || planned.reason != Reason::Orphan);
        for planned in report.planned.clone().into_iter().filter(going) {
            if stop.is_cancelled() {
                return Ok(report);
            }
            let order = reply.reclaimable.iter().find(|order| order.id == planned.id);
            let gone = self.remove(&planned, order, &disk, &entries).await;
            note(&mut report, &planned.id, gone);
        }
        for order in reply.reclaimable.iter().filter(|order| self.is_absent(&order.id, &disk)) {
            if stop.is_cancelled() {
                return Ok(report);
            }
            let gone = self.settle_absent(order, &disk, &entries).await;
            note(&mut report, &order.id, gone);
        }
        self.forget_deleted(&reply, &disk, &entries, &mut report).await;
        self.drop_records(&reply, &disk).await;
        if matches!(scope, Scope::Full) && !stop.is_cancelled() {
            self.free_spools(&disk, &mut report).await?;
            let mut freed = self.mirrors.empty_trash().await.unwrap_or_else(|error| {
                tracing::warn!(%error, "the trash cannot be emptied yet");
                0
            });
            freed += self.mirrors.drop_warm(self.max_age).await.unwrap_or_else(|error| {
                tracing::warn!(%error, "checkouts that were made ahead and not taken cannot be deleted yet");
                0
            });
            instruments::bytes_freed().with_label_values::<&str>(&[]).inc_by(freed);
            report.bytes_freed += freed;
        }
        Ok(report)
    }

    async fn entries(&self) -> anyhow::Result<Entries> {
        let mut entries = Entries::default();
        for mirror in self.mirrors.existing()? {
            let listed = match mirror.inventory().await {
                Ok(listed) => listed,
                Err(error) => {
                    tracing::error!(%error, repo = mirror.repo(), "the workspaces of a mirror cannot be listed; they stay");
                    entries.partial = true;
                    continue;
                }
            };
            for entry in listed {
                entries.owner.insert(entry.id.clone(), mirror.clone());
                if entry.missing {
                    entries.missing.insert(entry.id.clone(), entry);
                }
            }
        }
        Ok(entries)
    }

    /// Everything that has to be asked about.
    fn names(&self, disk: &Disk, entries: &Entries, scope: &Scope) -> Vec<String> {
        let on_disk = disk.workspaces.iter().map(|found| &found.id).chain(disk.records.iter().map(|(id, _)| id));
        let mut names: BTreeSet<String> = on_disk.cloned().collect();
        match scope {
            Scope::Tickets(ids) => names.extend(ids.iter().cloned()),
            Scope::Short | Scope::Full | Scope::DryRun => names.extend(entries.missing.keys().cloned()),
        }
        names.into_iter().filter(|name| run_of(name).is_some()).collect()
    }

    /// Adds answers about what the store believes to be here and is not.
    async fn with_missing(&self, mut reply: WorkspacesReply, disk: &Disk) -> anyhow::Result<WorkspacesReply> {
        let missing: Vec<String> = std::mem::take(&mut reply.missing).into_iter().filter(|id| self.is_absent(id, disk)).collect();
        if missing.is_empty() {
            return Ok(reply);
        }
        // Asked by name, so that what has to stay (a persistent workspace, one that is being made) is told from what is gone.
        let more = self.scheduler.workspaces(missing, true).await?;
        reply.reclaimable.extend(more.reclaimable);
        reply.keep.extend(more.keep);
        Ok(reply)
    }

    /// Unknown workspaces that live processes are in; only the old ones are looked at.
    async fn in_use(&self, disk: &Disk, reply: &WorkspacesReply) -> anyhow::Result<BTreeSet<String>> {
        let old: Vec<_> = disk.workspaces.iter().filter(|f| f.age >= self.max_age && reply.unknown.contains(&f.id)).cloned().collect();
        let look = move || {
            let mut used = BTreeSet::new();
            for found in old {
                let run = run_of(&found.id).map_or_else(|| found.id.clone(), |run| run.to_string());
                if leftovers::in_use(&found.path, &run)? {
                    used.insert(found.id);
                }
            }
            anyhow::Ok(used)
        };
        tokio::task::spawn_blocking(look).await.context("the search for processes ended early")?
    }

    /// Neither among the workspaces nor a persistent one; decided by the disk as it is now.
    fn is_absent(&self, id: &str, disk: &Disk) -> bool {
        !disk.workspaces.iter().any(|found| found.id == id) && !disk.sessions.contains(id)
    }

    /// Keeps what was lost, then removes the directory, its entry in the mirror and its record.
    async fn remove(
        &self,
        planned: &Planned,
        order: Option<&ReclaimOrder>,
        disk: &Disk,
        entries: &Entries,
    ) -> anyhow::Result<Option<Removed>> {
        let mirror = entries.owner.get(&planned.id);
        if let Some(order) = order.filter(|order| !order.lost.is_empty()) {
            let work = Work { id: &planned.id, path: &planned.path, mirror };
            self.save_lost(order, Some(&work), disk).await?;
        }
        let bytes = match mirror {
            None if entries.partial && disk::record_file(&planned.path).exists() => {
                bail!("the mirror of workspace {} cannot be read", planned.id)
            }
            Some(mirror) => mirror.release(&planned.path, &planned.id).await?,
            None => self.mirrors.release_scratch(&planned.path).await?,
        };
        hopyard_runtime::failpoint!("janitor.workspace.deleted");
        drop_record(&disk::record_file(&planned.path)).await;
        hopyard_runtime::failpoint!("janitor.record.deleted");
        self.say_removed(&planned.id, bytes, planned.reason).await;
        hopyard_runtime::failpoint!("janitor.removed.sent");
        Ok(Some(Removed { id: planned.id.clone(), path: Some(planned.path.clone()), bytes, reason: planned.reason }))
    }

    /// A workspace that may go and is not there: it was deleted by hand, its run had no directory, or this process was
    /// ended between deleting and reporting.
    async fn settle_absent(&self, order: &ReclaimOrder, disk: &Disk, entries: &Entries) -> anyhow::Result<Option<Removed>> {
        if !order.lost.is_empty() {
            self.save_lost(order, None, disk).await?;
        }
        if let (Some(mirror), Some(entry)) = (entries.owner.get(&order.id), entries.missing.get(&order.id)) {
            release_missing(mirror, entry).await?;
        }
        self.say_removed(&order.id, 0, Reason::Absent).await;
        Ok(Some(Removed { id: order.id.clone(), path: None, bytes: 0, reason: Reason::Absent }))
    }

    /// Saves each lost attempt and waits until a scheduler has committed what it can of it.
    async fn save_lost(&self, order: &ReclaimOrder, work: Option<&Work<'_>>, disk: &Disk) -> anyhow::Result<()> {
        let mut awaited: Vec<AttemptId> = Vec::new();
        for attempt in &order.lost {
            let saved = self.saver.save(attempt, work, disk.spool(&attempt.to_string())).await?;
            hopyard_runtime::failpoint!("janitor.saved");
            tracing::info!(%attempt, workspace = order.id, snapshot = saved.snapshot, log_bytes = saved.log_bytes, "the work of a lost attempt is kept");
            if saved.snapshot.is_some() {
                awaited.push(attempt.clone());
            }
            self.scheduler.report(Said::WorkspaceSaved(saved)).await?;
            hopyard_runtime::failpoint!("janitor.saved.sent");
        }
        // An attempt without a commit stays in the list of lost ones; its report is stored, and that has to do.
        if awaited.is_empty() {
            return Ok(());
        }
        for _ in 0..CONFIRM.0 {
            let reply = self.scheduler.workspaces(vec![order.id.clone()], true).await?;
            let open = reply
                .reclaimable
                .iter()
                .find(|o| o.id == order.id)
                .with_context(|| format!("workspace {} may not be removed any more", order.id))?;
            if !awaited.iter().any(|attempt| open.lost.contains(attempt)) {
                return Ok(());
            }
            tokio::time::sleep(CONFIRM.1).await;
        }
        bail!("the saved work of workspace {} is not committed yet", order.id)
    }

    async fn say_removed(&self, id: &str, bytes: u64, reason: Reason) {
        let said = WorkspaceRemoved { id: id.to_owned(), host: self.host.clone(), bytes, reason: reason.as_str().to_owned() };
        if let Err(error) = self.scheduler.report(Said::WorkspaceRemoved(said)).await {
            // It is gone; the next pass finds it absent and says so again.
            tracing::warn!(error = format!("{error:#}"), workspace = id, "a removal could not be reported yet");
        }
    }

    /// Entries of mirrors whose directories were deleted by hand, and that no run needs: so that `git worktree list` is clean.
    async fn forget_deleted(&self, reply: &WorkspacesReply, disk: &Disk, entries: &Entries, report: &mut Report) {
        for (id, entry) in &entries.missing {
            if reply.keep.contains(id) || !reply.unknown.contains(id) || !self.is_absent(id, disk) {
                continue;
            }
            let Some(mirror) = entries.owner.get(id) else { continue };
            let gone = release_missing(mirror, entry)
                .await
                .map(|()| Some(Removed { id: id.clone(), path: Some(entry.path.clone()), bytes: 0, reason: Reason::Absent }));
            note(report, id, gone);
        }
    }

    /// Records whose workspace is gone and that no run needs.
    async fn drop_records(&self, reply: &WorkspacesReply, disk: &Disk) {
        let needless = |id: &String| {
            run_of(id).is_some()
                && !reply.keep.contains(id)
                && (reply.unknown.contains(id) || reply.reclaimable.iter().any(|o| o.id == *id))
        };
        for (_, path) in disk.records.iter().filter(|(id, _)| needless(id)) {
            drop_record(path).await;
        }
    }
}

/// Forgets an entry whose directory is gone, or was never made; one that has come back meanwhile is left alone.
async fn release_missing(mirror: &Mirror, entry: &Entry) -> anyhow::Result<()> {
    mirror.forget_missing(entry).await?;
    drop_record(&disk::record_file(&entry.path)).await;
    Ok(())
}

async fn drop_record(file: &Path) {
    // Drafts and downloads that a crash left beside it go too; usually nothing is there.
    for file in [file.to_owned(), file.with_extension("json.tmp"), file.with_extension("restore")] {
        if let Err(error) = tokio::fs::remove_file(&file).await
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%error, file = %file.display(), "a record cannot be deleted");
        }
    }
}
