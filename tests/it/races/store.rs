//! A store whose transactions can be held, told the time and broken on purpose.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use hopyard_contract::event::Event;
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::plan::Plan;
use hopyard_contract::run::{Kill, RunState, WorkspaceRow, WorkspaceStatus};
use hopyard_contract::status::RunStatus;
use hopyard_contract::submit::Receipt;
use hopyard_contract::{Name, RunId};
use hopyard_store::read::Reader;
use hopyard_store::runs::{ClaimQuery, Claimable, KeyRow, OutboxRow, RunStore, RunTx, Spent, Writes};
use hopyard_store::{Error, Result};
use uuid::Uuid;

use super::plant::Plant;
use super::stage::{Clock, Doing, Point, Stage};

/// One scheduler's view of the store.
#[derive(Clone)]
pub struct StagedStore {
    pub inner: Arc<dyn RunStore>,
    pub reader: Arc<dyn Reader>,
    pub clock: Arc<Clock>,
    pub stage: Arc<Stage>,
    pub plant: Plant,
    pub namespace: Name,
    /// Whose time it looks at; those of other races come up in these.
    pub runs: Vec<RunId>,
}

impl StagedStore {
    /// The runs as they are committed, without a lock.
    async fn look(&self, ids: &[RunId]) -> Result<Vec<RunState>> {
        let mut found = Vec::new();
        for id in ids {
            found.extend(self.reader.run(&self.namespace, *id).await?);
        }
        Ok(found)
    }

    /// Another transaction, which gives back its locks before anything comes of what it read.
    async fn aside(&self) -> Result<Box<dyn RunTx>> {
        self.inner.begin().await
    }
}

#[async_trait]
impl RunStore for StagedStore {
    async fn begin(&self) -> Result<Box<dyn RunTx>> {
        self.stage.now_doing(Doing::Beginning);
        let inner = self.inner.begin().await?;
        self.stage.now_doing(Doing::Working);
        self.stage.set_open(true);
        Ok(Box::new(StagedTx { inner: Some(inner), store: self.clone(), first_look: None }))
    }

    async fn next_due(&self) -> Result<Option<TimeDelta>> {
        self.inner.next_due().await
    }

    async fn claimable(&self) -> Result<Vec<Claimable>> {
        self.inner.claimable().await
    }

    async fn outbox(&self, age_ms: u64, limit: u32) -> Result<Vec<OutboxRow>> {
        self.inner.outbox(age_ms, limit).await
    }

    async fn outbox_age_ms(&self) -> Result<u64> {
        self.inner.outbox_age_ms().await
    }

    async fn put_definition(&self, put: &PutDefinition) -> Result<PutDefinitionReply> {
        self.inner.put_definition(put).await
    }

    async fn events_since(&self, since: DateTime<Utc>, limit: u32) -> Result<Vec<Event>> {
        self.inner.events_since(since, limit).await
    }

    async fn workspaces(&self, host: Option<&Name>, status: WorkspaceStatus, limit: u32) -> Result<Vec<WorkspaceRow>> {
        self.inner.workspaces(host, status, limit).await
    }

    async fn retire(&self) -> Result<()> {
        self.inner.retire().await
    }
}

struct StagedTx {
    inner: Option<Box<dyn RunTx>>,
    store: StagedStore,
    first_look: Option<DateTime<Utc>>,
}

impl Drop for StagedTx {
    fn drop(&mut self) {
        self.store.stage.set_open(false);
    }
}

impl StagedTx {
    fn tx(&mut self) -> &mut dyn RunTx {
        self.inner.as_mut().expect("a transaction is open until it is committed").as_mut()
    }

    fn plant(&self) -> Plant {
        self.store.plant
    }
}

#[async_trait]
impl RunTx for StagedTx {
    async fn now(&mut self) -> Result<DateTime<Utc>> {
        let now = self.store.clock.look();
        self.store.stage.reach(Point::Timed).await;
        let first = *self.first_look.get_or_insert(now);
        Ok(if self.plant() == Plant::EarlyClock { first } else { now })
    }

    async fn load(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        let states = match self.plant() {
            Plant::UnlockedLoad => self.store.look(ids).await?,
            Plant::StaleLoad => {
                let before = self.store.look(ids).await?;
                self.tx().load(ids).await?;
                before
            }
            _ => self.tx().load(ids).await?,
        };
        self.store.stage.reach(Point::Locked).await;
        Ok(states)
    }

    async fn look(&mut self, ids: &[RunId]) -> Result<Vec<RunState>> {
        self.tx().look(ids).await
    }

    async fn candidates(&mut self, query: &ClaimQuery) -> Result<Vec<(RunId, Name)>> {
        let found = match self.plant() {
            Plant::TrustedCandidates => {
                let mut aside = self.store.aside().await?;
                let found = aside.candidates(query).await?;
                aside.commit().await?;
                found
            }
            _ => self.tx().candidates(query).await?,
        };
        self.store.stage.reach(Point::Locked).await;
        Ok(found)
    }

