//! Bodies of requests: exact media types, bounded size, bounded time.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use hopyard_contract::submit::MAX_HTTP_BODY;
use hopyard_contract::{FieldError, json};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde_json::Value;

use crate::problem::Refusal;

/// Longest time from the head of a request to the end of its body.
const PATIENCE: Duration = Duration::from_secs(30);

/// Media types of definitions.
const YAML: [&str; 4] = ["application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"];

/// The answer to a body over 1 MiB.
pub(crate) fn too_large() -> Refusal {
    Refusal::new(413, "too_large", format!("a body has at most {MAX_HTTP_BODY} bytes"))
}

/// A JSON body, already past the strict reader.
#[derive(Debug)]
pub struct JsonBody(pub Value);

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalJson(pub Option<Value>);

/// A definition: YAML or JSON text.
#[derive(Debug)]
pub struct DefinitionBody {
    /// The text.
    pub text: String,
    /// `yaml` or `json`, as the sender named it.
    pub extension: &'static str,
}

impl<S: Sync> FromRequest<S> for JsonBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        if media(request.headers())? != Some("application/json".to_owned()) {
            return Err(unsupported("the body is sent as application/json"));
        }
        Ok(Self(parse(&read(request.into_body()).await?)?))
    }
}

impl<S: Sync> FromRequest<S> for OptionalJson {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let media = media(request.headers())?;
        let body = read(request.into_body()).await?;
        match media {
            _ if body.is_empty() => Ok(Self(None)),
            Some(media) if media == "application/json" => Ok(Self(Some(parse(&body)?))),
            _ => Err(unsupported("the body is sent as application/json")),
        }
    }
}

impl<S: Sync> FromRequest<S> for DefinitionBody {
    type Rejection = Refusal;

    async fn from_request(request: Request, _: &S) -> Result<Self, Refusal> {
        let extension = match media(request.headers())? {
            Some(media) if media == "application/json" => "json",
            Some(media) if YAML.contains(&media.as_str()) => "yaml",
            _ => return Err(unsupported("a definition is sent as application/yaml or application/json")),
        };
        let body = read(request.into_body()).await?;
        match String::from_utf8(body.into()) {
            Ok(text) => Ok(Self { text, extension }),
            Err(error) => {
                Err(Refusal::field(400, "yaml_syntax", "", format!("the body is not UTF-8 at byte {}", error.utf8_error().valid_up_to())))
            }
        }
    }
}

fn unsupported(detail: &str) -> Refusal {
    Refusal::new(415, "unsupported_media_type", detail)
}

fn parse(body: &[u8]) -> Result<Value, Refusal> {
    json::parse(body).map_err(|e: FieldError| Refusal::of_errors(vec![e]))
}

/// The media type without its only allowed parameter, `charset=utf-8`.
fn media(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    if headers.get(CONTENT_ENCODING).is_some_and(|e| !e.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(unsupported("bodies are sent without a content encoding"));
    }
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unsupported("the body has more than one media type"));
    }
    let text = value.to_str().map_err(|_| unsupported("the media type cannot be read"))?.to_ascii_lowercase();
    let mut parts = text.split(';').map(str::trim);
    let media = parts.next().unwrap_or_default().to_owned();
    for parameter in parts {
        if !matches!(parameter, "charset=utf-8" | "charset=\"utf-8\"" | "") {
            return Err(unsupported("bodies are UTF-8"));
        }
    }
    Ok(Some(media))
}

async fn read(body: Body) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(PATIENCE, Limited::new(body, MAX_HTTP_BODY).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(Refusal::new(400, "bad_request", "the body ended before it was complete")),
        Err(_) => Err(Refusal::new(408, "request_timeout", "the body did not arrive within 30 s")),
    }
}
