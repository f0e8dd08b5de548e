//! What every engine has to do, as assertions: run on SQLite by this crate's tests, on PostgreSQL wherever one is at hand.
#![allow(clippy::unwrap_used, reason = "a suite of assertions: whatever fails ends it")]

use std::sync::Arc;

use hopyard_contract::run::{Run, RunState, StepState};
use hopyard_contract::{Name, RunId};

use crate::audit::AuditReader;
use crate::metrics::MetricsStore;
use crate::read::Reader;
use crate::runs::{RunStore, RunWrite, Writes};
use crate::{Error, Store};

/// Runs one read in a transaction of its own and ends it for certain: what is only dropped may hold its locks for a while,
/// and a claim skips what is locked.
macro_rules! within_tx {
    ($bench:expr, $($read:tt)+) => {{
        let mut tx = $bench.runs.begin().await.unwrap();
        let found = tx.$($read)+.await.unwrap();
        tx.commit().await.unwrap();
        found
    }};
}

mod accept;
mod audit;
mod claims;
mod definitions;
mod delivery;
mod guards;
mod inventory;
mod lists;
mod samples;

#[cfg(test)]
mod tests;

/// The sides of an engine, whichever it is.
pub struct Engine {
    /// Whether more than one scheduler may work on it.
    pub shared: bool,
    /// The scheduler's side.
    pub runs: Arc<dyn RunStore>,
    /// The readers' side.
    pub reader: Arc<dyn Reader>,
    /// The auditor's side; an engine without one keeps to the rest.
    pub audit: Option<Arc<dyn AuditReader>>,
    /// The metrics service's side.
    pub metrics: Arc<dyn MetricsStore>,
}

/// Runs every case on a migrated store, as [`run_on`] does.
pub async fn run_all(store: &Store) {
    let runs = store.runs().await.unwrap();
    let audit = Some(store.auditor());
    run_on(&Engine { shared: store.shared(), runs, reader: store.reader(), audit, metrics: store.metrics() }).await;
}

/// Runs every case on an engine that is set up, and panics at the first that fails. Each case uses names of its own, so the
/// store may hold other data; nobody else may work on it, because due rows and the outbox are everybody's.
pub async fn run_on(engine: &Engine) {
    macro_rules! cases {
        ($($group:ident: $($case:ident),+;)+) => {
            $($(
                tracing::info!(case = concat!(stringify!($group), "::", stringify!($case)), "conformance");
                $group::$case(Bench::new(engine).await).await;
            )+)+
        };
    }
    cases! {
        accept: every_field_comes_back, unknown_ids_are_absent, keys_are_known_once, receipts_are_told_apart_by_time,
            shared_budgets_add_up, kill_requests_precede_their_runs, further_ids_of_a_run_find_it, statuses_stay_within_a_namespace, children_are_poked_when_a_parent_ends,
            a_dropped_transaction_leaves_nothing;
        claims: the_best_step_comes_first, bound_steps_are_for_their_executor, taken_slots_hide_runs, all_runs_of_a_slot_are_listed, nothing_is_claimed_twice,
            a_claim_id_finds_its_runs, timers_and_pokes_are_due, what_is_claimable_is_counted;
        guards: a_final_run_is_immutable, events_have_no_gaps, impossible_rows_are_refused, an_unknown_run_cannot_change,
            an_ended_attempt_keeps_its_status;
        lists: filters_select, pages_do_not_overlap, time_ranges_are_exact, usage_is_summed, events_are_read_from_a_number,
            a_taken_slot_is_shown, live_runs_are_counted;
        definitions: versions_grow, puts_are_conditional, unregistered_definitions_have_no_version;
        inventory: sessions_find_their_workspace, workspaces_are_listed, executors_are_known, bound_runs_are_found;
        delivery: the_outbox_is_emptied, events_are_replayed, metrics_state_is_compared, time_does_not_go_back, the_schema_is_described;
    }
    if engine.audit.is_some() {
        cases! {
            audit: histories_are_whole_and_of_one_moment, runs_are_found_by_id_and_by_time, keys_and_receipts_are_paged,
                what_is_late_or_crowded_shows, the_inventory_is_paged;
        }
    }
}

/// A store with names that no other case uses.
struct Bench {
    shared: bool,
    runs: Arc<dyn RunStore>,
    reader: Arc<dyn Reader>,
    audit: Option<Arc<dyn AuditReader>>,
    metrics: Arc<dyn MetricsStore>,
    namespace: Name,
    pool: Name,
    plan_hash: String,
}

impl Bench {
    /// The auditor's side; its cases are run only where there is one.
    fn audit(&self) -> &dyn AuditReader {
        self.audit.as_deref().unwrap()
    }

    async fn new(engine: &Engine) -> Self {
        let unique = RunId::mint().as_uuid().simple().to_string();
        let namespace: Name = format!("n{unique}").parse().unwrap();
        let plan = samples::plan();
        let put = samples::put(&namespace, "of-runs", "text", &plan, false);
        engine.runs.put_definition(&put).await.unwrap();
        Self {
            shared: engine.shared,
            runs: Arc::clone(&engine.runs),
            reader: Arc::clone(&engine.reader),
            audit: engine.audit.clone(),
            metrics: Arc::clone(&engine.metrics),
            namespace,
            pool: format!("p{unique}").parse().unwrap(),
            plan_hash: plan.hash(),
        }
    }

    /// A pending run with the least in it.
    fn run(&self) -> Run {
        samples::run(&self.namespace, &self.pool, &self.plan_hash)
    }

    /// A pending step of this case's pool that nobody may claim.
    fn step(&self, id: &str) -> StepState {
        samples::step(id, &self.pool)
    }

    /// Writes in a transaction of its own.
    async fn write(&self, writes: Writes) -> crate::Result<()> {
        let mut tx = self.runs.begin().await?;
        tx.write(&writes).await?;
        tx.commit().await
    }

    /// Writes one run.
    async fn put(&self, write: RunWrite) -> crate::Result<()> {
        self.write(Writes { runs: vec![write], ..Writes::default() }).await
    }

    /// Writes a new run.
    async fn accept(&self, run: &Run, steps: &[StepState]) {
        self.put(samples::new_run(run, steps)).await.unwrap();
    }

    /// Writes something that has to be refused.
    async fn refuse(&self, what: &str, write: RunWrite) {
        let outcome = self.put(write).await;
        assert!(matches!(outcome, Err(Error::Refused(_))), "{what} is refused, not {outcome:?}");
    }

    /// Writes something a second time. On a shared store this is what a race with another scheduler looks like, which is
    /// tried again; an embedded one has nobody to race with.
    async fn refuse_again(&self, what: &str, writes: Writes) {
        let outcome = self.write(writes).await;
        let refused = if self.shared {
            matches!(outcome, Err(Error::Refused(_) | Error::Retry(_)))
        } else {
            matches!(outcome, Err(Error::Refused(_)))
        };
        assert!(refused, "{what} is refused, not {outcome:?}");
    }

    /// Loads runs.
    async fn load(&self, ids: &[RunId]) -> Vec<RunState> {
        within_tx!(self, load(ids))
    }
}
