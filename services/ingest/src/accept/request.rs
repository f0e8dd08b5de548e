//! The strict form of submissions and cancels: from a JSON value to the typed request, or all that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};

use hopyard_contract::duration::{NotASpan, Span};
use hopyard_contract::json::escape;
use hopyard_contract::money::parse_microusd;
use hopyard_contract::plan::Budget;
use hopyard_contract::repository::RepoSpec;
use hopyard_contract::submit::{AfterPolicy, CancelRequest, MAX_RUNS, RunRequest};
use hopyard_contract::{FieldError, RunId, time};
use serde_json::Value;

use super::fields::{Fields, check_line, noun};

/// Longest idempotency key, in characters.
pub const MAX_KEY: usize = 255;
const MAX_LABELS: usize = 64;
const MAX_AFTER: usize = 100;
const MAX_REASON: usize = 1000;
/// Longest answer to a question, in characters: no variable of the environment may have more than 128 KiB, and one of them has four bytes.
const MAX_ANSWER: usize = 16_384;
/// Longest name of who answers.
const MAX_BY: usize = 255;

const REQUEST: [&str; 16] = [
    "v",
    "workflow",
    "definition",
    "inputs",
    "repo",
    "idempotency_key",
    "priority",
    "pool",
    "session",
    "labels",
    "after",
    "after_policy",
    "start_at",
    "budget",
    "rerun_of",
    "replay",
];

/// One run of a body, or what is wrong with it; pointers start at the run.
pub type Item = Result<RunRequest, Vec<FieldError>>;

/// Which bodies a door takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// One request.
    One,
    /// `{"runs": […]}`.
    Many,
    /// Either.
    Either,
}

/// Reads a whole body.
///
/// # Errors
/// What is wrong with the body as a whole; nothing of it is looked at then.
pub fn body(value: &Value, form: Form) -> Result<Vec<Item>, Vec<FieldError>> {
    let Value::Object(map) = value else {
        return Err(vec![FieldError::new("type", "", format!("the body is an object, not {}", noun(value)))]);
    };
    let many = map.contains_key("runs");
    match form {
        Form::One if many => return Err(vec![FieldError::new("unknown_field", "/runs", "several runs go to POST /api/v1/runs/batch")]),
        Form::Many if !many => return Err(vec![FieldError::new("required", "/runs", "the body is `{\"runs\": […]}`")]),
        _ if !many => return Ok(vec![request(value)]),
        _ => {}
    }
    let mut fields = Fields::open(value, "", &["v", "runs"])?;
    version(&mut fields);
    let runs = fields.list("runs").map(Vec::as_slice).unwrap_or_default();
    if map["runs"].is_array() && !(1..=MAX_RUNS).contains(&runs.len()) {
        fields.error("runs", "length", format!("a body has 1 to {MAX_RUNS} runs, this one has {}", runs.len()));
    }
    let errors = fields.into_errors();
    if errors.is_empty() { Ok(runs.iter().map(request).collect()) } else { Err(errors) }
}

/// Reads one request.
pub fn request(value: &Value) -> Item {
    let mut fields = Fields::open(value, "", &REQUEST)?;
    version(&mut fields);
    let workflow = fields.name("workflow");
    let definition = fields.value("definition");
    match (fields.has("workflow"), definition) {
        (true, Some(_)) => fields.error("definition", "exactly_one", "a request has either `workflow` or `definition`, not both"),
        (false, None) => fields.error("workflow", "required", "a request names a `workflow` or brings a `definition`"),
        (false, Some(value)) if !value.is_string() && !value.is_object() => {
            fields.error("definition", "type", format!("a definition is a text or an object, not {}", noun(value)))
        }
        _ => {}
    }
    let inputs = fields.object("inputs").cloned().unwrap_or_default();
    let repo = repo(&mut fields);
    let idempotency_key = fields.line("idempotency_key", MAX_KEY);
    let priority = fields.integer("priority", 0, 3).and_then(|p| u8::try_from(p).ok()).unwrap_or(1);
    let pool = fields.name("pool");
    let session = fields.name("session");
    let labels = labels(&mut fields);
    let after = after(&mut fields);
    let after_policy = after_policy(&mut fields);
    let start_at =
        fields.text("start_at").and_then(|text| time::parse(text).map_err(|e| fields.error("start_at", e.code(), e.to_string())).ok());
    let budget = budget(&mut fields);
    let rerun_of = fields.run_id("rerun_of");
    let replay = fields.flag("replay").unwrap_or(false);
    if replay && !fields.has("rerun_of") {
        fields.error("rerun_of", "required", "a replay names the run whose recordings it plays");
    }
    let errors = fields.into_errors();
    if !errors.is_empty() {
        return Err(errors);
    }
    Ok(RunRequest {
        v: 1,
        workflow,
        definition: definition.cloned(),
        inputs,
        repo,
        idempotency_key,
        priority,
        pool,
        session,
        labels,
        after,
        after_policy,
        start_at,
        budget,
        rerun_of,
        replay,
    })
}

