//! Workflows by HTTP, the writing half: store a version, or only check a definition.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::header::{ETAG, IF_MATCH, LOCATION};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{post, put};
use hopyard_contract::message::{PutDefinition, PutDefinitionReply};
use hopyard_contract::view::{ParsedDefinition, WorkflowView};
use hopyard_contract::{FieldError, Name};

use crate::accept::definition::put_definition;
use crate::accept::fields::read_name;
use crate::door::Door;
use crate::http::body::DefinitionBody;
use crate::http::{Namespace, OperationDoc, Route};
use crate::problem::{Answer, Refusal};

/// Routes of this module.
pub fn routes() -> Vec<Route> {
    vec![
        Route::new(
            Method::PUT,
            "/api/v1/workflows/{name}",
            put(on_put),
            OperationDoc::new("putWorkflow", "Stores a version of a workflow")
                .header("If-Match", "The quoted hash of the version to replace; another one is 412.")
                .body("application/yaml", "")
                .body("application/json", "definition")
                .json(201, "workflow", "The name is new")
                .json(200, "workflow", "A new version, or the version that it has already"),
        ),
        Route::new(
            Method::POST,
            "/api/v1/workflows/parse",
            post(on_parse),
            OperationDoc::new("parseWorkflow", "Checks a definition without storing it")
                .body("application/yaml", "")
                .body("application/json", "definition")
                .json(200, "parsed-definition", "The plan, or everything that is wrong"),
        )
        .global(),
    ]
}

async fn on_put(
    State(door): State<Door>,
    namespace: Namespace,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: DefinitionBody,
) -> Answer {
    let name: Name = read_name(&name).map_err(|(code, detail)| Refusal::field(422, code, "/name", detail))?;
    let definition = hopyard_definition::parse(&body.text, Some(&format!("{name}.{}", body.extension))).map_err(Refusal::of_errors)?;
    if definition.plan.name != name {
        let detail = format!("the definition is named `{}`, the path says `{name}`", definition.plan.name);
        return Err(Refusal::of_errors(vec![FieldError::new("name_mismatch", "/name", detail)]));
    }
    let if_match = match if_match(&headers)? {
        // Any version will do, but there has to be one; versions are never removed.
        Some(tag) if tag == "*" => {
            if door.reader.workflow(&namespace.name, &name, None).await?.is_none() {
                return Err(mismatch(&name));
            }
            None
        }
        other => other,
    };
    let hash = definition.hash.clone();
    let put = PutDefinition {
        namespace: namespace.name.clone(),
        name: name.clone(),
        source: definition.source,
        definition_hash: definition.hash,
        plan_hash: definition.plan.hash(),
        plan: definition.plan,
        register: true,
        if_match,
    };
    let (status, version) = match put_definition(&door.bus, &put).await? {
        PutDefinitionReply::Created { version } => (StatusCode::CREATED, version),
        PutDefinitionReply::Updated { version } | PutDefinitionReply::Unchanged { version } => (StatusCode::OK, version),
        PutDefinitionReply::Mismatch => return Err(mismatch(&name)),
    };
    let stored = door.reader.workflow(&namespace.name, &name, Some(version)).await?;
    let Some(stored) = stored else {
        return Err(Refusal::new(503, "store_unavailable", format!("version {version} of `{name}` is stored but cannot be read yet")));
    };
    answer(&namespace, status, &hash, WorkflowView { definition: None, plan: None, ..stored })
}

fn answer(namespace: &Namespace, status: StatusCode, hash: &str, view: WorkflowView) -> Answer {
    let location = if namespace.explicit {
        format!("/api/v1/namespaces/{}/workflows/{}", namespace.name, view.name)
    } else {
        format!("/api/v1/workflows/{}", view.name)
    };
    let etag = format!("\"{hash}\"");
    let response: Response = if status == StatusCode::CREATED {
        (status, [(ETAG, etag), (LOCATION, location)], Json(view)).into_response()
    } else {
        (status, [(ETAG, etag)], Json(view)).into_response()
    };
    Ok(response)
}

fn mismatch(name: &Name) -> Refusal {
    Refusal::new(412, "precondition_failed", format!("the workflow `{name}` does not have the version that If-Match names"))
}

/// The one entity tag of `If-Match`, without its quotes.
fn if_match(headers: &HeaderMap) -> Result<Option<String>, Refusal> {
    let Some(value) = headers.get(IF_MATCH) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(Some(text.to_owned()));
    }
    let tag = text.strip_prefix("W/").unwrap_or(text).strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    match tag {
        Some(tag) if !tag.is_empty() && !tag.contains('"') => Ok(Some(tag.to_owned())),
        _ => Err(Refusal::new(400, "bad_request", "If-Match holds one quoted hash, or `*`")),
    }
}

async fn on_parse(body: DefinitionBody) -> Answer<Json<ParsedDefinition>> {
    Ok(Json(match hopyard_definition::parse(&body.text, None) {
        Ok(definition) => ParsedDefinition {
            valid: true,
            name: Some(definition.plan.name.clone()),
            step_count: definition.plan.steps.len() as u64,
            trigger_count: 0,
            hash: Some(definition.hash),
            plan: Some(definition.plan),
            errors: Vec::new(),
        },
        Err(errors) => ParsedDefinition { valid: false, name: None, step_count: 0, trigger_count: 0, hash: None, plan: None, errors },
    }))
}
