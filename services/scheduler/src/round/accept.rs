//! Acceptance: idempotent by run id, then by key; every submission gets exactly one verdict per run.

use std::collections::{HashMap, HashSet};

use hopyard_contract::message::{Accept, AcceptReply, NewRun, Submission, SubmissionItem};
use hopyard_contract::run::Kill;
use hopyard_contract::submit::{Receipt, Verdict, VerdictStatus};
use hopyard_contract::{FieldError, Name, RunId, subject};
use hopyard_runtime::telemetry::trace_id;
use hopyard_store::Error as StoreError;
use hopyard_store::runs::{KeyRow, OutboxMessage, RunTx};

use super::Round;
use crate::decide::{Birth, Input, KillAsk, birth};
use crate::request::Request;

impl Round<'_> {
    pub(super) async fn on_accept(&mut self, accept: &Accept) -> Result<AcceptReply, StoreError> {
        if self.desk.budgets.reject() {
            let url = |new: &NewRun| new.request.repo.as_ref().map(|repo| repo.url.clone());
            let shared = |(namespace, new): (&Name, &NewRun)| self.desk.budgets.of(namespace, &new.workflow, url(new).as_deref(), self.now);
            let shared: Vec<_> = news(accept).flat_map(shared).collect();
            self.lock_budgets(shared).await?;
        }
        let mut known = std::mem::take(&mut self.known);
        let mut reply = AcceptReply { submissions: Vec::with_capacity(accept.submissions.len()) };
        for submission in &accept.submissions {
            reply.submissions.push(self.one_submission(&mut known, submission).await?);
        }
        self.known = known;
        Ok(reply)
    }

    /// Asks for everything that a batch submits or ends at once: keys are locked after the runs and before slots, whatever the
    /// order of the requests.
    pub(super) async fn gather(&mut self, batch: &[&Request]) -> Result<(), StoreError> {
        let mut submitted: Vec<(&Name, &NewRun)> = Vec::new();
        let mut unknown: Vec<RunId> = Vec::new();
        for request in batch {
            match request {
                Request::Accept(accept) => submitted.extend(news(accept)),
                Request::Kill(ask) if self.state(ask.run).is_none() => unknown.push(ask.run),
                _ => {}
            }
        }
        self.known = Known::gather(self.tx.as_mut(), &submitted, &unknown).await?;
        Ok(())
    }
}

/// Runs that are submitted, with their namespaces.
fn news(accept: &Accept) -> impl Iterator<Item = (&Name, &NewRun)> {
    let items = accept.submissions.iter().flat_map(|s| s.items.iter().map(move |item| (&s.namespace, item)));
    items.filter_map(|(ns, item)| if let SubmissionItem::Run(new) = item { Some((ns, &**new)) } else { None })
}

/// What the store knows about everything that is submitted, and about cancels of runs that are not there; what the transaction
/// adds to it is in it as well.
#[derive(Default)]
pub(super) struct Known {
    keys: HashMap<(Name, String), KeyRow>,
    plans: HashMap<String, std::sync::Arc<hopyard_contract::plan::Plan>>,
    parents: HashMap<RunId, hopyard_contract::status::RunStatus>,
    pub(super) tombstones: HashMap<RunId, hopyard_contract::run::Kill>,
}

impl Known {
    async fn gather(tx: &mut dyn RunTx, news: &[(&Name, &NewRun)], unknown: &[RunId]) -> Result<Self, StoreError> {
        let mut keys: Vec<(Name, String)> =
            news.iter().filter_map(|(ns, new)| new.request.idempotency_key.clone().map(|key| ((*ns).clone(), key))).collect();
        keys.sort();
        keys.dedup();
        let hashes: HashSet<&str> = news.iter().map(|(_, new)| new.plan_hash.as_str()).collect();
        let hashes: Vec<String> = hashes.into_iter().map(str::to_owned).collect();
        let ids: Vec<RunId> = news.iter().map(|(_, new)| new.run_id).chain(unknown.iter().copied()).collect();
        let mut parents = HashMap::new();
        let namespaces: HashSet<&Name> = news.iter().map(|(ns, _)| *ns).collect();
        for namespace in namespaces {
            let after: Vec<RunId> =
                news.iter().filter(|(ns, _)| *ns == namespace).flat_map(|(_, new)| new.request.after.iter().copied()).collect();
            if !after.is_empty() {
                parents.extend(tx.statuses(namespace, &after).await?);
            }
        }
        Ok(Self {
            keys: if keys.is_empty() { HashMap::new() } else { tx.keys(&keys).await? },
            plans: if hashes.is_empty() { HashMap::new() } else { tx.plans(&hashes).await? },
            parents,
            tombstones: if ids.is_empty() { HashMap::new() } else { tx.tombstones(&ids, !unknown.is_empty()).await? },
        })
    }
}

