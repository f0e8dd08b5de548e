//! Stored workflows: lists, one of them, and its versions.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, ETAG};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use hopyard_contract::Name;
use hopyard_contract::view::{Page, WorkflowView};

use super::params::{DEFAULT_LIMIT, Params, bad, number};
use super::{cursor, sse};
use crate::door::Door;
use crate::http::Namespace;
use crate::problem::{Answer, Refusal};

const LIST: &str = "workflows";

/// `GET /workflows`.
pub(crate) async fn on_list(State(door): State<Door>, namespace: Namespace, params: Params) -> Answer<Json<Page<WorkflowView>>> {
    params.allow(&["limit", "cursor"], &[])?;
    let limit = params.limit(DEFAULT_LIMIT)?;
    let after = cursor::read::<Name>(&params, LIST, &namespace.name)?;
    let mut items = door.reader.workflows(&namespace.name, after.as_ref(), limit + 1).await?;
    let more = items.len() > limit as usize;
    items.truncate(limit as usize);
    let next_cursor = items.last().filter(|_| more).map(|last| cursor::seal(LIST, &namespace.name, last.name.as_str()));
    Ok(Json(Page { items, next_cursor }))
}

/// `GET /workflows/{name}`.
pub(crate) async fn on_get(
    State(door): State<Door>,
    namespace: Namespace,
    Path(name): Path<String>,
    params: Params,
    headers: HeaderMap,
) -> Answer<Response> {
    params.allow(&["version"], &[])?;
    let version = version(&params)?;
    let name: Name = name.parse().map_err(|_| unknown())?;
    let view = door.reader.workflow(&namespace.name, &name, version).await?.ok_or_else(unknown)?;
    let tag = format!("\"{}\"", view.hash);
    let mut answered = if sse::header(&headers, "if-none-match").is_some_and(|known| matches(known, &tag)) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        Json(view).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        answered.headers_mut().insert(ETAG, tag);
    }
    answered.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(answered)
}

/// `GET /workflows/{name}/versions`.
pub(crate) async fn on_versions(
    State(door): State<Door>,
    namespace: Namespace,
    Path(name): Path<String>,
    params: Params,
) -> Answer<Json<Page<WorkflowView>>> {
    params.allow(&[], &[])?;
    let name: Name = name.parse().map_err(|_| unknown())?;
    let items = door.reader.workflow_versions(&namespace.name, &name).await?;
    if items.is_empty() { Err(unknown()) } else { Ok(Json(Page { items, next_cursor: None })) }
}

fn version(params: &Params) -> Answer<Option<u32>> {
    match params.one("version").map(number) {
        None => Ok(None),
        Some(Some(version)) if version > 0 && i32::try_from(version).is_ok() => Ok(u32::try_from(version).ok()),
        _ => Err(bad("version", 400, "bad_version", "is a number from 1")),
    }
}

fn matches(known: &str, tag: &str) -> bool {
    known.split(',').map(str::trim).any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

fn unknown() -> Refusal {
    Refusal::new(404, "unknown_workflow", "there is no such workflow or version")
}

#[cfg(test)]
mod tests {
    use super::super::params::tests::{params, told};
    use super::*;

    #[test]
    fn versions_count_from_one() {
        for text in ["0", "-1", "x", "", "1.0", "4294967296", "2147483648"] {
            assert_eq!(told(version(&params(&format!("version={text}")))), (400, "bad_version".to_owned()), "{text}");
        }
        assert_eq!(version(&params("version=3")).unwrap(), Some(3));
        assert_eq!(version(&params("")).unwrap(), None);
    }

    #[test]
    fn a_known_tag_matches_in_every_form() {
        for known in ["\"abc\"", "W/\"abc\"", "\"x\", \"abc\"", "*"] {
            assert!(matches(known, "\"abc\""), "{known}");
        }
        assert!(!matches("\"abcd\"", "\"abc\"") && !matches("abc", "\"abc\""));
    }
}
