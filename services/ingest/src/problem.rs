//! The one mapping of what went wrong to an HTTP answer.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hopyard_contract::{FieldError, Problem};
use hopyard_runtime::backoff::jitter;

/// What a handler returns when it cannot do what was asked.
#[derive(Debug)]
pub struct Refusal(pub Box<Problem>);

/// Result of a handler.
pub type Answer<T = Response> = Result<T, Refusal>;

/// What may be sent again is sent again after this long and up to twice as long, so that all do not come back at once.
const AGAIN: Duration = Duration::from_secs(1);

impl Refusal {
    /// A problem without a field. One that passes (429, 503) says when to come back.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        let refusal = Self(Box::new(Problem::new(status, code, detail)));
        if matches!(status, 429 | 503) { refusal.after(AGAIN) } else { refusal }
    }

    /// The same problem for a caller who comes back after `wait` and up to a second, or as long again, later.
    #[must_use]
    pub fn after(mut self, wait: Duration) -> Self {
        let pause = wait + jitter(wait.max(AGAIN));
        self.0.retry_after_ms = Some(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        self
    }

    /// A problem made of field errors.
    pub fn of_errors(errors: Vec<FieldError>) -> Self {
        Self(Box::new(Problem::of_errors(errors)))
    }

    /// One field error with a status of its own.
    pub fn field(status: u16, code: &str, pointer: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::of_errors(vec![FieldError::new(code, pointer, detail)]).with_status(status)))
    }

    /// The one answer to an id that is not known, in this namespace or at all.
    pub fn unknown_run() -> Self {
        Self::new(404, "unknown_run", "there is no such run")
    }
}

impl From<hopyard_store::Error> for Refusal {
    fn from(error: hopyard_store::Error) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "the store is not available");
            return Self::new(503, "store_unavailable", "the store cannot be read at the moment");
        }
        tracing::error!(%error, "the store refused a read");
        Self::new(503, "store_fault", "the store cannot be read; see the log of the door")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.0.retry_after_ms.map(|ms| ms.div_ceil(1000));
        let mut response = (status, Json(&*self.0)).into_response();
        // The frame writes the body again, with the id of the request.
        response.extensions_mut().insert(Arc::new(*self.0));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if let Some(seconds) = retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_may_come_back_is_told_when_and_not_all_at_once() {
        let waits: std::collections::BTreeSet<u64> =
            (0..32).map(|_| Refusal::new(503, "overloaded", "").0.retry_after_ms.expect("a wait")).collect();
        assert!(waits.len() > 8 && waits.iter().all(|ms| (1000..2000).contains(ms)), "{waits:?}");
        let response = Refusal::new(429, "rate_limited", "").after(Duration::from_millis(2500)).into_response();
        let seconds: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
        assert!((3..=5).contains(&seconds), "{seconds}");
        assert!(!Refusal::new(404, "unknown_run", "").into_response().headers().contains_key(RETRY_AFTER));
    }
}
