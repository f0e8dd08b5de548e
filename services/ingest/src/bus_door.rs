//! The doors on the bus: the command stream, whose answers are receipts, and immediate submissions.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use hopyard_contract::message::{KillReply, ReceiptHead, Submission, SubmissionItem};
use hopyard_contract::subject::{self, Command};
use hopyard_contract::submit::{MAX_BUS_BODY, Verdict};
use hopyard_contract::{FieldError, Name, json, topology};
use hopyard_runtime::bus::{HEADER_KEY, HEADER_MSG_ID, HEADER_TRACE, encode};
use hopyard_runtime::consume::{Consumer, Delivery};
use hopyard_runtime::rpc::CallError;

use crate::accept::batch::Unanswered;
use crate::accept::request::{self, Form};
use crate::accept::{self, Key, Origin, Unprepared};
use crate::door::Door;
use crate::instruments::cancels;
use crate::kill;

pub mod immediate;

/// Most messages of one round.
const BATCH: usize = 512;
/// Messages that are read, checked and pinned to plans at once.
const PREPARING: usize = 16;
/// Longest wait before a message comes again.
const LATEST: Duration = Duration::from_secs(30);

/// Works off the command stream until the process drains; the round under way is finished.
///
/// # Errors
/// Never: what is away is waited for.
pub async fn commands(door: Door) -> anyhow::Result<()> {
    let mut consumer = Consumer::new(door.bus.clone(), door.topology, topology::ingest(), BATCH);
    while let Some(batch) = consumer.next_until(door.tasks.draining()).await {
        round(&door, batch).await;
    }
    Ok(())
}

/// What is to be done with one message.
enum Step {
    /// Hand this over; then the message is done.
    HandOver(Submission),
    /// Hand over a receipt that refuses the body, then keep the body as a dead letter.
    Refuse(Submission, FieldError),
    /// Nothing more is to be done.
    Done,
    /// Not now.
    Later(String),
}

/// One round: every message is prepared, then all are handed over at once so that they share calls.
async fn round(door: &Door, batch: Vec<Delivery>) {
    hopyard_runtime::failpoint!("ingest.cmd.taken");
    for delivery in &batch {
        door.commands.taken(delivery.sequence, delivery.stored_at);
    }
    let prepared: Vec<(Delivery, Step)> = futures::stream::iter(batch)
        .map(|delivery| async move {
            let step = prepare(door, &delivery).await;
            (delivery, step)
        })
        .buffered(PREPARING)
        .collect()
        .await;
    hopyard_runtime::failpoint!("ingest.cmd.prepared");
    futures::future::join_all(prepared.into_iter().map(|(delivery, step)| async move {
        let outcome = match step {
            Step::HandOver(submission) => hand_over(door, &delivery, submission).await,
            // The receipt comes first: while no scheduler takes it, no letter is written again and again.
            Step::Refuse(submission, first) => match hand_over(door, &delivery, submission).await {
                Ok(()) => set_aside(door, &delivery, &first.code, &first.to_string()).await,
                later => later,
            },
            Step::Done => Ok(()),
            Step::Later(why) => Err(why),
        };
        match outcome {
            Ok(()) => {
                hopyard_runtime::failpoint!("ingest.cmd.after_commit_before_ack");
                delivery.ack().await;
                hopyard_runtime::failpoint!("ingest.cmd.acked");
                door.commands.settled(delivery.sequence);
            }
            Err(why) => {
                let delay = delay_of(delivery.deliveries);
                tracing::info!(
                    sequence = delivery.sequence,
                    deliveries = delivery.deliveries,
                    delay_ms = delay.as_millis() as u64,
                    why,
                    "a command waits"
                );
                delivery.later(delay).await;
            }
        }
    }))
    .await;
}

/// 1, 2, 4 … 30 s, by how often the message has come.
fn delay_of(deliveries: u64) -> Duration {
    Duration::from_secs(1 << deliveries.saturating_sub(1).min(5)).min(LATEST)
}

