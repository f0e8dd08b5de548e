//! Runs by HTTP, the writing half: submit, submit many, cancel, run again.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::LOCATION;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use chrono::Utc;
use hopyard_contract::RunId;
use hopyard_contract::submit::{RunRequest, Submitted, SubmittedBatch, VerdictStatus};
use serde_json::Value;

use crate::accept::definition::Resolved;
use crate::accept::fields::check_line;
use crate::accept::request::{self, Form, MAX_KEY};
use crate::accept::{self, Decided, Key, Origin, Unprepared};
use crate::door::Door;
use crate::http::body::{JsonBody, OptionalJson};
use crate::http::serve::Peer;
use crate::http::{Namespace, OperationDoc, Route, Shape, run_id};
use crate::kill::{self, Killed};
use crate::problem::{Answer, Refusal};

const KEY_DOC: &str = "A repeat with the same key is the same submission; 1 to 255 characters.";

/// Routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/api/v1/runs",
            post(on_submit),
            OperationDoc::new("submitRun", "Submits one run")
                .header("Idempotency-Key", KEY_DOC)
                .shaped(Shape::Line(MAX_KEY))
                .body("application/json", "run-request")
                .json(201, "submitted", "The run is committed")
                .json(202, "submitted", "The bus keeps the submission until a scheduler is back")
                .json(200, "submitted", "The same submission made this run before"),
        ),
        Route::new(
            Method::POST,
            "/api/v1/runs/batch",
            post(on_submit_many),
            OperationDoc::new("submitRuns", "Submits up to 500 runs")
                .header("Idempotency-Key", "Key of the body; run i gets the key `<key>#<i>` unless it has its own.")
                .shaped(Shape::Line(MAX_KEY))
                .body("application/json", "run-requests")
                .json(200, "submitted-batch", "One verdict per run")
                .json(202, "submitted-batch", "The bus keeps some of it until a scheduler is back"),
        ),
        Route::new(
            Method::POST,
            "/api/v1/runs/{id}/cancel",
            post(on_cancel),
            OperationDoc::new("cancelRun", "Ends a run").body("application/json", "cancel-request").optional().json(
                202,
                "run",
                "The cancel is committed; the run as it is",
            ),
        ),
        Route::new(
            Method::POST,
            "/api/v1/runs/{id}/rerun",
            post(on_rerun),
            OperationDoc::new("rerunRun", "Submits a run again with the same plan, inputs and repository")
                .header("Idempotency-Key", KEY_DOC)
                .shaped(Shape::Line(MAX_KEY))
                .body("application/json", "rerun-request")
                .optional()
                .json(201, "submitted", "The new run is committed")
                .json(202, "submitted", "The bus keeps the submission until a scheduler is back")
                .json(200, "submitted", "The same submission made this run before"),
        ),
    ]
}

fn origin(namespace: &Namespace, headers: &HeaderMap) -> Result<Origin, Refusal> {
    Ok(Origin {
        door: "http",
        namespace: namespace.name.clone(),
        receipt: None,
        received_at: Utc::now(),
        key: key(headers)?,
        traceparent: headers.get("traceparent").and_then(|v| v.to_str().ok()).map(str::to_owned),
    })
}

/// The key in the header. What cannot be one is a bad head, so 400; the same text as a field of the body is a bad value.
fn key(headers: &HeaderMap) -> Result<Option<Key>, Refusal> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else { return Ok(None) };
    let refuse = |code: &str, detail: &str| Refusal::field(400, code, "/idempotency_key", format!("the header Idempotency-Key: {detail}"));
    if values.next().is_some() {
        return Err(refuse("repeated_header", "it stands more than once"));
    }
    let text = value.to_str().map_err(|_| refuse("control_char", "it is not plain text"))?;
    check_line(text, 1, MAX_KEY).map_err(|(code, detail)| refuse(code, &detail))?;
    Ok(Some(Key::Explicit(text.to_owned())))
}

async fn on_submit(
    State(door): State<Door>,
    Peer(peer): Peer,
    namespace: Namespace,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Answer {
    door.admission.admit("http", peer, &namespace.name, &body)?;
    let origin = origin(&namespace, &headers)?;
    let prepared = accept::prepare(&door, &origin, &body, Form::One).await?;
    one(&namespace, accept::submit(&door, "http", prepared).await?)
}

async fn on_submit_many(
    State(door): State<Door>,
    Peer(peer): Peer,
    namespace: Namespace,
    headers: HeaderMap,
    JsonBody(body): JsonBody,
) -> Answer {
    door.admission.admit("http", peer, &namespace.name, &body)?;
    let origin = origin(&namespace, &headers)?;
    let prepared = accept::prepare(&door, &origin, &body, Form::Many).await?;
    let decided = accept::submit(&door, "http", prepared).await?;
    accept::count("http", &decided.verdicts);
    let status = if decided.committed { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(batch(decided, None))).into_response())
}

