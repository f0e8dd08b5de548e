//! What a run hands back once it has ended: patch, bundle, outputs, and every blob by name.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::response::Response;
use bytes::Bytes;
use hopyard_blobs::{Blobs, Digest};
use hopyard_contract::run::{BlobRef, RunState};
use hopyard_contract::view::{ResultView, RunView};
use schemars::JsonSchema;
use serde::Serialize;

use super::params::Params;
use super::runs;
use crate::door::Door;
use crate::http::{Namespace, PREFIX, run_id};
use crate::problem::{Answer, Refusal};

/// Bytes of a blob read at once; smaller ones are also compared with their digest.
const READ: u64 = 1024 * 1024;
const PATCH: &str = "changes.patch";
const BUNDLE: &str = "changes.bundle";
/// How the name of a record of models ends.
const RECORD: &str = ".record.json";
const DIFF_TYPE: &str = "text/x-diff; charset=utf-8";
const BUNDLE_TYPE: &str = "application/x-git-bundle";

/// A blob of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Artifact {
    /// Name, unique within the run.
    name: String,
    /// Length in bytes.
    size: u64,
    /// SHA-256 of its bytes in hex.
    sha256: String,
    /// Where to load it.
    url: String,
}

/// All blobs of a run.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(crate) struct Artifacts {
    /// Patch and bundle first, then logs, then records of agents.
    items: Vec<Artifact>,
}

/// `GET /runs/{id}/diff`.
pub(crate) async fn on_diff(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>, params: Params) -> Answer<Response> {
    let state = ended(&door, &namespace, &id, &params).await?;
    let name = format!("{}.patch", state.run.id);
    match state.run.result.and_then(|git| git.patch) {
        Some(blob) => serve(&door.blobs, &blob, DIFF_TYPE, &name, "inline").await,
        None => Ok(response(Body::empty(), 0, DIFF_TYPE, &name, "inline")),
    }
}

/// `GET /runs/{id}/bundle`.
pub(crate) async fn on_bundle(State(door): State<Door>, namespace: Namespace, Path(id): Path<String>, params: Params) -> Answer<Response> {
    let state = ended(&door, &namespace, &id, &params).await?;
    let blob = state.run.result.and_then(|git| git.bundle);
    let blob = blob.ok_or_else(|| Refusal::new(404, "no_changes", "the run changed nothing, so there is no bundle"))?;
    serve(&door.blobs, &blob, BUNDLE_TYPE, &format!("{}.bundle", state.run.id), "attachment").await
}

