//! The OpenAPI 3.1 document, made from the table of routes and the schemas of the contract.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{OperationDoc, PREFIX, Route, Shape};

/// Makes the document.
pub fn document(routes: &[Route], schemas: &BTreeMap<&'static str, Value>) -> Value {
    let mut paths: BTreeMap<String, Map<String, Value>> = BTreeMap::new();
    for route in routes {
        let method = route.method.as_str().to_ascii_lowercase();
        paths.entry(route.path.to_owned()).or_default().insert(method.clone(), operation(route.path, &route.operation, ""));
        if let Some(rest) = route.path.strip_prefix(PREFIX)
            && route.namespaced
        {
            let path = format!("{PREFIX}/namespaces/{{ns}}{rest}");
            let operation = operation(&path, &route.operation, "InNamespace");
            paths.entry(path).or_default().insert(method, operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Hopyard",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Runs workflows of shell, model and agent steps in isolated workspaces. Paths without a namespace mean the namespace `default`.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": components(schemas) },
    })
}

fn operation(path: &str, doc: &OperationDoc, suffix: &str) -> Value {
    let mut parameters: Vec<Value> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({ "in": "path", "name": name, "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(
        doc.parameters
            .iter()
            .map(|p| json!({ "in": p.place, "name": p.name, "required": false, "description": p.doc, "schema": schema_of(p.shape) })),
    );
    let mut responses = Map::new();
    for response in &doc.responses {
        let entry = responses.entry(response.status.to_string()).or_insert_with(|| json!({ "description": response.doc, "content": {} }));
        // An answer without a body has no media type.
        if !response.media.is_empty() {
            entry["content"][response.media] = media(response.schema);
        }
    }
    responses.insert(
        "default".to_owned(),
        json!({ "description": "What was refused, and why", "content": { "application/problem+json": media("problem") } }),
    );
    let mut operation = json!({
        "operationId": format!("{}{suffix}", doc.id),
        "summary": doc.summary,
        "parameters": parameters,
        "responses": responses,
    });
    if !doc.request.is_empty() {
        let content: Map<String, Value> =
            doc.request.iter().map(|(media_type, schema)| ((*media_type).to_owned(), media(schema))).collect();
        operation["requestBody"] = json!({ "required": !doc.request_optional, "content": content });
    }
    operation
}

fn schema_of(shape: Shape) -> Value {
    match shape {
        Shape::Text => json!({ "type": "string" }),
        Shape::Line(most) => json!({ "type": "string", "minLength": 1, "maxLength": most }),
        Shape::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Shape::Name => json!({ "type": "string", "pattern": "^[a-z0-9_][a-z0-9_-]{0,63}$" }),
        Shape::Time => json!({ "type": "string", "format": "date-time" }),
        Shape::Duration => json!({ "type": "string", "pattern": "^[0-9]{1,9}(ms|s|m|h|d)$" }),
        Shape::Word(words) => json!({ "type": "string", "enum": words }),
    }
}

fn media(schema: &str) -> Value {
    if schema.is_empty() { json!({}) } else { json!({ "schema": { "$ref": format!("#/components/schemas/{schema}") } }) }
}

/// All schemas side by side: what each defines for itself moves up, since a document has one place for them.
fn components(schemas: &BTreeMap<&'static str, Value>) -> Map<String, Value> {
    let mut components = Map::new();
    for (name, schema) in schemas {
        let mut schema = schema.clone();
        // The definition's schema is published by itself and may define what it likes under its own name.
        let prefix = if *name == "definition" { "Definition" } else { "" };
        relocate(&mut schema, prefix);
        if let Value::Object(map) = &mut schema {
            map.remove("$schema");
            map.remove("$id");
            if let Some(Value::Object(inner)) = map.remove("$defs") {
                components.extend(inner.into_iter().map(|(key, value)| (format!("{prefix}{key}"), value)));
            }
        }
        components.insert((*name).to_owned(), schema);
    }
    components
}

fn relocate(value: &mut Value, prefix: &str) {
    match value {
        Value::Object(map) => {
            for (key, inner) in map.iter_mut() {
                match inner {
                    Value::String(text) if key == "$ref" => {
                        if let Some(name) = text.strip_prefix("#/$defs/") {
                            *text = format!("#/components/schemas/{prefix}{name}");
                        } else if text == "#" && !prefix.is_empty() {
                            *text = "#/components/schemas/definition".to_owned();
                        }
                    }
                    _ => relocate(inner, prefix),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| relocate(item, prefix)),
        _ => {}
    }
}
