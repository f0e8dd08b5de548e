//! From works to inputs: which runs a work names, and what it makes of them.

use std::collections::BTreeSet;

use hopyard_contract::RunId;
use hopyard_contract::message::{KillReply, KillRun, LeaseState, PinReply, RenewAnswer, Report, Reports, SubmissionItem, WorkspaceRemoved};
use hopyard_contract::run::Kill;
use hopyard_runtime::clock::BootInstant;
use hopyard_store::Error as StoreError;
use hopyard_store::runs::RunTx;

use super::{Committer, Known, Round};
use crate::decide::{Effect, Input, KillAsk, Reply};
use crate::inbox::{Answer, Work};

/// A run that is not known is waited for this long.
const TOMBSTONE_WINDOW_MS: i64 = 10 * 60 * 1000;

/// Collects the runs that a work names.
pub(super) fn named_runs(work: &Work, ids: &mut BTreeSet<RunId>) {
    match work {
        Work::Accept(ask) => {
            let items = ask.request.submissions.iter().flat_map(|s| &s.items);
            ids.extend(items.filter_map(|item| if let SubmissionItem::Run(new) = item { Some(new.run_id) } else { None }));
        }
        Work::Renew(ask) => ids.extend(ask.request.leases.iter().map(|l| l.attempt.run)),
        Work::Pin(ask) => {
            ids.insert(ask.request.attempt.run);
        }
        Work::Kill(ask) => {
            ids.insert(ask.request.run);
        }
        Work::Reports(_, body) => ids.extend(body.reports.iter().filter_map(run_of)),
        Work::Claim(_) | Work::Hello(_) | Work::Workspaces(_) => {}
    }
}

fn run_of(report: &Report) -> Option<RunId> {
    match report {
        Report::Started(started) => Some(started.attempt.run),
        Report::Finished(finished) => Some(finished.attempt.run),
        Report::WorkspaceSaved(saved) => Some(saved.attempt.run),
        Report::WorkspaceRemoved(removed) => run_of_workspace(&removed.id),
    }
}

/// The run in `<run>-g<k>`.
pub(super) fn run_of_workspace(id: &str) -> Option<RunId> {
    id.rsplit_once("-g").and_then(|(run, _)| run.parse().ok())
}

impl Committer {
    /// Decides one work within the transaction.
    pub(super) async fn apply(&mut self, tx: &mut dyn RunTx, round: &mut Round, work: &Work) -> Result<Answer, StoreError> {
        Ok(match work {
            Work::Accept(ask) => Answer::Accept(self.on_accept(tx, round, &ask.request).await?),
            Work::Claim(ask) => Answer::Claim(self.on_claim(tx, round, &ask.request).await?),
            Work::Renew(ask) => {
                self.seen(&ask.request.executor);
                let answers = ask.request.leases.iter().map(|renewal| {
                    match round.decide(renewal.attempt.run, &Input::Renew(renewal.clone(), self.settings.lease)) {
                        Some(Reply::Renewed(answer)) => answer,
                        _ => RenewAnswer { state: LeaseState::Stale, kill: None },
                    }
                });
                Answer::Renew(hopyard_contract::message::RenewReply { leases: answers.collect() })
            }
            Work::Pin(ask) => match round.decide(ask.request.attempt.run, &Input::Pin(ask.request.clone())) {
                Some(Reply::Pinned(reply)) => Answer::Pin(reply),
                _ => Answer::Pin(PinReply::Stale),
            },
            Work::Kill(ask) => Answer::Kill(on_kill(tx, round, &ask.request).await?),
            Work::Hello(ask) => Answer::Hello(self.on_hello(tx, round, &ask.request).await?),
            Work::Workspaces(ask) => Answer::Workspaces(self.on_workspaces(tx, round, &ask.request).await?),
            Work::Reports(_, body) => {
                self.on_reports(tx, round, body).await?;
                Answer::Done
            }
        })
    }

    pub(super) fn seen(&mut self, executor: &hopyard_contract::Name) {
        let known = self.executors.entry(executor.clone()).or_insert(Known { seen: BootInstant::now(), draining: false });
        known.seen = BootInstant::now();
    }

    async fn on_reports(&mut self, tx: &mut dyn RunTx, round: &mut Round, body: &Reports) -> Result<(), StoreError> {
        for report in &body.reports {
            match report {
                Report::Started(started) => {
                    round.decide(started.attempt.run, &Input::Started(started.clone()));
                }
                Report::Finished(finished) => {
                    if round.decide(finished.attempt.run, &Input::Finished(Box::new(finished.clone()))).is_none() {
                        // Not known here: the executor may forget it all the same.
                        round.effects.push((finished.attempt.run, Effect::Settled(body.from.clone(), finished.attempt.clone())));
                        round.effects.push((finished.attempt.run, Effect::Stale("unknown_run")));
                    }
                }
                Report::WorkspaceSaved(saved) => {
                    round.decide(saved.attempt.run, &Input::Saved(saved.clone()));
                }
                Report::WorkspaceRemoved(removed) => on_removed(tx, round, removed).await?,
            }
        }
        Ok(())
    }
}

async fn on_removed(tx: &mut dyn RunTx, round: &mut Round, removed: &WorkspaceRemoved) -> Result<(), StoreError> {
    let Some(run) = run_of_workspace(&removed.id) else { return Ok(()) };
    for mut row in tx.workspaces(std::slice::from_ref(&removed.id)).await? {
        row.bytes = Some(removed.bytes);
        round.decide(run, &Input::Removed(row, removed.reason.clone()));
    }
    Ok(())
}

/// Ends a run; one that is not known yet is born killed, if it is young enough to be on its way.
async fn on_kill(tx: &mut dyn RunTx, round: &mut Round, ask: &KillRun) -> Result<KillReply, StoreError> {
    match round.state(ask.run) {
        Some(state) if state.run.namespace == ask.namespace => {
            let input = Input::Kill(KillAsk { by: ask.by.clone(), reason: ask.reason.clone(), force: ask.force });
            Ok(match round.decide(ask.run, &input) {
                Some(Reply::Killed(reply)) => reply,
                _ => KillReply::Unknown,
            })
        }
        Some(_) => Ok(KillReply::Unknown),
        None if round.now.timestamp_millis() - ask.run.unix_millis() < TOMBSTONE_WINDOW_MS => {
            let known = tx.tombstones(&[ask.run]).await?;
            if !known.contains_key(&ask.run) {
                let kill = Kill { at: round.now, by: ask.by.clone(), reason: ask.reason.clone(), force: ask.force, failure: None };
                round.writes.tombstones.push((ask.run, kill));
            }
            Ok(KillReply::Tombstone)
        }
        None => Ok(KillReply::Unknown),
    }
}