/// `GET /runs/{id}/result`.
pub(crate) async fn on_result(
    State(door): State<Door>,
    namespace: Namespace,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Json<ResultView>> {
    let state = ended(&door, &namespace, &id, &params).await?;
    let result = RunView::of(&state).result;
    Ok(Json(result.unwrap_or_else(|| ResultView { git: None, outputs: std::collections::BTreeMap::new() })))
}

/// `GET /runs/{id}/artifacts`.
pub(crate) async fn on_artifacts(
    State(door): State<Door>,
    namespace: Namespace,
    Path(id): Path<String>,
    params: Params,
) -> Answer<Json<Artifacts>> {
    let state = ended(&door, &namespace, &id, &params).await?;
    let base = match namespace.explicit {
        true => format!("{PREFIX}/namespaces/{}/runs/{}/artifacts", namespace.name, state.run.id),
        false => format!("{PREFIX}/runs/{}/artifacts", state.run.id),
    };
    let item = |(name, blob): (String, &BlobRef)| Artifact {
        url: format!("{base}/{name}"),
        name,
        size: blob.size,
        sha256: blob.digest.strip_prefix("sha256:").unwrap_or(&blob.digest).to_owned(),
    };
    Ok(Json(Artifacts { items: blobs_of(&state).into_iter().map(item).collect() }))
}

/// `GET /runs/{id}/artifacts/{name}`.
pub(crate) async fn on_artifact(
    State(door): State<Door>,
    namespace: Namespace,
    Path((id, name)): Path<(String, String)>,
    params: Params,
) -> Answer<Response> {
    let state = ended(&door, &namespace, &id, &params).await?;
    // Names are compared with those of the run and lead nowhere else.
    let found = blobs_of(&state).into_iter().find(|(known, _)| *known == name);
    let (name, blob) = found.ok_or_else(|| Refusal::new(404, "unknown_artifact", "the run has no such artifact"))?;
    let kind = match name.as_str() {
        _ if name.ends_with(PATCH) => DIFF_TYPE,
        _ if name.ends_with(BUNDLE) => BUNDLE_TYPE,
        _ if name.ends_with(RECORD) => "application/json",
        _ => "application/zstd",
    };
    serve(&door.blobs, blob, kind, &format!("{}-{name}", state.run.id), "attachment").await
}

/// The run, if it has ended.
async fn ended(door: &Door, namespace: &Namespace, id: &str, params: &Params) -> Answer<RunState> {
    params.allow(&[], &[])?;
    let state = runs::of(door, &namespace.name, run_id(id)?).await?;
    if state.run.status.is_final() {
        return Ok(state);
    }
    let detail = format!("the run is {}; its results are there when it has ended: wait with `?wait=60s` on the run", state.run.status);
    Err(Refusal::new(409, "not_final", detail))
}

/// Every blob of a run by name; step names have no dot, so that names are unique.
fn blobs_of(state: &RunState) -> Vec<(String, &BlobRef)> {
    let git = state.run.result.as_ref();
    let mut blobs = Vec::new();
    blobs.extend(git.and_then(|g| g.patch.as_ref()).map(|b| (PATCH.to_owned(), b)));
    blobs.extend(git.and_then(|g| g.bundle.as_ref()).map(|b| (BUNDLE.to_owned(), b)));
    // What variants did has the names of their agents' steps.
    for step in &state.steps {
        let parts = step.result.iter().flat_map(|git| [(PATCH, git.patch.as_ref()), (BUNDLE, git.bundle.as_ref())]);
        blobs.extend(parts.filter_map(|(kind, blob)| Some((format!("{}.{kind}", step.id), blob?))));
    }
    // The stored form of a log holds streams and times too, so it is no plain text.
    blobs.extend(state.attempts.iter().filter_map(|a| a.log.as_ref().map(|b| (format!("{}.{}.spool.zst", a.step, a.n), b))));
    blobs.extend(state.attempts.iter().filter_map(|a| a.record.as_ref().map(|b| (format!("{}.{}{RECORD}", a.step, a.n), b))));
    blobs
}

/// Answers with a blob.
async fn serve(blobs: &Blobs, blob: &BlobRef, kind: &'static str, file: &str, disposition: &str) -> Answer<Response> {
    let digest: Digest = blob.digest.parse().map_err(|e| unreadable(&e))?;
    let size = blobs.size(&digest).await.map_err(|e| unreadable(&e))?;
    let body = if size <= READ {
        Body::from(blobs.get(&digest).await.map_err(|e| unreadable(&e))?)
    } else {
        Body::from_stream(pieces(blobs.clone(), digest, size))
    };
    Ok(response(body, size, kind, file, disposition))
}

fn pieces(blobs: Blobs, digest: Digest, size: u64) -> impl futures::Stream<Item = Result<Bytes, hopyard_blobs::Error>> {
    futures::stream::try_unfold(0u64, move |at| {
        let blobs = blobs.clone();
        async move {
            if at >= size {
                return Ok(None);
            }
            let bytes = blobs.get_range(&digest, at..(at + READ).min(size)).await?;
            // Fewer bytes than promised break the connection off, which is what the reader has to see.
            let next = if bytes.is_empty() { size } else { at + bytes.len() as u64 };
            Ok(Some((bytes, next)))
        }
    })
}

fn response(body: Body, size: u64, kind: &'static str, file: &str, disposition: &str) -> Response {
    let mut headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CONTENT_LENGTH, HeaderValue::from(size)),
        (CACHE_CONTROL, HeaderValue::from_static("private, max-age=31536000, immutable")),
        (HeaderName::from_static("x-content-type-options"), HeaderValue::from_static("nosniff")),
    ]);
    if let Ok(value) = HeaderValue::from_str(&format!("{disposition}; filename=\"{}\"", safe(file))) {
        headers.insert(CONTENT_DISPOSITION, value);
    }
    let mut response = Response::new(body);
    *response.headers_mut() = headers;
    response
}

/// A file name that means the same everywhere, whatever the name was.
fn safe(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_') { c } else { '_' };
    name.trim_start_matches('.').chars().map(plain).take(200).collect()
}

/// A blob that should be there and cannot be read.
pub(crate) fn unreadable(error: &hopyard_blobs::Error) -> Refusal {
    tracing::warn!(%error, "a blob cannot be read");
    Refusal::new(
        503,
        "blob_unavailable",
        "the blob store does not have it or does not answer; see the setting HOPYARD_BLOBS of executors and doors",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::to_bytes;

    #[test]
    fn file_names_are_safe() {
        for (name, wanted) in [
            ("019a-changes.patch", "019a-changes.patch"),
            ("../../etc/passwd", "_.._etc_passwd"),
            ("a\"; filename=\"b", "a___filename__b"),
            ("a\r\nX: 1", "a__X__1"),
            (".bashrc", "bashrc"),
            ("é", "_"),
        ] {
            assert_eq!(safe(name), wanted);
        }
    }

    #[tokio::test]
    async fn a_blob_is_served_whole_whatever_its_length() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::open(dir.path().to_str().unwrap()).unwrap();
        for len in [0, 1, READ, READ + 1, 3 * READ + 7] {
            let bytes: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
            let blob = blobs.put_bytes(bytes.clone().into()).await.unwrap();
            let blob = BlobRef { digest: blob.digest.to_string(), size: blob.size };
            let response = serve(&blobs, &blob, BUNDLE_TYPE, "x.bundle", "attachment").await.unwrap();
            assert_eq!(response.headers()[CONTENT_LENGTH], len.to_string());
            assert_eq!(response.headers()[CONTENT_DISPOSITION], "attachment; filename=\"x.bundle\"");
            assert!(to_bytes(response.into_body(), usize::MAX).await.unwrap() == bytes, "{len}");
        }
    }
}
