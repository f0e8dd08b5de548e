//! The one way a submission enters, through whatever door: read, check, pin to a plan, hand over, answer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use hopyard_contract::message::{ReceiptHead, Submission, SubmissionItem};
use hopyard_contract::submit::{Verdict, VerdictStatus, Warning};
use hopyard_contract::{Name, RunId, subject};
use hopyard_runtime::bus::{PublishError, encode};

use crate::door::Door;
use crate::instruments::submissions;
use crate::problem::Refusal;
use batch::Unanswered;

pub use prepare::{Prepared, Unprepared, prepare, prepare_known};
pub use replay::{pinned, recorded};

pub mod batch;
pub mod definition;
pub(crate) mod fields;
pub mod prepare;
mod replay;
pub mod request;

/// How long an executor's last beat counts.
const ALIVE: Duration = Duration::from_secs(15);
/// How long a submission waits for a lost connection to come back before it is refused.
const RECONNECT: Duration = Duration::from_secs(2);

/// Where a body came from and what came with it.
#[derive(Clone, Debug)]
pub struct Origin {
    /// `http`, `api` or `cmd`.
    pub door: &'static str,
    /// Tenant.
    pub namespace: Name,
    /// Set for the command stream.
    pub receipt: Option<ReceiptHead>,
    /// When the door took it.
    pub received_at: DateTime<Utc>,
    /// Idempotency key beside the body.
    pub key: Option<Key>,
    /// W3C trace context, as it came.
    pub traceparent: Option<String>,
}

/// An idempotency key beside the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Meant as one: a different key in the body is a mistake.
    Explicit(String),
    /// The message id of a bus client: counts only when the body has none.
    Hint(String),
}

/// What became of a prepared body.
#[derive(Debug)]
pub struct Decided {
    /// One per item.
    pub verdicts: Vec<Verdict>,
    /// False when some of it is only on the bus yet.
    pub committed: bool,
    /// What the submitter should know.
    pub warnings: Vec<Warning>,
}

/// Hands a prepared body over, to the schedulers or else to the bus, and says what became of each item.
///
/// # Errors
/// 503 `overloaded` or `not_accepted` when surely nothing was sent, else `outcome_unknown`.
pub async fn submit(door: &Door, through: &'static str, prepared: Prepared) -> Result<Decided, Refusal> {
    let Prepared { submission, sizes, pools } = prepared;
    door.admission.admit_pools(through, &pools)?;
    let single = submission.items.len() == 1;
    let mut verdicts: Vec<Option<Verdict>> = Vec::with_capacity(submission.items.len());
    let mut parts: Vec<(Vec<usize>, Vec<SubmissionItem>, usize)> = Vec::new();
    let room = door.batcher.room();
    for ((index, item), size) in submission.items.into_iter().enumerate().zip(sizes) {
        verdicts.push(None);
        match item {
            SubmissionItem::Rejected(errors) => verdicts[index] = Some(Verdict::rejected(errors)),
            SubmissionItem::Done(verdict) => verdicts[index] = Some(verdict),
            run @ SubmissionItem::Run(_) => match parts.last_mut() {
                Some((places, items, bytes)) if *bytes + size <= room => {
                    places.push(index);
                    items.push(run);
                    *bytes += size;
                }
                _ => parts.push((vec![index], vec![run], size)),
            },
        }
    }
    if !parts.is_empty() {
        await_connection(door).await?;
    }
    let (namespace, received_at) = (&submission.namespace, submission.received_at);
    let handed = futures::future::join_all(parts.into_iter().map(|(places, items, bytes)| async move {
        let part = Arc::new(Submission { namespace: namespace.clone(), receipt: None, promised: false, received_at, items });
        (places, hand_over(door, part, bytes, single).await)
    }))
    .await;
    let mut committed = true;
    for (places, outcome) in handed {
        let (answers, by_scheduler) = outcome?;
        committed &= by_scheduler;
        for (place, verdict) in places.into_iter().zip(answers) {
            verdicts[place] = Some(verdict);
        }
    }
    let verdicts: Vec<Verdict> = verdicts.into_iter().flatten().collect();
    let mut warnings = Vec::new();
    if !committed {
        warnings.push(warning(
            "scheduler_unavailable",
            "no scheduler answered in time; the bus keeps the submission until one is back (`hopyard scheduler`)".to_owned(),
        ));
    }
    let accepted = verdicts.iter().filter(|v| v.status == VerdictStatus::Accepted).count();
    if accepted > 0 {
        door.admission.taken(namespace, accepted);
        warnings.extend(missing_executors(door, &pools));
    }
    Ok(Decided { verdicts, committed, warnings })
}

