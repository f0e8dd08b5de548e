//! Answers calls of models, whole or as a stream, and writes down what it served.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fs::File;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use futures::stream;
use serde_json::{Value, json};

use super::script::{self, Reply};
use super::wires::Wire;

/// Most bytes of a request.
const MOST: usize = 64 << 20;

/// The replies, and what was served of them.
pub(super) struct Provider {
    replies: Vec<Reply>,
    key: Option<String>,
    journal: Option<Mutex<File>>,
    /// Calls that are being answered.
    under_way: AtomicUsize,
    /// How often the failure of a reply was given, by its place in the script.
    failed: Mutex<HashMap<usize, u64>>,
}

impl Provider {
    pub(super) fn new(replies: Vec<Reply>, key: Option<String>, journal: Option<File>) -> Self {
        Self { replies, key, journal: journal.map(Mutex::new), under_way: AtomicUsize::new(0), failed: Mutex::default() }
    }

    /// Whether a reply that is to go wrong does so this time.
    fn goes_wrong(&self, place: usize, reply: &Reply) -> bool {
        if reply.status.is_none() && !reply.breaks_off {
            return false;
        }
        let mut failed = self.failed.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failed.entry(place).or_default();
        *count += 1;
        reply.times.is_none_or(|times| *count <= times)
    }

    fn write_down(&self, line: &Value) {
        let Some(journal) = &self.journal else { return };
        // In one piece, so that whoever reads along sees whole lines.
        let written = journal.lock().unwrap_or_else(PoisonError::into_inner).write_all(format!("{line}\n").as_bytes());
        if let Err(error) = written {
            crate::client::output::progress(&format!("the journal cannot be written: {error}"));
        }
    }
}

pub(super) fn router(provider: Arc<Provider>) -> Router {
    Router::new().fallback(on_call).with_state(provider)
}

async fn on_call(State(provider): State<Arc<Provider>>, method: Method, uri: Uri, headers: HeaderMap, body: Body) -> Response {
    if method == Method::HEAD {
        return StatusCode::OK.into_response();
    }
    let Some(wire) = Wire::of(uri.path()) else {
        return (StatusCode::NOT_FOUND, format!("nothing is served at {}", uri.path())).into_response();
    };
    let presented = ["x-api-key", "authorization", "x-goog-api-key"].iter().find_map(|name| headers.get(*name)?.to_str().ok());
    let presented = presented.map(|key| key.trim_start_matches("Bearer ")).unwrap_or_default();
    if provider.key.as_ref().is_some_and(|key| key != presented) {
        provider.write_down(&json!({ "path": uri.path(), "status": 401 }));
        return (StatusCode::UNAUTHORIZED, axum::Json(wire.error(401, "the key is not valid"))).into_response();
    }
    let Ok(body) = axum::body::to_bytes(body, MOST).await else { return StatusCode::PAYLOAD_TOO_LARGE.into_response() };
    let Ok(request) = serde_json::from_slice::<Value>(&body) else { return StatusCode::BAD_REQUEST.into_response() };
    let place = wire.spoken(&request);
    let text = String::from_utf8_lossy(&body);
    let asked = wire.asked(&request);
    let reply = script::reply(&provider.replies, asked.as_deref(), place).at(script::cwd(&text).unwrap_or("."));
    let at_once = provider.under_way.fetch_add(1, Ordering::Relaxed) + 1;
    tokio::time::sleep(Duration::from_millis(reply.wait_ms)).await;
    provider.under_way.fetch_sub(1, Ordering::Relaxed);
    let (model, streamed) = (wire.model(&request, uri.path()), wire.is_streamed(&request, uri.path()));
    let goes_wrong = provider.goes_wrong(place, &reply);
    if let Some(status) = reply.status.filter(|_| goes_wrong) {
        provider.write_down(&json!({ "path": uri.path(), "model": model, "place": place, "status": status }));
        return failure(wire, status, &reply);
    }
    let Some(results) = wire.results(&request) else {
        provider.write_down(&json!({ "path": uri.path(), "model": model, "place": place, "status": 400 }));
        return (StatusCode::BAD_REQUEST, axum::Json(wire.error(400, "the use of a tool has no result"))).into_response();
    };
    let used = reply.usage;
    provider.write_down(&json!({
        "path": uri.path(), "model": model, "place": place, "status": 200, "at_once": at_once, "asked": asked, "results": results, "streamed": streamed, "breaks_off": goes_wrong,
        "input": used.input, "output": used.output, "cache_read": used.cache_read, "cache_write": used.cache_write,
    }));
    if !streamed {
        return axum::Json(wire.answer(&reply, &model)).into_response();
    }
    let mut events = wire.events(&reply, &model, &request);
    if goes_wrong {
        events.truncate(events.len() / 2);
    }
    let pieces = events.into_iter().map(|event| Ok::<_, Infallible>(Bytes::from(event)));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(stream::iter(pieces))).into_response()
}

fn failure(wire: Wire, status: u16, reply: &Reply) -> Response {
    let words = reply.text.as_deref().unwrap_or("the script says so");
    let body = axum::Json(wire.error(status, words));
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    match reply.retry_after {
        Some(seconds) => (status, [(header::RETRY_AFTER, seconds.to_string())], body).into_response(),
        None => (status, body).into_response(),
    }
}
