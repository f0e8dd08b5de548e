//! Workspaces: one directory per run generation, made by its first attempt and shared by all; snapshots after each.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use hopyard_blobs::{Blobs, Digest};
use hopyard_contract::id::WorkspaceId;
use hopyard_contract::message::{Grant, Pin, PinReply, Restore, WorkspaceOrder};
use hopyard_contract::plan::WorkspaceMode;
use hopyard_contract::run::{BlobRef, ChangedFile, GitResult};
use hopyard_contract::subject::Verb;
use hopyard_contract::{AttemptId, Name};
use hopyard_runtime::tasks::Tasks;
use hopyard_runtime::{Bus, rpc};
use hopyard_worktree::{Mirror, Mirrors, Snapshot, Warm, Workspace};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex as AsyncMutex;

use crate::instruments;
use crate::settings::Settings;

/// Author of the commits that the executor makes.
pub(crate) const AUTHOR: &str = "Hopyard <hopyard@localhost>";

/// The workspaces of this executor.
pub(crate) struct Workspaces {
    mirrors: Mirrors,
    root: PathBuf,
    sessions: PathBuf,
    bus: Bus,
    warm: Warm,
    tasks: Tasks,
    open: Mutex<HashMap<String, Arc<Shared>>>,
}

/// One workspace of a run, or of a variant; the lock orders its making and its snapshots, not the steps that work in it.
pub(crate) struct Shared {
    path: PathBuf,
    state: AsyncMutex<Option<Opened>>,
}

#[derive(Clone)]
struct Opened {
    git: Option<Git>,
}

#[derive(Clone)]
struct Git {
    workspace: Workspace,
    record: Record,
}

/// What is remembered beside a git workspace, for a restarted executor and for the janitor.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Repository URL.
    pub(crate) url: String,
    /// Commit the run started from.
    pub(crate) base: String,
    /// Commit of the repository that bundles build on; `base` if absent. They differ once a session goes on with another run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) origin: Option<String>,
    /// Last snapshot.
    pub(crate) head: String,
    /// `<run>-g<k>` that uses it now.
    pub(crate) owner: String,
}

/// A workspace that is ready for an attempt.
#[derive(Clone)]
pub(crate) struct Ready {
    /// Its directory.
    pub(crate) path: PathBuf,
    /// Commit of its content before the attempt.
    pub(crate) before: Option<String>,
    shared: Arc<Shared>,
}

/// What is kept of a workspace after an attempt.
#[derive(Clone, Debug, Default)]
pub(crate) struct Kept {
    /// Commit of its content after the attempt.
    pub(crate) snapshot: Option<String>,
    /// The run's work so far.
    pub(crate) result: Option<GitResult>,
}

/// Who an attempt is, in commits and refs.
pub(crate) struct Author<'a> {
    pub(crate) attempt: &'a AttemptId,
    pub(crate) workflow: &'a Name,
    pub(crate) session: Option<&'a Name>,
    pub(crate) branch: &'a str,
    /// Somebody else may have the step by now: the work is kept, and the run's branch does not follow it.
    pub(crate) quarantined: bool,
}

/// Why there is no workspace.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    /// The lease was over when the commit was to be pinned.
    #[error("the lease is over")]
    Stale,
    /// With git's own words.
    #[error("{0:#}")]
    Failed(#[from] anyhow::Error),
}

impl Workspaces {
    pub(crate) fn new(mirrors: Mirrors, settings: &Settings, bus: Bus, tasks: Tasks) -> Self {
        let (root, sessions) = (settings.workspaces.clone(), settings.sessions.clone());
        Self { mirrors, root, sessions, bus, warm: settings.warm, tasks, open: Mutex::default() }
    }

