//! Executors by HTTP, the writing half: drain.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use hopyard_contract::Name;
use hopyard_contract::message::Drain;
use hopyard_contract::subject::Verb;
use hopyard_runtime::rpc::{self, CallError};
use serde_json::{Value, json};

use crate::door::Door;
use crate::http::{OperationDoc, Route};
use crate::problem::{Answer, Refusal};
use crate::read::fleet::ALIVE;

/// Routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/api/v1/executors/{id}/drain",
            post(on_drain),
            OperationDoc::new("drainExecutor", "Lets an executor finish what it has and take nothing new").json(
                202,
                "",
                "The executor drains",
            ),
        )
        .global(),
    ]
}

async fn on_drain(State(door): State<Door>, Path(id): Path<String>) -> Answer {
    let unknown =
        || Refusal::new(404, "unknown_executor", "there is no such executor; `hopyard executors list` shows those that are there");
    let executor: Name = id.parse().map_err(|_| unknown())?;
    // One that beats and is in no row has not been answered to its hello yet.
    let beats = || door.presence.age("executor", &executor).is_some_and(|age| age < ALIVE);
    if !door.reader.executors().await?.iter().any(|row| row.id == executor) && !beats() {
        return Err(unknown());
    }
    match rpc::call::<_, Value>(&door.bus, Verb::Drain, &Drain { executor: executor.clone() }).await {
        Ok(_) => Ok((StatusCode::ACCEPTED, Json(json!({ "id": executor, "status": "draining" }))).into_response()),
        Err(CallError::Refused(error)) if error.code.starts_with("unknown") => Err(unknown()),
        Err(CallError::Nobody) => Err(Refusal::new(503, "not_accepted", "no scheduler listens; start one with `hopyard scheduler`")),
        Err(error) => Err(Refusal::new(
            503,
            "outcome_unknown",
            format!("the executor may or may not have been told ({error}); sending it again is safe"),
        )),
    }
}
