//! The one mapping of what went wrong to an HTTP answer.

use std::sync::Arc;

use axum::Json;
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use hopyard_contract::{FieldError, Problem};

/// What a handler returns when it cannot do what was asked.
#[derive(Debug)]
pub struct Refusal(pub Box<Problem>);

/// Result of a handler.
pub type Answer<T = Response> = Result<T, Refusal>;

impl Refusal {
    /// A problem without a field.
    pub fn new(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(status, code, detail)))
    }

    /// A problem made of field errors.
    pub fn of_errors(errors: Vec<FieldError>) -> Self {
        Self(Box::new(Problem::of_errors(errors)))
    }

    /// One field error with a status of its own.
    pub fn field(status: u16, code: &str, pointer: &str, detail: impl Into<String>) -> Self {
        let mut problem = Problem::of_errors(vec![FieldError::new(code, pointer, detail)]);
        problem.status = status;
        Self(Box::new(problem))
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
        let mut response = (status, Json(&*self.0)).into_response();
        // The frame writes the body again, with the id of the request.
        response.extensions_mut().insert(Arc::new(*self.0));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
