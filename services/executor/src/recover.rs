//! After a restart: leftovers of the attempts before are ended, their work and logs kept, their results reported.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use hopyard_contract::message::{Finished, Grant, Outcome};
use hopyard_runtime::clock::BootInstant;

use crate::asker::Asker;

use crate::process::{exit_facts, tree};
use crate::spools::{FINISHED_FILE, GRANT_FILE};
use crate::workspaces::{Author, Kept};
use crate::{Executor, logs};

/// Says hello and settles what the process before left in the spool.
pub(crate) async fn start(executor: &Arc<Executor>) -> anyhow::Result<()> {
    let left = executor.spools.left()?;
    for dir in &left {
        let attempt = dir.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // First of all nothing of it may go on.
        end_leftovers(attempt).await?;
        hopyard_runtime::failpoint!("executor.leftovers.ended");
    }
    let own = executor.clone();
    executor.ctx.tasks.spawn("hello", async move {
        let stop = own.ctx.tasks.stopping().clone();
        while let Some(Err(error)) = stop.run_until_cancelled(own.hello()).await {
            tracing::info!(error = format!("{error:#}"), "hello was not answered yet");
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        own.reporter.ring();
        Ok(())
    });
    for dir in left {
        let own = executor.clone();
        executor.ctx.tasks.spawn_part("recover", async move { own.recover(dir).await });
    }
    Ok(())
}

/// Ends every process of an attempt that nobody carries on.
pub(crate) async fn end_leftovers(attempt: String) -> anyhow::Result<()> {
    let name = attempt.clone();
    let swept = tokio::task::spawn_blocking(move || tree::kill_marked(&name, None)).await??;
    if swept.killed > 0 {
        tracing::warn!(attempt, killed = swept.killed, "leftovers of an attempt were ended");
    }
    Ok(())
}

impl Executor {
    /// Reports one attempt of the process before; it takes no slot, since nothing of it runs.
    async fn recover(self: Arc<Self>, dir: PathBuf) -> anyhow::Result<()> {
        let Some(grant) = read::<Grant>(&dir.join(GRANT_FILE)).await else {
            // Nothing had begun: the lease runs out by itself.
            return Ok(tokio::fs::remove_dir_all(&dir).await?);
        };
        let finished = match read::<Finished>(&dir.join(FINISHED_FILE)).await {
            Some(finished) => finished,
            None => self.lost(&grant, &dir).await,
        };
        let Some(live) = self.live.enter(&grant, BootInstant::now()) else { return Ok(()) };
        live.close();
        self.live.free_slot();
        self.report_until_settled(finished, &live, &dir).await;
        self.live.leave(&grant.attempt);
        Ok(())
    }

    /// The end of an attempt that nobody carries on: its work and its log, as far as they came.
    pub(crate) async fn lost(&self, grant: &Grant, dir: &Path) -> Finished {
        let facts = exit_facts(dir).ok().flatten();
        let author = Author {
            attempt: &grant.attempt,
            workflow: &grant.workflow,
            session: grant.workspace.session.as_ref(),
            branch: &grant.workspace.branch,
            quarantined: false,
        };
        let kept = match self.workspaces.reopen(grant).await {
            Some(ready) => ready.keep(&author, &self.blobs, dir).await.unwrap_or_else(|error| {
                tracing::error!(attempt = %grant.attempt, error = format!("{error:#}"), "the work of a lost attempt could not be kept; its workspace stays");
                Kept::default()
            }),
            None => Kept::default(),
        };
        let log = logs::store(&self.blobs, dir).await.unwrap_or_else(|error| {
            tracing::error!(attempt = %grant.attempt, error = format!("{error:#}"), "the log of a lost attempt could not be stored");
            None
        });
        let asker = Asker::from_spool(self, grant, dir);
        let record = match &asker {
            Some(asker) => asker.keep_record(&self.blobs).await.unwrap_or_else(|error| {
                tracing::error!(attempt = %grant.attempt, error = format!("{error:#}"), "the record of a lost attempt could not be stored");
                None
            }),
            None => None,
        };
        let log_bytes = crate::process::SpoolReader::open(&dir.join(crate::process::SPOOL_FILE)).and_then(|r| r.end()).unwrap_or(0);
        Finished {
            started_at: facts.as_ref().and_then(|f| f.started_at),
            usage: asker.as_ref().map(Asker::usage).unwrap_or_default(),
            log_bytes,
            log,
            record,
            snapshot: kept.snapshot,
            result: kept.result,
            ..Finished::new(grant.attempt.clone(), grant.token, Outcome::Lost, facts.as_ref().map_or_else(Utc::now, |f| f.finished_at))
        }
    }
}

async fn read<T: serde::de::DeserializeOwned>(file: &Path) -> Option<T> {
    serde_json::from_slice(&tokio::fs::read(file).await.ok()?).ok()
}