    async fn due(&mut self, now: DateTime<Utc>, limit: u32) -> Result<Vec<RunId>> {
        let mut found = self.tx().due(now, limit).await?;
        found.retain(|id| self.store.runs.is_empty() || self.store.runs.contains(id));
        self.store.stage.reach(Point::Locked).await;
        Ok(found)
    }

    async fn claimed(&mut self, claim_id: Uuid) -> Result<Vec<RunId>> {
        if self.plant() == Plant::ForgottenClaims {
            return Ok(Vec::new());
        }
        self.tx().claimed(claim_id).await
    }

    async fn keys(&mut self, keys: &[(Name, String)]) -> Result<HashMap<(Name, String), KeyRow>> {
        if self.plant() == Plant::UnlockedKeys {
            let mut aside = self.store.aside().await?;
            let found = aside.keys(keys).await?;
            aside.commit().await?;
            return Ok(found);
        }
        self.tx().keys(keys).await
    }

    async fn tombstones(&mut self, ids: &[RunId], adds: bool) -> Result<HashMap<RunId, Kill>> {
        if self.plant() == Plant::UngatedTombstones {
            let mut aside = self.store.aside().await?;
            let found = aside.tombstones(ids, adds).await?;
            aside.commit().await?;
            return Ok(found);
        }
        self.tx().tombstones(ids, adds).await
    }

    async fn alias(&mut self, id: RunId) -> Result<Option<RunId>> {
        self.tx().alias(id).await
    }

    async fn statuses(&mut self, namespace: &Name, ids: &[RunId]) -> Result<HashMap<RunId, RunStatus>> {
        self.tx().statuses(namespace, ids).await
    }

    async fn slot_holders(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        if self.plant() == Plant::UnlockedSlots {
            let mut aside = self.store.aside().await?;
            let found = aside.slot_holders(keys).await?;
            aside.commit().await?;
            return Ok(found);
        }
        self.tx().slot_holders(keys).await
    }

    async fn slot_members(&mut self, keys: &[String]) -> Result<HashMap<String, Vec<RunId>>> {
        if self.plant() == Plant::UnlockedMembers {
            let mut aside = self.store.aside().await?;
            let found = aside.slot_members(keys).await?;
            aside.commit().await?;
            return Ok(found);
        }
        self.tx().slot_members(keys).await
    }

    async fn budgets(&mut self, keys: &[String]) -> Result<HashMap<String, Spent>> {
        self.tx().budgets(keys).await
    }

    async fn plans(&mut self, hashes: &[String]) -> Result<HashMap<String, Arc<Plan>>> {
        self.tx().plans(hashes).await
    }

    async fn receipt(&mut self, seq: u64, time_ns: i64) -> Result<Option<Receipt>> {
        if self.plant() == Plant::ForgottenReceipts {
            return Ok(None);
        }
        self.tx().receipt(seq, time_ns).await
    }

    async fn bound_runs(&mut self, executor: &Name) -> Result<Vec<RunId>> {
        self.tx().bound_runs(executor).await
    }

    async fn session_workspace(&mut self, namespace: &Name, repo: Option<&str>, session: &Name) -> Result<Option<WorkspaceRow>> {
        self.tx().session_workspace(namespace, repo, session).await
    }

    async fn workspaces(&mut self, ids: &[String]) -> Result<Vec<WorkspaceRow>> {
        self.tx().workspaces(ids).await
    }

    async fn write(&mut self, writes: &Writes) -> Result<()> {
        self.store.stage.reach(Point::Writing).await;
        let mut writes = writes.clone();
        match self.plant() {
            Plant::LostOutbox => writes.outbox.clear(),
            Plant::UnlockedKeys => {
                let asked: Vec<(Name, String)> = writes.keys.iter().map(|(namespace, key, _)| (namespace.clone(), key.clone())).collect();
                let mut aside = self.store.aside().await?;
                let taken = aside.keys(&asked).await?;
                aside.commit().await?;
                writes.keys.retain(|(namespace, key, _)| !taken.contains_key(&(namespace.clone(), key.clone())));
            }
            Plant::UngatedTombstones if !writes.tombstones.is_empty() => {
                let tombstones = Writes { tombstones: std::mem::take(&mut writes.tombstones), ..Writes::default() };
                let mut aside = self.store.aside().await?;
                aside.write(&tombstones).await?;
                aside.commit().await?;
            }
            _ => {}
        }
        self.tx().write(&writes).await
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        self.store.stage.reach(Point::Committing).await;
        let inner = self.inner.take().expect("a transaction is committed once");
        if self.plant() == Plant::LostCommit {
            return Ok(());
        }
        let lost = self.store.stage.holds_at(Point::Answering);
        inner.commit().await?;
        self.store.stage.set_open(false);
        if lost {
            self.store.stage.reach(Point::Answering).await;
            return Err(Error::Unavailable("the answer to the commit got lost".to_owned()));
        }
        Ok(())
    }
}
