//! What a pending run or step waits for, and the setting or command that helps.

use hopyard_contract::Name;
use hopyard_contract::run::{Attempt, Run, RunState, StepState};
use hopyard_contract::status::{AttemptStatus, PendingReason, StepStatus};
use hopyard_contract::view::Blocker;

use super::facts::Facts;
use super::{at, count, list, quoted};

/// `start_at` is in the future.
pub(super) fn schedule(run: &Run) -> Vec<Blocker> {
    let Some(start) = run.start_at else { return Vec::new() };
    let text = format!(
        "starts at {} because of its `start_at`; to start now, cancel it with `hopyard runs cancel {}` and submit it without",
        at(start),
        run.id
    );
    vec![Blocker { code: PendingReason::AwaitingSchedule.as_str().to_owned(), text, until: Some(start), ..Blocker::default() }]
}

/// Runs named in `after` have not ended.
pub(super) fn parents(run: &Run, facts: &Facts) -> Blocker {
    let named = list(run.after_open.iter().map(|id| {
        let status = facts.parents.iter().find(|(parent, _)| parent == id).map_or("unknown", |(_, status)| status.as_str());
        format!("{id} ({status})")
    }));
    let what = if run.after_open.len() == 1 { "the run" } else { "the runs" };
    let text = format!(
        "waits for {what} named in `after` to end: {}; `hopyard runs explain <run>` says what holds one up",
        named.unwrap_or_default()
    );
    Blocker { code: PendingReason::AwaitingDependencies.as_str().to_owned(), text, run_ids: run.after_open.clone(), ..Blocker::default() }
}

/// Concurrency keys are taken.
pub(super) fn slots(run: &Run, facts: &Facts) -> Vec<Blocker> {
    let code = PendingReason::AwaitingSlot.as_str();
    let blocker = |key: &str, limit: u32| {
        let holders = facts.holders.iter().find(|(k, _)| k == key).map(|(_, runs)| runs.clone()).unwrap_or_default();
        let who = list(holders.iter().map(ToString::to_string)).unwrap_or_else(|| "runs that are just ending".to_owned());
        let text = format!(
            "the concurrency key `{}` allows {} at once and is held by {who}; raise `concurrency.limit` of workflow {} or end one with `hopyard runs cancel <run>`",
            quoted(key),
            count(limit as usize, "run"),
            run.workflow
        );
        Blocker { code: code.to_owned(), text, run_ids: holders, key: Some(key.to_owned()), ..Blocker::default() }
    };
    run.slots.iter().filter(|slot| !slot.held).map(|slot| blocker(&slot.key, slot.limit)).collect()
}

/// Attempts whose lease has run out and that nobody has given up yet: their executors hold them still meanwhile.
pub(super) fn leases(state: &RunState, facts: &Facts) -> Vec<Blocker> {
    let overdue = state.live().filter(|a| a.status == AttemptStatus::Running && a.lease_until <= facts.now);
    let blocker = |a: &Attempt| Blocker {
        step: Some(a.step.clone()),
        code: "lease_overdue".to_owned(),
        text: format!(
            "executor {} could not renew its lease of step {} since {}, so the step is held still; it goes on when bus, scheduler and \
             database answer again, and is ended by the executor after HOPYARD_FREEZE_LIMIT, see `hopyard executors list` and /health",
            a.executor,
            a.step,
            at(a.lease_until)
        ),
        ..Blocker::default()
    };
    overdue.map(blocker).collect()
}

/// Every pending step; those that wait for nothing but other steps come last.
pub(super) fn steps(state: &RunState, facts: &Facts) -> Vec<Blocker> {
    let pending = state.steps.iter().filter(|step| step.status == StepStatus::Pending);
    let mut blockers: Vec<Blocker> = pending.map(|step| of_step(state, step, facts)).collect();
    blockers.sort_by_key(|b| b.code == PendingReason::AwaitingDependencies.as_str());
    blockers
}

