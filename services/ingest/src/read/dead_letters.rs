//! Dead letters: what could not be processed, with its reason, in the order of setting aside.

use axum::Json;
use axum::extract::{Path, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hopyard_contract::message::DeadLetter;
use hopyard_contract::subject::{Command, parse_api_submit, parse_cmd};
use hopyard_contract::view::Page;
use hopyard_contract::{Name, topology};
use hopyard_runtime::stored;
use schemars::JsonSchema;
use serde::Serialize;

use super::cursor;
use super::params::{DEFAULT_LIMIT, Params, number};
use crate::door::Door;
use crate::http::Namespace;
use crate::problem::{Answer, Refusal};

const LIST: &str = "dead-letters";
/// Messages looked at for one page: letters of other namespaces are passed over.
const LOOK_AT: usize = 1000;

/// A dead letter under its id.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct DeadLetterView {
    /// Sequence in the stream of dead letters.
    id: String,
    /// The letter.
    #[serde(flatten)]
    letter: DeadLetter,
    /// The body as text, if it is UTF-8; only when a single letter is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

/// `GET /dead-letters`.
pub(crate) async fn on_list(State(door): State<Door>, namespace: Namespace, params: Params) -> Answer<Json<Page<DeadLetterView>>> {
    params.allow(&["limit", "cursor"], &[])?;
    let limit = params.limit(DEFAULT_LIMIT)? as usize;
    let mut after: u64 = cursor::read(&params, LIST, &namespace.name)?.unwrap_or(0);
    let mut items = Vec::new();
    for _ in 0..LOOK_AT {
        let kept =
            stored::first_from(&door.bus, topology::DLQ.name, "hopyard.dlq.*", after.saturating_add(1)).await.map_err(|e| away(&e))?;
        let Some(kept) = kept else { return Ok(Json(Page { items, next_cursor: None })) };
        if items.len() == limit {
            break;
        }
        after = kept.sequence;
        if let Ok(letter) = serde_json::from_slice::<DeadLetter>(&kept.body)
            && is_for(&letter, &namespace.name)
        {
            items.push(DeadLetterView { id: kept.sequence.to_string(), letter, text: None });
        }
    }
    Ok(Json(Page { items, next_cursor: Some(cursor::seal(LIST, &namespace.name, &after.to_string())) }))
}

/// `GET /dead-letters/{id}`.
pub(crate) async fn on_get(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>) -> Answer<Json<DeadLetterView>> {
    let (sequence, letter) = find(&door, &namespace.name, &id).await?;
    let text = STANDARD.decode(&letter.body).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    Ok(Json(DeadLetterView { id: sequence.to_string(), letter, text }))
}

/// The letter with this id, if it shows in the namespace, and its sequence.
///
/// # Errors
/// 404 `unknown_dead_letter`, or 503 `bus_unavailable`.
pub(crate) async fn find(door: &Door, namespace: &Name, id: &str) -> Answer<(u64, DeadLetter)> {
    let sequence = number(id).filter(|sequence| *sequence > 0).ok_or_else(unknown)?;
    let kept = stored::by_sequence(&door.bus, topology::DLQ.name, sequence).await.map_err(|e| away(&e))?.ok_or_else(unknown)?;
    let letter: DeadLetter = serde_json::from_slice(&kept.body).map_err(|_| unknown())?;
    if is_for(&letter, namespace) { Ok((sequence, letter)) } else { Err(unknown()) }
}

/// The one answer to an id that is not known, in this namespace or at all.
pub(crate) fn unknown() -> Refusal {
    Refusal::new(404, "unknown_dead_letter", "there is no such dead letter; `hopyard dlq list` shows those that are there")
}

/// The answer while the bus cannot be asked.
pub(crate) fn away(error: &anyhow::Error) -> Refusal {
    tracing::warn!(error = format!("{error:#}"), "the dead letters cannot be reached");
    Refusal::new(503, "bus_unavailable", "dead letters are on the bus, which does not answer")
}

/// Letters of tenants show in their namespace; those between services belong to nobody else and show in `default`.
fn is_for(letter: &DeadLetter, namespace: &Name) -> bool {
    let owner = match parse_cmd(&letter.subject) {
        Some(Command::Submit(ns) | Command::Accept(ns) | Command::Cancel(ns)) => Some(ns),
        None => parse_api_submit(&letter.subject),
    };
    owner.unwrap_or_else(Name::default_namespace) == *namespace
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letter(subject: &str) -> DeadLetter {
        DeadLetter {
            v: 1,
            stream: "HOPYARD_CMD".to_owned(),
            subject: subject.to_owned(),
            seq: 3,
            code: "json_syntax".to_owned(),
            detail: "no JSON".to_owned(),
            attempts: 1,
            headers: Default::default(),
            cut_from: None,
            first_at: None,
            body: "e30=".to_owned(),
            at: chrono::DateTime::UNIX_EPOCH,
        }
    }

    #[test]
    fn letters_show_in_their_namespace_only() {
        let (team, default) = (Name::literal("team"), Name::default_namespace());
        for (subject, in_team, in_default) in [
            ("hopyard.cmd.submit.team", true, false),
            ("hopyard.cmd.cancel.default", false, true),
            ("hopyard.api.submit.team", true, false),
            ("hopyard.result.e1", false, true),
        ] {
            assert_eq!((is_for(&letter(subject), &team), is_for(&letter(subject), &default)), (in_team, in_default), "{subject}");
        }
    }

    #[test]
    fn a_letter_has_its_id_beside_its_fields() {
        let view = DeadLetterView { id: "9".to_owned(), letter: letter("hopyard.result.e1"), text: None };
        let json = serde_json::to_value(view).unwrap();
        assert_eq!((json["id"].as_str(), json["seq"].as_u64(), json["code"].as_str()), (Some("9"), Some(3), Some("json_syntax")));
        assert!(json.get("text").is_none(), "{json}");
    }
}
