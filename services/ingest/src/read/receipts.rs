//! Receipts: the lasting answer to a submission, by run id or by its sequence in the command stream.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use hopyard_contract::subject::{Command, parse_cmd};
use hopyard_contract::submit::{Receipt, Verdict};
use hopyard_contract::{Name, RunId, topology};
use hopyard_runtime::stored;

use super::params::{Params, number};
use crate::door::Door;
use crate::http::Namespace;
use crate::problem::{Answer, Refusal};

/// `GET /receipts/{id}`.
pub(crate) async fn on_get(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>, params: Params) -> Answer<Response> {
    params.allow(&[], &[])?;
    match Key::read(&id) {
        Some(Key::Run(run)) => of_run(&door, &namespace.name, run).await,
        Some(Key::Sequence(seq)) => of_sequence(&door, &namespace.name, seq).await,
        None => Err(unknown()),
    }
}

/// What a receipt is asked for by.
#[derive(Debug, PartialEq, Eq)]
enum Key {
    Run(RunId),
    Sequence(u64),
}

impl Key {
    fn read(text: &str) -> Option<Self> {
        match number(text) {
            // The stores count in signed numbers.
            Some(seq) => (seq > 0 && i64::try_from(seq).is_ok()).then_some(Self::Sequence(seq)),
            None => text.parse().ok().map(Self::Run),
        }
    }
}

async fn of_run(door: &Door, namespace: &Name, run: RunId) -> Answer<Response> {
    let state = door.reader.run(namespace, run).await?.ok_or_else(unknown)?;
    let receipt = Receipt {
        v: 1,
        id: run.to_string(),
        seq: None,
        namespace: namespace.clone(),
        received_at: state.run.created_at,
        items: vec![Verdict::accepted(run)],
        cancel: false,
    };
    Ok(Json(receipt).into_response())
}

async fn of_sequence(door: &Door, namespace: &Name, seq: u64) -> Answer<Response> {
    if let Some(receipt) = door.reader.receipt(namespace, seq).await? {
        return Ok(Json(receipt).into_response());
    }
    let waiting = stored::by_sequence(&door.bus, topology::CMD.name, seq).await.map_err(|error| {
        tracing::warn!(error = format!("{error:#}"), "the command stream cannot be read");
        Refusal::new(503, "bus_unavailable", "there is no receipt yet, and the bus does not answer whether one is to come")
    })?;
    if waiting.is_some_and(|kept| is_for(&kept.subject, namespace)) {
        return Ok((StatusCode::ACCEPTED, Json(serde_json::json!({ "status": "pending" }))).into_response());
    }
    // It may have been decided and acknowledged between the two looks.
    door.reader.receipt(namespace, seq).await?.map(|receipt| Json(receipt).into_response()).ok_or_else(unknown)
}

/// Whether a command is one that this namespace gets a receipt for.
fn is_for(subject: &str, namespace: &Name) -> bool {
    matches!(parse_cmd(subject), Some(Command::Submit(ns) | Command::Cancel(ns)) if ns == *namespace)
}

fn unknown() -> Refusal {
    Refusal::new(404, "unknown_receipt", "there is no such receipt")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_run_id_or_a_plain_number() {
        let id = RunId::mint();
        assert_eq!(Key::read(&id.to_string()), Some(Key::Run(id)));
        assert_eq!(Key::read("17"), Some(Key::Sequence(17)));
        for text in ["", "0", "-1", "017", "1.0", "99999999999999999999", "18446744073709551615", &id.to_string().to_uppercase(), "x"] {
            assert_eq!(Key::read(text), None, "{text}");
        }
    }

    #[test]
    fn a_waiting_command_shows_only_in_its_namespace() {
        let ns = Name::literal("team");
        assert!(is_for("hopyard.cmd.submit.team", &ns));
        assert!(is_for("hopyard.cmd.cancel.team", &ns));
        assert!(!is_for("hopyard.cmd.accept.team", &ns));
        assert!(!is_for("hopyard.cmd.submit.other", &ns));
    }
}
