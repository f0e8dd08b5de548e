//! Lists of runs, and one run, at once or when it has come as far as the caller waits for.

use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use hopyard_contract::duration::{NotASpan, Span};
use hopyard_contract::run::RunState;
use hopyard_contract::view::{Page, RunView};
use hopyard_contract::{Name, RunId};
use hopyard_store::read::RunFilter;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::followers::Followers;
use super::params::{Params, bad};
use super::{cursor, filter};
use crate::door::Door;
use crate::http::{Namespace, run_id};
use crate::problem::{Answer, Refusal};

/// Longest wait of one request.
const MAX_WAIT: Duration = Duration::from_secs(60);
/// A run is read again after this long without a word from the bus.
const SILENCE: Duration = Duration::from_secs(5);

/// `GET /runs`.
pub(crate) async fn on_list(State(door): State<Door>, namespace: Namespace, params: Params) -> Answer<Json<Page<RunView>>> {
    let filter = filter::read(&params, &namespace.name)?;
    let limit = filter.limit as usize;
    // One more than asked for tells whether there is a next page.
    let mut rows = door.reader.runs(&namespace.name, &RunFilter { limit: filter.limit + 1, ..filter }).await?;
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows.last().filter(|_| more).map(|last| cursor::seal(filter::LIST, &namespace.name, &last.id.to_string()));
    Ok(Json(Page { items: rows.iter().map(RunView::of_row).collect(), next_cursor }))
}

/// `GET /runs/{id}`.
pub(crate) async fn on_get(
    State(door): State<Door>,
    Extension(followers): Extension<Followers>,
    namespace: Namespace,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Response> {
    let wait = Wait::read(&params)?;
    let id = run_id(&id)?;
    let state = match wait {
        None => of(&door, &namespace.name, id).await?,
        Some(wait) => until(&door, &followers, &namespace.name, id, wait).await?,
    };
    Ok(Json(RunView::of(&state)).into_response())
}

/// `GET /runs/{id}/plan`.
pub(crate) async fn on_plan(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>, params: Params) -> Answer<Json<Value>> {
    params.allow(&[], &[])?;
    let state = of(&door, &namespace.name, run_id(&id)?).await?;
    let hash = &state.run.definition_hash;
    let definition = door.reader.definition(&namespace.name, hash).await?;
    let mut answer = json!({ "definition_hash": hash, "plan_hash": state.run.plan_hash, "plan": *state.plan });
    if let Some(text) = definition {
        answer["definition"] = text.into();
    }
    Ok(Json(answer))
}

/// The run with this id.
///
/// # Errors
/// 404 `unknown_run`.
pub(crate) async fn of(door: &Door, namespace: &Name, id: RunId) -> Answer<RunState> {
    door.reader.run(namespace, id).await?.ok_or_else(Refusal::unknown_run)
}

/// What a caller waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Wait {
    at_most: Duration,
    started: bool,
}

impl Wait {
    fn read(params: &Params) -> Answer<Option<Self>> {
        params.allow(&["wait", "until"], &[])?;
        let started = match params.one("until") {
            None | Some("final") => false,
            Some("started") => true,
            Some(_) => return Err(bad("until", 422, "enum", "is final or started")),
        };
        let Some(text) = params.one("wait") else { return Ok(None) };
        let at_most = text.parse::<Span>().map_err(|error| {
            let code = if error == NotASpan::Range { "range" } else { "pattern" };
            bad("wait", 422, code, "is a duration of at most 60s, such as 30s")
        })?;
        if at_most.std() > MAX_WAIT {
            return Err(bad("wait", 422, "range", "is a duration of at most 60s, such as 30s"));
        }
        Ok(Some(Self { at_most: at_most.std(), started }))
    }

    fn is_over(self, state: &RunState) -> bool {
        state.run.status.is_final() || (self.started && state.run.started_at.is_some())
    }
}

/// Listens first and reads then, so that nothing falls between.
async fn until(door: &Door, followers: &Followers, namespace: &Name, id: RunId, wait: Wait) -> Answer<RunState> {
    let deadline = Instant::now() + wait.at_most;
    let state = of(door, namespace, id).await?;
    if wait.is_over(&state) {
        return Ok(state);
    }
    let id = state.run.id;
    let mut follow = followers.follow(door, namespace, id).await;
    loop {
        let state = of(door, namespace, id).await?;
        if wait.is_over(&state) || Instant::now() >= deadline || door.tasks.draining().is_cancelled() {
            return Ok(state);
        }
        tokio::select! {
            _ = follow.next() => {}
            () = tokio::time::sleep(SILENCE) => {}
            () = tokio::time::sleep_until(deadline) => {}
            () = door.tasks.draining().cancelled() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;

    #[test]
    fn every_wrong_wait_has_its_code() {
        for (query, status, code) in [
            ("wait=30", 422, "pattern"),
            ("wait=", 422, "pattern"),
            ("wait=-1s", 422, "pattern"),
            ("wait=0s", 422, "range"),
            ("wait=61s", 422, "range"),
            ("wait=2m", 422, "range"),
            ("wait=1s&wait=1s", 400, "repeated_parameter"),
            ("wait=1s&until=done", 422, "enum"),
            ("timeout=1s", 400, "unknown_parameter"),
        ] {
            assert_eq!(told(Wait::read(&params(query))), (status, code.to_owned()), "{query}");
        }
        assert_eq!(Wait::read(&params("")).unwrap(), None);
        assert_eq!(Wait::read(&params("wait=60s")).unwrap(), Some(Wait { at_most: MAX_WAIT, started: false }));
        assert_eq!(Wait::read(&params("wait=1m&until=started")).unwrap(), Some(Wait { at_most: MAX_WAIT, started: true }));
    }
}
