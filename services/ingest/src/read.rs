//! The reading side of the door: runs, events, logs, results, receipts, workflows and what is there to run them.
//!
//! Everything comes from the read-only store and the blobs; the bus only says when to look, and carries what is too new.

use axum::Extension;
use axum::http::Method;
use axum::routing::{MethodRouter, get};

use crate::door::Door;
use crate::http::{OperationDoc, Route, Shape};

pub mod cursor;
pub(crate) mod dead_letters;
pub mod events;
mod explain;
pub mod filter;
pub(crate) mod fleet;
mod followers;
mod logs;
pub mod params;
mod receipts;
mod results;
mod runs;
mod sse;
pub mod streams;
mod workflows;

use followers::Followers;

const SSE: &str = "text/event-stream";
/// A number of items of a page.
const LIMIT: Shape = Shape::Number(1, params::MAX_LIMIT as u64);
/// A position in events or bytes: the stores count in signed numbers.
const POSITION: Shape = Shape::Number(0, i64::MAX as u64);

/// All routes that only read.
pub fn routes() -> Vec<Route> {
    let followers = Followers::default();
    let mut routes = of_runs(&followers);
    routes.extend(of_results());
    routes.extend(of_the_rest());
    routes
}

fn route(path: &'static str, handler: MethodRouter<Door>, operation: OperationDoc) -> Route {
    Route::new(Method::GET, path, handler, operation)
}

fn of_runs(followers: &Followers) -> Vec<Route> {
    let follow = |handler: MethodRouter<Door>| handler.layer(Extension(followers.clone()));
    vec![
        route(
            "/api/v1/runs",
            get(runs::on_list),
            paged(OperationDoc::new("listRuns", "Runs, newest first."))
                .query("status", "Any of these statuses; may be repeated, or a comma-separated list.")
                .query("workflow", "Name of the workflow.")
                .shaped(Shape::Name)
                .query("repo", "URL of the repository.")
                .query("session", "Named session.")
                .shaped(Shape::Name)
                .query("label", "A label as key=value; may be repeated.")
                .query("created_after", "Submitted at or after this RFC 3339 time.")
                .shaped(Shape::Time)
                .query("created_before", "Submitted before this RFC 3339 time.")
                .shaped(Shape::Time)
                .json(200, "run-page", "A page of runs, without their steps."),
        ),
        route(
            "/api/v1/runs/{id}",
            follow(get(runs::on_get)),
            OperationDoc::new("getRun", "One run; with `wait`, when it has ended or the wait is over.")
                .query("wait", "A duration of at most 60s, such as 30s.")
                .shaped(Shape::Duration)
                .query("until", "`final` (default) or `started`.")
                .shaped(Shape::Word(&["final", "started"]))
                .json(200, "run", "The run as it is."),
        ),
        route(
            "/api/v1/runs/{id}/plan",
            get(runs::on_plan),
            OperationDoc::new("getPlan", "What the run is pinned to: the text of its definition, and the plan that it evaluates to.").json(
                200,
                "",
                "`definition_hash`, `plan_hash`, `definition` where its text is kept, `plan`.",
            ),
        ),
        route(
            "/api/v1/runs/{id}/explain",
            get(explain::facts::on_explain),
            OperationDoc::new("explainRun", "Why a run is where it is, and what helps.").json(
                200,
                "explanation",
                "One sentence and what blocks the run.",
            ),
        ),
        route(
            "/api/v1/runs/{id}/events",
            follow(get(events::on_events)),
            OperationDoc::new("followEvents", "The events of a run, as a live stream or, for `Accept: application/json`, as a page.")
                .query("after", "Number of the last event that the caller has.")
                .shaped(POSITION)
                .query("limit", "Most events of a page: 1 to 200.")
                .shaped(LIMIT)
                .header("Last-Event-ID", "Number of the last event that the caller has; wins over `after`.")
                .shaped(POSITION)
                .answer(200, SSE, "", "`id` is the number of the event, `event` its type, `data` the event; `end` is the last.")
                .json(200, "", "A page of events."),
        ),
        route(
            "/api/v1/runs/{id}/steps/{step}/attempts/{n}/logs",
            get(logs::on_logs),
            OperationDoc::new("getLog", "A part of the log of an attempt, byte for byte.")
                .query("from", "Byte position in the log; 0 by default.")
                .shaped(POSITION)
                .query("limit", "Most bytes: 1 to 8388608; 1048576 by default.")
                .shaped(Shape::Number(1, 8_388_608))
                .query("stream", "Only `stdout`, `stderr` or `system`; positions stay those of the whole log.")
                .shaped(Shape::Word(&["stdout", "stderr", "system"]))
                .answer(200, "text/plain", "", "Bytes; Hopyard-Log-Next is where to go on, Hopyard-Log-Complete whether that was the end."),
        ),
        route(
            "/api/v1/runs/{id}/steps/{step}/attempts/{n}/logs/stream",
            follow(get(logs::on_stream)),
            OperationDoc::new("followLog", "The log of an attempt as a live stream.")
                .query("from", "Byte position to start at; 0 by default.")
                .shaped(POSITION)
                .header("Last-Event-ID", "Position after the last chunk that the caller has; wins over `from`.")
                .shaped(POSITION)
                .answer(200, SSE, "", "`log` with a chunk and the position after it as `id`; `end` is the last."),
        ),
    ]
}

