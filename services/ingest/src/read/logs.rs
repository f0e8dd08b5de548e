//! The log of an attempt: any part of it as bytes, or live, from the blob once the attempt has ended and from the bus before.

use axum::Extension;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use hopyard_contract::log::Stream;
use hopyard_contract::run::{Attempt, RunState};
use hopyard_contract::status::AttemptStatus;
use hopyard_contract::{AttemptId, Name};

use super::followers::Followers;
use super::params::{Params, bad, number};
use super::{runs, sse};
use crate::door::Door;
use crate::http::{Namespace, run_id};
use crate::problem::{Answer, Refusal};

mod chunk;
mod live;
mod stored;
mod tail;
mod window;

use stored::StoredLog;
use window::Window;

/// Bytes of one answer when the request names no number.
const DEFAULT_BYTES: u64 = 1024 * 1024;
/// Most bytes of one answer.
const MAX_BYTES: u64 = 8 * 1024 * 1024;

/// `GET /runs/{id}/steps/{step}/attempts/{n}/logs`.
pub(crate) async fn on_logs(
    State(door): State<Door>,
    namespace: Namespace,
    Path(path): Path<(String, String, String)>,
    params: Params,
) -> Answer<Response> {
    params.allow(&["from", "limit", "stream"], &[])?;
    let mut window = Window::new(from(params.one("from"))?, limit(&params)?, only(&params)?);
    let log = AttemptLog::find(&door, namespace.name, &path).await?;
    let complete = match &log.attempt.log {
        Some(blob) => {
            let mut stored = StoredLog::open(door.blobs.clone(), blob).await?;
            loop {
                let Some(piece) = stored.next_piece().await? else { break true };
                if !window.take(piece) {
                    break false;
                }
            }
        }
        None if log.is_empty() => true,
        None => tail::collect(&door, &log, &mut window).await?,
    };
    Ok(bytes(window, complete))
}

fn bytes(window: Window, complete: bool) -> Response {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
        (HeaderName::from_static("hopyard-log-next"), HeaderValue::from(window.next())),
        (HeaderName::from_static("hopyard-log-complete"), HeaderValue::from_static(if complete { "true" } else { "false" })),
    ]);
    if let Some(first) = window.lost_until() {
        // What came before is no longer on the bus and not yet in a blob.
        headers.insert(HeaderName::from_static("hopyard-log-from"), HeaderValue::from(first));
    }
    let mut response = Response::new(Body::from(window.into_bytes()));
    *response.headers_mut() = headers;
    response
}

/// `GET /runs/{id}/steps/{step}/attempts/{n}/logs/stream`.
pub(crate) async fn on_stream(
    State(door): State<Door>,
    Extension(followers): Extension<Followers>,
    namespace: Namespace,
    Path(path): Path<(String, String, String)>,
    params: Params,
    headers: HeaderMap,
) -> Answer<Response> {
    params.allow(&["from"], &[])?;
    let from = from(sse::header(&headers, "last-event-id").or_else(|| params.one("from")))?;
    let log = AttemptLog::find(&door, namespace.name, &path).await?;
    let place = door.streams.admit()?;
    let live = live::Live::new(door.clone(), log, from);
    Ok(sse::answer(&door.tasks, place, move |sink| live.run(followers, sink)))
}

/// Whose log it is, and how far the attempt was when it was last looked at.
pub(crate) struct AttemptLog {
    namespace: Name,
    id: AttemptId,
    attempt: Attempt,
}

impl AttemptLog {
    async fn find(door: &Door, namespace: Name, (run, step, n): &(String, String, String)) -> Answer<Self> {
        let state = runs::of(door, &namespace, run_id(run)?).await?;
        let attempt = attempt(&state, step, n)?;
        let id = AttemptId { run: state.run.id, step: attempt.step.clone(), n: attempt.n };
        Ok(Self { namespace, id, attempt })
    }

    /// Whether nothing was ever written and nothing will be.
    fn is_empty(&self) -> bool {
        // What a lost attempt wrote may still come from its host.
        self.attempt.status.is_final() && self.attempt.status != AttemptStatus::Lost && self.attempt.log_bytes == 0
    }
}

/// The attempt that a path names.
fn attempt(state: &RunState, step: &str, n: &str) -> Answer<Attempt> {
    if state.step(step).is_none() {
        return Err(Refusal::new(404, "unknown_step", "the run has no such step"));
    }
    let n = number(n).and_then(|n| u32::try_from(n).ok());
    let found = n.and_then(|n| state.attempt(step, n));
    found.cloned().ok_or_else(|| Refusal::new(404, "unknown_attempt", "the step has no such attempt"))
}

/// A byte position in a log.
fn from(text: Option<&str>) -> Answer<u64> {
    match text.map(number) {
        None => Ok(0),
        Some(Some(offset)) if i64::try_from(offset).is_ok() => Ok(offset),
        _ => Err(bad("from", 400, "bad_offset", "is a byte position in the log")),
    }
}

fn limit(params: &Params) -> Answer<usize> {
    let limit = params.one("limit").map_or(Some(DEFAULT_BYTES), number);
    match limit.filter(|limit| (1..=MAX_BYTES).contains(limit)).and_then(|limit| usize::try_from(limit).ok()) {
        Some(limit) => Ok(limit),
        None => Err(bad("limit", 400, "bad_limit", "is a number of bytes from 1 to 8388608")),
    }
}

fn only(params: &Params) -> Answer<Option<Stream>> {
    match params.one("stream") {
        None => Ok(None),
        Some("stdout") => Ok(Some(Stream::Stdout)),
        Some("stderr") => Ok(Some(Stream::Stderr)),
        Some("system") => Ok(Some(Stream::System)),
        Some(_) => Err(bad("stream", 422, "unknown_stream", "is stdout, stderr or system")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;

    #[test]
    fn numbers_that_are_none_are_refused() {
        for text in ["-1", "x", "", "1e3", "9223372036854775808", "%2B1"] {
            assert_eq!(told(from(params(&format!("from={text}")).one("from"))), (400, "bad_offset".to_owned()), "{text}");
        }
        for text in ["0", "-1", "x", "", "8388609"] {
            assert_eq!(told(limit(&params(&format!("limit={text}")))), (400, "bad_limit".to_owned()), "{text}");
        }
        assert_eq!(limit(&params("")).unwrap(), 1024 * 1024);
        assert_eq!(limit(&params("limit=8388608")).unwrap(), 8 * 1024 * 1024);
        assert_eq!(told(only(&params("stream=both"))), (422, "unknown_stream".to_owned()));
        assert_eq!(only(&params("stream=system")).unwrap(), Some(Stream::System));
    }
}
