//! Dead letters by HTTP, the writing half: send one again, or drop it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::{delete, post};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hopyard_contract::message::DeadLetter;
use hopyard_contract::topology;
use hopyard_runtime::bus::{HEADER_MSG_ID, PublishError};
use hopyard_runtime::stored;
use serde_json::json;

use crate::door::Door;
use crate::http::{Namespace, OperationDoc, Route};
use crate::instruments;
use crate::problem::{Answer, Refusal};
use crate::read::dead_letters::{away, find, unknown};

/// Routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/api/v1/dead-letters/{id}/requeue",
            post(on_requeue),
            OperationDoc::new("requeueDeadLetter", "Sends a dead letter to where it came from; it stays in the list until it is dropped")
                .json(200, "", "It was sent again, now or before"),
        ),
        Route::new(
            Method::DELETE,
            "/api/v1/dead-letters/{id}",
            delete(on_drop),
            OperationDoc::new("dropDeadLetter", "Deletes a dead letter").answer(204, "", "", "It is gone"),
        ),
    ]
}

async fn on_requeue(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>) -> Answer {
    let (_, letter) = find(&door, &namespace.name, &id).await?;
    let body = original(&letter)?;
    let sent = door.bus.publish_with(&letter.subject, &headers(&letter), body).await;
    match sent {
        Ok(_) => {
            instruments::dead_letters_handled().with_label_values(&["requeued"]).inc();
            tracing::info!(id, subject = letter.subject, sequence = letter.seq, "a dead letter was sent again");
            Ok(Json(json!({ "status": "requeued" })).into_response())
        }
        Err(PublishError::Refused(why)) => Err(Refusal::new(503, "not_accepted", format!("the stream does not take it: {why}"))),
        Err(PublishError::Unknown(why)) => {
            Err(Refusal::new(503, "outcome_unknown", format!("it may or may not have been sent ({why}); asking again is safe")))
        }
    }
}