fn of_results() -> Vec<Route> {
    vec![
        route(
            "/api/v1/runs/{id}/diff",
            get(results::on_diff),
            OperationDoc::new("getDiff", "The patch of a run that has ended; empty when it changed nothing.").answer(
                200,
                "text/x-diff",
                "",
                "A git patch.",
            ),
        ),
        route(
            "/api/v1/runs/{id}/bundle",
            get(results::on_bundle),
            OperationDoc::new("getBundle", "The branch of a run that has ended.").answer(
                200,
                "application/x-git-bundle",
                "",
                "A git bundle.",
            ),
        ),
        route(
            "/api/v1/runs/{id}/result",
            get(results::on_result),
            OperationDoc::new("getResult", "Outputs and git result of a run that has ended.").json(200, "", "`result` of the run."),
        ),
        route(
            "/api/v1/runs/{id}/artifacts",
            get(results::on_artifacts),
            OperationDoc::new("listArtifacts", "Patch, bundle, stored logs and records of agents of a run that has ended.").json(
                200,
                "",
                "Names, sizes, digests and addresses.",
            ),
        ),
        route(
            "/api/v1/runs/{id}/artifacts/{name}",
            get(results::on_artifact),
            OperationDoc::new("getArtifact", "One artifact of a run that has ended.").answer(
                200,
                "application/octet-stream",
                "",
                "Its bytes.",
            ),
        ),
    ]
}

fn of_the_rest() -> Vec<Route> {
    vec![
        route(
            "/api/v1/receipts/{id}",
            get(receipts::on_get),
            OperationDoc::new("getReceipt", "The lasting answer to a submission, by run id or by sequence in the command stream.")
                .json(200, "receipt", "The verdicts.")
                .json(202, "", "The command is stored and not decided yet."),
        ),
        route(
            "/api/v1/workflows",
            get(workflows::on_list),
            paged(OperationDoc::new("listWorkflows", "The newest version of each workflow, by name.")).json(
                200,
                "workflow-page",
                "A page of workflows, without their texts.",
            ),
        ),
        route(
            "/api/v1/workflows/{name}",
            get(workflows::on_get),
            OperationDoc::new("getWorkflow", "One workflow with definition and plan; its ETag is the hash.")
                .query("version", "Number of a version; the newest by default.")
                .shaped(Shape::Number(1, i32::MAX as u64))
                .header("If-None-Match", "ETags that the caller has.")
                .json(200, "workflow", "The workflow.")
                .answer(304, "", "", "The caller has it already."),
        ),
        route(
            "/api/v1/workflows/{name}/versions",
            get(workflows::on_versions),
            OperationDoc::new("listWorkflowVersions", "Versions of a workflow, newest first.").json(
                200,
                "workflow-page",
                "All versions, without their texts.",
            ),
        ),
        route(
            "/api/v1/executors",
            get(fleet::on_executors),
            OperationDoc::new("listExecutors", "Executors that have said hello: ready, draining or silent.")
                .query("pool", "Name of a pool.")
                .shaped(Shape::Name)
                .json(200, "executor-page", "All executors."),
        )
        .global(),
        route(
            "/api/v1/workspaces",
            get(fleet::on_workspaces),
            OperationDoc::new("listWorkspaces", "Workspaces, newest first; removed ones only on request.")
                .query("status", "active, kept, reclaimable or removed.")
                .shaped(Shape::Word(&["active", "kept", "reclaimable", "removed"]))
                .query("limit", "1 to 200.")
                .shaped(LIMIT)
                .json(200, "workspace-page", "Workspaces."),
        ),
        route(
            "/api/v1/usage",
            get(fleet::on_usage),
            OperationDoc::new("getUsage", "Usage of the runs submitted in a range of time, by workflow or by repository.")
                .query("from", "Start of the range; 30 days before its end by default.")
                .shaped(Shape::Time)
                .query("to", "End of the range; now by default.")
                .shaped(Shape::Time)
                .query("by", "`workflow` (default) or `repository`.")
                .shaped(Shape::Word(&["workflow", "repository"]))
                .json(200, "", "Sums by workflow, or by repository."),
        ),
        route(
            "/api/v1/dead-letters",
            get(dead_letters::on_list),
            paged(OperationDoc::new("listDeadLetters", "What could not be processed, oldest first.")).json(
                200,
                "",
                "A page of dead letters.",
            ),
        ),
        route(
            "/api/v1/dead-letters/{id}",
            get(dead_letters::on_get),
            OperationDoc::new("getDeadLetter", "One dead letter, with its body as text if it is UTF-8.").json(200, "", "The dead letter."),
        ),
    ]
}

fn paged(operation: OperationDoc) -> OperationDoc {
    operation.query("limit", "Most items: 1 to 200; 50 by default.").shaped(LIMIT).query("cursor", "`next_cursor` of the page before.")
}