/// Reads a cancel; over HTTP the run stands in the path.
///
/// # Errors
/// Everything that is wrong.
pub fn cancel(value: &Value, needs_run: bool) -> Result<CancelRequest, Vec<FieldError>> {
    let known: &[&str] = if needs_run { &["v", "run_id", "reason", "force"] } else { &["v", "reason", "force"] };
    let mut fields = Fields::open(value, "", known)?;
    version(&mut fields);
    if needs_run && !fields.has("run_id") {
        fields.error("run_id", "required", "a cancel names a run");
    }
    let run_id = fields.run_id("run_id");
    let reason = fields.line("reason", MAX_REASON);
    let force = fields.flag("force").unwrap_or(false);
    let errors = fields.into_errors();
    if errors.is_empty() { Ok(CancelRequest { v: 1, run_id, reason, force }) } else { Err(errors) }
}

/// What a person says to the question of a step.
#[derive(Debug)]
pub struct StepAnswerRequest {
    /// Whether the run may go on.
    pub approved: bool,
    /// In words.
    pub text: Option<String>,
    /// Who.
    pub by: Option<String>,
}

/// Reads an answer.
///
/// # Errors
/// Everything that is wrong.
pub fn answer(value: &Value) -> Result<StepAnswerRequest, Vec<FieldError>> {
    let mut fields = Fields::open(value, "", &["v", "approved", "text", "by"])?;
    version(&mut fields);
    if !fields.has("approved") {
        fields.error("approved", "required", "an answer says whether the run may go on");
    }
    let approved = fields.flag("approved").unwrap_or(false);
    let text = fields.paragraph("text", MAX_ANSWER);
    let by = fields.line("by", MAX_BY);
    let errors = fields.into_errors();
    if errors.is_empty() { Ok(StepAnswerRequest { approved, text, by }) } else { Err(errors) }
}

/// What a re-run may change.
#[derive(Debug, Default)]
pub struct Rerun {
    /// Values that take the place of the first run's.
    pub inputs: serde_json::Map<String, Value>,
    /// A repeat with the same key is the same re-run.
    pub idempotency_key: Option<String>,
    /// Whether it plays what was recorded and asks no model.
    pub replay: bool,
}

/// Reads a re-run.
///
/// # Errors
/// Everything that is wrong.
pub fn rerun(value: &Value) -> Result<Rerun, Vec<FieldError>> {
    let mut fields = Fields::open(value, "", &["v", "inputs", "idempotency_key", "replay"])?;
    version(&mut fields);
    let inputs = fields.object("inputs").cloned().unwrap_or_default();
    let idempotency_key = fields.line("idempotency_key", MAX_KEY);
    let replay = fields.flag("replay").unwrap_or(false);
    let errors = fields.into_errors();
    if errors.is_empty() { Ok(Rerun { inputs, idempotency_key, replay }) } else { Err(errors) }
}

fn version(fields: &mut Fields<'_>) {
    fields.integer("v", 1, 1);
}

fn repo(fields: &mut Fields<'_>) -> Option<RepoSpec> {
    let mut inner = match Fields::open(fields.value("repo")?, "/repo", &["url", "ref"]) {
        Ok(inner) => inner,
        Err(errors) => {
            fields.extend(errors);
            return None;
        }
    };
    if !inner.has("url") {
        inner.error("url", "required", "a repository has a URL");
    }
    let url = inner.text("url").map(str::to_owned);
    let reference = inner.text("ref").map(str::to_owned);
    if let Some(url) = &url {
        inner.extend(RepoSpec { url: url.clone(), reference: reference.clone() }.check());
    }
    fields.extend(inner.into_errors());
    url.map(|url| RepoSpec { url, reference })
}