async fn hand_over(door: &Door, delivery: &Delivery, submission: Submission) -> Result<(), String> {
    let size = encode(&submission).len();
    // A cancel's receipt travels in the same form, but is no submission of a run.
    let counts = !matches!(subject::parse_cmd(&delivery.subject), Some(Command::Cancel(_)));
    match door.batcher.accept(Arc::new(submission), size).await {
        Ok(verdicts) => {
            if counts {
                accept::count("cmd", &verdicts);
            }
            Ok(())
        }
        Err(Unanswered::Unreadable(detail)) => set_aside(door, delivery, "unreadable", &detail).await,
        Err(error) => Err(error.to_string()),
    }
}

async fn prepare(door: &Door, delivery: &Delivery) -> Step {
    match subject::parse_cmd(&delivery.subject) {
        Some(Command::Submit(namespace)) => on_submit(door, delivery, namespace).await,
        Some(Command::Accept(namespace)) => on_accept(door, delivery, &namespace).await,
        Some(Command::Cancel(namespace)) => on_cancel(door, delivery, namespace).await,
        None => done(set_aside(door, delivery, "bad_subject", "the subject names no known command or no valid namespace").await),
    }
}

fn done(outcome: Result<(), String>) -> Step {
    outcome.map_or_else(Step::Later, |()| Step::Done)
}

/// A submission whose answer is a receipt.
///
/// It is not refused for load: the consumer takes what the schedulers can commit, and the rest waits in its stream, which
/// refuses more once it is full.
async fn on_submit(door: &Door, delivery: &Delivery, namespace: Name) -> Step {
    if let Some(closed) = door.admission.closed() {
        return refused(delivery, namespace, vec![closed]);
    }
    let origin = Origin {
        door: "cmd",
        namespace,
        receipt: Some(head(delivery)),
        received_at: delivery.stored_at,
        key: key_of(|name| delivery.header(name)),
        traceparent: delivery.header(HEADER_TRACE),
    };
    let errors = match read(&delivery.body) {
        Ok(body) => match accept::prepare(door, &origin, &body, Form::Either).await {
            Ok(prepared) => return Step::HandOver(prepared.submission),
            Err(Unprepared::Unavailable(refusal)) => return Step::Later(refusal.0.detail),
            Err(Unprepared::Invalid(errors)) => errors,
        },
        Err(error) => vec![error],
    };
    refused(delivery, origin.namespace, errors)
}

/// A submission that a door has prepared before; its run ids are taken as they are. It gets a receipt as every message does,
/// so that an audit can tell a settled message from a lost one.
async fn on_accept(door: &Door, delivery: &Delivery, namespace: &Name) -> Step {
    match serde_json::from_slice::<Submission>(&delivery.body) {
        Ok(submission) if submission.namespace == *namespace => {
            Step::HandOver(Submission { receipt: Some(head(delivery)), promised: true, ..submission })
        }
        Ok(_) => done(set_aside(door, delivery, "foreign_namespace", "the namespace in the body is not the one of the subject").await),
        Err(error) => done(set_aside(door, delivery, "undecodable", &error.to_string()).await),
    }
}

