//! What has to go on: the outbox, timers, slots and the inventory of workspaces.

use std::collections::{HashMap, HashSet};

use chrono::{TimeDelta, Utc};
use hopyard_contract::RunId;
use hopyard_contract::run::{RunState, WorkspaceRow, WorkspaceStatus};
use hopyard_store::Error;
use hopyard_store::audit::AuditReader;
use hopyard_store::read::Reader;

use super::Scope;
use super::report::{DUE, INVENTORY, OUTBOX, Question, Report, SLOTS};

/// Rows of one read.
const PAGE: u32 = 200;
/// Most rows that are listed of what should be none.
const LISTED: u32 = 1000;
/// How long a message may stay in the outbox: another scheduler takes it after 5 s.
const OUTBOX_MS: u64 = 30_000;
/// Within this time a janitor has made its full pass.
const PASS: TimeDelta = TimeDelta::minutes(70);

/// Looks at everything that is kept up by somebody.
pub(crate) async fn check(audit: &dyn AuditReader, reader: &dyn Reader, scope: &Scope, report: &mut Report) {
    let outcome = outbox(reader, report).await;
    broke_off(report, &OUTBOX, outcome);
    let outcome = due(audit, scope, report).await;
    broke_off(report, &DUE, outcome);
    let outcome = slots(audit, report).await;
    broke_off(report, &SLOTS, outcome);
    let outcome = inventory(audit, scope, report).await;
    broke_off(report, &INVENTORY, outcome);
}

fn broke_off(report: &mut Report, question: &Question, outcome: hopyard_store::Result<()>) {
    if let Err(error) = outcome {
        report.unreachable(&error.to_string());
        report.broke_off(question, &error.to_string());
    }
}

async fn outbox(reader: &dyn Reader, report: &mut Report) -> hopyard_store::Result<()> {
    let age = reader.outbox_age_ms().await?;
    report.looked(&OUTBOX, 1);
    if age > OUTBOX_MS {
        report.found(&OUTBOX, "outbox", format!("its oldest row has waited for {age} ms"));
    }
    Ok(())
}

async fn due(audit: &dyn AuditReader, scope: &Scope, report: &mut Report) -> hopyard_store::Result<()> {
    let late = audit.overdue(Utc::now() - scope.overdue, LISTED).await?;
    report.looked(&DUE, late.len().max(1));
    for due in late {
        report.found(&DUE, due.run.to_string(), format!("its {} was due at {}", due.kind, hopyard_contract::time::format(due.at)));
    }
    Ok(())
}

async fn slots(audit: &dyn AuditReader, report: &mut Report) -> hopyard_store::Result<()> {
    let crowded = audit.crowded_slots(LISTED).await?;
    report.looked(&SLOTS, crowded.len().max(1));
    for slot in crowded {
        report.found(&SLOTS, slot.key, format!("{} runs hold it, {} may", slot.holders, slot.limit));
    }
    Ok(())
}

/// A row counts only if it is still there after its run was read: between two reads a run may end.
async fn inventory(audit: &dyn AuditReader, scope: &Scope, report: &mut Report) -> hopyard_store::Result<()> {
    let mut behind = String::new();
    loop {
        let rows = audit.inventory(&behind, PAGE).await?;
        let Some(last) = rows.last() else { return Ok(()) };
        behind.clone_from(&last.id);
        report.looked(&INVENTORY, rows.len());
        let mut ids: Vec<RunId> = rows.iter().map(|row| row.run_id).collect();
        ids.sort_unstable();
        ids.dedup();
        let (states, unreadable) = states(audit, &ids).await?;
        let readable = rows.iter().filter(|row| !unreadable.contains(&row.run_id));
        let suspects: Vec<(&WorkspaceRow, String)> =
            readable.filter_map(|row| wrong(row, states.get(&row.run_id), scope, Utc::now()).map(|why| (row, why))).collect();
        if suspects.is_empty() {
            continue;
        }
        let again = audit.inventory_of(&suspects.iter().map(|(row, _)| row.id.clone()).collect::<Vec<_>>()).await?;
        for (row, why) in suspects {
            if again.iter().any(|r| r.id == row.id && r.status == row.status) {
                report.found(&INVENTORY, &row.id, why);
            }
        }
    }
}

/// The runs by id, and those that cannot be read: they have lines of their own.
async fn states(audit: &dyn AuditReader, ids: &[RunId]) -> hopyard_store::Result<(HashMap<RunId, RunState>, HashSet<RunId>)> {
    let (mut states, mut unreadable) = (HashMap::new(), HashSet::new());
    let mut open = vec![ids.to_vec()];
    while let Some(mut ids) = open.pop() {
        match audit.histories(&ids).await {
            Ok(histories) => states.extend(histories.runs.into_iter().map(|(state, _)| (state.run.id, state))),
            Err(Error::Refused(_)) if ids.len() == 1 => drop(unreadable.insert(ids[0])),
            Err(Error::Refused(_)) => {
                open.push(ids.split_off(ids.len() / 2));
                open.push(ids);
            }
            Err(error) => return Err(error),
        }
    }
    Ok((states, unreadable))
}

/// Why a row cannot be, or has been for too long.
fn wrong(row: &WorkspaceRow, state: Option<&RunState>, scope: &Scope, now: chrono::DateTime<Utc>) -> Option<String> {
    let Some(state) = state else { return Some(format!("it is {} and its run is not recorded", row.status.as_str())) };
    let run = &state.run;
    match row.status {
        WorkspaceStatus::Active if run.status.is_final() => Some(format!("it is active and its run is {}", run.status)),
        WorkspaceStatus::Active if row.generation != run.generation || run.executor.as_ref() != Some(&row.executor) => {
            let at = run.executor.as_ref().map_or("nobody", |e| e.as_str());
            Some(format!("it is active at {}, its run is bound to {at} at g{}", row.executor, run.generation))
        }
        WorkspaceStatus::Kept if row.session.is_none() => Some("it is kept for no session".to_owned()),
        WorkspaceStatus::Reclaimable if scope.quiesced => Some("it may go and is still there".to_owned()),
        WorkspaceStatus::Reclaimable if run.finished_at.is_some_and(|at| now - at > PASS) => {
            let ended = run.finished_at.map(hopyard_contract::time::format).unwrap_or_default();
            Some(format!("it may go since {ended}, and no janitor of {} has removed it", row.host))
        }
        _ => None,
    }
}