fn labels(fields: &mut Fields<'_>) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::new();
    let Some(map) = fields.object("labels") else { return labels };
    if map.len() > MAX_LABELS {
        fields.error("labels", "length", format!("a run has at most {MAX_LABELS} labels"));
        return labels;
    }
    for (key, value) in map {
        let at = format!("labels/{}", escape(key));
        if let Err((code, detail)) = check_line(key, 1, 128) {
            fields.error(&at, code, format!("as a key of a label: {detail}"));
        } else if let Value::String(text) = value {
            match check_line(text, 0, 1024) {
                Ok(()) => drop(labels.insert(key.clone(), text.clone())),
                Err((code, detail)) => fields.error(&at, code, detail),
            }
        } else {
            fields.error(&at, "type", format!("the value of a label is a text, not {}", noun(value)));
        }
    }
    labels
}

fn after(fields: &mut Fields<'_>) -> Vec<RunId> {
    let mut ids = Vec::new();
    let mut seen = BTreeSet::new();
    let Some(list) = fields.list("after") else { return ids };
    if list.len() > MAX_AFTER {
        fields.error("after", "length", format!("a run waits for at most {MAX_AFTER} runs"));
        return ids;
    }
    for (index, value) in list.iter().enumerate() {
        let at = format!("after/{index}");
        match value.as_str().map(str::parse::<RunId>) {
            None => fields.error(&at, "type", format!("a run id is a text, not {}", noun(value))),
            Some(Err(error)) => fields.error(&at, "pattern", error.to_string()),
            Some(Ok(id)) if !seen.insert(id) => fields.error(&at, "duplicate", "the run stands twice"),
            Some(Ok(id)) => ids.push(id),
        }
    }
    ids
}

fn after_policy(fields: &mut Fields<'_>) -> AfterPolicy {
    match fields.text("after_policy") {
        None | Some("skip") => AfterPolicy::Skip,
        Some("fail") => AfterPolicy::Fail,
        Some("run_anyway") => AfterPolicy::RunAnyway,
        Some(_) => {
            fields.error("after_policy", "enum", "after_policy is one of skip, fail, run_anyway");
            AfterPolicy::Skip
        }
    }
}

fn budget(fields: &mut Fields<'_>) -> Option<Budget> {
    let mut inner = match Fields::open(fields.value("budget")?, "/budget", &["cost_usd", "cost_microusd", "turns", "time"]) {
        Ok(inner) => inner,
        Err(errors) => {
            fields.extend(errors);
            return None;
        }
    };
    let mut cost_microusd = inner.integer("cost_microusd", 0, 1_000_000_000_000);
    if let Some(value) = inner.value("cost_usd") {
        // A float is written back in its shortest form, which for amounts of this size is what the sender wrote.
        let text = match value {
            Value::Number(number) => Some(number.to_string()),
            Value::String(text) => Some(text.clone()),
            _ => None,
        };
        match text.as_deref().map(parse_microusd) {
            _ if inner.has("cost_microusd") => {
                inner.error("cost_usd", "exactly_one", "the cost is given once: in dollars or in millionths")
            }
            None => inner.error("cost_usd", "type", format!("an amount of dollars is a number, not {}", noun(value))),
            Some(Err(error)) => inner.error("cost_usd", "range", error.to_string()),
            Some(Ok(amount)) => cost_microusd = Some(amount),
        }
    }
    let turns = inner.integer("turns", 1, 1_000_000_000);
    let time = match inner.text("time").map(str::parse::<Span>) {
        None => None,
        Some(Ok(span)) => Some(span),
        Some(Err(error)) => {
            inner.error("time", if error == NotASpan::Range { "range" } else { "pattern" }, error.to_string());
            None
        }
    };
    fields.extend(inner.into_errors());
    Some(Budget { cost_microusd, turns, time })
}

#[cfg(test)]
mod tests;