    /// Ids of the workspaces on disk, as `<run>-g<k>`.
    pub(crate) async fn on_disk(&self) -> anyhow::Result<Vec<String>> {
        let mut found = Vec::new();
        let mut entries = tokio::fs::read_dir(&self.root).await?;
        while let Some(entry) = entries.next_entry().await? {
            if entry.file_type().await?.is_dir() {
                found.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        let mut entries = tokio::fs::read_dir(&self.sessions).await?;
        while let Some(entry) = entries.next_entry().await? {
            if let Some(record) = read_record(&entry.path().with_extension("json")).await {
                found.push(record.owner);
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    /// Makes the workspace of an attempt, or joins the one that is there; who asks for none gets `scratch`, an empty directory.
    pub(crate) async fn open(&self, grant: &Grant, scratch: &Path, blobs: &Blobs) -> Result<Ready, OpenError> {
        let order = &grant.workspace;
        if order.mode == WorkspaceMode::None {
            let shared = Arc::new(Shared { path: scratch.to_owned(), state: AsyncMutex::new(Some(Opened { git: None })) });
            return Ok(Ready { path: scratch.to_owned(), before: None, shared });
        }
        let (id, path) = self.place(grant);
        let shared = {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.retain(|key, shared| *key == id || Arc::strong_count(shared) > 1 || shared.path.exists());
            open.entry(id.clone()).or_insert_with(|| Arc::new(Shared { path: path.clone(), state: AsyncMutex::default() })).clone()
        };
        let mut state = shared.state.lock().await;
        if state.is_none() || !path.exists() {
            *state = Some(self.make(grant, &id, &path, blobs).await?);
        }
        let before = match state.as_mut().and_then(|o| o.git.as_mut()) {
            Some(git) => {
                if let Some(commit) = &order.reset_to {
                    keep_and_reset(git, grant, commit).await?;
                    write_record(&path, &git.record).await?;
                }
                Some(git.record.head.clone())
            }
            None => None,
        };
        drop(state);
        Ok(Ready { path, before, shared })
    }

    /// The workspace of an attempt of the process before, if it is there; nothing is made or reset.
    pub(crate) async fn reopen(&self, grant: &Grant) -> Option<Ready> {
        let url = grant.workspace.url.as_ref()?;
        let (id, path) = self.place(grant);
        let record = read_record(&path.with_extension("json")).await.filter(|r| r.owner == id)?;
        let mirror = self.mirrors.mirror(url).await.ok()?;
        let name = path.file_name()?.to_string_lossy().into_owned();
        let workspace = mirror.workspace(&path, &name).ok()??;
        let shared = Arc::new(Shared { path: path.clone(), state: AsyncMutex::new(Some(Opened { git: Some(Git { workspace, record }) })) });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, shared.clone());
        Some(Ready { path, before: None, shared })
    }

    /// The name of an attempt's workspace, and where it is.
    fn place(&self, grant: &Grant) -> (String, PathBuf) {
        let order = &grant.workspace;
        let id = WorkspaceId { run: grant.attempt.run, generation: order.generation, variant: order.variant.clone() }.to_string();
        let path = match &order.session {
            Some(session) => self.sessions.join(session_key(&grant.namespace, session, order.url.as_deref())),
            None => self.root.join(&id),
        };
        (id, path)
    }

    async fn make(&self, grant: &Grant, id: &str, path: &Path, blobs: &Blobs) -> Result<Opened, OpenError> {
        let order = &grant.workspace;
        let Some(url) = &order.url else {
            self.mirrors.scratch(path).await.context("the scratch directory cannot be made")?;
            return Ok(Opened { git: None });
        };
        let mirror = self.mirrors.mirror(url).await.map_err(anyhow::Error::from)?;
        // The worktree's name within the mirror: that of the directory, which a session keeps from run to run.
        let name = path.file_name().map_or_else(|| id.to_owned(), |n| n.to_string_lossy().into_owned());
        if let (Ok(Some(workspace)), Some(record)) = (mirror.workspace(path, &name), read_record(&path.with_extension("json")).await) {
            // Already there: this executor was restarted, or the session goes on with another run.
            let mut git = Git { workspace, record };
            if git.record.owner != id {
                catch_up(&mut git, grant, path, blobs).await?;
                git.record.base = self.pinned(grant, git.record.head.clone()).await?;
                git.record.owner = id.to_owned();
                write_record(path, &git.record).await?;
            }
            return Ok(Opened { git: Some(git) });
        }
        // Restored first: a session's base is in no branch of the repository, only in what was kept.
        let restored = match &order.restore {
            Some(restore) => Some(restore_commit(&mirror, restore, path, blobs).await?),
            None => None,
        };
        let base = match (&order.commit, &restored) {
            (Some(commit), _) => mirror.resolve(Some(commit)).await.map_err(anyhow::Error::from)?,
            // The session goes on elsewhere: the run starts from where the one before left it.
            (None, Some(head)) => self.pinned(grant, head.clone()).await?,
            (None, None) => {
                let resolved = mirror.resolve(order.reference.as_deref()).await.map_err(anyhow::Error::from)?;
                hopyard_runtime::failpoint!("executor.mirror.fetched");
                self.pinned(grant, resolved).await?
            }
        };
        hopyard_runtime::failpoint!("executor.commit.pinned");
        let head = restored.unwrap_or_else(|| base.clone());
        let workspace = mirror.open_workspace(path, &name, &head, id).await.map_err(anyhow::Error::from)?;
        hopyard_runtime::failpoint!("executor.worktree.added");
        let origin = order.restore.as_ref().and_then(|restore| restore.origin.clone()).or_else(|| Some(base.clone()));
        let record = Record { url: url.clone(), base, origin, head, owner: id.to_owned() };
        write_record(path, &record).await?;
        hopyard_runtime::failpoint!("executor.workspace.recorded");
        instruments::workspaces().with_label_values(&[if workspace.was_warm() { "warm" } else { "plain" }]).inc();
        self.warm_next(workspace.clone(), record.base.clone());
        Ok(Opened { git: Some(Git { workspace, record }) })
    }

    /// Has checkouts of the commit made for the next workspaces of its repository; nobody waits for them.
    fn warm_next(&self, workspace: Workspace, commit: String) {
        let (limits, drain) = (self.warm, self.tasks.draining().clone());
        self.tasks.spawn_part("warm", async move {
            if let Some(Err(error)) = drain.run_until_cancelled(workspace.warm_next(&commit, limits)).await {
                tracing::warn!(%error, repo = workspace.mirror().repo(), "no checkout can be made ahead");
            }
            Ok(())
        });
    }

    /// The commit everyone of the run uses; the first to ask decides.
    async fn pinned(&self, grant: &Grant, commit: String) -> Result<String, OpenError> {
        let pin = Pin { attempt: grant.attempt.clone(), token: grant.token, commit };
        match rpc::call::<_, PinReply>(&self.bus, Verb::Pin, &pin).await {
            Ok(PinReply::Pinned(commit)) => Ok(commit),
            Ok(PinReply::Stale) => Err(OpenError::Stale),
            Err(error) => Err(OpenError::Failed(anyhow::Error::from(error).context("the commit could not be pinned"))),
        }
    }
}

impl Ready {
    /// The mirror, the commit the run started from and the last snapshot; absent without a repository.
    pub(crate) async fn work(&self) -> Option<(Mirror, String, String)> {
        let state = self.shared.state.lock().await;
        let git = state.as_ref().and_then(|opened| opened.git.as_ref())?;
        Some((git.workspace.mirror().clone(), git.record.base.clone(), git.record.head.clone()))
    }

    /// Puts the work of a variant in the place of what is there, which is kept like that of an attempt before a retry.
    ///
    /// # Errors
    /// With git's words, and when there is no repository that could hold the work of both.
    pub(crate) async fn take_over(&self, grant: &Grant, work: &Restore, blobs: &Blobs) -> anyhow::Result<()> {
        let mut state = self.shared.state.lock().await;
        let git = state.as_mut().and_then(|opened| opened.git.as_mut());
        let git = git.context("the run has no repository, so that there is no work that could be taken over")?;
        let commit = restore_commit(git.workspace.mirror(), work, &self.path, blobs).await?;
        keep_and_reset(git, grant, &commit).await?;
        write_record(&self.path, &git.record).await
    }

    /// Makes changes of commits again, each against its parent.
    ///
    /// # Errors
    /// With git's words, and without a repository.
    pub(crate) async fn change_again(&self, work: &Restore, changes: &[String], blobs: &Blobs) -> anyhow::Result<()> {
        let state = self.shared.state.lock().await;
        let git = state.as_ref().and_then(|opened| opened.git.as_ref()).context("the run has no repository")?;
        restore_commit(git.workspace.mirror(), work, &self.path, blobs).await?;
        for commit in changes {
            git.workspace.reapply(commit).await?;
        }
        Ok(())
    }

    /// Keeps what the attempt left: a commit, the run's branch, patch and bundle.
    pub(crate) async fn keep(&self, author: &Author<'_>, blobs: &Blobs, scratch: &Path) -> anyhow::Result<Kept> {
        let mut state = self.shared.state.lock().await;
        let Some(git) = state.as_mut().and_then(|o| o.git.as_mut()) else { return Ok(Kept::default()) };
        let commit = snapshot(git, author).await?;
        hopyard_runtime::failpoint!("executor.snapshot.made");
        write_record(&self.path, &git.record).await?;
        let (mirror, record) = (git.workspace.mirror().clone(), git.record.clone());
        drop(state);
        if !author.quarantined {
            // The branch lives in our mirror: it simply follows the work.
            mirror.point_branch(author.branch, &commit).await.context("the branch could not be set")?;
            hopyard_runtime::failpoint!("executor.branch.set");
        }
        let result = hand_over(&mirror, &record, &commit, author.branch, blobs, scratch).await?;
        hopyard_runtime::failpoint!("executor.blobs.uploaded");
        Ok(Kept { snapshot: Some(commit), result: Some(result) })
    }
}

/// Snapshots the directory; the record's head moves on.
async fn snapshot(git: &mut Git, author: &Author<'_>) -> anyhow::Result<String> {
    let attempt = author.attempt;
    let session = author.session.map(|s| format!("Hopyard-Session: {s}\n")).unwrap_or_default();
    let message = format!(
        "{workflow}/{step}: work of run {run}\n\nHopyard-Run: {run}\nHopyard-Workflow: {workflow}\nHopyard-Step: {step}\nHopyard-Attempt: {n}\n{session}",
        workflow = author.workflow,
        step = attempt.step,
        run = attempt.run,
        n = attempt.n
    );
    let refname = format!("refs/hopyard/{}/{}/{}", attempt.run, attempt.step, attempt.n);
    let taken = git
        .workspace
        .snapshot(Snapshot { message: &message, refname: &refname, parent: &git.record.head, author: AUTHOR })
        .await
        .context("the snapshot failed; the workspace stays as it is")?;
    if !taken.skipped.is_empty() {
        tracing::warn!(%attempt, skipped = ?taken.skipped, "some paths cannot be kept by git");
    }
    git.record.head = taken.commit.clone();
    Ok(taken.commit)
}

/// Before a retry: what the attempt before left is kept under its own ref, then tracked files are reset.
async fn keep_and_reset(git: &mut Git, grant: &Grant, commit: &str) -> anyhow::Result<()> {
    let earlier = AttemptId { n: grant.attempt.n.saturating_sub(1), ..grant.attempt.clone() };
    let author = Author { attempt: &earlier, workflow: &grant.workflow, session: None, branch: "", quarantined: true };
    snapshot(git, &author).await?;
    git.workspace.reset_to(commit).await.context("the workspace could not be reset for the retry")?;
    hopyard_runtime::failpoint!("executor.workspace.reset");
    git.record.head = commit.to_owned();
    Ok(())
}

/// A session may have gone on at another executor since its directory here was left: then it starts from what was kept there.
async fn catch_up(git: &mut Git, grant: &Grant, path: &Path, blobs: &Blobs) -> anyhow::Result<()> {
    let Some(restore) = &grant.workspace.restore else { return Ok(()) };
    let mirror = git.workspace.mirror().clone();
    if mirror.is_ancestor(&restore.commit, &git.record.head).await? {
        return Ok(());
    }
    let head = restore_commit(&mirror, restore, path, blobs).await?;
    keep_and_reset(git, grant, &head).await?;
    git.record.origin = restore.origin.clone();
    Ok(())
}

async fn restore_commit(mirror: &Mirror, restore: &Restore, path: &Path, blobs: &Blobs) -> anyhow::Result<String> {
    let commit = &restore.commit;
    if mirror.has_commit(commit).await? {
        return Ok(commit.clone());
    }
    let Some(bundle) = &restore.bundle else {
        // Nothing was changed: the commit is one of the repository's own.
        return mirror.resolve(Some(commit)).await.with_context(|| format!("the work of the earlier workspace ({commit}) was not stored"));
    };
    let file = path.with_extension("restore");
    let digest: Digest = bundle.digest.parse().context("the bundle's digest is not valid")?;
    blobs.read_to_file(&digest, &file).await.context("the bundle of the earlier workspace cannot be read")?;
    let imported = mirror.import_bundle(&file, commit).await.context("the bundle of the earlier workspace cannot be used");
    tokio::fs::remove_file(&file).await?;
    imported?;
    Ok(commit.clone())
}

/// Stores patch and bundle.
async fn hand_over(mirror: &Mirror, record: &Record, head: &str, branch: &str, blobs: &Blobs, scratch: &Path) -> anyhow::Result<GitResult> {
    let base = record.base.as_str();
    let mut result = GitResult {
        base: base.to_owned(),
        head: head.to_owned(),
        branch: branch.to_owned(),
        files: Vec::new(),
        insertions: 0,
        deletions: 0,
        patch: None,
        bundle: None,
    };
    if base == head {
        return Ok(result);
    }
    let stat = mirror.diff(base, head).await.context("the changes could not be listed")?;
    result.insertions = stat.insertions;
    result.deletions = stat.deletions;
    result.files = stat
        .files
        .into_iter()
        .map(|f| ChangedFile { path: f.path, status: f.status.as_str().to_owned(), insertions: f.insertions, deletions: f.deletions })
        .collect();
    let (patch, bundle) = (scratch.join("patch"), scratch.join("bundle"));
    mirror.patch(base, head, &patch).await.context("the patch could not be made")?;
    result.patch = Some(put(blobs, &patch).await?);
    // On top of the repository's own commits, so that whoever has those can use it.
    let origin = record.origin.as_deref().unwrap_or(base);
    if mirror.bundle(origin, head, branch, &bundle).await.context("the bundle could not be made")? {
        result.bundle = Some(put(blobs, &bundle).await?);
    }
    Ok(result)
}

async fn put(blobs: &Blobs, file: &Path) -> anyhow::Result<BlobRef> {
    let blob = blobs.put_file(file).await.with_context(|| format!("{} could not be stored", file.display()))?;
    tokio::fs::remove_file(file).await?;
    Ok(BlobRef { digest: blob.digest.to_string(), size: blob.size })
}

/// Directory name of a persistent workspace.
fn session_key(namespace: &Name, session: &Name, url: Option<&str>) -> String {
    let hash = Sha256::digest(format!("{namespace}\0{session}\0{}", url.unwrap_or_default()));
    let hex: String = hash[..6].iter().map(|b| format!("{b:02x}")).collect();
    format!("{session}-{hex}")
}

pub(crate) async fn read_record(file: &Path) -> Option<Record> {
    serde_json::from_slice(&tokio::fs::read(file).await.ok()?).ok()
}

async fn write_record(path: &Path, record: &Record) -> anyhow::Result<()> {
    let (file, draft) = (path.with_extension("json"), path.with_extension("json.tmp"));
    tokio::fs::write(&draft, serde_json::to_vec(record)?).await?;
    tokio::fs::rename(&draft, &file).await.context("the record of the workspace cannot be written")
}

/// The order's own mode, for messages.
pub(crate) fn kind(order: &WorkspaceOrder) -> &'static str {
    match (order.mode, &order.url) {
        (WorkspaceMode::None, _) => "none",
        (_, None) => "scratch",
        (WorkspaceMode::Persistent, _) => "persistent",
        (WorkspaceMode::Temporary, _) => "temporary",
    }
}

#[cfg(test)]
mod tests;