async fn on_drop(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>) -> Answer {
    let (sequence, letter) = find(&door, &namespace.name, &id).await?;
    if !stored::delete(&door.bus, topology::DLQ.name, sequence).await.map_err(|e| away(&e))? {
        return Err(unknown());
    }
    instruments::dead_letters_handled().with_label_values(&["dropped"]).inc();
    tracing::info!(id, subject = letter.subject, sequence = letter.seq, code = letter.code, "a dead letter was dropped");
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// What is repeated under one mark counts once: the server drops it within its window, and later the door takes the mark for
/// the idempotency key of a submission; reports and cancels are idempotent by themselves.
fn mark(letter: &DeadLetter) -> String {
    format!("requeue:{}:{}", letter.stream, letter.seq)
}

/// The message's own headers; one without an id gets the mark for it.
fn headers(letter: &DeadLetter) -> BTreeMap<String, String> {
    // What the server says about a message is not the sender's.
    let own = letter.headers.iter().filter(|(name, _)| !name.starts_with("Nats-") || name.eq_ignore_ascii_case(HEADER_MSG_ID));
    let mut headers: BTreeMap<String, String> = own.map(|(name, value)| (name.clone(), value.clone())).collect();
    if !headers.keys().any(|name| name.eq_ignore_ascii_case(HEADER_MSG_ID)) {
        headers.insert(HEADER_MSG_ID.to_owned(), mark(letter));
    }
    headers
}

/// The bytes that were set aside.
///
/// # Errors
/// 409 `not_requeueable`, or `cut` when only a part of them was kept.
fn original(letter: &DeadLetter) -> Answer<Bytes> {
    let refuse = |why: &str| Refusal::new(409, "not_requeueable", format!("this dead letter cannot be sent again: {why}"));
    // Anybody with rights on the bus can write a letter; only what one of the two streams would keep anyway is sent.
    let stream = [topology::CMD, topology::RESULT].into_iter().find(|stream| stream.name == letter.stream);
    let stream = stream.ok_or_else(|| refuse("it comes from no stream that is read again"))?;
    if !stream.subjects.iter().any(|pattern| covers(pattern, &letter.subject)) {
        return Err(refuse("its subject is none of its stream"));
    }
    if let Some(whole) = letter.cut_from {
        return Err(Refusal::new(409, "cut", format!("only the beginning of the {whole} bytes was kept, so they cannot be sent again")));
    }
    STANDARD.decode(&letter.body).map(Bytes::from).map_err(|_| refuse("its body cannot be read"))
}

/// Whether a subject matches a pattern, where `*` stands for one token and `>` for the rest.
fn covers(pattern: &str, subject: &str) -> bool {
    let (mut wanted, mut tokens) = (pattern.split('.'), subject.split('.'));
    loop {
        match (wanted.next(), tokens.next()) {
            (None, None) => return true,
            (Some(">"), Some(_)) => return true,
            (Some(want), Some(token)) if !token.is_empty() && !token.contains(['*', '>']) && (want == "*" || want == token) => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(stream: &str, subject: &str, body: &str) -> DeadLetter {
        DeadLetter {
            v: 1,
            stream: stream.to_owned(),
            subject: subject.to_owned(),
            seq: 7,
            code: "json_syntax".to_owned(),
            detail: "no JSON".to_owned(),
            attempts: 1,
            headers: Default::default(),
            cut_from: None,
            first_at: None,
            body: body.to_owned(),
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_letter_goes_back_byte_for_byte_under_one_mark() {
        for bytes in [b"{}".to_vec(), vec![0xff, 0x00], Vec::new()] {
            let letter = letter("HOPYARD_CMD", "hopyard.cmd.submit.team", &STANDARD.encode(&bytes));
            assert_eq!(original(&letter).unwrap(), bytes);
            assert_eq!(mark(&letter), "requeue:HOPYARD_CMD:7");
        }
        assert!(original(&letter("HOPYARD_RESULT", "hopyard.result.executor-1", "e30=")).is_ok());
    }

    #[test]
    fn a_letter_keeps_its_own_headers_and_id() {
        let mut letter = letter("HOPYARD_CMD", "hopyard.cmd.submit.team", "e30=");
        assert_eq!(headers(&letter), BTreeMap::from([(HEADER_MSG_ID.to_owned(), mark(&letter))]));
        let own = [("Hopyard-Idempotency-Key", "k"), ("nats-msg-id", "m"), ("Nats-Expected-Stream", "S")];
        letter.headers = own.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let names: Vec<String> = headers(&letter).into_keys().collect();
        assert_eq!(names, ["Hopyard-Idempotency-Key", "nats-msg-id"]);
    }

    #[test]
    fn a_letter_of_which_a_part_is_kept_cannot_be_sent_again() {
        let cut = DeadLetter { cut_from: Some(900_000), ..letter("HOPYARD_CMD", "hopyard.cmd.submit.team", "e30=") };
        let refusal = original(&cut).unwrap_err();
        assert_eq!((refusal.0.status, refusal.0.code.as_str()), (409, "cut"));
    }

    #[test]
    fn a_letter_goes_nowhere_but_to_its_own_stream() {
        for (stream, subject, body) in [
            ("HOPYARD_CMD", "hopyard.ctl.executor-1", "e30="),
            ("HOPYARD_CMD", "hopyard.result.executor-1", "e30="),
            ("HOPYARD_CMD", "hopyard.cmd.submit", "e30="),
            ("HOPYARD_CMD", "hopyard.cmd.submit.*", "e30="),
            ("HOPYARD_EVENT", "hopyard.event.default.x", "e30="),
            ("", "", "e30="),
            ("HOPYARD_CMD", "hopyard.cmd.submit.team", "no base64"),
        ] {
            let refusal = original(&letter(stream, subject, body)).unwrap_err();
            assert_eq!((refusal.0.status, refusal.0.code.as_str()), (409, "not_requeueable"), "{stream} {subject} {body}");
        }
    }
}
