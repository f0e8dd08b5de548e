//! Which wire a request speaks, by its path, and whether it is a call of a model.

use axum::extract::Request;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};

use super::refusal;
use crate::wire::Wire;

/// Where a request goes.
#[derive(Clone, Debug)]
pub(super) struct Route {
    pub(super) wire: Wire,
    /// Path below the provider's address, with the query.
    pub(super) path: String,
    /// Whether tokens are used: counting them, or asking which models there are, uses none.
    pub(super) metered: bool,
    presented: Option<String>,
}

impl Route {
    /// Whether the request has the agent's token. It is compared in full: its length is no secret, and its bytes take the same
    /// time whatever they are.
    pub(super) fn presents(&self, token: &str) -> bool {
        let presented = self.presented.as_deref().unwrap_or_default();
        presented.len() == token.len() && presented.bytes().zip(token.bytes()).fold(0, |differs, (a, b)| differs | (a ^ b)) == 0
    }
}

/// The route of a request.
///
/// # Errors
/// The answer to a request that goes nowhere.
pub(super) fn of(request: &Request) -> Result<Route, Box<Response>> {
    let uri = request.uri();
    let path = uri.path();
    // Claude Code looks whether anybody is there.
    if request.method() == Method::HEAD && path == "/" {
        return Err(Box::new(StatusCode::OK.into_response()));
    }
    let posted = request.method() == Method::POST;
    let (wire, metered) = match path.strip_prefix("/v1/").unwrap_or(path) {
        "messages" => (Wire::Anthropic, posted),
        "messages/count_tokens" => (Wire::Anthropic, false),
        "responses" => (Wire::Responses, posted),
        "chat/completions" => (Wire::Chat, posted),
        _ if path.starts_with("/v1beta/models/") => {
            (Wire::Gemini, posted && (path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent")))
        }
        _ => return Err(Box::new(refusal::no_such_path(path))),
    };
    let path = uri.path_and_query().map_or(path, axum::http::uri::PathAndQuery::as_str).to_owned();
    Ok(Route { wire, path, metered, presented: presented(request.headers(), uri.query()) })
}

/// The token of a request, wherever its wire puts it.
fn presented(headers: &HeaderMap, query: Option<&str>) -> Option<String> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    let key = query.and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("key=")));
    header("x-api-key").or(bearer).or_else(|| header("x-goog-api-key")).or(key).map(str::to_owned)
}
