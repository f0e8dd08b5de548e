//! Delivery: the run's branch is pushed and merged, each outward act only while the lease can be relied on; an act waits
//! while it is overdue.
//!
//! There is no process: git runs in the mirror, where no code of a step has ever been. Every act is one that may be
//! repeated, so an attempt whose answer was lost is simply made again.

use std::time::Duration;

use hopyard_contract::message::{Grant, Outcome};
use hopyard_contract::plan::Deliver;
use hopyard_contract::status::FailureCode;
use hopyard_worktree::{Error, Merge, MergeOutcome, Mirror, PushOutcome};

use crate::Executor;
use crate::attempt::{Outputs, failed};
use crate::live::Attempt;
use crate::workspaces::{AUTHOR, Ready};

/// Pauses between tries while a repository cannot be reached.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(9)];
/// Most paths of a conflict that are named.
const NAMED: usize = 20;

/// Hands the run's work over to its repository.
pub(crate) async fn deliver(
    executor: &Executor,
    grant: &Grant,
    live: &Attempt,
    ready: &Ready,
    deliver: &Deliver,
) -> Result<Outputs, Outcome> {
    let Some((mirror, base, head)) = ready.work().await else {
        return Err(failed(FailureCode::SetupError, "the run has no repository to deliver to".to_owned()));
    };
    Delivery { grant, live, freeze_limit: executor.settings.freeze_limit, deliver, mirror, base, head }.carry_out().await
}

/// The work of a run and what shall become of it.
struct Delivery<'a> {
    grant: &'a Grant,
    live: &'a Attempt,
    /// Longest time that an act waits for an overdue lease.
    freeze_limit: Duration,
    deliver: &'a Deliver,
    mirror: Mirror,
    base: String,
    head: String,
}

impl Delivery<'_> {
    /// Pushes and merges; the outputs of the step, or how else it ended.
    async fn carry_out(&self) -> Result<Outputs, Outcome> {
        let order = &self.grant.workspace;
        // Known before anything is done: nothing is pushed by a step that cannot succeed.
        let target = self.deliver.merge.as_deref().map(|merge| target(merge, order.reference.as_deref())).transpose();
        let target = target.map_err(|detail| failed(FailureCode::WorkspaceError, detail))?;
        let mut outputs = Outputs::from([("changed".to_owned(), (self.base != self.head).to_string())]);
        if self.base == self.head {
            return Ok(outputs);
        }
        if self.deliver.push {
            let pushed = self.act(|| self.mirror.push(&order.branch, self.mirror.repo(), &self.head)).await?;
            hopyard_runtime::failpoint!("executor.branch.pushed");
            let word = match pushed {
                PushOutcome::Created => "created",
                PushOutcome::Updated => "updated",
                PushOutcome::UpToDate => "up_to_date",
            };
            outputs.insert("pushed".to_owned(), word.to_owned());
        }
        if let Some(target) = target {
            let (run, workflow) = (self.grant.attempt.run, &self.grant.workflow);
            let message = format!("{workflow}: merge the work of run {run}\n\nHopyard-Run: {run}\nHopyard-Workflow: {workflow}\n");
            let merge = Merge { target, head: &self.head, message: &message, author: AUTHOR };
            match self.act(|| self.mirror.merge(merge)).await? {
                MergeOutcome::Merged { commit } | MergeOutcome::AlreadyMerged { commit } => outputs.insert("merged".to_owned(), commit),
                MergeOutcome::Conflict { target: at, paths } => {
                    let named = paths.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
                    let more = paths.len().checked_sub(NAMED).filter(|n| *n > 0).map(|n| format!(" and {n} more")).unwrap_or_default();
                    let detail = format!("the work conflicts with `{target}` at {at} in {named}{more}; nothing was merged");
                    return Err(failed(FailureCode::WorkspaceError, detail));
                }
            };
        }
        Ok(outputs)
    }

    /// One outward act, again while the other side is away for the moment; none without a lease that can be relied on.
    async fn act<T, F: Future<Output = hopyard_worktree::Result<T>>>(&self, act: impl Fn() -> F) -> Result<T, Outcome> {
        let mut pauses = PAUSES.into_iter();
        loop {
            self.live.relied_on(self.freeze_limit).await?;
            let error = match act().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let Some(pause) = pauses.next().filter(|_| error.is_transient()) else { return Err(refused(&error)) };
            tracing::info!(attempt = %self.grant.attempt, %error, "the delivery is tried again");
            let mut standing = self.live.standing();
            // Whatever ends the attempt also ends the pause.
            tokio::time::timeout(pause, standing.wait_for(|s| s.kill.is_some() || s.stale || s.hand_back))
                .await
                .map(drop)
                .unwrap_or_default();
        }
    }
}

fn refused(error: &Error) -> Outcome {
    let code = if error.is_disk_full() { FailureCode::DiskFull } else { FailureCode::WorkspaceError };
    failed(code, error.to_string())
}

/// The branch to merge into, without `refs/heads/`.
fn target<'a>(merge: &'a str, reference: Option<&'a str>) -> Result<&'a str, String> {
    let name = match (merge, reference) {
        ("base", None) => return Err("`merge: base` needs a branch: name it as `ref` of the run's repo, or in `result.merge`".to_owned()),
        ("base", Some(reference)) => reference,
        (name, _) => name,
    };
    let branch = name.strip_prefix("refs/heads/").unwrap_or(name);
    let commit = branch.len() == 40 && branch.bytes().all(|b| b.is_ascii_hexdigit());
    if commit || branch == "HEAD" || branch.starts_with("refs/") {
        return Err(format!(
            "`{name}` is not a branch that could be merged into: name one as `ref` of the run's repo, or in `result.merge`"
        ));
    }
    Ok(branch)
}

#[cfg(test)]
mod tests;
