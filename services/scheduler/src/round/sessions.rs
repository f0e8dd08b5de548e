//! Where a session's kept workspace is, and who may therefore lease its next run.

use hopyard_contract::message::{Claim, Restore};
use hopyard_contract::plan::WorkspaceMode;
use hopyard_contract::run::WorkspaceRow;
use hopyard_contract::{Name, RunId};
use hopyard_store::Error as StoreError;

use super::Round;

/// What a claim has to do with the session of a run.
pub(super) enum Session {
    /// The run has none, or none that has been kept.
    None,
    /// Its workspace is at another executor, which is to carry the run out.
    At(Name),
    /// The claimer goes on with it: in its own directory, or in a new one from the work that was kept.
    Continues(Box<WorkspaceRow>, Option<Restore>),
}

impl Round<'_> {
    /// Looks for the session's workspace when a run is about to get its first one.
    pub(super) async fn session(&mut self, claim: &Claim, run: RunId, may_judge: bool) -> Result<Session, StoreError> {
        let Some(state) = self.state(run).filter(|s| s.run.generation == 0 && s.plan.workspace.mode == WorkspaceMode::Persistent) else {
            return Ok(Session::None);
        };
        let Some(session) = state.run.session.clone() else { return Ok(Session::None) };
        let (namespace, url) = (state.run.namespace.clone(), state.run.repo.as_ref().map(|r| r.url.clone()));
        let Some(row) = self.tx.session_workspace(&namespace, url.as_deref(), &session).await? else { return Ok(Session::None) };
        if row.executor != claim.executor && self.goes_on(&row.executor, &claim.pool, may_judge) {
            return Ok(Session::At(row.executor));
        }
        self.know([row.run_id]).await?;
        let work = self.state(row.run_id).and_then(|earlier| earlier.run.kept_work());
        Ok(Session::Continues(Box::new(row), work))
    }

    /// Whether an executor can be counted on to claim a step of the pool.
    fn goes_on(&self, executor: &Name, pool: &Name, may_judge: bool) -> bool {
        if may_judge && self.desk.outlook.why_unbind(executor).is_some() {
            return false;
        }
        // One that was moved to another pool would never see the step.
        self.desk.outlook.pool_of(executor).is_none_or(|p| p == *pool)
    }
}