/// A cancel. Its receipt has one item: accepted with the run once the kill is committed, or rejected with the reason.
async fn on_cancel(door: &Door, delivery: &Delivery, namespace: Name) -> Step {
    let wanted = match read(&delivery.body).map_err(|e| vec![e]).and_then(|body| request::cancel(&body, true)) {
        Ok(wanted) => wanted,
        Err(errors) => {
            cancels().with_label_values(&["cmd", "invalid"]).inc();
            return refused(delivery, namespace, errors);
        }
    };
    let Some(run) = wanted.run_id else {
        return refused(delivery, namespace, vec![FieldError::new("required", "/run_id", "a cancel names a run")]);
    };
    let (outcome, items) = match kill::ask(door, &namespace, run, "bus", &wanted).await {
        Ok(KillReply::Requested | KillReply::Repeated | KillReply::Tombstone) => {
            ("requested", vec![SubmissionItem::Done(Verdict::accepted(run))])
        }
        Ok(KillReply::AlreadyFinal) => (
            "already_final",
            vec![SubmissionItem::Rejected(vec![FieldError::new("already_final", "/run_id", format!("the run {run} has ended already"))])],
        ),
        Ok(KillReply::Unknown) => {
            ("unknown_run", vec![SubmissionItem::Rejected(vec![FieldError::new("unknown_run", "/run_id", "there is no such run")])])
        }
        Err(CallError::Refused(error)) if error.code == "bad_request" => {
            return done(set_aside(door, delivery, "unreadable", &error.detail).await);
        }
        Err(error) => return Step::Later(error.to_string()),
    };
    cancels().with_label_values(&["cmd", outcome]).inc();
    Step::HandOver(with_receipt(delivery, namespace, items))
}

/// A body that cannot be read: one rejected item in its receipt, and a dead letter with its bytes.
fn refused(delivery: &Delivery, namespace: Name, errors: Vec<FieldError>) -> Step {
    let first = errors.first().cloned().unwrap_or_else(|| FieldError::new("invalid", "", "the body is not valid"));
    Step::Refuse(with_receipt(delivery, namespace, vec![SubmissionItem::Rejected(errors)]), first)
}

fn with_receipt(delivery: &Delivery, namespace: Name, items: Vec<SubmissionItem>) -> Submission {
    Submission { namespace, receipt: Some(head(delivery)), promised: false, received_at: delivery.stored_at, items }
}

fn head(delivery: &Delivery) -> ReceiptHead {
    ReceiptHead { seq: delivery.sequence, time_ns: delivery.time_ns() }
}

/// Reads a body of the bus.
fn read(body: &[u8]) -> Result<serde_json::Value, FieldError> {
    if body.len() > MAX_BUS_BODY {
        return Err(FieldError::new(
            "too_large",
            "",
            format!("a body on the bus has at most {MAX_BUS_BODY} bytes, this one has {}", body.len()),
        ));
    }
    json::parse(body)
}

/// The idempotency key among the headers of a message.
fn key_of(header: impl Fn(&str) -> Option<String>) -> Option<Key> {
    header(HEADER_KEY).map(Key::Explicit).or_else(|| header(HEADER_MSG_ID).map(Key::Hint))
}

/// Puts a message aside with its reason and bytes.
async fn set_aside(door: &Door, delivery: &Delivery, code: &str, detail: &str) -> Result<(), String> {
    let stored = hopyard_runtime::dead_letters::set_aside(&door.bus, delivery, code, detail).await;
    stored.map_err(|e| format!("the dead letter could not be stored: {e}"))?;
    hopyard_runtime::failpoint!("ingest.dead_letter.stored");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_end_at_thirty_seconds() {
        let seconds: Vec<u64> = [0, 1, 2, 3, 4, 5, 6, 7, u64::MAX].into_iter().map(|n| delay_of(n).as_secs()).collect();
        assert_eq!(seconds, [1, 1, 2, 4, 8, 16, 30, 30, 30]);
    }

    #[test]
    fn the_own_header_wins_over_the_message_id() {
        let both = |name: &str| Some(name.to_owned());
        assert_eq!(key_of(both), Some(Key::Explicit(HEADER_KEY.to_owned())));
        assert_eq!(key_of(|name| (name == HEADER_MSG_ID).then(|| "m".to_owned())), Some(Key::Hint("m".to_owned())));
        assert_eq!(key_of(|_| None), None);
    }

    #[test]
    fn bodies_of_the_bus_are_bounded() {
        assert_eq!(read(&vec![b' '; MAX_BUS_BODY + 1]).unwrap_err().code, "too_large");
        assert_eq!(read(b"{").unwrap_err().code, "json_syntax");
        assert!(read(b"{}").is_ok());
    }
}
