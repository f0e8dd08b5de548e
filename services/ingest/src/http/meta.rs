//! What the API says about itself: schemas, OpenAPI document, version, and the probes at the root.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use hopyard_contract::view::Health;
use serde_json::{Value, json};

use super::{OperationDoc, Route, openapi};
use crate::door::Door;
use crate::health;
use crate::problem::{Answer, Refusal};

/// Routes of this module.
pub fn routes() -> Vec<Route> {
    let probe = |path, id, summary, handler| {
        let doc =
            OperationDoc::new(id, summary).json(200, "health", "Everything it looks at is well").json(503, "health", "Something is not");
        Route::new(Method::GET, path, handler, doc).global()
    };
    vec![
        probe("/livez", "getLive", "Whether the process answers", get(|| async { Json(Health::of(BTreeMap::new())) })),
        probe("/readyz", "getReady", "Whether this process can do its own part", get(on_ready)),
        probe("/health", "getHealth", "Whether runs get ahead as a whole", get(on_health)),
        Route::new(
            Method::GET,
            "/api/v1/schemas",
            get(on_schemas),
            OperationDoc::new("listSchemas", "Names of the JSON Schemas").json(200, "", "Names"),
        )
        .global(),
        Route::new(
            Method::GET,
            "/api/v1/schemas/{name}",
            get(on_schema),
            OperationDoc::new("getSchema", "One JSON Schema").answer(200, "application/schema+json", "", "The schema"),
        )
        .global(),
        Route::new(
            Method::GET,
            "/api/v1/openapi.json",
            get(on_openapi),
            OperationDoc::new("getOpenApi", "This document").json(200, "", "OpenAPI 3.1"),
        )
        .global(),
        Route::new(
            Method::GET,
            "/api/v1/version",
            get(on_version),
            OperationDoc::new("getVersion", "Version of the program").json(200, "", "Version"),
        )
        .global(),
    ]
}

/// All schemas by name: those of the contract and that of definitions.
pub fn schemas() -> &'static BTreeMap<&'static str, Value> {
    static CELL: OnceLock<BTreeMap<&'static str, Value>> = OnceLock::new();
    CELL.get_or_init(|| {
        let mut schemas: BTreeMap<_, _> = hopyard_contract::schema::all().into_iter().collect();
        schemas.insert("definition", hopyard_definition::schema());
        schemas
    })
}

async fn on_schemas() -> Json<Value> {
    Json(
        json!({ "items": schemas().keys().map(|name| json!({ "name": name, "url": format!("/api/v1/schemas/{name}") })).collect::<Vec<_>>() }),
    )
}

async fn on_schema(Path(name): Path<String>) -> Answer {
    match schemas().get(name.strip_suffix(".json").unwrap_or(&name)) {
        Some(schema) => Ok(([("content-type", "application/schema+json")], Json(schema)).into_response()),
        None => Err(Refusal::new(404, "unknown_schema", "there is no such schema; see /api/v1/schemas")),
    }
}

async fn on_openapi() -> Json<&'static Value> {
    static CELL: OnceLock<Value> = OnceLock::new();
    Json(CELL.get_or_init(|| openapi::document(&super::table(), schemas())))
}

async fn on_version() -> Json<Value> {
    Json(json!({ "version": env!("CARGO_PKG_VERSION"), "api": "v1" }))
}

async fn on_ready(State(door): State<Door>) -> Response {
    answer(door.readiness.health())
}

async fn on_health(State(door): State<Door>) -> Response {
    answer(health::health(&door).await)
}

fn answer(health: Health) -> Response {
    let status = if health.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(health)).into_response()
}