/// Counts what became of a body.
pub fn count(door: &'static str, verdicts: &[Verdict]) {
    for verdict in verdicts {
        let outcome = match verdict.status {
            VerdictStatus::Accepted => "accepted",
            VerdictStatus::Duplicate => "duplicate",
            VerdictStatus::Rejected => "rejected",
        };
        submissions().with_label_values(&[door, outcome]).inc();
    }
}

/// One part of a body: to a scheduler, else to the bus; tells whether a scheduler committed it.
async fn hand_over(door: &Door, part: Arc<Submission>, bytes: usize, single: bool) -> Result<(Vec<Verdict>, bool), Refusal> {
    let unanswered = match door.batcher.accept(part.clone(), bytes).await {
        Ok(verdicts) => return Ok((verdicts, true)),
        Err(unanswered) => unanswered,
    };
    let ids: Vec<RunId> =
        part.items.iter().filter_map(|i| if let SubmissionItem::Run(run) = i { Some(run.run_id) } else { None }).collect();
    let nothing_sent = match &unanswered {
        Unanswered::Overloaded => return Err(Refusal::new(503, "overloaded", "too many submissions wait; try again in a moment")),
        Unanswered::Unreadable(detail) => {
            return Err(Refusal::new(
                503,
                "not_accepted",
                format!("a scheduler of another version could not read the submission: {detail}"),
            ));
        }
        Unanswered::Nobody => true,
        Unanswered::Unknown(_) => false,
    };
    hopyard_runtime::failpoint!("ingest.accept.before_publish");
    let published = door.bus.publish(&subject::cmd_accept(&part.namespace), None, None, encode(&*part)).await.stored().await;
    hopyard_runtime::failpoint!("ingest.accept.published");
    match published {
        Ok(_) => Ok((ids.into_iter().map(Verdict::accepted).collect(), false)),
        Err(PublishError::Refused(error)) if nothing_sent => Err(Refusal::new(
            503,
            "not_accepted",
            format!("no scheduler listens and the bus did not take the submission, so nothing was sent: {error}"),
        )),
        Err(error) => {
            let mut refusal = Refusal::new(
                503,
                "outcome_unknown",
                format!("the submission may or may not have been taken ({error}); with an idempotency key, sending it again is safe"),
            );
            if single {
                refusal.0.run_id = ids.first().copied();
            }
            Err(refusal)
        }
    }
}

/// A message to a lost connection would be sent at some later time, so none is sent before it is back.
async fn await_connection(door: &Door) -> Result<(), Refusal> {
    let deadline = tokio::time::Instant::now() + RECONNECT;
    while !door.bus.connected() {
        if tokio::time::Instant::now() >= deadline {
            return Err(Refusal::new(503, "not_accepted", "the bus is not reachable, so nothing was sent"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn warning(code: &str, message: String) -> Warning {
    Warning { code: code.to_owned(), message }
}

/// One warning per pool that nobody serves.
fn missing_executors(door: &Door, pools: &BTreeSet<Name>) -> Vec<Warning> {
    let alive: BTreeSet<Name> =
        door.presence.alive("executor", ALIVE).into_iter().filter(|(beat, _)| !beat.draining).filter_map(|(beat, _)| beat.pool).collect();
    pools
        .difference(&alive)
        .map(|pool| {
            warning(
                "no_executor",
                format!(
                    "no executor of the pool `{pool}` is alive; the run waits until one is started with `hopyard executor --pool {pool}`"
                ),
            )
        })
        .collect()
}