/// The answer to several runs.
pub(crate) fn batch(decided: Decided, v: Option<u32>) -> SubmittedBatch {
    SubmittedBatch { v, items: decided.verdicts, committed: (!decided.committed).then_some(false), warnings: decided.warnings }
}

/// The answer to one run.
fn one(namespace: &Namespace, decided: Decided) -> Answer {
    accept::count("http", &decided.verdicts);
    let Some(verdict) = decided.verdicts.into_iter().next() else {
        return Err(Refusal::new(503, "outcome_unknown", "the submission has no verdict"));
    };
    let Some(id) = verdict.run_id.filter(|_| verdict.status != VerdictStatus::Rejected) else {
        return Err(Refusal::of_errors(verdict.errors));
    };
    let status = match (verdict.status, decided.committed) {
        (VerdictStatus::Duplicate, _) => StatusCode::OK,
        (_, true) => StatusCode::CREATED,
        (_, false) => StatusCode::ACCEPTED,
    };
    let answer =
        Submitted { run_id: id, status: verdict.status, committed: (!decided.committed).then_some(false), warnings: decided.warnings };
    Ok((status, [(LOCATION, location(namespace, id))], Json(answer)).into_response())
}

fn location(namespace: &Namespace, id: RunId) -> String {
    if namespace.explicit { format!("/api/v1/namespaces/{}/runs/{id}", namespace.name) } else { format!("/api/v1/runs/{id}") }
}

async fn on_cancel(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>, OptionalJson(body): OptionalJson) -> Answer {
    let id = run_id(&id)?;
    let wanted = body.map_or_else(|| Ok(Default::default()), |body| request::cancel(&body, false)).map_err(Refusal::of_errors)?;
    match kill::kill(&door, &namespace.name, id, "api", wanted).await? {
        Killed::Run(run) => Ok((StatusCode::ACCEPTED, Json(run)).into_response()),
        Killed::Final(run) => {
            let mut refusal = Refusal::new(409, "already_final", format!("the run {id} has ended already"));
            refusal.0.run_id = Some(id);
            refusal.0.run = Some(run);
            Err(refusal)
        }
        Killed::Unknown => Err(Refusal::unknown_run()),
    }
}

async fn on_rerun(
    State(door): State<Door>,
    Peer(peer): Peer,
    namespace: Namespace,
    Path(id): Path<String>,
    headers: HeaderMap,
    OptionalJson(body): OptionalJson,
) -> Answer {
    let id = run_id(&id)?;
    door.admission.admit("http", peer, &namespace.name, &Value::Null)?;
    let wanted = body.map_or_else(|| Ok(Default::default()), |body: Value| request::rerun(&body)).map_err(Refusal::of_errors)?;
    let state = door.reader.run(&namespace.name, id).await?.ok_or_else(Refusal::unknown_run)?;
    let recordings = if wanted.replay { accept::recorded(&state).map_err(Refusal::of_errors)? } else { Default::default() };
    let run = state.run;
    let mut inputs = run.inputs;
    inputs.extend(wanted.inputs);
    // An input that the plan has dropped cannot be: the new run is pinned to the plan of the old one.
    let again = RunRequest {
        v: 1,
        workflow: Some(run.workflow.clone()),
        definition: None,
        inputs,
        repo: if wanted.replay { accept::pinned(run.repo, run.commit) } else { run.repo },
        idempotency_key: wanted.idempotency_key,
        priority: run.priority,
        pool: Some(run.pool),
        session: run.session.filter(|_| !wanted.replay),
        labels: run.labels,
        after: Vec::new(),
        after_policy: run.after_policy,
        start_at: None,
        budget: run.budget,
        rerun_of: Some(run.id),
        replay: wanted.replay,
    };
    let resolved = Resolved { name: run.workflow, definition_hash: run.definition_hash, plan_hash: run.plan_hash, plan: state.plan };
    let origin = origin(&namespace, &headers)?;
    let prepared = accept::prepare_known(&door, &origin, again, &resolved, recordings);
    one(&namespace, accept::submit(&door, "http", prepared).await?)
}

impl From<Unprepared> for Refusal {
    fn from(unprepared: Unprepared) -> Self {
        match unprepared {
            Unprepared::Invalid(errors) => Self::of_errors(errors),
            Unprepared::Unavailable(refusal) => refusal,
        }
    }
}
