//! What a gateway refuses, in the form that the program at the other end understands, with a status that it does not try again.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use serde_json::json;

use crate::wire::Wire;

/// The token is not the step's.
pub(super) fn unauthorised(wire: Wire) -> Response {
    shaped(wire, StatusCode::UNAUTHORIZED, "authentication_error", "the token is not the one of this step")
}

/// A call that the budget does not allow.
pub(super) fn over_budget(wire: Wire, detail: &str) -> Response {
    shaped(wire, StatusCode::FORBIDDEN, "budget_exceeded", detail)
}

/// A call that the provider would not take for long.
pub(super) fn limited(wire: Wire, detail: &str) -> Response {
    shaped(wire, StatusCode::FORBIDDEN, "usage_limit", detail)
}

/// The step is over, or its lease is.
pub(super) fn step_is_over(wire: Wire) -> Response {
    shaped(wire, StatusCode::FORBIDDEN, "step_over", "the step is over; nothing more is passed on")
}

/// The step's provider speaks another wire.
pub(super) fn other_wire(wire: Wire, provider: &str) -> Response {
    let detail = format!("the provider {provider} of this step speaks another wire than the one of this path");
    shaped(wire, StatusCode::NOT_FOUND, "not_found_error", &detail)
}

/// The body is too long, or no JSON.
pub(super) fn bad_body(wire: Wire, detail: &str) -> Response {
    shaped(wire, StatusCode::BAD_REQUEST, "invalid_request_error", detail)
}

/// The provider cannot be reached; a program may try again.
pub(super) fn unreachable(wire: Wire, detail: &str) -> Response {
    shaped(wire, StatusCode::BAD_GATEWAY, "api_error", detail)
}

/// No wire has this path.
pub(super) fn no_such_path(path: &str) -> Response {
    let detail = format!("the gateway passes on model calls only, and knows no {path}");
    (StatusCode::NOT_FOUND, Json(json!({ "error": { "type": "not_found_error", "message": detail } }))).into_response()
}

fn shaped(wire: Wire, status: StatusCode, code: &str, detail: &str) -> Response {
    let body = match wire {
        Wire::Anthropic => json!({ "type": "error", "error": { "type": code, "message": detail } }),
        Wire::Responses | Wire::Chat => json!({ "error": { "type": code, "code": code, "message": detail, "param": null } }),
        Wire::Gemini => json!({ "error": { "code": status.as_u16(), "status": code.to_ascii_uppercase(), "message": detail } }),
    };
    (status, Json(body)).into_response()
}