fn of_step(state: &RunState, step: &StepState, facts: &Facts) -> Blocker {
    let reason = step.pending_reason.unwrap_or(PendingReason::AwaitingDependencies);
    let mut blocker = Blocker { step: Some(step.id.clone()), code: reason.as_str().to_owned(), ..Blocker::default() };
    match reason {
        PendingReason::AwaitingDependencies => {
            let open = |need: &&Name| state.step(need.as_str()).is_some_and(|s| !s.status.is_final());
            let needs = state
                .plan
                .step(step.id.as_str())
                .map(|spec| spec.needs.iter().filter(open).map(|n| format!("step {n}")).collect::<Vec<_>>());
            let named = list(needs.unwrap_or_default().into_iter()).unwrap_or_else(|| "the scheduler".to_owned());
            blocker.text = format!("step {} waits for {named}, as its `needs` say", step.id);
        }
        PendingReason::AwaitingSchedule => {
            blocker.until = state.run.start_at;
            blocker.text = schedule(&state.run).pop().map_or_else(|| format!("step {} waits for its time", step.id), |b| b.text);
        }
        PendingReason::AwaitingSlot => match slots(&state.run, facts).into_iter().next() {
            Some(slot) => return Blocker { step: Some(step.id.clone()), ..slot },
            None => blocker.text = format!("step {} waits for a concurrency key that is just being given back", step.id),
        },
        PendingReason::AwaitingExecutor => executor(&mut blocker, step, facts),
        PendingReason::Starting => {
            let live = state.live().find(|a| a.step == step.id);
            blocker.until = live.map(|a| a.lease_until);
            blocker.text = live.map_or_else(
                || format!("step {} is being started", step.id),
                |a| {
                    format!(
                        "step {} is being started by executor {} on host {}; if it says nothing, its lease ends and another one takes over",
                        step.id, a.executor, a.host
                    )
                },
            );
        }
        PendingReason::AwaitingWorkspace => {
            blocker.pool = Some(step.pool.clone());
            blocker.text = format!(
                "step {} waits for a workspace that is made on another executor from the last saved work; `hopyard executors list` shows who is alive",
                step.id
            );
        }
        PendingReason::RetryBackoff => {
            blocker.until = step.claimable_at;
            let failed = state.attempt(step.id.as_str(), step.attempt);
            let code = failed.and_then(|a| a.failure_code).map_or("lost", |code| code.as_str());
            let when = step.claimable_at.map_or_else(|| "soon".to_owned(), |next| format!("at {}", at(next)));
            blocker.text = format!(
                "attempt {} of step {} ended with {code}; it is tried again {when}, as `retry.backoff` of the step says",
                step.attempt, step.id
            );
        }
        PendingReason::AwaitingBudget => {
            blocker.until = step.claimable_at;
            blocker.text = format!(
                "step {} waits because a budget of this day that the run shares is spent (`[budgets]` of the scheduler): it goes on when the next day begins, or once the budget is raised with `hopyard runs resume`",
                step.id
            );
        }
    }
    blocker
}

/// Claimable, and nobody has claimed it.
fn executor(blocker: &mut Blocker, step: &StepState, facts: &Facts) {
    let pool = &step.pool;
    blocker.pool = Some(pool.clone());
    if let Some(next) = step.claimable_at.filter(|next| *next > facts.now) {
        blocker.until = Some(next);
    }
    let (code, text) = match &step.bound_to {
        Some(holder) => bound(holder, pool, facts),
        None => unbound(pool, facts),
    };
    if let Some(code) = code {
        blocker.code = code.to_owned();
    }
    blocker.text = format!("step {} waits: {text}", step.id);
}

fn unbound(pool: &Name, facts: &Facts) -> (Option<&'static str>, String) {
    let alive: Vec<_> = facts.executors.iter().filter(|e| e.pool == *pool).collect();
    let ready: Vec<_> = alive.iter().filter(|e| !e.draining).collect();
    let slots: usize = ready.iter().map(|e| e.slots as usize).sum();
    let free: usize = ready.iter().map(|e| e.free as usize).sum();
    let waiting = facts.claimable.get(pool).copied().unwrap_or(0);
    if alive.is_empty() {
        return (Some("no_executor"), format!("no executor is alive in pool {pool}; start one with `hopyard executor --pool {pool}`"));
    }
    if ready.is_empty() {
        return (
            Some("draining"),
            format!("every executor in pool {pool} takes no new work; start another one with `hopyard executor --pool {pool}`"),
        );
    }
    if free == 0 {
        let waiting = usize::try_from(waiting).unwrap_or(usize::MAX);
        let text = format!(
            "all of the {} in pool {pool} are taken and {} for one; raise HOPYARD_SLOTS or start another executor with `hopyard executor --pool {pool}`",
            count(slots, "slot"),
            if waiting == 1 { "1 step waits".to_owned() } else { format!("{waiting} steps wait") }
        );
        return (Some("no_free_slot"), text);
    }
    (
        None,
        format!(
            "{} free in pool {pool}, so one takes it in a moment; if not, see `hopyard executors list`",
            if free == 1 { "1 slot is".to_owned() } else { format!("{free} slots are") }
        ),
    )
}

fn bound(holder: &Name, pool: &Name, facts: &Facts) -> (Option<&'static str>, String) {
    match facts.executors.iter().find(|e| e.id == *holder) {
        None => {
            let text = format!(
                "executor {holder} has the run's workspace and is silent; start it again, or wait until the run moves to another executor of pool {pool}"
            );
            (Some("executor_silent"), text)
        }
        Some(e) if e.draining => {
            let text = format!(
                "executor {holder} has the run's workspace and takes no new work; the run moves to another executor of pool {pool}"
            );
            (Some("draining"), text)
        }
        Some(e) if e.free == 0 => {
            let text = format!(
                "executor {holder} has the run's workspace and all of its {} are taken; raise HOPYARD_SLOTS there",
                count(e.slots as usize, "slot")
            );
            (Some("no_free_slot"), text)
        }
        Some(_) => (None, format!("executor {holder} has the run's workspace and takes it in a moment")),
    }
}
