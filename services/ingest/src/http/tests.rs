//! The table of routes, the document made of it, and the frame around every request.

use std::collections::BTreeSet;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use hopyard_contract::submit::MAX_HTTP_BODY;
use http_body_util::BodyExt as _;
use hyper_util::service::TowerToHyperService;
use serde_json::{Value, json};

use super::*;

#[test]
fn every_route_stands_once_and_has_its_own_id() {
    let (mut seen, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for route in table() {
        assert!(seen.insert((route.method.to_string(), route.path)), "{} {} stands twice", route.method, route.path);
        assert!(ids.insert(route.operation.id), "{} stands twice", route.operation.id);
        assert!(route.path.starts_with(PREFIX) || !route.namespaced || !route.path.starts_with("/api"), "{}", route.path);
    }
    assert!(seen.len() > 20);
}

#[test]
fn the_document_is_whole() {
    let document = openapi::document(&table(), meta::schemas());
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/api/v1/runs") && paths.contains_key("/api/v1/namespaces/{ns}/runs"));
    assert!(!paths.contains_key("/api/v1/namespaces/{ns}/version"));
    let mut ids = BTreeSet::new();
    for (path, operations) in paths {
        for (method, operation) in operations.as_object().unwrap() {
            assert!(ids.insert(operation["operationId"].as_str().unwrap().to_owned()), "{method} {path}");
            let named: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .filter(|p| p["in"] == "path")
                .filter_map(|p| p["name"].as_str())
                .collect();
            let wanted: BTreeSet<&str> = path.split('/').filter_map(|p| p.strip_prefix('{')?.strip_suffix('}')).collect();
            assert_eq!(named, wanted, "{path}");
            assert!(operation["responses"].as_object().unwrap().len() > 1, "{method} {path} has no answer");
        }
    }
    references(&document, &document);
}

fn references(value: &Value, document: &Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get("$ref") {
                assert!(document.pointer(target.trim_start_matches('#')).is_some(), "{target} leads nowhere");
            }
            map.values().for_each(|inner| references(inner, document));
        }
        Value::Array(items) => items.iter().for_each(|inner| references(inner, document)),
        _ => {}
    }
}

/// A small service inside of the real frame.
fn framed() -> Router {
    let routes = Router::new()
        .route(
            "/api/v1/echo",
            post(|namespace: Namespace, body::JsonBody(value): body::JsonBody| async move {
                axum::Json(json!({"namespace": namespace.name, "body": value}))
            }),
        )
        .route("/api/v1/maybe", post(|body::OptionalJson(value): body::OptionalJson| async move { axum::Json(value) }))
        .route(
            "/api/v1/panic",
            get(|| async {
                if true {
                    panic!("a secret")
                }
            }),
        )
        .route("/api/v1/things/{n}", get(|axum::extract::Path(n): axum::extract::Path<u32>| async move { n.to_string() }))
        .route_layer(from_fn(|request: Request<Body>, next: Next| async move {
            matched(&BTreeSet::from(["/api/v1/panic"]), request, next).await
        }))
        .fallback(|| async { Refusal::new(404, "unknown_route", "there is no such route") });
    Router::new().fallback_service(routes).layer(from_fn(frame::frame))
}

