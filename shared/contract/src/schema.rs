//! JSON Schemas of everything that crosses the public border, made from the types themselves.

use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::run::WorkspaceRow;
use crate::submit::{CancelRequest, Receipt, RunRequest, Submitted, SubmittedBatch, Verdict};
use crate::view::{ExecutorView, Explanation, Health, Page, ParsedDefinition, RunView, WorkflowView};
use crate::{Problem, event, log};

/// A body with several requests.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: doors read bodies field by field")]
struct RunRequests {
    /// Version of this shape: 1.
    #[schemars(range(min = 1, max = 1), default)]
    v: Option<u32>,
    /// Up to 500 requests.
    #[schemars(length(min = 1, max = 500))]
    runs: Vec<RunRequest>,
}

/// What a re-run may change.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: doors read bodies field by field")]
struct RerunRequest {
    /// Version of this shape: 1.
    #[schemars(range(min = 1, max = 1), default)]
    v: Option<u32>,
    /// Values that take the place of the first run's.
    #[schemars(default)]
    inputs: serde_json::Map<String, Value>,
    /// A repeat with the same key is the same re-run.
    #[schemars(length(min = 1, max = 255))]
    idempotency_key: Option<String>,
    /// Whether steps that ask models play what was recorded of them, on the commit of that run, and ask none.
    replay: Option<bool>,
}

/// What a person says to the question of a step.
#[derive(JsonSchema)]
#[schemars(deny_unknown_fields)]
#[expect(dead_code, reason = "only its schema is used: doors read bodies field by field")]
struct AnswerRequest {
    /// Version of this shape: 1.
    #[schemars(range(min = 1, max = 1), default)]
    v: Option<u32>,
    /// Whether the run may go on; `false` fails the step.
    approved: bool,
    /// In words; a question that a step asks wants some.
    #[schemars(length(min = 1, max = 16384))]
    text: Option<String>,
    /// Who answers, for the record; `api` if absent.
    #[schemars(length(min = 1, max = 255))]
    by: Option<String>,
}

/// Every schema by name, in the order of the names.
pub fn all() -> Vec<(&'static str, Value)> {
    let mut schemas = vec![
        ("answer-request", of::<AnswerRequest>()),
        ("cancel-request", of::<CancelRequest>()),
        ("event", of::<event::Event>()),
        ("event-page", of::<event::EventPage>()),
        ("executor", of::<ExecutorView>()),
        ("executor-page", of::<Page<ExecutorView>>()),
        ("explanation", of::<Explanation>()),
        ("health", of::<Health>()),
        ("log-chunk", of::<log::Chunk>()),
        ("log-message", of::<log::BusChunk>()),
        ("parsed-definition", of::<ParsedDefinition>()),
        ("plan", of::<Plan>()),
        ("problem", of::<Problem>()),
        ("receipt", of::<Receipt>()),
        ("rerun-request", of::<RerunRequest>()),
        ("run", of::<RunView>()),
        ("run-page", of::<Page<RunView>>()),
        ("run-request", request(of::<RunRequest>())),
        ("run-requests", request(of::<RunRequests>())),
        ("submitted", of::<Submitted>()),
        ("submitted-batch", of::<SubmittedBatch>()),
        ("verdict", of::<Verdict>()),
        ("workflow", of::<WorkflowView>()),
        ("workflow-page", of::<Page<WorkflowView>>()),
        ("workspace", of::<WorkspaceRow>()),
        ("workspace-page", of::<Page<WorkspaceRow>>()),
    ];
    for (name, schema) in &mut schemas {
        schema["$id"] = json!(format!("https://hopyard.dev/schemas/{name}.json"));
    }
    schemas
}

/// The file of a schema: indented, with a line feed at its end.
pub fn file(schema: &Value) -> String {
    format!("{schema:#}\n")
}

fn of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

/// Requests as doors take them: a budget is written in dollars, a definition is a text or an object.
fn request(mut schema: Value) -> Value {
    let budget = json!({
        "type": ["object", "null"],
        "description": "Limits for this run; the smaller of this and the workflow's counts.",
        "additionalProperties": false,
        "properties": {
            "cost_usd": {
                "description": "US dollars with at most 6 decimals.",
                "anyOf": [{ "type": "number", "minimum": 0, "maximum": 1_000_000 }, { "type": "string", "pattern": r"^[0-9]{1,7}(\.[0-9]{1,6})?$" }],
            },
            "cost_microusd": { "description": "The same in millionths, instead of `cost_usd`.", "type": "integer", "minimum": 0, "maximum": 1_000_000_000_000u64 },
            "turns": { "type": "integer", "minimum": 1, "maximum": 1_000_000_000 },
            "time": { "description": "From the first start, such as 90s, 10m or 2h.", "type": "string", "pattern": "^[0-9]{1,9}(ms|s|m|h|d)$" },
        },
    });
    let definition = json!({ "type": ["string", "object", "null"], "description": "An unregistered definition: YAML text or an object." });
    for at in ["/properties", "/$defs/RunRequest/properties"] {
        if let Some(properties) = schema.pointer_mut(at).filter(|p| p.get("budget").is_some()) {
            properties["budget"] = budget.clone();
            properties["definition"] = definition.clone();
            properties["labels"]["maxProperties"] = json!(64);
            properties["after"]["maxItems"] = json!(100);
        }
    }
    if let Some(Value::Object(defs)) = schema.get_mut("$defs") {
        defs.remove("Budget");
        defs.remove("Span");
    }
    schema
}

#[cfg(test)]
mod tests;
