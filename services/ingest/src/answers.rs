//! Answers to the questions of steps, and the word that a paused run shall go on.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use axum::routing::post;
use hopyard_contract::message::{AnswerReply, AnswerStep, ResumeReply, ResumeRun};
use hopyard_contract::subject::Verb;
use hopyard_contract::view::RunView;
use hopyard_contract::{Name, RunId};
use hopyard_runtime::rpc::{self, CallError};
use uuid::Uuid;

use crate::accept::request;
use crate::door::Door;
use crate::http::body::JsonBody;
use crate::http::{Namespace, OperationDoc, Route, run_id};
use crate::problem::{Answer, Refusal};

/// Routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::POST,
            "/api/v1/runs/{id}/steps/{step}/answer",
            post(on_answer),
            OperationDoc::new("answerStep", "Answers the question of a paused step").body("application/json", "answer-request").json(
                200,
                "run",
                "The answer is committed; the run as it is",
            ),
        ),
        Route::new(
            Method::POST,
            "/api/v1/runs/{id}/resume",
            post(on_resume),
            OperationDoc::new("resumeRun", "Lets a run go on that is paused for a limit").json(200, "run", "The run as it is"),
        ),
    ]
}

async fn on_answer(
    State(door): State<Door>,
    namespace: Namespace,
    Path((id, step)): Path<(String, String)>,
    JsonBody(body): JsonBody,
) -> Answer {
    let run = run_id(&id)?;
    let wanted = request::answer(&body).map_err(Refusal::of_errors)?;
    let step: Name = step.parse().map_err(|_| unknown_step())?;
    let by = wanted.by.unwrap_or_else(|| "api".to_owned());
    let order =
        AnswerStep { namespace: namespace.name.clone(), run, step, id: Uuid::new_v4(), approved: wanted.approved, text: wanted.text, by };
    match rpc::call(&door.bus, Verb::Answer, &order).await.map_err(unanswered)? {
        AnswerReply::Taken => view(&door, &namespace.name, run).await,
        AnswerReply::NeedsText => Err(Refusal::field(422, "required", "/text", "the step asks a question, which is answered in words")),
        AnswerReply::NotAsked => Err(conflict("not_asked", run, "the step waits for no answer")),
        AnswerReply::UnknownStep => Err(unknown_step()),
        AnswerReply::Unknown => Err(Refusal::unknown_run()),
    }
}

async fn on_resume(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>) -> Answer {
    let run = run_id(&id)?;
    let order = ResumeRun { namespace: namespace.name.clone(), run, by: "api".to_owned() };
    match rpc::call(&door.bus, Verb::Resume, &order).await.map_err(unanswered)? {
        ResumeReply::Resumed => view(&door, &namespace.name, run).await,
        ResumeReply::NeedsAnswer => Err(conflict("needs_answer", run, "the run waits for an answer: POST …/steps/{step}/answer")),
        ResumeReply::AlreadyFinal => Err(conflict("already_final", run, "the run has ended, or is about to")),
        ResumeReply::Unknown => Err(Refusal::unknown_run()),
    }
}

async fn view(door: &Door, namespace: &Name, run: RunId) -> Answer {
    let state = door.reader.run(namespace, run).await?.ok_or_else(Refusal::unknown_run)?;
    Ok((StatusCode::OK, Json(RunView::of(&state))).into_response())
}

fn conflict(code: &str, run: RunId, detail: &str) -> Refusal {
    let mut refusal = Refusal::new(409, code, detail);
    refusal.0.run_id = Some(run);
    refusal
}

fn unknown_step() -> Refusal {
    Refusal::new(404, "unknown_step", "the run has no such step")
}

/// Neither can be kept on the bus for later: whoever answers wants to know that it counts.
fn unanswered(error: CallError) -> Refusal {
    match error {
        CallError::Nobody => Refusal::new(503, "no_scheduler", "no scheduler answers; nothing was changed"),
        error => Refusal::new(503, "outcome_unknown", format!("it may or may not have been taken ({error}); sending it again is safe")),
    }
}
