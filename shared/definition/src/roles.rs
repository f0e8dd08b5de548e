//! The `roles` of a definition, and those that the inputs of a run name.

use hopyard_contract::condition::{Call, Scope};
use hopyard_contract::json::escape;
use hopyard_contract::plan::{Plan, Roles};
use hopyard_contract::problem::FieldError;
use hopyard_contract::template::{self, Part};
use serde_json::{Map, Value};

use crate::agent;
use crate::document::Node;
use crate::reader::Reader;

/// Fields of a role: those of an agent, whose prompt is a text that stands before the step's.
pub(crate) const FIELDS: [&str; 10] =
    ["cli", "prompt", "model", "max_turns", "permissions", "gateway", "script", "command", "resume_args", "map"];

/// Reads them.
pub(crate) fn read(reader: &mut Reader, node: &Node) -> Roles {
    let mut roles = Roles::new();
    for entry in reader.map(node, "/roles").unwrap_or_default() {
        let pointer = format!("/roles/{}", escape(&entry.key));
        let Some(fields) = reader.fields(&entry.value, &pointer, &FIELDS) else { continue };
        let prompt =
            fields.get("prompt").map_or(Some(String::new()), |node| reader.text(node, &format!("{pointer}/prompt")).map(str::to_owned));
        if let Some(role) = agent::of(reader, &fields, &pointer, prompt.map(|prompt| (prompt, None))) {
            roles.insert(entry.key.clone(), role);
        }
    }
    roles
}

/// What is wrong with the roles that these inputs name; nothing of a given value is repeated.
pub(crate) fn check_named(plan: &Plan, inputs: &Map<String, Value>) -> Vec<FieldError> {
    let taken = plan.agents().filter_map(|(at, agent)| Some((at, agent.role.as_deref()?)));
    let unknown = taken.filter(|(_, role)| !plan.roles.contains_key(&template::render(role, &Inputs(inputs))));
    let mut errors: Vec<FieldError> = unknown
        .map(|(at, role)| {
            let pointer = input_of(role).map_or_else(|| format!("/definition{at}/role"), |name| format!("/inputs/{}", escape(&name)));
            FieldError::new("unknown_role", pointer, format!("this names no role of the workflow `{}`{}", plan.name, plan.known_roles()))
        })
        .collect();
    errors.dedup_by(|a, b| a.pointer == b.pointer);
    errors
}

/// The input that a template consists of, if it is one alone.
fn input_of(role: &str) -> Option<String> {
    match template::parse(role).ok()?.as_slice() {
        [Part::Expr(expr)] => match expr.paths().as_slice() {
            [[_, name]] => Some(name.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// What is known before a run has begun.
struct Inputs<'a>(&'a Map<String, Value>);

impl Scope for Inputs<'_> {
    fn path(&self, path: &[String]) -> Option<Value> {
        match path {
            [inputs, name] if inputs == "inputs" => self.0.get(name).cloned(),
            _ => None,
        }
    }

    fn call(&self, _: Call) -> bool {
        false
    }
}
