//! What an explanation has to know besides the run: who is alive, who holds what, who waits too.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use chrono::{DateTime, Utc};
use hopyard_contract::run::RunState;
use hopyard_contract::status::{PendingReason, RunStatus};
use hopyard_contract::view::Explanation;
use hopyard_contract::{Name, RunId};

use super::explain;
use crate::door::Door;
use crate::http::{Namespace, run_id};
use crate::problem::Answer;
use crate::read::fleet::ALIVE;
use crate::read::params::Params;
use crate::read::runs;

/// What is known around a run.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// Now, by the clock of the door.
    pub(crate) now: DateTime<Utc>,
    /// Whether a scheduler is alive.
    pub(crate) scheduler: bool,
    /// Executors that are alive.
    pub(crate) executors: Vec<Alive>,
    /// Holders of the keys that the run does not hold.
    pub(crate) holders: Vec<(String, Vec<RunId>)>,
    /// Statuses of the runs that it waits for.
    pub(crate) parents: Vec<(RunId, RunStatus)>,
    /// Claimable steps by pool.
    pub(crate) claimable: BTreeMap<Name, u64>,
}

/// An executor that beats.
#[derive(Clone, Debug)]
pub(crate) struct Alive {
    /// Name.
    pub(crate) id: Name,
    /// Pool.
    pub(crate) pool: Name,
    /// Most attempts at once.
    pub(crate) slots: u32,
    /// Those of them that are free.
    pub(crate) free: u32,
    /// Whether it takes no new work.
    pub(crate) draining: bool,
}

/// `GET /runs/{id}/explain`.
pub(crate) async fn on_explain(
    State(door): State<Door>,
    namespace: Namespace,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Json<Explanation>> {
    params.allow(&[], &[])?;
    let state = runs::of(&door, &namespace.name, run_id(&id)?).await?;
    let facts = gather(&door, &namespace.name, &state).await?;
    Ok(Json(explain(&state, &facts)))
}

async fn gather(door: &Door, namespace: &Name, state: &RunState) -> Answer<Facts> {
    let run = &state.run;
    let mut facts = Facts {
        now: Utc::now(),
        scheduler: !door.presence.alive("scheduler", ALIVE).is_empty(),
        executors: Vec::new(),
        holders: Vec::new(),
        parents: Vec::new(),
        claimable: BTreeMap::new(),
    };
    if run.status.is_final() {
        return Ok(facts);
    }
    for (beat, _) in door.presence.alive("executor", ALIVE) {
        let Some(pool) = beat.pool else { continue };
        facts.executors.push(Alive { id: beat.id, pool, slots: beat.slots, free: beat.free, draining: beat.draining });
    }
    if !run.after_open.is_empty() {
        facts.parents = door.reader.statuses(namespace, &run.after_open).await?;
    }
    for slot in run.slots.iter().filter(|slot| !slot.held) {
        let mut holders = door.reader.slot_holders(slot).await?;
        holders.retain(|holder| *holder != run.id);
        facts.holders.push((slot.key.clone(), holders));
    }
    if state.steps.iter().any(|step| step.pending_reason == Some(PendingReason::AwaitingExecutor)) {
        for claimable in door.reader.claimable().await? {
            *facts.claimable.entry(claimable.pool).or_default() += claimable.count;
        }
    }
    Ok(facts)
}