async fn send(request: Request<Body>) -> (StatusCode, axum::http::HeaderMap, Value) {
    use hyper::service::Service as _;
    let response = TowerToHyperService::new(framed()).call(request).await.unwrap();
    let (head, body) = response.into_parts();
    let bytes = body.collect().await.unwrap().to_bytes();
    (head.status, head.headers, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
}

fn post_json(path: &str, media: &str, body: impl Into<Body>) -> Request<Body> {
    Request::post(path).header("content-type", media).body(body.into()).unwrap()
}

#[tokio::test]
async fn every_refusal_is_a_problem_with_its_request_id() {
    let get = |path: &str| Request::get(path).body(Body::empty()).unwrap();
    let long = format!("/api/v1/things/1?x={}", "x".repeat(9000));
    let gzip = Request::post("/api/v1/echo")
        .header("content-type", "application/json")
        .header("content-encoding", "gzip")
        .body(Body::from("{}"))
        .unwrap();
    let huge = Request::post("/api/v1/echo")
        .header("content-type", "application/json")
        .header("content-length", "99999999")
        .body(Body::empty())
        .unwrap();
    let unclear =
        Request::post("/api/v1/echo").header("content-length", "2").header("transfer-encoding", "chunked").body(Body::from("{}")).unwrap();
    for (request, status, code) in [
        (get("/api/v1/nope"), 404, "unknown_route"),
        (get("/"), 404, "unknown_route"),
        (get("/api/v1/runs/../admin"), 404, "unknown_route"),
        (get("/api/v1/echo"), 405, "method_not_allowed"),
        (get("/api/v1/things/abc"), 400, "bad_request"),
        (get("/api/v1/things/%ff"), 400, "bad_request"),
        (get(&long), 414, "url_too_long"),
        (get("/api/v1/panic"), 500, "internal"),
        (get("/api/v1/namespaces/default/panic"), 404, "unknown_route"),
        (get("/api/v1/namespaces/A.B/things/1"), 404, "unknown_namespace"),
        (get("/api/v1/namespaces/%64efault/things/1"), 404, "unknown_namespace"),
        (get("/api/v1/namespaces/default"), 404, "unknown_namespace"),
        (post_json("/api/v1/echo", "application/json", "{"), 400, "json_syntax"),
        (post_json("/api/v1/echo", "application/json", ""), 400, "json_syntax"),
        (post_json("/api/v1/echo", "text/plain", "{}"), 415, "unsupported_media_type"),
        (post_json("/api/v1/echo", "multipart/form-data", "{}"), 415, "unsupported_media_type"),
        (post_json("/api/v1/echo", "application/json; charset=utf-16", "{}"), 415, "unsupported_media_type"),
        (post_json("/api/v1/echo", "application/jsonp", "{}"), 415, "unsupported_media_type"),
        (Request::post("/api/v1/echo").body(Body::from("{}")).unwrap(), 415, "unsupported_media_type"),
        (Request::post("/api/v1/maybe").body(Body::from("{}")).unwrap(), 415, "unsupported_media_type"),
        (gzip, 415, "unsupported_media_type"),
        (huge, 413, "too_large"),
        (post_json("/api/v1/echo", "application/json", vec![b' '; MAX_HTTP_BODY + 1]), 413, "too_large"),
        (unclear, 400, "bad_request"),
    ] {
        let what = format!("{} {}", request.method(), request.uri().path());
        let (got, headers, body) = send(request).await;
        assert_eq!((got.as_u16(), body["code"].as_str()), (status, Some(code)), "{what}");
        assert_eq!(headers["content-type"], "application/problem+json", "{what}");
        assert_eq!(body["request_id"].as_str(), headers["x-request-id"].to_str().ok(), "{what}");
        assert_eq!(
            (body["status"].as_u64(), body["type"].as_str()),
            (Some(u64::from(status)), Some(format!("https://hopyard.dev/problems/{code}").as_str())),
            "{what}"
        );
        assert!(!body.to_string().contains("secret"), "{what}");
    }
}

#[tokio::test]
async fn request_ids_come_back_when_they_are_plain() {
    for (sent, kept) in [("abc-1.2:3_4", true), ("with space", false), ("\u{e9}", false), ("", false), (&"x".repeat(129), false)] {
        let request = Request::get("/api/v1/things/7")
            .header("x-request-id", axum::http::HeaderValue::from_bytes(sent.as_bytes()).unwrap())
            .body(Body::empty())
            .unwrap();
        let (status, headers, _) = send(request).await;
        assert_eq!(status, 200);
        assert_eq!(headers["x-request-id"].as_bytes() == sent.as_bytes(), kept, "{sent}");
    }
}

#[tokio::test]
async fn methods_are_told() {
    let options = Request::builder().method("OPTIONS").uri("/api/v1/echo").body(Body::empty()).unwrap();
    let (status, headers, _) = send(options).await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().ok()), (204, Some("POST")));
    let (status, headers, _) = send(Request::get("/api/v1/echo").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), headers["allow"].to_str().ok()), (405, Some("POST")));
    let (status, _, body) = send(Request::head("/api/v1/things/7").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), body), (200, Value::Null));
}

#[tokio::test]
async fn the_namespace_comes_from_the_path_alone() {
    for (path, namespace) in
        [("/api/v1/echo", "default"), ("/api/v1/namespaces/team-a/echo", "team-a"), ("/api/v1/namespaces/default/echo?x=1", "default")]
    {
        let (status, _, body) = send(post_json(path, "application/json; charset=UTF-8", r#"{"a":1}"#)).await;
        assert_eq!(status, 200, "{path}");
        assert_eq!(body, json!({"namespace": namespace, "body": {"a": 1}}));
    }
    let (status, _, body) = send(Request::post("/api/v1/maybe").body(Body::empty()).unwrap()).await;
    assert_eq!((status.as_u16(), body), (200, Value::Null));
}
