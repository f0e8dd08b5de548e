//! What the schema of the real engines refuses: impossible rows, changes of what has ended, gaps between events.

use hopyard_contract::run::{Attempt, Run, StepState};
use hopyard_contract::status::{RunStatus, StepStatus};
use hopyard_store::Error;
use hopyard_store::runs::{RunWrite, Writes};

use super::tables::Tables;

/// Refuses what a CHECK or a trigger would refuse.
pub(super) fn check(tables: &Tables, writes: &Writes) -> Result<(), Error> {
    for write in &writes.runs {
        let known = tables.runs.get(&write.run.id);
        if !write.new && known.is_none() {
            return Err(Error::Refused(format!("run {} is changed but does not exist", write.run.id)));
        }
        run_row(&write.run)?;
        write.steps.iter().try_for_each(|(_, step)| step_row(step))?;
        write.attempts.iter().try_for_each(attempt_row)?;
        let last = known.map_or(0, |record| record.pages.last().and_then(|page| page.last()).map_or(0, |event| event.seq));
        events(write, last)?;
        if let Some(record) = known {
            if record.run.finished_at.is_some() {
                ended(&record.run, &write.run)?;
            }
            for attempt in &write.attempts {
                let before = record.attempts.iter().find(|a| a.n == attempt.n && a.step == attempt.step);
                if let Some(before) = before.filter(|a| a.finished_at.is_some())
                    && (before.status != attempt.status || before.finished_at != attempt.finished_at)
                {
                    return Err(refused("an attempt that has ended keeps its status"));
                }
            }
        }
    }
    if let Some((receipt, _)) = writes.receipts.iter().find(|(receipt, _)| receipt.seq.is_none()) {
        return Err(Error::Refused(format!("receipt {} has no sequence of the command stream", receipt.id)));
    }
    Ok(())
}

fn refused(what: &str) -> Error {
    Error::Refused(what.to_owned())
}

fn hold(holds: bool, what: &str) -> Result<(), Error> {
    if holds { Ok(()) } else { Err(refused(what)) }
}

fn run_row(run: &Run) -> Result<(), Error> {
    hold(run.priority <= 3, "the priority of a run is 0 to 3")?;
    hold(run.status.is_final() == run.finished_at.is_some(), "a run has ended when it has an end")?;
    hold(run.status != RunStatus::Running || run.started_at.is_some(), "a run that runs has started")?;
    hold(run.pending_reason.is_none() || run.status == RunStatus::Pending, "only a pending run waits for a reason")?;
    hold(run.paused_reason.is_none() || run.status == RunStatus::Paused, "only a paused run is paused for a reason")?;
    hold(run.failure_code.is_some() == (run.status == RunStatus::Failed), "a failed run has a code, and no other has")
}

fn step_row(step: &StepState) -> Result<(), Error> {
    hold(step.status.is_final() == step.finished_at.is_some(), "a step has ended when it has an end")?;
    hold(step.status != StepStatus::Running || step.started_at.is_some(), "a step that runs has started")?;
    hold(step.claimable_at.is_none() || step.status == StepStatus::Pending, "only a pending step is claimable")
}

fn attempt_row(attempt: &Attempt) -> Result<(), Error> {
    use hopyard_contract::status::AttemptStatus;
    hold(attempt.n >= 1, "attempts count from 1")?;
    hold(attempt.status.is_final() == attempt.finished_at.is_some(), "an attempt has ended when it has an end")?;
    hold(attempt.status != AttemptStatus::Running || attempt.started_at.is_some(), "an attempt that runs has started")
}

fn events(write: &RunWrite, last: u64) -> Result<(), Error> {
    let id = write.run.id;
    if let Some(stray) = write.events.iter().find(|event| event.run_id != id) {
        return Err(Error::Refused(format!("event {} is not of run {id}", stray.id)));
    }
    let dense = write.events.iter().zip(last + 1..).all(|(event, seq)| event.seq == seq);
    hold(dense, "events of a run are numbered without gaps")
}

/// The trigger `runs_final`.
fn ended(before: &Run, after: &Run) -> Result<(), Error> {
    let same = before.namespace == after.namespace
        && before.workflow == after.workflow
        && before.status == after.status
        && before.failure_code == after.failure_code
        && before.created_at == after.created_at
        && before.started_at == after.started_at
        && before.finished_at == after.finished_at
        && before.usage == after.usage
        && before.result == after.result
        && before.error == after.error;
    hold(same, "a run that has ended is immutable")
}
