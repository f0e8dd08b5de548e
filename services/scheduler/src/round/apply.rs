//! From requests to inputs: which runs a request names, and what it makes of them.

use std::collections::BTreeSet;

use hopyard_contract::RunId;
use hopyard_contract::id::WorkspaceId;
use hopyard_contract::message::{
    AnswerReply, AnswerStep, KillReply, KillRun, LeaseState, PinReply, RenewAnswer, RenewReply, Report, Reports, ResumeReply, ResumeRun,
    SubmissionItem, WorkspaceRemoved,
};
use hopyard_contract::run::Kill;
use hopyard_store::Error as StoreError;

use super::Round;
use crate::decide::{AnswerAsk, Effect, Input, KillAsk, Reply};
use crate::request::{Answer, Request};

/// A run that is not known is waited for this long.
const TOMBSTONE_WINDOW_MS: i64 = 10 * 60 * 1000;

/// Collects the runs that a request names.
pub(super) fn named_runs(request: &Request, ids: &mut BTreeSet<RunId>) {
    match request {
        Request::Accept(ask) => {
            let items = ask.submissions.iter().flat_map(|s| &s.items);
            ids.extend(items.filter_map(|item| if let SubmissionItem::Run(new) = item { Some(new.run_id) } else { None }));
        }
        Request::Renew(ask) => ids.extend(ask.leases.iter().map(|l| l.attempt.run)),
        Request::Pin(ask) => {
            ids.insert(ask.attempt.run);
        }
        Request::Kill(ask) => {
            ids.insert(ask.run);
        }
        Request::Answer(ask) => {
            ids.insert(ask.run);
        }
        Request::Resume(ask) => {
            ids.insert(ask.run);
        }
        Request::Reports(body) => ids.extend(body.reports.iter().filter_map(run_of)),
        Request::Claim(_) | Request::Hello(_) | Request::Workspaces(_) => {}
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

/// The run of a workspace.
fn run_of_workspace(id: &str) -> Option<RunId> {
    id.parse::<WorkspaceId>().ok().map(|id| id.run)
}

impl Round<'_> {
    /// Decides one request within the transaction.
    pub(super) async fn apply(&mut self, request: &Request) -> Result<Answer, StoreError> {
        Ok(match request {
            Request::Accept(ask) => Answer::Accept(self.on_accept(ask).await?),
            Request::Claim(ask) => Answer::Claim(self.on_claim(ask).await?),
            Request::Renew(ask) => {
                let lease = self.desk.settings.lease;
                let asking = ask.leases.iter().map(|renewal| &renewal.attempt).filter(|attempt| self.pays(attempt.run, &attempt.step));
                let asking: Vec<_> = asking.map(|attempt| attempt.run).collect();
                self.know_budgets(asking).await?;
                let answers = ask.leases.iter().map(|renewal| {
                    let run = renewal.attempt.run;
                    match self.decide(run, &Input::Renew(renewal.clone(), lease, self.purse(run))) {
                        Some(Reply::Renewed(answer)) => answer,
                        _ => RenewAnswer { state: LeaseState::Stale, kill: None, allowance: None },
                    }
                });
                Answer::Renew(RenewReply { leases: answers.collect() })
            }
            Request::Pin(ask) => match self.decide(ask.attempt.run, &Input::Pin(ask.clone())) {
                Some(Reply::Pinned(reply)) => Answer::Pin(reply),
                _ => Answer::Pin(PinReply::Stale),
            },
            Request::Kill(ask) => Answer::Kill(self.on_kill(ask).await?),
            Request::Answer(ask) => Answer::Answer(self.on_answer(ask).await?),
            Request::Resume(ask) => Answer::Resume(self.on_resume(ask).await?),
            Request::Hello(ask) => Answer::Hello(self.on_hello(ask).await?),
            Request::Workspaces(ask) => Answer::Workspaces(self.on_workspaces(ask).await?),
            Request::Reports(body) => {
                self.on_reports(body).await?;
                Answer::Done
            }
        })
    }

    async fn on_reports(&mut self, body: &Reports) -> Result<(), StoreError> {
        for report in &body.reports {
            match report {
                Report::Started(started) => {
                    self.decide(started.attempt.run, &Input::Started(started.clone()));
                }
                Report::Finished(finished) => {
                    self.decide(finished.attempt.run, &Input::Finished(Box::new(finished.clone())));
                    if self.state(finished.attempt.run).is_none() {
                        // Not known here: the executor may forget it all the same.
                        self.effects.push((finished.attempt.run, Effect::Settled(body.from.clone(), finished.attempt.clone())));
                        self.effects.push((finished.attempt.run, Effect::Stale("unknown_run")));
                    }
                }
                Report::WorkspaceSaved(saved) => {
                    self.decide(saved.attempt.run, &Input::Saved(saved.clone()));
                }
                Report::WorkspaceRemoved(removed) => self.on_removed(removed).await?,
            }
        }
        Ok(())
    }

    async fn on_removed(&mut self, removed: &WorkspaceRemoved) -> Result<(), StoreError> {
        let Some(run) = run_of_workspace(&removed.id) else { return Ok(()) };
        for mut row in self.tx.workspaces(std::slice::from_ref(&removed.id)).await? {
            row.bytes = Some(removed.bytes);
            self.decide(run, &Input::Removed(row, removed.reason.clone()));
        }
        Ok(())
    }

    /// Ends a run; one that is not known yet is born killed, if it is young enough to be on its way.
    async fn on_kill(&mut self, ask: &KillRun) -> Result<KillReply, StoreError> {
        let run = self.named(ask.run).await?;
        match self.state(run) {
            Some(state) if state.run.namespace == ask.namespace => {
                let input = Input::Kill(KillAsk { by: ask.by.clone(), reason: ask.reason.clone(), force: ask.force });
                Ok(match self.decide(run, &input) {
                    Some(Reply::Killed(reply)) => reply,
                    _ => KillReply::Unknown,
                })
            }
            Some(_) => Ok(KillReply::Unknown),
            None if self.now.timestamp_millis() - ask.run.unix_millis() < TOMBSTONE_WINDOW_MS => {
                if !self.known.tombstones.contains_key(&ask.run) {
                    let kill = Kill { at: self.now, by: ask.by.clone(), reason: ask.reason.clone(), force: ask.force, failure: None };
                    self.known.tombstones.insert(ask.run, kill.clone());
                    self.writes.tombstones.push((ask.run, kill));
                }
                Ok(KillReply::Tombstone)
            }
            None => Ok(KillReply::Unknown),
        }
    }

    /// Takes the answer to the question of a step.
    async fn on_answer(&mut self, ask: &AnswerStep) -> Result<AnswerReply, StoreError> {
        let run = self.named(ask.run).await?;
        if self.state(run).is_none_or(|state| state.run.namespace != ask.namespace) {
            return Ok(AnswerReply::Unknown);
        }
        let AnswerStep { step, id, approved, text, by, .. } = ask.clone();
        Ok(match self.decide(run, &Input::Answer(AnswerAsk { step, id, approved, text, by })) {
            Some(Reply::Answered(reply)) => reply,
            _ => AnswerReply::Unknown,
        })
    }

    /// Lets a paused run go on.
    async fn on_resume(&mut self, ask: &ResumeRun) -> Result<ResumeReply, StoreError> {
        let run = self.named(ask.run).await?;
        if self.state(run).is_none_or(|state| state.run.namespace != ask.namespace) {
            return Ok(ResumeReply::Unknown);
        }
        Ok(match self.decide(run, &Input::Resume(ask.by.clone())) {
            Some(Reply::Resumed(reply)) => reply,
            _ => ResumeReply::Unknown,
        })
    }

    /// The run that somebody means by an id, loaded if there is one.
    async fn named(&mut self, id: RunId) -> Result<RunId, StoreError> {
        if self.state(id).is_some() {
            return Ok(id);
        }
        let fresh = self.writes.aliases.iter().find(|(alias, _)| *alias == id).map(|(_, run)| *run);
        let run = match fresh {
            Some(run) => Some(run),
            None => self.tx.alias(id).await?,
        };
        self.know(run).await?;
        Ok(run.unwrap_or(id))
    }
}