impl Round<'_> {
    async fn one_submission(&mut self, known: &mut Known, submission: &Submission) -> Result<Vec<Verdict>, StoreError> {
        if let Some(head) = &submission.receipt {
            // A redelivery: the commit happened, its answer was lost.
            if let Some(receipt) = self.tx.receipt(head.seq, head.time_ns).await? {
                return Ok(receipt.items);
            }
            if let Some((receipt, _)) = self.writes.receipts.iter().find(|(r, time)| r.seq == Some(head.seq) && *time == head.time_ns) {
                return Ok(receipt.items.clone());
            }
        }
        let (mut born, mut promised) = (Vec::new(), Vec::new());
        let verdicts: Vec<Verdict> = submission
            .items
            .iter()
            .map(|item| match item {
                SubmissionItem::Rejected(errors) => Verdict::rejected(errors.clone()),
                SubmissionItem::Done(verdict) => verdict.clone(),
                SubmissionItem::Run(new) => {
                    let verdict = self.one_run(known, &submission.namespace, new, &mut born);
                    if submission.promised
                        && verdict.status == VerdictStatus::Duplicate
                        && let Some(run) = verdict.run_id
                    {
                        promised.push((new.run_id, run));
                    }
                    verdict
                }
            })
            .collect();
        self.supersede(&born).await?;
        for (id, run) in promised {
            self.alias(known, id, run).await?;
        }
        if let Some(head) = &submission.receipt {
            let receipt = Receipt {
                v: 1,
                id: head.seq.to_string(),
                seq: Some(head.seq),
                namespace: submission.namespace.clone(),
                received_at: submission.received_at,
                items: verdicts.clone(),
                cancel: submission.items.iter().any(|item| matches!(item, SubmissionItem::Done(_))),
            };
            self.writes.outbox.push(OutboxMessage {
                subject: subject::receipt(&submission.namespace, head.seq),
                id: format!("receipt:{}:{}", head.seq, head.time_ns),
                kind: None,
                body: OutboxMessage::body(&receipt),
            });
            self.writes.receipts.push((receipt, head.time_ns));
        }
        Ok(verdicts)
    }

    /// Keeps an id that somebody was told for a run that has another one. A cancel that has named it already counts.
    async fn alias(&mut self, known: &Known, id: RunId, run: RunId) -> Result<(), StoreError> {
        self.writes.aliases.push((id, run));
        if let Some(Kill { by, reason, force, .. }) = known.tombstones.get(&id).cloned() {
            self.know([run]).await?;
            self.decide(run, &Input::Kill(KillAsk { by, reason, force }));
        }
        Ok(())
    }

    fn one_run(&mut self, known: &mut Known, namespace: &Name, new: &NewRun, born: &mut Vec<RunId>) -> Verdict {
        let request = &new.request;
        let key = request.idempotency_key.clone().map(|key| (namespace.clone(), key));
        if let Some(state) = self.state(new.run_id) {
            return if state.run.namespace == *namespace {
                Verdict::accepted(new.run_id)
            } else {
                Verdict::rejected(vec![FieldError::new("unknown_run", "", "the run id is taken")])
            };
        }
        if let Some(row) = key.as_ref().and_then(|key| known.keys.get(key)) {
            // The same submission, made while this transaction waited for the key: as if its run had been found.
            if row.run == new.run_id {
                return Verdict::accepted(new.run_id);
            }
            if row.request_hash == new.request_hash {
                return Verdict::duplicate(row.run);
            }
            let detail = format!("the key was used before for another request, which made the run {}", row.run);
            return Verdict::rejected(vec![FieldError::new("idempotency_conflict", "/idempotency_key", detail)]);
        }
        // A run of the same transaction may be named as well.
        let mut parents = known.parents.clone();
        for id in &request.after {
            if let Some(state) = self.state(*id).filter(|s| s.run.namespace == *namespace) {
                parents.insert(*id, state.run.status);
            }
        }
        if let Some(position) = request.after.iter().position(|id| !parents.contains_key(id)) {
            return Verdict::rejected(vec![FieldError::new("unknown_run", format!("/after/{position}"), "there is no such run")]);
        }
        let Some(plan) = known.plans.get(&new.plan_hash) else {
            return Verdict::rejected(vec![FieldError::new(
                "unknown_definition",
                "/workflow",
                "the workflow's plan is not stored; store the workflow again",
            )]);
        };
        let repository = request.repo.as_ref().map(|repo| repo.url.as_str());
        if self.desk.budgets.reject()
            && !request.replay
            && plan.steps.iter().any(|step| step.work.asks_models())
            && let Some(purse) = self.purse_of(namespace, &new.workflow, repository).filter(|purse| purse.left == 0)
        {
            let until = hopyard_contract::time::format(purse.until);
            let detail = format!("the budget of this day of the {} is spent; there is more at {until}", purse.scope);
            return Verdict::rejected(vec![FieldError::new("budget_spent", "", detail)]);
        }
        let decision = birth(
            &Birth {
                namespace,
                new,
                plan: plan.clone(),
                parents: &parents,
                tombstone: known.tombstones.get(&new.run_id).cloned(),
                trace_id: new.traceparent.as_deref().and_then(trace_id).map(str::to_owned),
            },
            self.now,
        );
        self.keep(new.run_id, decision);
        born.push(new.run_id);
        if let Some((namespace, key)) = key {
            let row = KeyRow { run: new.run_id, request_hash: new.request_hash.clone() };
            known.keys.insert((namespace.clone(), key.clone()), row.clone());
            self.writes.keys.push((namespace, key, row));
        }
        Verdict::accepted(new.run_id)
    }
}

#[cfg(test)]
mod tests;
