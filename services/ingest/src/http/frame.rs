//! What every request passes: request id, namespace, limits, panics, and one form for everything that is refused.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::Request;
use axum::http::header::{ALLOW, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;
use hopyard_contract::submit::MAX_HTTP_BODY;
use hopyard_contract::{Name, Problem};
use uuid::Uuid;

use super::wire::Unclear;
use super::{Matched, Namespace};
use crate::instruments;
use crate::problem::Refusal;

/// Header with the id of a request, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest path with query, in bytes.
const MAX_URL: usize = 8 * 1024;

/// The id of a request: the caller's if it is a plain token, else a new one.
#[derive(Clone, Debug)]
pub struct RequestId(pub Arc<str>);

/// Handles one request from its head to its answer.
pub async fn frame(mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    let method = request.method().clone();
    let path = request.uri().path().chars().take(256).collect::<String>();
    // Nobody between the client and this process can then take the rest of a body for the next request.
    let last = request.headers().contains_key(TRANSFER_ENCODING);
    request.extensions_mut().insert(RequestId(id.clone()));
    let answered = match admit(&mut request) {
        Ok(()) => AssertUnwindSafe(next.run(request)).catch_unwind().await,
        Err(refusal) => Ok(refusal.into_response()),
    };
    let response = match answered {
        Ok(response) => response,
        Err(panic) => {
            let text = panic
                .downcast_ref::<&str>()
                .copied()
                .map(str::to_owned)
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default();
            tracing::error!(request_id = &*id, %method, path, panic = text, "a handler panicked");
            Refusal::new(500, "internal", "the request could not be handled; the log of the door has more under this request id")
                .into_response()
        }
    };
    let mut response = finish(response, &method, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if last {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let route = response.extensions_mut().remove::<Matched>().map_or_else(|| "unknown".to_owned(), |m| m.0);
    record(&method, &route, response.status(), started);
    // Probes at the root ask again and again; what they find is told elsewhere.
    if response.status().is_server_error() && path.starts_with(super::PREFIX) {
        tracing::warn!(request_id = &*id, %method, path, status = response.status().as_u16(), "request");
    } else {
        tracing::debug!(request_id = &*id, %method, path, status = response.status().as_u16(), "request");
    }
    response
}

/// An answer to a request that is not looked at.
pub(super) fn refuse(refusal: Refusal) -> Response {
    let id = Uuid::now_v7().to_string();
    let mut response = finish(refusal.into_response(), &Method::GET, &id);
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response
}

/// Refuses by the head alone, and takes the namespace out of the path.
fn admit(request: &mut Request) -> Result<(), Refusal> {
    if request.uri().path_and_query().is_some_and(|p| p.as_str().len() > MAX_URL) {
        return Err(Refusal::new(414, "url_too_long", "path and query have at most 8 KiB"));
    }
    let both = [CONTENT_LENGTH, TRANSFER_ENCODING].iter().all(|name| request.headers().contains_key(name));
    if both || request.extensions().get::<Unclear>().is_some() {
        return Err(Refusal::new(400, "bad_request", "the length of the body is not clear"));
    }
    if let Some(length) = request.headers().get(CONTENT_LENGTH) {
        match length.to_str().ok().and_then(|l| l.parse::<u64>().ok()) {
            None => return Err(Refusal::new(400, "bad_request", "the length of the body is not clear")),
            Some(length) if length > MAX_HTTP_BODY as u64 => return Err(super::body::too_large()),
            Some(_) => {}
        }
    }
    let (namespace, rest) = match split_namespace(request.uri().path()) {
        Split::Bare => (Namespace { name: Name::default_namespace(), explicit: false }, None),
        Split::Named(name, rest) => (Namespace { name, explicit: true }, Some(rest)),
        Split::Invalid => return Err(Refusal::new(404, "unknown_namespace", "there is no such namespace")),
    };
    if let Some(rest) = rest {
        let mut parts = request.uri().clone().into_parts();
        let target = match request.uri().query() {
            Some(query) => format!("{}{rest}?{query}", super::PREFIX),
            None => format!("{}{rest}", super::PREFIX),
        };
        parts.path_and_query = Some(target.parse().map_err(|_| Refusal::new(404, "unknown_route", "there is no such route"))?);
        *request.uri_mut() = Uri::from_parts(parts).map_err(|_| Refusal::new(404, "unknown_route", "there is no such route"))?;
    }
    request.extensions_mut().insert(namespace);
    Ok(())
}

enum Split {
    Bare,
    Named(Name, String),
    Invalid,
}

fn split_namespace(path: &str) -> Split {
    let Some(rest) = path.strip_prefix("/api/v1/namespaces/") else { return Split::Bare };
    let Some((name, rest)) = rest.split_once('/') else { return Split::Invalid };
    match name.parse() {
        Ok(name) => Split::Named(name, format!("/{rest}")),
        Err(_) => Split::Invalid,
    }
}

fn request_id(headers: &HeaderMap) -> Arc<str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    match headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()) {
        Some(id) if (1..=128).contains(&id.len()) && id.bytes().all(plain) => id.into(),
        _ => Uuid::now_v7().to_string().into(),
    }
}

/// Gives every refusal its id, and the framework's own refusals the form of a problem.
fn finish(mut response: Response, method: &Method, id: &str) -> Response {
    let status = response.status();
    if let Some(problem) = response.extensions_mut().remove::<Arc<Problem>>() {
        return with_body(response, Problem { request_id: id.to_owned(), ..Arc::unwrap_or_clone(problem) });
    }
    if *method == Method::OPTIONS && status == StatusCode::METHOD_NOT_ALLOWED {
        let allow = response.headers().get(ALLOW).cloned();
        let mut response = StatusCode::NO_CONTENT.into_response();
        if let Some(allow) = allow {
            response.headers_mut().insert(ALLOW, allow);
        }
        return response;
    }
    let (code, detail) = match status {
        StatusCode::NOT_FOUND => ("unknown_route", "there is no such route; see /api/v1/openapi.json"),
        StatusCode::METHOD_NOT_ALLOWED => ("method_not_allowed", "the route does not have this method; see the header Allow"),
        StatusCode::PAYLOAD_TOO_LARGE => ("too_large", "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => ("unsupported_media_type", "the media type of the body is not supported"),
        s if s.is_client_error() => ("bad_request", "the request cannot be read"),
        s if s.is_server_error() => ("internal", "the request could not be handled"),
        _ => return response,
    };
    // An answer that a handler formed itself, such as degraded health, stays as it is.
    if response.headers().get(CONTENT_TYPE).is_some_and(|t| t.as_bytes().starts_with(b"application/")) {
        return response;
    }
    let mut problem = Problem::new(status.as_u16(), code, detail);
    id.clone_into(&mut problem.request_id);
    with_body(response, problem)
}

/// The same head with a problem for its body.
fn with_body(response: Response, problem: Problem) -> Response {
    let (mut head, _) = response.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    let body = serde_json::to_vec(&problem).expect("a problem has string keys and no failing serializers");
    Response::from_parts(head, axum::body::Body::from(body))
}

fn record(method: &Method, route: &str, status: StatusCode, started: Instant) {
    const KNOWN: [Method; 7] = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS];
    // A method outside of the standard ones would make a series per inventor.
    let method = if KNOWN.contains(method) { method.as_str() } else { "other" };
    instruments::requests().with_label_values(&[method, route, status.as_str()]).inc();
    instruments::request_seconds().with_label_values(&[method, route]).observe(started.elapsed().as_secs_f64());
}
